"""The wrong answers that readers give to the exercises of chapter 6 fail, each at the step that names its fault."""

import contextlib
import io

import numpy as np
import pytest
from scipy import stats

from kaf.exercises import grade
from kaf.exercises.chapter06 import EXERCISES


def dice(a, b, empty=np.nan):
    sizes = a.sum() + b.sum()
    return 2 * (a & b).sum() / sizes if sizes else empty


def fair_mean_in_place(hd95, missed, absent, diagonal):
    hd95[missed] = diagonal[missed]
    return np.nanmean(hd95)


def holm_unsorted(p):
    return np.minimum(np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)), 1)


def holm_without_maximum(p):
    result = np.empty(len(p))
    result[np.argsort(p)] = np.sort(p) * np.arange(len(p), 0, -1)
    return result


def holm_without_cap(p):
    result = np.empty(len(p))
    result[np.argsort(p)] = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    return result


def holm_in_place(p):
    order = np.argsort(p)
    p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return p


def test_a_right_answer_may_work_in_place():
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade("06.holm", holm_in_place).passed


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("06.dice", lambda a, b: (a & b).sum() / (a | b).sum(), "value"),
    ("06.dice", lambda a, b: dice(a, b, 1.0), "absent"),
    ("06.fair_mean", lambda hd95, *rest: np.nanmean(hd95), "missed"),
    ("06.fair_mean", lambda hd95, missed, absent, diagonal: np.where(missed, diagonal, np.nan_to_num(hd95)).mean(),
     "absent"),
    ("06.fair_mean", fair_mean_in_place, "input"),
    ("06.p_patients", lambda a, b: stats.wilcoxon((b - a).ravel(), nan_policy="omit").pvalue, "value"),
    ("06.p_patients", lambda a, b: stats.wilcoxon((b - a).mean(1), nan_policy="omit").pvalue, "missing frame"),
    ("06.p_patients", lambda a, b: stats.wilcoxon(np.nansum(b - a, 1)).pvalue, "missing frame"),
    ("06.p_patients", lambda a, b: stats.wilcoxon(np.nanmedian(b - a, 1)).pvalue, "value"),
    ("06.holm", lambda p: np.minimum(p * len(p), 1), "value"),
    ("06.holm", holm_without_maximum, "value"),
    ("06.holm", holm_without_cap, "capped"),
    ("06.holm", holm_unsorted, "smallest"),
    ("06.signed_rank", lambda d: stats.ttest_1samp(d, 0).pvalue, "smallest"),
    ("06.signed_rank", lambda d: stats.wilcoxon(d, alternative="greater").pvalue, "smallest"),
    ("06.signed_rank", lambda d: stats.wilcoxon(d, method="asymptotic").pvalue, "smallest"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed


def test_there_are_exercises_of_every_difficulty():
    assert len(EXERCISES) >= 4 and {e.stars for e in EXERCISES.values()} == {1, 2, 3}
