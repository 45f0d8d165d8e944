"""Between grids: resampling in plane over the same field of view, and the centre crop with its inverse."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kaf.keypoints import Keypoints, inside


def resample(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample ``(S, H, W)`` in plane to ``shape``, over the same field of view: float32.

    Bilinear, with an anti-aliasing filter where it shrinks. Values stay within those of the slice.
    """
    if images.shape[1:] == tuple(shape):
        return images.astype(np.float32)
    batch = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
    result = F.interpolate(batch, tuple(shape), mode="bilinear", align_corners=False, antialias=True)
    return result[:, 0].numpy()


def resample_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample labels ``(S, H, W)`` in plane: each label as a soft mask, then the largest (uint8).

    Unlike nearest neighbour this keeps borders smooth, and the lower label wins where two are equal.
    """
    if labels.shape[1:] == tuple(shape):
        return labels.astype(np.uint8)
    result = np.zeros((len(labels), *shape), np.uint8)
    for slice_, native in zip(result, labels, strict=True):
        first, *others = np.unique(native)
        slice_[:] = first
        if others:  # in a slice of one value there is nothing to compare
            largest = resample(native[None] == first, shape)[0]
            for value in others:
                mask = resample(native[None] == value, shape)[0]
                slice_[mask > largest] = value
                np.maximum(largest, mask, out=largest)
    return result


def resampled_shape(shape, spacing_mm: tuple[float, float], target_mm: float) -> tuple[int, int]:
    """``(H, W)`` that comes closest to ``target_mm`` per pixel over the same field of view."""
    return tuple(max(1, round(length * mm / target_mm)) for length, mm in zip(shape, spacing_mm, strict=True))


def store_shape(shape: tuple[int, int], spacing_mm: tuple[float, float], target_mm: float | None) -> tuple[int, int]:
    """``(H, W)`` in a store of slices ``shape`` with a spacing (row, col); ``target_mm`` None keeps it."""
    return tuple(shape) if target_mm is None else resampled_shape(shape, spacing_mm, target_mm)


def offset(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Rows and columns by which a centre crop to ``size`` moves a pixel; negative where it cuts."""
    return (size - shape[0]) // 2, (size - shape[1]) // 2


def crop(image: np.ndarray, size: int) -> np.ndarray:
    """Centre crop of ``(..., H, W)`` to ``(..., size, size)``, zeros where the image is smaller."""
    return place(image, (size, size), offset(image.shape[-2:], size))


def uncrop(array: np.ndarray | Tensor, shape: tuple[int, int]) -> np.ndarray | Tensor:
    """Put ``(..., size, size)`` back into an image of ``shape``: inverts :func:`crop`, zero outside."""
    rows, cols = offset(shape, array.shape[-1])
    return place(array, tuple(shape), (-rows, -cols))


def place(array: np.ndarray | Tensor, shape: tuple[int, int], move: tuple[int, int]) -> np.ndarray | Tensor:
    """Copy the part of ``array (..., H, W)`` that, moved by ``move``, falls on a new array of ``shape``."""
    size = (*array.shape[:-2], *shape)
    result = array.new_zeros(size) if isinstance(array, Tensor) else np.zeros(size, array.dtype)
    source, target = [...], [...]
    for old, new, step in zip(array.shape[-2:], shape, move, strict=True):
        first, last = max(0, step), min(new, old + step)
        target.append(slice(first, last))
        source.append(slice(first - step, last - step))
    result[tuple(target)] = array[tuple(source)]
    return result


def crop_keypoints(points: Keypoints, shape: tuple[int, int], size: int) -> Keypoints:
    """Keypoints of an image ``shape`` in its centre crop to ``size``; those outside are left out.

    For one image, without batch dimension; order is kept.
    """
    rows, cols = offset(shape, size)
    moved = points._replace(xy=points.xy + points.xy.new_tensor([cols, rows]))
    return moved.select(inside(moved.xy, size, size))
