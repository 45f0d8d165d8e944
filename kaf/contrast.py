"""Contrastive losses over slices: one loss, three masks (chapter 3).

Every loss here is the supervised contrastive loss of Khosla et al. (2020): each view is pulled
towards its positives and away from all other views. What changes is who counts as positive:

- SimCLR (Chen et al. 2020): the other views of the same slice;
- GCL (Chaitanya et al. 2020): also the slices of the same part, with the volume cut into four;
- PCL (Zeng et al. 2021): also the slices at a similar position, ``|z_i - z_j| < threshold``.

The position ``z`` of a slice is its index divided by the number of slices, so it lies in ``[0, 1)``.
The losses are functions of all views at once: to use the negatives of several processes, gather
features and positions first and call the same function.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-6  # of positions in float32; those of two stacks differ by more, or are the same


def contrast(
    features: Tensor, positives: Tensor, temperature: float = 0.1, valid: Tensor | None = None
) -> Tensor:
    """Mean over anchors of the mean over their positives of ``-log softmax(cosine / temperature)``.

    ``features`` ``(N, D)`` of any length; ``positives`` ``(N, N)`` bool, its diagonal is not looked at;
    ``valid`` ``(N,)`` bool, views to leave out altogether, for example slices without keypoints.

    A view is never its own positive or negative. An anchor without positives has nothing to be
    pulled towards and is left out of the mean; without any positive pair the loss is 0. Computed in
    float32 or better, also under autocast. Source: Khosla et al. 2020, equation 2 (sum outside the log).
    """
    n = len(features)
    if features.dim() != 2 or positives.shape != (n, n):
        raise ValueError(f"contrast takes features (N, D) and positives (N, N), got {tuple(features.shape)} "
                         f"and {tuple(positives.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    others = ~torch.eye(n, dtype=torch.bool, device=features.device)
    if valid is not None:
        others = others & valid[:, None] & valid[None, :]
        features = features.masked_fill(~valid[:, None], 0.0)
    positives = positives & others
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
        logits = unit @ unit.T / temperature
        logits = logits.masked_fill(~others, torch.finfo(logits.dtype).min)  # finite: a row may be empty
        log_probability = torch.log_softmax(logits, dim=1).masked_fill(~positives, 0.0)
    count = positives.sum(1)
    per_anchor = -log_probability.sum(1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


def same_slice_mask(batch: int, views: int, device: torch.device | None = None) -> Tensor:
    """SimCLR positives among ``batch * views`` views: those of the same slice. Bool ``(N, N)``."""
    owner = torch.arange(batch, device=device).repeat_interleave(views)
    return owner[:, None] == owner[None, :]


def positional_mask(position: Tensor, threshold: float) -> Tensor:
    """PCL positives: ``|z_i - z_j| < threshold`` for positions ``(N,)``. Bool ``(N, N)``.

    A pair at the threshold itself is none, however the difference of its positions is rounded.
    """
    return (position[:, None] - position[None, :]).abs() < threshold - ROUNDING


def partition_mask(position: Tensor, parts: int = 4) -> Tensor:
    """GCL positives: positions ``(N,)`` in the same of ``parts`` equal parts of [0, 1]. Bool ``(N, N)``."""
    part = (position * parts).floor().clamp(0, parts - 1)
    return part[:, None] == part[None, :]


def positional_contrast(
    features: Tensor,
    position: Tensor,
    threshold: float,
    temperature: float = 0.1,
    valid: Tensor | None = None,
) -> Tensor:
    """Positional contrastive loss (Zeng et al. 2021) of ``features`` ``(B, V, D)``: V views of B slices.

    ``position`` ``(B,)``, or ``(B, V)`` where the views come from neighbouring slices. Views with the
    same ``B`` are always positives, so a threshold of 0 gives :func:`simclr`. ``valid`` is ``(B, V)``.
    The program released with the paper multiplies this by .1 / .07.
    """
    position = _per_view(features, position)
    positives = positional_mask(position, threshold) | same_slice_mask(*features.shape[:2], features.device)
    return contrast(features.flatten(0, 1), positives, temperature, _flat(valid))


def gcl(
    features: Tensor, position: Tensor, parts: int = 4, temperature: float = 0.1, valid: Tensor | None = None
) -> Tensor:
    """Global contrastive loss with the volume cut into ``parts``; arguments as :func:`positional_contrast`.

    In the form of :func:`contrast`; Chaitanya et al. (2020) leave the other positives out of the
    denominator.
    """
    position = _per_view(features, position)
    positives = partition_mask(position, parts) | same_slice_mask(*features.shape[:2], features.device)
    return contrast(features.flatten(0, 1), positives, temperature, _flat(valid))


def simclr(features: Tensor, temperature: float = 0.1, valid: Tensor | None = None) -> Tensor:
    """SimCLR's loss (Chen et al. 2020) of ``features`` ``(B, V, D)``: V views of B slices."""
    _check_views(features)
    positives = same_slice_mask(*features.shape[:2], features.device)
    return contrast(features.flatten(0, 1), positives, temperature, _flat(valid))


def _flat(valid: Tensor | None) -> Tensor | None:
    return None if valid is None else valid.flatten()


def _per_view(features: Tensor, position: Tensor) -> Tensor:
    """Positions ``(B * V,)``, one per view, from ``(B,)`` or ``(B, V)``."""
    _check_views(features)
    batch, views = features.shape[:2]
    if position.shape == (batch,):
        position = position[:, None].expand(batch, views)
    if position.shape != (batch, views):
        raise ValueError(f"position must be ({batch},) or ({batch}, {views}) for features "
                         f"{tuple(features.shape)}, got {tuple(position.shape)}")
    return position.flatten()


def _check_views(features: Tensor) -> None:
    if features.dim() != 3:
        raise ValueError(f"features must be (slices, views, dimension), got {tuple(features.shape)}")
