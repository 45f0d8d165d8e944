"""How far two trainings of one setting differ by luck, and what that makes of a comparison (chapter 7)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from kaf.verdicts import SHARED, Comparison, Place, labelled, place_of

#: Columns of trainings that differ in nothing but their seed.
SAME = ["label", *SHARED, "draw", "fold"]


class Noise(NamedTuple):
    """The variance of the mean Dice between trainings of one setting, and its degrees of freedom."""

    variance: float
    freedom: int


#: Of which trainings a noise is: their place, steps of training, and method.
NoiseByPlace = Mapping[tuple[Place, int, str], Noise]


def training_scores(rows: pd.DataFrame) -> pd.Series:
    """The mean Dice over patients, each counting once, of every training; the index has :data:`SAME` and ``seed``.

    ``rows`` are those of records. Raises ``ValueError`` where the seeds of a setting were not scored on the same
    patients: they differ in more than luck.
    """
    scores = labelled(rows).groupby([*SAME, "seed", "patient"])["dice"].mean()
    for where, of_setting in scores.groupby(SAME):
        patients = [frozenset(some.index.get_level_values("patient")) for _, some in of_setting.groupby("seed")]
        if len(set(patients)) > 1:
            raise ValueError(f"the seeds of {where[0]!r}, fold {where[-1]}, were scored on different patients; what "
                             "differs between them is not the luck of training alone")
    return scores.groupby([*SAME, "seed"]).mean()


def measure_noise(rows: pd.DataFrame) -> Noise:
    """Variance over seeds of :func:`training_scores`, pooled over settings.

    NaN with 0 degrees of freedom where nothing was trained with two seeds.
    """
    runs = training_scores(rows).groupby(SAME)
    freedom = int((runs.count() - 1).sum())
    return Noise(float((runs.var() * (runs.count() - 1)).sum() / freedom) if freedom else float("nan"), freedom)


def run_noise(rows: pd.DataFrame) -> float:
    """The standard deviation of :func:`measure_noise`."""
    return float(np.sqrt(measure_noise(rows).variance))


def noise_by_place(rows: pd.DataFrame) -> NoiseByPlace:
    """:func:`measure_noise` of every place, length of training and method that has some."""
    groups = rows.groupby([*SHARED, "steps", "method"])
    found = {(place_of(*where), int(steps), method): measure_noise(some) for (*where, steps, method), some in groups}
    return {place: noise for place, noise in found.items() if noise.freedom}


def noise_floor(c: Comparison, noise: NoiseByPlace) -> float:
    """What the luck of trainings alone makes of the difference, at most, in 95 of 100 cases; NaN where it is unknown.

    ``noise`` is that of :func:`noise_by_place`. Where it knows one of the two methods only, the other counts as alike;
    runs of other folds and draws count as independent, and the quantile is Student's, for two methods with the degrees
    of freedom of Welch (1947). It is unknown, too, where one side goes on from the other and shares its luck.
    """
    known = {name: noise[c.place, c.steps, name] for name in (c.label.split(":")[0], c.reference.split(":")[0])
             if (c.place, c.steps, name) in noise}
    if not known or c.related:
        return float("nan")
    sides = list(known.values())
    total = sum(side.variance for side in sides)
    spread = sum(side.variance**2 / side.freedom for side in sides)
    quantile = stats.t.ppf(0.975, total**2 / spread if spread else sides[0].freedom)
    return float(quantile * np.sqrt(2 / len(sides) * total / c.runs))


def in_words(c: Comparison, noise: NoiseByPlace) -> str:
    """The verdict over patients, with a remark where the luck of trainings alone could have made the difference."""
    return f"{c.verdict}, below the noise floor" if below_floor(c, noise) else c.verdict


def luck_in_words(c: Comparison, noise: NoiseByPlace) -> str:
    """What is known of other trainings where a difference is shown; empty where none is."""
    if not c.shown:
        return ""
    told = "one training, a hint" if c.runs == 1 else "holds" if c.trainings_agree else "does not hold"
    return f"{told}; below the noise floor" if below_floor(c, noise) else told


def floor_in_words(c: Comparison, noise: NoiseByPlace) -> str:
    """The :func:`noise_floor`, or why there is none: without a word, an unknown one would read as none."""
    floor = noise_floor(c, noise)
    if np.isnan(floor):
        return "trainings related" if c.related else "noise floor not known"
    return f"noise floor {floor:.3f}"


def below_floor(c: Comparison, noise: NoiseByPlace) -> bool:
    """Whether a difference is shown over patients and yet smaller than its :func:`noise_floor`."""
    return c.shown and abs(c.difference) < noise_floor(c, noise)
