"""Checks of the exercises of chapter 6: scores and what may be concluded from them."""

import math

import numpy as np
from scipy import stats

from kaf.evaluate import holm, score_volume
from kaf.exercises.grading import Exercise, step


def _masks(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((2, 6, 7)) < 0.4, rng.random((2, 6, 7)) < 0.5


def _dice_value(student) -> bool:
    a, b = _masks()
    expected = score_volume(a.astype(np.uint8), b.astype(np.uint8), (1, 1, 1), {1: "x"})["dice"].item()
    return math.isclose(float(student(a, b)), expected)


def _dice_missed(student) -> bool:
    a, _ = _masks()
    return float(student(a, np.zeros_like(a))) == 0 and float(student(np.zeros_like(a), a)) == 0


def _dice_absent(student) -> bool:
    return math.isnan(float(student(np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool))))


def _dice_symmetric(student) -> bool:
    a, b = _masks(1)
    return math.isclose(float(student(a, b)), float(student(b, a)))


def _p_values() -> np.ndarray:
    """Four p values; a new array for every student, who may work in place."""
    return np.array([0.04, 0.001, 0.03, 0.5])


def _holm_shape(student) -> bool:
    return np.shape(student(_p_values())) == (4,)


def _holm_smallest(student) -> bool:
    return math.isclose(student(_p_values())[1], 4 * 0.001)


def _holm_value(student) -> bool:
    return np.allclose(student(_p_values()), holm(_p_values()))


def _holm_order(student) -> bool:
    order = [2, 0, 3, 1]
    return np.allclose(student(_p_values()[order]), holm(_p_values())[order])


def _holm_capped(student) -> bool:
    high = np.array([0.9, 0.6, 0.7])
    return np.allclose(student(high.copy()), holm(high))


def _distances(rows: list[int]) -> tuple[np.ndarray, ...]:
    """HD95, missed, absent and diagonal of some of four structures; new arrays for every student."""
    columns = (np.array([4.0, np.nan, np.nan, 8.0]), np.array([False, True, False, False]),
               np.array([False, False, True, False]), np.array([200.0, 300, 400, 500]))
    return tuple(column[rows] for column in columns)


def _fair_plain(student) -> bool:
    return math.isclose(float(student(*_distances([0, 3]))), 6.0)


def _fair_missed(student) -> bool:
    return math.isclose(float(student(*_distances([0, 1, 3]))), (4 + 300 + 8) / 3)


def _fair_absent(student) -> bool:
    return math.isclose(float(student(*_distances([0, 1, 2, 3]))), (4 + 300 + 8) / 3)


def _fair_input(student) -> bool:
    given = _distances([0, 1, 2, 3])
    student(*given)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(given, _distances([0, 1, 2, 3]), strict=True))


def _scores() -> tuple[np.ndarray, np.ndarray]:
    """Two methods, 6 patients with 3 frames each, of which the second is unlike the others: no median is the mean."""
    rng = np.random.default_rng(2)
    base = rng.normal(0.7, 0.1, (6, 1))
    a, b = base + rng.normal(0, 0.02, (6, 3)), base + rng.normal(0.02, 0.02, (6, 3))
    b[:, 1] -= rng.uniform(0.05, 0.15, 6)
    return a, b


def _patients_value(student) -> bool:
    a, b = _scores()
    return math.isclose(float(student(a, b)), stats.wilcoxon((b - a).mean(1)).pvalue)


def _patients_missing(student) -> bool:
    """The last patient, of one frame, has the fourth largest difference, which a sum over frames would halve."""
    difference = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.035])
    a = np.full((7, 2), 0.7)
    b = a + difference[:, None]
    a[6, 1] = b[6, 1] = np.nan
    return math.isclose(float(student(a, b)), 14 / 128)


def _patients_frames(student) -> bool:
    a, b = _scores()
    twice = (np.concatenate([scores, scores], 1) for scores in (a, b))
    return math.isclose(float(student(*twice)), float(student(a, b)))


def _rank_smallest(student) -> bool:
    return math.isclose(float(student(np.array([1.0, 2, 3, 4, 5]))), 2 / 2**5)


def _rank_value(student) -> bool:
    d = np.random.default_rng(3).normal(0.3, 1, 9)
    return math.isclose(float(student(d)), stats.wilcoxon(d, method="exact").pvalue)


def _rank_signs(student) -> bool:
    d = np.random.default_rng(4).normal(0.5, 1, 8)
    return math.isclose(float(student(d)), float(student(-d)))


def _rank_scale(student) -> bool:
    d = np.random.default_rng(5).normal(0.5, 1, 8)
    return math.isclose(float(student(np.sign(d) * np.abs(d) ** 3)), float(student(d)))


EXERCISES = {
    "06.dice": Exercise(stars=1, steps=(
        step("value", "Twice the number of common voxels, divided by the sum of both numbers of voxels.", _dice_value),
        step("missed", "If only one mask is empty, nothing overlaps: 0.", _dice_missed),
        step("absent", "If both masks are empty there is nothing to score: NaN, neither 0 nor 1.", _dice_absent),
        step("invariance", "Dice does not know which mask is the truth.", _dice_symmetric),
    )),
    "06.fair_mean": Exercise(stars=2, steps=(
        step("value", "Without missed and absent structures it is the plain mean.", _fair_plain),
        step("missed", "A missed structure counts with the diagonal of its own volume.", _fair_missed),
        step("absent", "An absent structure is left out, of the sum and of the number.", _fair_absent),
        step("input", "Work on a copy: the caller's array must not change. np.where makes one.", _fair_input),
    )),
    "06.p_patients": Exercise(stars=2, steps=(
        step("value", "First the mean over the frames of each patient, then stats.wilcoxon of the differences.",
             _patients_value),
        step("missing frame", "np.nanmean leaves out the frame that was not scored.", _patients_missing),
        step("invariance", "Copies of frames are no new patients: p must not change when every frame comes twice.",
             _patients_frames),
    )),
    "06.holm": Exercise(stars=2, steps=(
        step("shape", "One adjusted value for each p.", _holm_shape),
        step("smallest", "The smallest p is multiplied by the number of tests.", _holm_smallest),
        step("value", "The next one by one less, and so on; no adjusted value is smaller than the one before it: "
             "np.maximum.accumulate.", _holm_value),
        step("order", "Return the values in the order in which they came: result[order] = adjusted.", _holm_order),
        step("capped", "A p value is at most 1.", _holm_capped),
    )),
    "06.signed_rank": Exercise(stars=3, steps=(
        step("smallest", "Five differences of one sign: 2 of the 32 ways to choose signs are as extreme.",
             _rank_smallest),
        step("value", "Rank the absolute differences from 1. For every choice of signs add the ranks with a plus; "
             "count the choices at least as far from the middle n (n + 1) / 4 as what was found.", _rank_value),
        step("signs", "Two-sided: swapping the two methods changes nothing.", _rank_signs),
        step("scale", "Only ranks and signs count, not the sizes of the differences.", _rank_scale),
    )),
}
