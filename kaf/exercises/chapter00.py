"""Checks of the exercises of chapter 0: volumes, preparation, splits."""

import warnings

import nibabel as nib
import numpy as np

from kaf.data.prepare import to_8bit
from kaf.exercises.grading import Exercise, step


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _cube(voxels: int, value: int = 3) -> np.ndarray:
    """Labels (4, 10, 10) with ``voxels`` voxels of ``value``, the others background or right ventricle."""
    labels = np.zeros(400, np.uint8)
    labels[:voxels], labels[-5:] = value, 1
    return labels.reshape(4, 10, 10)


def _one_number(student):
    return np.ndim(student(_cube(200), _cube(100), (10, 1, 1), (10, 1, 1))) == 0


def _half(student):
    return np.isclose(student(_cube(200), _cube(80), (10, 1, 1), (10, 1, 1)), 60)


def _own_spacing(student):
    return np.isclose(student(_cube(200), _cube(100), (10, 1, 1), (8, 0.5, 0.5)), 90)


def _volume() -> np.ndarray:
    image = _rng().gamma(2.0, 100.0, (3, 24, 20)).astype(np.float32)
    image[1, 12, 10] = 1e5  # one bright voxel
    return image


def _8bit_shape(student):
    result = student(_volume(), (1, 99), (12, 10))
    return result.shape == (3, 12, 10) and result.dtype == np.uint8


def _8bit_value(student):
    """The same to within a rounding, and not lower on the whole, as it is where decimals are cut off."""
    for shape in ((24, 20), (12, 10), (30, 25)):
        difference = student(_volume(), (2, 98), shape).astype(int) - to_8bit(_volume(), (2, 98), shape)
        if np.abs(difference).max() > 1 or abs(difference.mean()) > 0.1:
            return False
    return True


def _8bit_flat(student):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return not np.any(student(np.full((2, 8, 8), 7.0, np.float32), (1, 99), (4, 4)))


def _8bit_scale(student):
    image = _volume()
    other = student(3 * image + 50, (1, 99), (12, 10)).astype(int)
    return np.abs(other - student(image, (1, 99), (12, 10)).astype(int)).max() <= 1


def _owner() -> np.ndarray:
    """Patients of 60 slices, 11 patients with 2 to 9 slices each, in no order."""
    owner = np.repeat([f"patient{n:03d}" for n in range(11)], [2, 9, 4, 6, 5, 7, 3, 8, 6, 5, 5])
    return _rng().permutation(owner)


def _folds_shape(student):
    folds = student(_owner(), 4)
    return len(folds) == 4 and all(np.shape(f) == (60,) and np.asarray(f).dtype == bool for f in folds)


def _folds_once(student):
    return np.array_equal(np.sum(student(_owner(), 4), 0), np.ones(60))


def _folds_apart(student):
    owner = _owner()
    return not any(set(owner[np.asarray(f)]) & set(owner[~np.asarray(f)]) for f in student(owner, 4))


def _folds_even(student):
    owner = _owner()
    sizes = [len(set(owner[np.asarray(f)])) for f in student(owner, 4)]
    return max(sizes) - min(sizes) <= 1 and min(sizes) > 0


OBLIQUE = np.array([[0.0, -1.4, 2.0, 30], [1.3, 0.2, -1.0, -80], [0.2, 0.1, 9.6, 12], [0, 0, 0, 1]])


def _mm_shape(student):
    return np.shape(student(np.zeros((5, 2)), 0, np.eye(4))) == (5, 3)


def _mm_axes(student):
    got = student(np.array([[4.0, 7.0]]), 3, np.diag([1.5, 2.0, 10.0, 1.0]))
    return np.allclose(got, [[6, 14, 30]])


def _mm_value(student):
    xy = _rng().uniform(0, 200, (6, 2))
    expected = nib.affines.apply_affine(OBLIQUE, np.column_stack([xy, np.full(6, 4)]))
    return np.allclose(student(xy, 4, OBLIQUE.copy()), expected)


def _file(codes: str) -> nib.Nifti1Image:
    """A small file of RAS content whose axes point to ``codes``."""
    image = nib.Nifti1Image(_rng().normal(size=(4, 5, 6)).astype(np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    return image.as_reoriented(turn)


def _turned(student, file) -> bool:
    expected = nib.as_closest_canonical(file).get_fdata()
    return np.array_equal(student(file.get_fdata(), file.affine), expected)


def _canonical_same(student):
    return _turned(student, _file("RAS"))


def _canonical_flips(student):
    return all(_turned(student, _file(codes)) for codes in ("LAS", "RPI", "LPS"))


def _canonical_order(student):
    return all(_turned(student, _file(codes)) for codes in ("ARS", "SLP", "PIR"))


def _canonical_oblique(student):
    return _turned(student, nib.Nifti1Image(_rng().normal(size=(4, 5, 6)), OBLIQUE))


EXERCISES = {
    "00.ejection_fraction": Exercise(1, (
        step("shape", "Return one number.", _one_number),
        step("value", "Count the voxels of label 3 in both, and give percent: 200 and 80 voxels make 60.", _half),
        step("spacing", "The two frames may differ in spacing: compare millilitres, not voxels.", _own_spacing),
    )),
    "00.to_8bit": Exercise(2, (
        step("shape", "Resample to the wanted (H, W), and finish with np.rint(...).astype(np.uint8).", _8bit_shape),
        step("value", "Percentiles of the whole volume, clip, then resample: a bright voxel must not spread. "
             "Round at the end with np.rint: astype alone cuts off.",
             _8bit_value),
        step("flat", "Where both percentiles are equal there is nothing to divide by: return zeros.", _8bit_flat),
        step("invariance", "Another gain and offset of the scanner must not change the result.", _8bit_scale),
    )),
    "00.folds": Exercise(2, (
        step("shape", "A list of `count` boolean arrays, one entry per slice.", _folds_shape),
        step("once", "Every slice belongs to exactly one mask.", _folds_once),
        step("patients", "Deal the names of np.unique(owner), then find their slices with np.isin.", _folds_apart),
        step("even", "Deal patients like cards: names[fold::count].", _folds_even),
    )),
    "00.to_mm": Exercise(2, (
        step("shape", "One row (x, y, z) in mm for every point.", _mm_shape),
        step("axes", "The affine takes (i, j, k): i is the column x, j the row y.", _mm_axes),
        step("value", "Append a 1 to (i, j, k) and multiply by the whole matrix; the last column is a shift.",
             _mm_value),
    )),
    "00.canonical": Exercise(3, (
        step("nothing to do", "An array that already points to R, A, S comes back as it is.", _canonical_same),
        step("flips", "A negative entry of the affine means that the axis runs the other way: np.flip.",
             _canonical_flips),
        step("order", "For each of x, y, z find the array axis with the largest entry in that row of the "
                      "affine, then np.transpose.", _canonical_order),
        step("oblique", "Divide each column by its length before you compare, and use no axis twice.",
             _canonical_oblique),
    )),
}  # fmt: skip
