"""Keypoints: detectors, de-duplication, the K strongest, padding (chapter 1).

A detector is any callable that maps one 8-bit image ``(H, W)`` to a :class:`Keypoints` without
batch dimension. ``prepare`` turns what it found into exactly ``K`` padded entries.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from kaf.choices import check_choice


class Keypoints(NamedTuple):
    """A padded set of keypoints; every field has the same leading dimensions ``(...)``.

    ``xy``          ``(..., K, 2)`` float32, pixels ``(x, y)``, pixel centres at integers.
    ``scale``       ``(..., K)`` float32, diameter of what was found, in pixels: for SIFT twice the width of the blur.
    ``score``       ``(..., K)`` float32, strength of the detector's response, larger is stronger.
    ``descriptor``  ``(..., K, D)`` uint8, ``D = 128`` for SIFT, 256 for ORB and SuperPoint, 0 where there is none.
    ``valid``       ``(..., K)`` bool, False for padding. Padded entries are zero in every field.
    """

    xy: Tensor
    scale: Tensor
    score: Tensor
    descriptor: Tensor
    valid: Tensor

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> "Keypoints":
        """The same keypoints on ``device``. By default only a copy to an NVIDIA GPU does not wait: it cannot be read
        too early there."""
        if non_blocking is None:  # Fabric, which moves batches, asks tensors not to wait, and others nothing
            non_blocking = torch.device(device).type == "cuda"
        return Keypoints(*(field.to(device, non_blocking=non_blocking) for field in self))

    def select(self, index: Tensor | slice | int) -> "Keypoints":
        """Index the first dimension: the points of a set, or the images of a batch."""
        return Keypoints(*(field[index] for field in self))

    def moved(self, xy: Tensor, inside: Tensor) -> "Keypoints":
        """The same keypoints at new places ``xy``; those not ``inside`` become padding."""
        valid = self.valid & inside
        fields = (xy, self.scale, self.score, self.descriptor)
        zeroed = [f * (valid if f.dim() == valid.dim() else valid.unsqueeze(-1)) for f in fields]
        return Keypoints(*zeroed, valid)


Detector = Callable[[np.ndarray], Keypoints]


def from_arrays(xy: np.ndarray, scale=None, score=None, descriptor=None) -> Keypoints:
    """Keypoints without batch dimension, all valid, from arrays of ``N`` entries.

    Missing scales and scores become 1, a missing descriptor has length 0.
    """
    n = len(xy)
    ones = np.ones(n, np.float32)
    descriptor = np.zeros((n, 0), np.uint8) if descriptor is None else descriptor
    return Keypoints(
        torch.as_tensor(np.asarray(xy, np.float32).reshape(n, 2)),
        torch.as_tensor(np.asarray(ones if scale is None else scale, np.float32)),
        torch.as_tensor(np.asarray(ones if score is None else score, np.float32)),
        torch.as_tensor(np.ascontiguousarray(descriptor)),
        torch.ones(n, dtype=torch.bool),
    )


def detect_sift(image: np.ndarray, contrast: float = 0.04, edge: float = 10.0) -> Keypoints:
    """SIFT keypoints of an 8-bit image ``(H, W)``, all of them, strongest first (Lowe 2004).

    ``contrast`` and ``edge`` are the two rejection thresholds of the method at OpenCV's scale. A flat
    image has none. Raises ``TypeError`` for an image that is not 2-D uint8.
    """
    _check_image(image)
    # Without precise upscaling OpenCV's keypoints lie a quarter of a pixel too far right and down.
    sift = cv2.SIFT_create(contrastThreshold=contrast, edgeThreshold=edge, enable_precise_upscale=True)
    points, descriptor = sift.detectAndCompute(image, None)
    if not points:
        return from_arrays(np.zeros((0, 2)), descriptor=np.zeros((0, 128), np.uint8))
    score = np.array([p.response for p in points], np.float32)
    order = np.argsort(-score, kind="stable")
    return from_arrays(
        np.array([p.pt for p in points], np.float32)[order],
        np.array([p.size for p in points], np.float32)[order],
        score[order],
        descriptor.astype(np.uint8)[order],  # OpenCV's SIFT descriptors are whole numbers 0..255
    )


def detect_orb(image: np.ndarray, count: int = 1000, threshold: int = 5) -> Keypoints:
    """ORB keypoints of an 8-bit image ``(H, W)``, strongest first (Rublee et al. 2011).

    Corners on a pyramid, at most ``count``; ``threshold`` is that of the corner test in grey values, lower than
    OpenCV's 20, which leaves dim slices empty. The descriptor is 256 bits, one a byte: distances between them are
    Hamming's.
    """
    _check_image(image)
    orb = cv2.ORB_create(nfeatures=count, fastThreshold=threshold, edgeThreshold=16, patchSize=31)
    points, descriptor = orb.detectAndCompute(image, None) if min(image.shape) > 1 else ((), None)  # OpenCV cannot
    if not points:
        return from_arrays(np.zeros((0, 2)), descriptor=np.zeros((0, 256), np.uint8))
    score = np.array([p.response for p in points], np.float32)
    order = np.argsort(-score, kind="stable")
    return from_arrays(
        np.array([p.pt for p in points], np.float32)[order],
        np.array([p.size for p in points], np.float32)[order],
        score[order],
        np.unpackbits(descriptor, axis=1)[order],
    )


def detect_grid(image: np.ndarray, step: float = 12.0) -> Keypoints:
    """A regular grid every ``step`` pixels, centred: a control that ignores the image content.

    The scores go from coarse to fine, so that the strongest few lie all over the image: first every eighth point in
    each direction, for instance, then every fourth.
    """
    _check_image(image)
    axes, counts = [], []
    for length in (image.shape[1], image.shape[0]):
        counts.append(max(1, int(length // step)))
        axes.append((np.arange(counts[-1]) - (counts[-1] - 1) / 2) * step + (length - 1) / 2)
    x, y = np.meshgrid(*axes)
    either = np.bitwise_or(*np.meshgrid(*map(np.arange, counts))).ravel()
    lowest = np.where(either > 0, either & -either, 1 << 30)  # the largest power of two that divides both indices
    score = np.log2(lowest) + np.random.default_rng(0).permutation(len(lowest)) / len(lowest)
    return from_arrays(np.stack([x.ravel(), y.ravel()], 1), score=score)


def detect_random(image: np.ndarray, count: int = 300, seed: int = 0) -> Keypoints:
    """``count`` uniformly random points: a control without structure. Same seed, same points.

    As the detector ``random`` each image has a seed of its own.
    """
    _check_image(image)
    rng = np.random.default_rng(seed)
    return from_arrays(rng.uniform(0, 1, (count, 2)) * (image.shape[1] - 1, image.shape[0] - 1))


def _detect_random_of_image(image: np.ndarray) -> Keypoints:
    """:func:`detect_random` with a seed from the pixels: one pattern for all would match itself in the next slice."""
    return detect_random(image, seed=zlib.crc32(image.tobytes()))


def detect_superpoint(image: np.ndarray) -> Keypoints:
    """SuperPoint keypoints of an 8-bit image ``(H, W)``, strongest first; :mod:`kaf.superpoint` says what it needs."""
    _check_image(image)
    from kaf.superpoint import load_superpoint  # only here: it needs an extra

    return load_superpoint()(image)


DETECTORS: dict[str, Detector] = {
    "sift": detect_sift, "orb": detect_orb, "superpoint": detect_superpoint, "grid": detect_grid,
    "random": _detect_random_of_image,
}
# 1 where not named. Raise it when a detector would find other points: only the stores made with it are refused then.
DETECTOR_VERSIONS = {"random": 2}


def get_detector(detector: str | Detector) -> Detector:
    """A detector by name (``sift``, ``orb``, ``superpoint``, ``grid``, ``random``), or the callable itself.

    Raises ``ValueError`` for an unknown name.
    """
    if callable(detector):
        return detector
    check_choice("detector", detector, DETECTORS)
    return DETECTORS[detector]


def deduplicate(points: Keypoints) -> Keypoints:
    """Keep the strongest of the keypoints that share a pixel.

    SIFT reports one keypoint per dominant orientation, so about one in six repeats a place. Do this
    before taking the K strongest, or copies crowd out other structures. Order is kept.
    """
    cells = torch.floor(points.xy + 0.5).long().numpy()
    order = np.lexsort((np.arange(len(cells)), -points.score.numpy()))
    _, first = np.unique(cells[order], axis=0, return_index=True)
    return points.select(torch.from_numpy(np.sort(order[first])))


def top_k(points: Keypoints, k: int) -> Keypoints:
    """The ``k`` strongest by score, strongest first; ties keep their order."""
    order = torch.argsort(points.score, descending=True, stable=True)
    return points.select(order[:k])


def inside(xy: Tensor, height: int, width: int) -> Tensor:
    """Which points ``(..., 2)`` lie on the pixels of an image: bool ``(...)``."""
    x, y = xy.unbind(-1)
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def read_pixels(maps: Tensor, xy: Tensor) -> Tensor:
    """Values ``(B, K)`` of ``maps (B, H, W)`` in the pixels that hold ``xy (B, K, 2)``; outside those at the border."""
    height, width = maps.shape[1:]
    x, y = (xy + 0.5).floor().long().unbind(-1)
    return maps.flatten(1).gather(1, y.clamp(0, height - 1) * width + x.clamp(0, width - 1))


def pad(points: Keypoints, k: int) -> Keypoints:
    """Fill up to ``k`` entries with invalid ones. Raises ``ValueError`` if there are more than ``k``."""
    n = points.valid.shape[0]
    if n > k:
        raise ValueError(f"cannot pad {n} keypoints to {k}; take the strongest with top_k first")
    return Keypoints(*(torch.cat([f, f.new_zeros((k - n, *f.shape[1:]))]) for f in points))


def prepare(points: Keypoints, k: int) -> Keypoints:
    """De-duplicate, keep the ``k`` strongest, pad to exactly ``k``."""
    return pad(top_k(deduplicate(points), k), k)


def collate(points: Sequence[Keypoints]) -> Keypoints:
    """Stack padded sets of equal ``K`` into a batch with leading dimension ``B``."""
    return Keypoints(*(torch.stack(fields) for fields in zip(*points, strict=True)))


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 2 or image.dtype != np.uint8:
        raise TypeError(f"a detector takes an 8-bit image (H, W), got {image.dtype} of shape {image.shape}")
