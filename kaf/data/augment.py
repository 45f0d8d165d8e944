"""Augmentation of a batch: random warps and intensity changes, on its device (chapter 5).

Two halves that compose: :func:`kaf.data.warp.warp` moves content (flips, rotation, scale, shift,
elastic), :func:`adjust` changes intensities (blur, gamma, contrast, brightness, noise).
:func:`augment` draws the parameters of both from one CPU generator and applies them. Each image has
its own parameters, so its result does not depend on the others of the batch.

Keypoints are moved by the warp itself, never by warping a picture of them. Their descriptors stay
those of the slice they were found in.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kaf.choices import settle_types
from kaf.data.warp import FLIPS, SPLINE_POWER, Geometry, flip_matrices, rotation_matrices, send, warp
from kaf.keypoints import Keypoints


@dataclass(frozen=True)
class AugmentConfig:
    """What may happen to an image, how strongly, how often. The default changes nothing.

    Raises ``ValueError`` for an unknown flip, an impossible range, a probability outside 0..1, or an
    elastic warp that could fold the image.
    """

    flip: tuple[str, ...] = ()  # of "horizontal", "vertical", "transpose"; each happens half of the time
    affine_p: float = 0.0  # probability of rotation, scale and shift together
    rotation_deg: float = 0.0  # angle within +- this
    scale: tuple[float, float] = (1.0, 1.0)  # zoom; above 1 the content grows
    shift: float = 0.0  # within +- this fraction of the width and height
    elastic_p: float = 0.0
    elastic_px: float = 0.0  # standard deviation of the displacement along each axis, pixels
    elastic_grid: float = 32.0  # distance between the control points, pixels; larger is smoother
    gamma_p: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)  # exponent on the image scaled to 0..1 by its own range
    contrast_p: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)  # factor on the difference from the image's mean
    brightness_p: float = 0.0
    brightness: float = 0.0  # added constant within +- this, in the units of the image
    noise_p: float = 0.0
    noise: float = 0.0  # standard deviation of Gaussian noise, up to this, in the units of the image
    blur_p: float = 0.0
    blur: tuple[float, float] = (0.5, 1.0)  # standard deviation of a Gaussian blur, pixels

    def __post_init__(self) -> None:
        settle_types(self)
        if unknown := set(self.flip) - set(FLIPS):
            raise ValueError(f"unknown flips {sorted(unknown)}; choose from {FLIPS}")
        for name in ("scale", "gamma", "contrast", "blur"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        for name in ("affine_p", "elastic_p", "gamma_p", "contrast_p", "brightness_p", "noise_p", "blur_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, got {getattr(self, name)}")
        if not (self.elastic_grid > 0 and 0 <= self.elastic_px <= self.elastic_grid / 12):
            raise ValueError(f"elastic_px = {self.elastic_px} on a grid of {self.elastic_grid} px could fold "
                             "the image; keep it between 0 and elastic_grid / 12, on a grid above 0")

    def geometry_only(self) -> "AugmentConfig":
        """The same without intensity changes; from the same generator state, the same warps."""
        return replace(self, gamma_p=0.0, contrast_p=0.0, brightness_p=0.0, noise_p=0.0, blur_p=0.0)

    def intensity_only(self) -> "AugmentConfig":
        """The same without warps; from the same generator state, the same intensity changes."""
        return replace(self, flip=(), affine_p=0.0, elastic_p=0.0)


# Default: no flips, for a mirrored heart is not among the images to be segmented. Over the ACDC patients
# the direction from LV to RV varies by -44 to +83 degrees about its mean, which rotations cover better;
# in CHD the left and right chambers are told apart by their side.
# Paper: it names flips, elastic, rotation and scale .7-1.3; the other amounts are ours.
PRESETS = {
    "none": AugmentConfig(),
    "default": AugmentConfig(
        affine_p=0.9, rotation_deg=30.0, scale=(0.75, 1.3), shift=0.1, elastic_p=0.5, elastic_px=2.0,
        gamma_p=0.5, gamma=(0.7, 1.5), contrast_p=0.3, contrast=(0.7, 1.3), brightness_p=0.3, brightness=0.3,
        noise_p=0.3, noise=0.15, blur_p=0.2, blur=(0.5, 1.0),
    ),
    # Twice the ranges of the default. What it does depends on the labels and on the length of training (chapter 9).
    "strong": AugmentConfig(
        affine_p=0.9, rotation_deg=60.0, scale=(0.57, 1.7), shift=0.2, elastic_p=0.5, elastic_px=2.6,
        gamma_p=0.5, gamma=(0.5, 2.2), contrast_p=0.3, contrast=(0.5, 1.7), brightness_p=0.3, brightness=0.6,
        noise_p=0.3, noise=0.3, blur_p=0.2, blur=(1.0, 2.0),
    ),
    "paper": AugmentConfig(
        flip=("horizontal", "vertical"), affine_p=1.0, rotation_deg=30.0, scale=(0.7, 1.3),
        elastic_p=1.0, elastic_px=3.0, elastic_grid=40.0,
    ),
}


class Intensity(NamedTuple):
    """How intensities change, all ``(B,)`` on the CPU. ``NEUTRAL`` says which values do nothing."""

    blur: Tensor  # standard deviation in pixels
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor  # standard deviation
    seed: Tensor  # int64, of each image's noise


NEUTRAL = {"blur": 0.0, "gamma": 1.0, "contrast": 1.0, "brightness": 0.0, "noise": 0.0}


def augment(images: Tensor, keypoints: Keypoints, labels: Tensor | None, config: AugmentConfig,
            generator: Generator, fill: float | Tensor | None = None, share: tuple[int, int] = (0, 1),
            ) -> tuple[Tensor, Keypoints, Tensor | None]:
    """Augment a batch with parameters drawn from ``generator`` (on the CPU): warp, then adjust.

    ``images`` (B, 1, H, W) float32; ``keypoints`` (B, K); ``labels`` (B, H, W) int64 or None; all on
    one device. ``fill`` is the value outside the image, by default the minimum of each image. ``share``
    ``(r, n)`` says that this is part r of n equal parts of a batch: each image is changed as in the whole batch.
    Returns new tensors, same shapes; keypoints that leave the image become invalid. The same seed gives
    the same result; only the noise differs between kinds of device.
    """
    batch, channels, height, width = images.shape
    if channels != 1 or images.dtype != torch.float32 or len(keypoints.xy) != batch:
        raise ValueError("augment takes float32 images (B, 1, H, W) and B sets of keypoints, got "
                         f"{images.dtype} {tuple(images.shape)} and {len(keypoints.xy)} sets")
    # Coordinates need float32: under autocast the matrix products of the warp would be 16 bit.
    device = images.device.type
    with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast(device, enabled=False):
        part, whole = slice(share[0] * batch, (share[0] + 1) * batch), share[1] * batch
        geometry = draw_geometry(config, whole, height, width, generator)
        intensity = Intensity(*(field[part] for field in draw_intensity(config, whole, generator)))
        geometry = Geometry(*(field[part] for field in geometry[:3]), geometry.spacing)
        if config.flip or config.affine_p or config.elastic_p:
            images, keypoints, labels = warp(images, keypoints, labels, geometry, fill)
        return adjust(images, intensity), keypoints, labels


def draw_geometry(config: AugmentConfig, batch: int, height: int, width: int,
                  generator: Generator) -> Geometry:
    """Random warps for ``batch`` images of ``height x width`` pixels, on the CPU."""
    # Every number is drawn, used or not, so that switching one change off leaves the others as they are.
    swap, *mirror = (_chance(generator, batch, 0.5 * (name in config.flip)) for name in reversed(FLIPS))
    flip = flip_matrices(*mirror[::-1], swap)
    affine = _chance(generator, batch, config.affine_p)
    angle = affine * math.radians(config.rotation_deg) * _uniform(generator, (batch,), -1, 1)
    zoom = torch.where(affine, _uniform(generator, (batch,), *config.scale), 1.0)
    shift = affine[:, None] * config.shift * _uniform(generator, (batch, 2), -1, 1)
    elastic = _chance(generator, batch, config.elastic_p)
    knots = [math.ceil((length - 1) / config.elastic_grid) + 3 for length in (height, width)]
    # Uniform coefficients bound the displacement; sqrt(3) gives them a variance of 1.
    amount = elastic * math.sqrt(3) * config.elastic_px / SPLINE_POWER
    control = amount[:, None, None, None] * _uniform(generator, (batch, 2, *knots), -1, 1)
    linear = zoom[:, None, None] * rotation_matrices(angle) @ flip
    return Geometry(linear, shift * torch.tensor([width, height]), control, config.elastic_grid)


def draw_intensity(config: AugmentConfig, batch: int, generator: Generator) -> Intensity:
    """Random intensity changes for ``batch`` images, on the CPU."""
    ranges = {"blur": config.blur, "gamma": config.gamma, "contrast": config.contrast,
              "brightness": (-config.brightness, config.brightness), "noise": (0.0, config.noise)}
    drawn = {}
    for name, (low, high) in ranges.items():
        happens = _chance(generator, batch, getattr(config, f"{name}_p"))
        drawn[name] = torch.where(happens, _uniform(generator, (batch,), low, high), NEUTRAL[name])
    return Intensity(**drawn, seed=torch.randint(2**62, (batch,), generator=generator))


def adjust(images: Tensor, intensity: Intensity) -> Tensor:
    """Change the intensities of (B, 1, H, W): blur, gamma, contrast, brightness, noise, in this order."""
    images = images.clone()
    for name, change in (("blur", _blur), ("gamma", _gamma), ("contrast", _contrast)):
        amount = getattr(intensity, name)
        chosen = (amount != NEUTRAL[name]).nonzero()[:, 0]  # decided on the CPU: no wait for the device
        if len(chosen):
            where = send(chosen, images.device)
            images[where] = change(images[where], amount[chosen].view(-1, 1, 1, 1))
    images += send(intensity.brightness, images.device).view(-1, 1, 1, 1)
    for i in intensity.noise.nonzero()[:, 0].tolist():
        own = Generator(images.device).manual_seed(int(intensity.seed[i]))
        noise = torch.randn(images[i].shape, generator=own, device=images.device)
        images[i] += float(intensity.noise[i]) * noise
    return images


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    radius = max(1, math.ceil(3 * float(sigma.max())))
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= 3 * sigma)  # (n, 1, 1, 2 radius + 1)
    kernel = send(kernel / kernel.sum(-1, keepdim=True), images.device)
    padded = F.pad(images, (radius,) * 4, mode="replicate").transpose(0, 1)  # one group for each image
    rows = F.conv2d(padded, kernel, groups=len(images))
    return F.conv2d(rows, kernel.transpose(2, 3), groups=len(images)).transpose(0, 1)


def _gamma(images: Tensor, exponent: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-6)  # a flat image stays flat
    return low + span * ((images - low) / span) ** send(exponent, images.device)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + send(factor, images.device) * (images - mean)


def _chance(generator: Generator, batch: int, p: float) -> Tensor:
    return torch.rand(batch, generator=generator) < p


def _uniform(generator: Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
