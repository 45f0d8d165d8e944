"""The wrong answers that readers give to the exercises of chapter 8 fail, each at the step that names its fault."""

import contextlib
import io
import math

import numpy as np
import pytest

from kaf.exercises import grade
from kaf.exercises.chapter08 import EXERCISES, FWHM


def corrected(share, points, distance_mm, size, spacing_mm, area=None, clip=False):
    area = size[0] * spacing_mm[0] * size[1] * spacing_mm[1] if area is None else area
    chance = 1 - (1 - math.pi * distance_mm**2 / area) ** points
    return (share - chance) / (1 - chance)


def limit(clean, alarms, rounding=math.floor, check=True):
    k = int(rounding(alarms * (len(clean) + 1) + (1e-9 if rounding is math.floor else -1e-9)))
    if check and k < 1:
        raise ValueError("too few patients")
    return np.sort(clean)[::-1][k - 1]


def limit_in_place(clean, alarms):
    clean.sort()
    return clean[::-1][int(alarms * (len(clean) + 1) + 1e-9) - 1]


def unbias(image, mask, degree=3, scaled=True, whole=False):
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    terms = np.stack([np.outer(y**i, x**j) for i in range(degree + 1) for j in range(degree + 1 - i)], -1)
    fit = np.linalg.lstsq(terms[mask], np.log(image[mask]), rcond=None)[0]
    result = image / np.exp(terms @ fit)
    return result * (image[mask].mean() / result[mask].mean() if scaled else 1)


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("08.sigma_px", lambda fwhm, spacing: np.divide(fwhm, spacing) / 2, "value"),
    ("08.sigma_px", lambda fwhm, spacing: np.multiply(fwhm / FWHM, [1 / spacing[0]] * 2), "axes"),
    ("08.corrected", lambda share, *rest: share, "value"),
    ("08.corrected", lambda share, points, d, size, mm: corrected(share, points, d, size, mm) * (share < 1)
     + (share == 1) * 0.9, "ends"),
    ("08.corrected", lambda share, points, d, size, mm: corrected(share, points, d, size, mm, size[0] * size[1]),
     "value"),
    ("08.corrected", lambda share, points, d, size, mm: corrected(
        share, points, d, size, mm, size[0] * size[1] * mm[1] ** 2), "invariance"),
    ("08.limit", lambda clean, alarms: np.quantile(clean, 1 - alarms), "value"),
    ("08.limit", lambda clean, alarms: limit(clean, alarms, math.ceil), "rounding"),
    ("08.limit", limit_in_place, "invariance"),
    ("08.limit", lambda clean, alarms: limit(clean, alarms, check=False), "refusal"),
    ("08.lost", lambda clean, worse: np.nanmean(worse - clean), "value"),
    ("08.lost", lambda clean, worse: np.nanmean(clean) - np.nanmean(worse), "missing frame"),
    ("08.lost", lambda clean, worse: np.nanmean(clean - worse), "missing frame"),
    ("08.lost", lambda clean, worse: (np.nanmean(clean, 1) - np.nanmean(worse, 1)).mean(), "missing frame"),
    ("08.unbias", lambda image, mask: image[mask], "shape"),
    ("08.unbias", lambda image, mask: image / image[mask].mean(), "value"),
    ("08.unbias", lambda image, mask: unbias(image, mask, degree=1), "value"),
    ("08.unbias", lambda image, mask: unbias(image, mask, scaled=False), "mean"),
    ("08.unbias", lambda image, mask: np.where(mask, image[mask].mean(), 0.0), "structure"),
    ("08.unbias", lambda image, mask: unbias(image, mask, degree=4), "degree"),
    ("08.unbias", lambda image, mask: np.where(mask, unbias(image, mask), 0), "outside"),
    ("08.unbias", lambda image, mask: np.where(mask, unbias(image, mask), image), "outside"),
    ("08.limit", lambda clean, alarms: np.sort(clean)[-int(alarms * (len(clean) + 1))], "rounding"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed


@pytest.mark.parametrize(("key", "student"), [("08.corrected", corrected), ("08.limit", limit), ("08.unbias", unbias)])
def test_right_answer_passes(key, student):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).passed


def test_there_are_exercises_of_every_difficulty():
    assert len(EXERCISES) >= 4 and {e.stars for e in EXERCISES.values()} == {1, 2, 3}
