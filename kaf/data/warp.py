"""Moving the content of a batch: images, labels and keypoints by one and the same map (chapter 5).

The map is an affine one followed by a smooth elastic displacement. Images and labels are pulled
through it by ``grid_sample``; keypoints are pushed through it in closed form, except for the elastic
part, whose inverse is found by fixed-point iteration.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kaf.keypoints import Keypoints, inside

SPLINE_POWER = 151 / 315  # integral of the squared cubic B-spline: how much it damps a variance, per axis
INVERSION_STEPS = 10  # of the fixed-point iteration; the limit of AugmentConfig makes each halve the error
FLIPS = ("horizontal", "vertical", "transpose")  # x runs the other way, y does, and they change places
INVERSION_TOLERANCE = 0.05  # px; a keypoint whose inverse is worse (the image folds there) becomes invalid


class Geometry(NamedTuple):
    """Content at place p goes to place q with ``q + u(q) = centre + linear (p - centre) + shift``."""

    linear: Tensor  # (B, 2, 2) zoom times an orthogonal matrix, acts on (x, y)
    shift: Tensor  # (B, 2) pixels
    control: Tensor  # (B, 2, Gy, Gx) pixels, B-spline coefficients of u = (u_x, u_y)
    spacing: float  # pixels between the control points, which are centred on the image and cover it


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values from the CPU on ``device``, without waiting until it has finished what it was given before."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def flip_matrices(horizontal: Tensor, vertical: Tensor, transpose: Tensor) -> Tensor:
    """Which of the :data:`FLIPS` happen, ``(B,)`` bool each -> ``(B, 2, 2)``: x and y change places, then signs."""
    sign = 1.0 - 2.0 * torch.stack([horizontal, vertical], 1).float()
    return torch.where(transpose[:, None, None], torch.eye(2).flip(0), torch.eye(2)) * sign[:, :, None]


def rotation_matrices(angle: Tensor) -> Tensor:
    """Angles ``(B,)`` in radians -> ``(B, 2, 2)``, from the x axis towards the y axis."""
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)


def pose(degrees: float, flips: Collection[str], batch: int, height: int, width: int) -> Geometry:
    """Mirror ``batch`` images of ``height`` x ``width`` pixels by ``flips``, names of :data:`FLIPS`, then turn them.

    Both about the centre of the image, and the turn from the x axis towards the y axis.
    """
    # A number of its own for every image, not one that all see: memory is pinned for the device.
    angle = torch.full((batch,), math.radians(degrees))
    linear = rotation_matrices(angle) @ flip_matrices(*(torch.full((batch,), name in flips) for name in FLIPS))
    return Geometry(linear, torch.zeros(batch, 2), torch.zeros(batch, 2, 4, 4), float(max(height, width)))


def undone(move: Geometry) -> Geometry:
    """What brings content back from a :func:`pose`, whose matrices are orthogonal."""
    return move._replace(linear=move.linear.transpose(1, 2).contiguous())


def warp(images: Tensor, keypoints: Keypoints, labels: Tensor | None, geometry: Geometry,
         fill: float | Tensor | None = None) -> tuple[Tensor, Keypoints, Tensor | None]:
    """Move content: images bilinear, labels nearest neighbour, keypoints to where their content goes.

    ``images`` (B, C, H, W) float32; ``keypoints`` (B, K); ``labels`` (B, H, W) int64 or None. Outside
    the image is ``fill``, by default the minimum of each image, and label 0. Keypoints that leave the
    image become invalid; the scale of the others is multiplied by the zoom.
    """
    height, width = images.shape[-2:]
    device = images.device
    size = send(torch.tensor([width, height], dtype=images.dtype), device)
    linear = send(geometry.linear, device)
    centre = (size - 1) / 2
    offset = centre + send(geometry.shift, device)  # (B, 2) where the centre of the image goes
    zoom = torch.linalg.vector_norm(linear[:, :, 0], dim=1)  # (B,)
    control = send(geometry.control, device)
    field = spline_field(control, geometry.spacing, height, width)  # (B, 2, H, W)

    inverse = (linear / zoom[:, None, None] ** 2).transpose(1, 2)  # of zoom times orthogonal
    grid = _sampling_grid(control, geometry.spacing, inverse, offset, height, width)
    fill = images.amin((1, 2, 3), keepdim=True) if fill is None else torch.as_tensor(fill, device=device)
    images = F.grid_sample(images - fill, grid, align_corners=False) + fill
    if labels is not None:
        labels = F.grid_sample(labels[:, None].float(), grid, "nearest", align_corners=False)[:, 0].long()

    target = (keypoints.xy - centre) @ linear.transpose(1, 2) + offset[:, None]
    xy, found = _undo_displacement(target, field, size)
    keypoints = keypoints._replace(scale=keypoints.scale * zoom[:, None])
    return images, keypoints.moved(xy, found & inside(xy, height, width)), labels


def spline_field(control: Tensor, spacing: float, height: int, width: int) -> Tensor:
    """The cubic B-spline surface (B, 2, H, W) over coefficients (B, 2, Gy, Gx) ``spacing`` pixels apart.

    Raises ``ValueError`` if there are too few coefficients to cover the image.
    """
    def weights(length: int, count: int) -> Tensor:  # (length, count)
        if (count - 3) * spacing < length - 1:
            raise ValueError(f"{count} control points {spacing} px apart do not cover {length} pixels; "
                             f"take at least (length - 1) / spacing + 3")
        pixel = torch.arange(length, device=control.device) - (length - 1) / 2
        distance = (pixel[:, None] / spacing - _knots(count, control.device)).abs()
        return F.relu(2 - distance) ** 3 / 6 - F.relu(1 - distance) ** 3 * 4 / 6

    return weights(height, control.shape[2]) @ control @ weights(width, control.shape[3]).T


def _knots(count: int, device: torch.device) -> Tensor:
    """Places of the control points along one axis, in spacings from the centre of the image."""
    return torch.arange(count, device=device) - (count - 1) / 2


def _sampling_grid(control: Tensor, spacing: float, inverse: Tensor, offset: Tensor,
                   height: int, width: int) -> Tensor:
    """The places p of all pixels q, (B, H, W, 2), in grid_sample's units: -1 to 1 from border to border.

    Splines reproduce linear functions, so the affine part is added at the few control points.
    """
    size = send(torch.tensor([width, height], dtype=control.dtype), control.device)
    y, x = (spacing * _knots(count, control.device) for count in control.shape[2:])
    q = torch.stack(torch.meshgrid(x, y, indexing="xy")) + (size[:, None, None] - 1) / 2  # (2, Gy, Gx) pixels
    moved = control + q - offset[:, :, None, None]
    unit = torch.einsum("bij,bjyx->biyx", inverse * 2 / size[:, None], moved)
    return spline_field(unit, spacing, height, width).permute(0, 2, 3, 1)


def _undo_displacement(target: Tensor, field: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Solve ``q + u(q) = target`` for q (B, K, 2), and tell where that succeeded (B, K) bool."""
    def displacement(q: Tensor) -> Tensor:  # between pixels, bilinear is within .01 px of the spline
        grid = (2 * q + 1) / size - 1
        at = F.grid_sample(field, grid[:, None], padding_mode="border", align_corners=False)
        return at[:, :, 0].transpose(1, 2)

    q = target
    for _ in range(INVERSION_STEPS):
        q = target - displacement(q)
    return q, (q + displacement(q) - target).abs().amax(-1) < INVERSION_TOLERANCE
