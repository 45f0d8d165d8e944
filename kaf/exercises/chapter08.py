"""Checks of the exercises of chapter 8: corruption, repeatability, limits of monitors, Dice lost."""

import math

import numpy as np
import torch

from kaf.exercises.grading import Exercise, step
from kaf.monitors import alarm_limit
from kaf.robustness import beyond_chance, bias_field, chance

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian with a standard deviation of 1


def _sigma_value(student) -> bool:
    return np.allclose(student(2.5 * FWHM, (1.25, 1.25)), [2.0, 2.0])


def _sigma_axes(student) -> bool:
    return np.allclose(student(2.0 * FWHM, (1.0, 0.5)), [2.0, 4.0])


def _sigma_invariance(student) -> bool:
    return np.allclose(student(7.0, (1.4, 1.1)), student(14.0, (2.8, 2.2)))


SIZE, PIXEL = (80, 100), (2.5, 2.5)  # rows and columns, and what a pixel measures in mm


def _corrected_ends(student) -> bool:
    ends = student(1.0, 96, 3.0, SIZE, PIXEL), student(0.4, 0, 3.0, SIZE, PIXEL)
    return np.allclose(ends, [1.0, 0.4])


def _corrected_value(student) -> bool:
    expected = beyond_chance(0.4, chance(96, 3.0 / 2.5, *SIZE))
    return math.isclose(student(0.4, 96, 3.0, SIZE, PIXEL), expected, rel_tol=1e-6)


def _corrected_chance(student) -> bool:
    return math.isclose(student(chance(300, 1.6, *SIZE), 300, 4.0, SIZE, PIXEL), 0.0, abs_tol=1e-6)


def _corrected_spacing(student) -> bool:
    one, other = student(0.5, 200, 3.0, (80, 80), (2.5, 2.5)), student(0.5, 200, 3.0, (160, 80), (1.25, 2.5))
    return math.isclose(one, other, rel_tol=1e-6)


def _clean(n: int = 19) -> np.ndarray:
    return np.random.default_rng(n).gamma(2.0, size=n)


def _limit_value(student) -> bool:
    return all(math.isclose(student(_clean(), share), alarm_limit(torch.from_numpy(_clean()), share))
               for share in (0.05, 0.1, 0.3))


def _limit_rounding(student) -> bool:
    # .29 * 100 is 28.999... in floating point: 1e-9 more before rounding down finds the 29th.
    return (math.isclose(student(_clean(), 0.149), np.sort(_clean())[-2])
            and math.isclose(student(_clean(99), 0.29), np.sort(_clean(99))[-29]))


def _limit_order(student) -> bool:
    given = _clean()
    same = math.isclose(student(given[::-1].copy(), 0.1), student(given, 0.1))
    return same and np.array_equal(given, _clean())


def _limit_refusal(student) -> bool:
    try:
        student(_clean(9), 0.05)
    except ValueError:
        return True
    return False


def _dice() -> tuple[np.ndarray, np.ndarray]:
    """Clean and corrupted Dice of 6 patients with 2 frames, some without a score."""
    rng = np.random.default_rng(8)
    clean = rng.uniform(0.6, 0.9, (6, 2))
    worse = clean - rng.uniform(0.0, 0.3, (6, 2))
    worse[1, 0] = clean[4, 1] = np.nan
    return clean, worse


def _lost_value(student) -> bool:
    clean, worse = (part[[0, 2, 3, 5]] for part in _dice())
    return math.isclose(student(clean, worse), (clean - worse).mean())


def _lost_missing(student) -> bool:
    clean, worse = _dice()
    return math.isclose(student(clean, worse), np.nanmean(clean - worse, axis=1).mean())


def _lost_frames(student) -> bool:
    clean, worse = (np.concatenate([part, np.full_like(part, np.nan)], 1) for part in _dice())
    clean[0, 2:], worse[0, 2:] = clean[0, :2], worse[0, :2]  # one patient with every frame twice
    return math.isclose(student(clean, worse), student(*_dice()))


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """A flat image with a strong bias field, black outside of a disc; and the disc."""
    y, x = np.mgrid[:48, :64]
    body = np.hypot((y - 24) / 22, (x - 32) / 30) < 1
    return np.where(body, 100 * np.exp(0.7 * bias_field((48, 64), np.random.default_rng(3)).astype(float)), 0.0), body


def _unbias_shape(student) -> bool:
    image, body = _scene()
    return np.shape(student(image, body)) == image.shape


def _unbias_value(student) -> bool:
    image, body = _scene()
    inside = student(image, body)[body]
    return inside.std() < 0.01 * inside.mean()


def _unbias_mean(student) -> bool:
    image, body = _scene()
    return all(math.isclose(student(gain * image, body)[body].mean(), gain * image[body].mean(), rel_tol=1e-6)
               for gain in (1.0, 5.0))


def _unbias_structure(student) -> bool:
    image, body = _scene()
    checks = np.where(np.indices(image.shape).sum(0) % 2 == 0, 1.2, 0.8)
    inside = (student(image * checks, body) / checks)[body]
    return inside.std() < 0.02 * inside.mean()


def _unbias_degree(student) -> bool:
    """Anatomy that changes smoothly: ten terms cannot take it away, more terms can."""
    image, body = _scene()
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    inside = student(image * np.exp(2 * x**3 * y**3), body)[body]
    return inside.std() > 0.015 * inside.mean()


def _unbias_outside(student) -> bool:
    """A flat surrounding is divided by the field, too, which goes on there and is not flat."""
    image, body = _scene()
    outside = student(np.where(body, image, 5.0), body)[~body]
    return np.all(np.isfinite(outside)) and outside.min() > 0 and outside.std() > 0.05 * outside.mean()


EXERCISES = {
    "08.sigma_px": Exercise(stars=1, steps=(
        step("value", "A Gaussian has half of its height at sqrt(2 ln 2) standard deviations to either side.",
             _sigma_value),
        step("axes", "One standard deviation for each axis: divide by the spacing of that axis.", _sigma_axes),
        step("invariance", "Twice the width on pixels twice as large is the same number of pixels.", _sigma_invariance),
    )),
    "08.corrected": Exercise(stars=2, steps=(
        step("ends", "If all are found again the result is 1, and without points nothing is corrected.",
             _corrected_ends),
        step("value", "Chance is 1 - (1 - circle / image) ** points; then (share - chance) / (1 - chance).",
             _corrected_value),
        step("chance", "What chance alone would give must become 0.", _corrected_chance),
        step("invariance", "Take both areas in mm²: finer rows do not change the image, nor what chance gives.",
             _corrected_spacing),
    )),
    "08.limit": Exercise(stars=2, steps=(
        step("value", "Sort from high to low and take the k-th, k = alarms * (N + 1); counting from 0 that is k - 1.",
             _limit_value),
        step("rounding", "Round k down: rounding up gives more alarms than were promised. A product such as .29 * 100 "
             "falls just below its whole number, so add 1e-9 first.", _limit_rounding),
        step("invariance", "The order of the patients must not matter, and the caller's array must not be sorted.",
             _limit_order),
        step("refusal", "Where k is 0 no limit can keep the promise: raise a ValueError.", _limit_refusal),
    )),
    "08.lost": Exercise(stars=2, steps=(
        step("value", "Clean minus corrupted: what is lost is positive.", _lost_value),
        step("missing frame", "Subtract first: a frame that one of the two lacks says nothing about the loss.",
             _lost_missing),
        step("invariance", "Mean over frames, then over patients: a patient with more frames counts once.",
             _lost_frames),
    )),
    "08.unbias": Exercise(stars=3, steps=(
        step("shape", "Return the whole image (H, W); only the fit is restricted to the mask.", _unbias_shape),
        step("value", "Fit a polynomial of the third degree to the logarithm of the image, inside of the mask, with "
             "np.linalg.lstsq; then divide by its exponential.", _unbias_value),
        step("mean", "Scale the result so that its mean inside of the mask is that of the image.", _unbias_mean),
        step("structure", "Divide by the fit, which is smooth: what is fine must stay.", _unbias_structure),
        step("degree", "Take the ten terms x**i * y**j with i + j <= 3: more would fit the anatomy.", _unbias_degree),
        step("outside", "Divide the whole image, not what lies inside of the mask alone.", _unbias_outside),
    )),
}
