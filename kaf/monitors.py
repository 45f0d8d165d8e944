"""Three figures that show a run going wrong while it still looks fine, and their limits (chapters 5 and 8)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kaf.keypoints import Keypoints, read_pixels

MONITOR_EVERY = 10  # steps; to look at a figure a GPU has to finish all that it was given before
COLLAPSED = 0.1  # a feature spread below this means that all slices have nearly the same feature
FLAT = 0.98  # an attention entropy above this: as if nine in ten of 100 keypoints were looked at equally
DARK = 0.1  # of the range of the image: below lies air, or nothing
REACH = 2  # a keypoint sits on structure if a brighter pixel lies within this many pixels


@torch.no_grad()
def feature_spread(features: Tensor) -> float:
    """How different the features ``(N, D)`` of N slices are: 1 for random directions, 0 when collapsed.

    Square root of 1 minus the squared length of the mean of the unit features, corrected for N.
    """
    n = len(features)
    if n < 2:
        return float("nan")
    mean = F.normalize(features.float(), dim=1).mean(0).square().sum().item()
    return max(0.0, (1 - mean) * n / (n - 1)) ** 0.5 if mean == mean else math.nan


@torch.no_grad()
def attention_entropy(weights: Tensor, valid: Tensor) -> float:
    """Mean entropy of attention weights ``(B, heads, K, K)`` over its maximum: 1 is flat, 0 looks at one point.

    Images with fewer than two valid keypoints say nothing; NaN if there is no other. Every keypoint counts once:
    :func:`image_entropies` gives images with few the same weight.
    """
    share, counted = _entropy_shares(weights, valid)
    return share[counted].mean().item()


@torch.no_grad()
def image_entropies(weights: Tensor, valid: Tensor) -> Tensor:
    """:func:`attention_entropy` of each image by itself: ``(B,)``."""
    share, counted = _entropy_shares(weights, valid)
    return share.where(counted, torch.nan).flatten(1).nanmean(1)


def _entropy_shares(weights: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of each query over its maximum, and which ones count: both ``(B, heads, K)``."""
    count = valid.sum(1)
    entropy = torch.special.entr(weights.float()).sum(-1)
    share = entropy / count.clamp(min=2).log()[:, None, None]
    return share, (valid & (count > 1)[:, None])[:, None].expand_as(share)


@torch.no_grad()
def on_background(image: Tensor, keypoints: Keypoints) -> Tensor:
    """Around which keypoints of images ``(B, 1, H, W)`` everything is dark: bool ``(B, K)``.

    Dark is the lowest tenth of the range of the image. Padding is never on background.
    """
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    bright = F.max_pool2d(image, 2 * REACH + 1, stride=1, padding=REACH)
    dark = bright < low + DARK * (high - low)
    return read_pixels(dark[:, 0], keypoints.xy) & keypoints.valid


def background_share(image: Tensor, keypoints: Keypoints) -> float:
    """Share of the valid keypoints of images ``(B, 1, H, W)`` that lie on background.

    NaN where there are no keypoints.
    """
    return on_background(image, keypoints)[keypoints.valid].float().mean().item()


def alarm_limit(clean: Tensor, alarms: float) -> float:
    """The value above which a monitor sounds an alarm, from its values ``(N,)`` on N clean training patients.

    The k-th largest, with k the whole part of ``alarms * (N + 1)``: a new clean patient lies above it with a
    probability of ``k / (N + 1)``, at most ``alarms``, whatever the values are distributed like (split conformal
    prediction). For a monitor that warns when it is low, give and compare negative values. Raises ``ValueError``
    for values that are not finite, and where N is too small for so few alarms.
    """
    n = len(clean)
    if not clean.isfinite().all():
        raise ValueError("a limit needs finite values; leave out patients that a monitor says nothing about")
    k = math.floor(alarms * (n + 1) + 1e-9)  # .29 * 100 is 28.999... in floating point
    if not 1 <= k <= n:
        raise ValueError(f"{n} patients allow a share of false alarms from {1 / (n + 1):.3f} to {n / (n + 1):.3f}, "
                         f"not {alarms}")
    return clean.sort(descending=True).values[k - 1].item()
