"""The wrong answers that readers give to the exercises of chapter 7 fail, each at the step that names its fault."""

import contextlib
import io
import math

import numpy as np
import pytest

from kaf.exercises import grade
from kaf.exercises.chapter07 import EXERCISES


def design(n):
    return [(i,) for i in range(n)] + [tuple(j for j in range(n) if j != i) for i in range(n)]


def unpaired(reference, changed, drawn):
    other = (drawn + 5) % len(reference)  # other patients for the other setting
    return np.quantile(changed[drawn].mean(1) - reference[other].mean(1), [0.025, 0.975])


def interval(reference, changed, drawn):
    return np.quantile((changed - reference)[drawn].mean(1), [0.025, 0.975])


def spread(runs, repeats):
    return 1.96 * math.sqrt(2 * runs.var(1, ddof=1).mean() / repeats)


def spread_in_place(runs, repeats):
    runs -= runs.mean(1, keepdims=True)
    np.square(runs, out=runs)
    return 1.96 * math.sqrt(2 * runs.sum() / (runs.size - len(runs)) / repeats)


def test_a_right_answer_may_work_in_place():
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade("07.smallest_difference", spread_in_place).passed


def best(k, sd, times=100_000, rng=None):
    return (rng or np.random.default_rng(0)).normal(0, sd, (times, k)).max(1).mean()


def largest_size(k, sd):
    return np.abs(np.random.default_rng(0).normal(0, sd, (100_000, k))).max(1).mean()


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("07.design", lambda n: [(i,) for i in range(n)], "shape"),
    ("07.design", design, "once"),
    ("07.chance_of_any", lambda alpha, k: alpha * k, "value"),
    ("07.chance_of_any", lambda alpha, k: alpha, "value"),
    ("07.paired_interval", lambda *args: interval(*args)[::-1], "shape"),
    ("07.paired_interval", unpaired, "value"),
    ("07.paired_interval", lambda a, b, drawn: interval(b, a, drawn), "value"),
    ("07.interaction", lambda t: t[1, 1] - t[0, 0], "value"),
    ("07.interaction", lambda t: abs(t[1, 1] - t[1, 0] - t[0, 1] + t[0, 0]), "sign"),
    ("07.smallest_difference", lambda runs, r: 1.96 * math.sqrt(2 * runs.var() / r), "value"),
    ("07.smallest_difference", lambda runs, r: 1.96 * math.sqrt(2 * runs.var(1).mean() / r), "value"),
    ("07.smallest_difference", lambda runs, r: spread(runs, 1), "repeats"),
    ("07.luck_of_the_best", lambda k, sd: sd * math.sqrt(2 * math.log(k)), "two"),
    ("07.luck_of_the_best", lambda k, sd: best(k, 0.02), "scale"),
    ("07.luck_of_the_best", lambda k, sd: sd, "one"),
    ("07.luck_of_the_best", lambda k, sd: best(k, sd) + 0.05 * sd, "one"),
    ("07.luck_of_the_best", largest_size, "one"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed


@pytest.mark.parametrize("seed", range(2))
def test_a_right_simulation_of_any_seed_passes(seed):
    with contextlib.redirect_stdout(io.StringIO()):
        rng = np.random.default_rng(seed)
        assert grade("07.luck_of_the_best", lambda k, sd: best(k, sd, rng=rng)).passed


def test_there_are_exercises_of_every_difficulty():
    assert len(EXERCISES) >= 4 and {e.stars for e in EXERCISES.values()} == {1, 2, 3}
