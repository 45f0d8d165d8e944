"""Checks of the exercises of chapter 7: designs of ablations and what their differences mean."""

import math

import numpy as np
from scipy import integrate, stats

from kaf.evaluate import bootstrap_interval
from kaf.exercises.grading import Exercise, step


def _design_shape(student) -> bool:
    design = student(4)
    return len(design) == 8 and sorted(map(len, design)) == [1] * 4 + [3] * 4


def _design_value(student) -> bool:
    parts = {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}
    return {tuple(sorted(subset)) for subset in student(3)} == parts


def _design_once(student) -> bool:
    design = [tuple(sorted(subset)) for subset in student(2)]
    return sorted(design) == [(0,), (1,)]


def _chance_value(student) -> bool:
    return math.isclose(student(0.05, 1), 0.05) and math.isclose(student(0.05, 16), 1 - 0.95**16)


def _chance_certain(student) -> bool:
    return student(0.0, 9) == 0 and math.isclose(student(1.0, 9), 1)


def _pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dice of two settings for 12 patients that differ much, and resampled indices (R, 12)."""
    rng = np.random.default_rng(7)
    base = rng.normal(0.7, 0.1, 12)
    drawn = np.random.default_rng(0).integers(0, 12, (5000, 12))
    return base, base + rng.normal(0.02, 0.02, 12), drawn


def _interval_shape(student) -> bool:
    low, high = student(*_pairs())
    return low < high


def _interval_value(student) -> bool:
    reference, changed, drawn = _pairs()
    return np.allclose(student(reference, changed, drawn), bootstrap_interval(changed - reference))


def _interval_pairs(student) -> bool:
    reference, changed, drawn = _pairs()
    harder = np.linspace(-0.3, 0.3, 12)  # how hard a patient is does not matter
    return np.allclose(student(reference + harder, changed + harder, drawn), student(reference, changed, drawn))


def _interval_sign(student) -> bool:
    reference, changed, drawn = _pairs()
    low, high = student(reference, changed, drawn)
    return np.allclose(student(changed, reference, drawn), (-high, -low))


def _runs() -> np.ndarray:
    """Mean Dice of two settings, three trainings each; a new array for every student, who may work in place."""
    return np.array([[0.60, 0.64, 0.62], [0.70, 0.70, 0.76]])


def _noise_value(student) -> bool:
    pooled = math.sqrt(_runs().var(1, ddof=1).mean())
    return math.isclose(student(_runs(), 1), 1.96 * math.sqrt(2) * pooled, rel_tol=1e-3)


def _noise_repeats(student) -> bool:
    return math.isclose(student(_runs(), 4), student(_runs(), 1) / 2)


def _noise_settings(student) -> bool:
    return math.isclose(student(_runs() + np.array([[0.0], [0.1]]), 1), student(_runs(), 1))


def _interaction_value(student) -> bool:
    return math.isclose(student(np.array([[0.5, 0.6], [0.55, 0.8]])), 0.15)


def _interaction_additive(student) -> bool:
    return abs(student(np.array([[0.5, 0.6], [0.7, 0.8]]))) < 1e-12


def _interaction_sign(student) -> bool:
    return math.isclose(student(np.array([[0.5, 0.7], [0.7, 0.75]])), -0.15)


def _interaction_symmetric(student) -> bool:
    table = np.random.default_rng(8).random((2, 2))
    return math.isclose(student(table), student(table.T))


def _largest(k: int) -> float:
    """Mean of the largest of k independent standard normal numbers."""
    return integrate.quad(lambda x: x * k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1), -10, 10)[0]


def _best_one(student) -> bool:
    return abs(student(1, 0.02)) < 0.02 * 0.02  # six times what the mean of 100 000 experiments deviates by


def _best_two(student) -> bool:
    return math.isclose(student(2, 0.02), 0.02 / math.sqrt(math.pi), rel_tol=0.02)


def _best_many(student) -> bool:
    return all(math.isclose(student(k, 0.02), 0.02 * _largest(k), rel_tol=0.02) for k in (3, 16, 50))


def _best_scale(student) -> bool:
    return math.isclose(student(10, 0.06), 3 * student(10, 0.02), rel_tol=0.03)


EXERCISES = {
    "07.design": Exercise(stars=1, steps=(
        step("shape", "For n parts there are n settings with one of them and n that leave one out.", _design_shape),
        step("value", "{i} for every i, and all parts but i for every i.", _design_value),
        step("once", "With two parts, to leave one out is to have the other: each setting is run once. A set, or a "
             "dict, forgets repetitions.", _design_once),
    )),
    "07.chance_of_any": Exercise(stars=1, steps=(
        step("value", "All k tests stay silent with probability (1 - alpha) ** k.", _chance_value),
        step("limits", "A test that never errs errs never, one that always errs always.", _chance_certain),
    )),
    "07.paired_interval": Exercise(stars=2, steps=(
        step("shape", "Return two numbers, the lower end first.", _interval_shape),
        step("value", "Differences first, then differences[drawn].mean(1): one mean for each row of drawn. Of these "
             "the quantiles .025 and .975.", _interval_value),
        step("invariance", "Draw both values of a patient together, or hard patients do not cancel.", _interval_pairs),
        step("sign", "The difference is changed - reference.", _interval_sign),
    )),
    "07.interaction": Exercise(stars=2, steps=(
        step("value", "The effect of the second change where the first was made, minus its effect where it was not.",
             _interaction_value),
        step("additive", "Where the effects add up, there is none.", _interaction_additive),
        step("sign", "Two gains that are smaller together than their sum: a negative interaction.", _interaction_sign),
        step("invariance", "It does not matter which change is called the first.", _interaction_symmetric),
    )),
    "07.smallest_difference": Exercise(stars=2, steps=(
        step("value", "Variances within each setting with ddof=1, their mean over settings, its root; the difference "
             "of two runs has the square root of 2 times that deviation, and 95 % lie within 1.96 times this.",
             _noise_value),
        step("repeats", "The mean of R runs deviates by the square root of R less.", _noise_repeats),
        step("invariance", "How good a setting is does not matter, only how its runs differ among each other.",
             _noise_settings),
    )),
    "07.luck_of_the_best": Exercise(stars=3, steps=(
        step("one", "The best of one setting is that setting: no luck on average. When you simulate, take 100 000 "
             "experiments.", _best_one),
        step("two", "The mean of the largest of two standard normal numbers is 1 / sqrt(pi).", _best_two),
        step("value", "The largest of k has the density k * pdf(x) * cdf(x) ** (k - 1): integrate x times it, or "
             "simulate.", _best_many),
        step("scale", "The luck grows in proportion to the noise.", _best_scale),
    )),
}
