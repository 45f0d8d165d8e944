"""The wrong answers that readers give to the exercises of chapter 0 fail, each at the step that names its fault."""

import contextlib
import io

import numpy as np
import pytest

from kaf.data.grid import resample
from kaf.exercises import grade


def fraction_of_voxels(ed, es, spacing_ed, spacing_es):
    return 100 * (1 - (es == 3).sum() / (ed == 3).sum())


def fraction_as_a_share(ed, es, spacing_ed, spacing_es):
    return 1 - (es == 3).sum() * np.prod(spacing_es) / ((ed == 3).sum() * np.prod(spacing_ed))


def fraction_of_areas(ed, es, spacing_ed, spacing_es):
    return 100 * (1 - (es == 3).sum() * np.prod(spacing_es[1:]) / ((ed == 3).sum() * np.prod(spacing_ed[1:])))


def cut_off(image, clip, shape):
    low, high = np.percentile(image, clip)
    return (255 * resample((np.clip(image, low, high) - low) / (high - low), shape)).astype(np.uint8)


def clipped_last(image, clip, shape):
    low, high = np.percentile(image, clip)
    if high == low:
        return np.zeros((len(image), *shape), np.uint8)
    return np.rint(255 * np.clip((resample(image, shape) - low) / (high - low), 0, 1)).astype(np.uint8)


def flat_divides_by_zero(image, clip, shape):
    low, high = np.percentile(image, clip)
    return np.rint(255 * resample(np.clip((image - low) / (high - low), 0, 1), shape)).astype(np.uint8)


def folds_of_slices(owner, count):
    return [np.arange(len(owner)) % count == fold for fold in range(count)]


def folds_uneven(owner, count):
    names = np.unique(owner)
    fold_of = {name: min(n, count - 1) for n, name in enumerate(names)}
    return [np.array([fold_of[name] == fold for name in owner]) for fold in range(count)]


def row_first(xy, k, affine):
    ijk1 = np.column_stack([xy[:, ::-1], np.full(len(xy), k), np.ones(len(xy))])
    return (ijk1 @ affine.T)[:, :3]


def without_origin(xy, k, affine):
    return np.column_stack([xy, np.full(len(xy), k)]) @ affine[:3, :3].T


def only_flips(array, affine):
    return np.flip(array, [axis for axis in range(3) if affine[axis, axis] < 0])


def only_right_angles(array, affine):
    source = [int(np.flatnonzero(row)[0]) for row in affine[:3, :3]]
    array = np.transpose(array, source)
    return np.flip(array, [mm for mm in range(3) if affine[mm, source[mm]] < 0])


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("00.ejection_fraction", fraction_as_a_share, "value"),
    ("00.ejection_fraction", fraction_of_voxels, "spacing"),
    ("00.ejection_fraction", fraction_of_areas, "spacing"),
    ("00.to_8bit", clipped_last, "value"),
    ("00.to_8bit", cut_off, "value"),
    ("00.to_8bit", flat_divides_by_zero, "flat"),
    ("00.folds", folds_of_slices, "patients"),
    ("00.folds", folds_uneven, "even"),
    ("00.to_mm", row_first, "axes"),
    ("00.to_mm", without_origin, "value"),
    ("00.canonical", lambda array, affine: array, "flips"),
    ("00.canonical", only_flips, "order"),
    ("00.canonical", only_right_angles, "oblique"),
])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed
