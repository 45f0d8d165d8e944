"""From recorded runs to a verdict in words: paired over patients, corrected for their number (appendix, claims)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from kaf.evaluate import compare, holm
from kaf.robustness import hardest

ALPHA = 0.05
SHARED = ["dataset", "protocol", "scale", "m"]  # one comparison lies within one value of each
PAIRED = ["draw", "fold", "seed"]  # and is made of the runs that both sides have


class Place(NamedTuple):
    """Where a comparison lies. As text it reads ``acdc, scale laptop, M = 2``, with its details behind."""

    dataset: str
    scale: str
    m: int  # number of labelled patients
    protocol: str = ""  # empty for the usual one: patients of the fold test, and are in no training
    about: str = ""  # a corruption with its level, or a group of patients; empty for all images

    @property
    def setup(self) -> str:
        """Data set and scale."""
        return f"{self.dataset}, scale {self.scale}"

    @property
    def details(self) -> list[str]:
        """What is not usual, each in words."""
        return [f"protocol: {self.protocol}"] * bool(self.protocol) + [self.about] * bool(self.about)

    def __str__(self) -> str:
        return ", ".join([self.setup, f"M = {self.m}", *self.details])


@dataclass(frozen=True)
class Comparison:
    """One line of evidence: ``label`` against ``reference``, a difference of means over patients."""

    label: str
    reference: str
    place: Place
    patients: int
    runs: int  # pairs of runs: folds, draws and seeds that both sides have
    difference: float
    low: float  # of the 95 % bootstrap interval over patients
    high: float
    p: float  # Wilcoxon over patients, Holm's correction within the entry
    steps: int = 0  # of fine-tuning, the same on both sides; 0 where it is not, or is not known
    over_runs: tuple[float, float] = (float("nan"), float("nan"))  # the 95 % t interval over the pairs of runs
    related: bool = False  # one side is the trained network of the other, or goes on from it, and shares its luck

    @property
    def testable(self) -> bool:
        """Whether so many patients can show anything: Wilcoxon's smallest p is 2^(1 - patients).

        Scores play no role, such as how many of them are equal: which tests Holm's correction counts must not depend on
        what they find.
        """
        return 2.0 ** (1 - self.patients) < ALPHA

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference shown``: the corrected test and the interval must agree."""
        if self.testable and self.p < ALPHA and self.low > 0:
            return "better"
        if self.testable and self.p < ALPHA and self.high < 0:
            return "worse"
        return "no difference shown"

    @property
    def shown(self) -> bool:
        """Whether the verdict is of a difference."""
        return self.verdict != "no difference shown"

    @property
    def flipped(self) -> "Comparison":
        """The same comparison from the other side."""
        low, high = self.over_runs
        return replace(self, label=self.reference, reference=self.label, difference=-self.difference, low=-self.high,
                       high=-self.low, over_runs=(-high, -low))

    @property
    def trainings_agree(self) -> bool:
        """Whether the interval over pairs of runs leaves out 0 on the side of the difference."""
        low, high = self.over_runs
        return low > 0 if self.difference > 0 else high < 0


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column ``label``: the method, and the setting where there is one."""
    setting = rows["setting"].where(rows["setting"] == "", ": " + rows["setting"])
    return rows.assign(label=rows["method"] + setting)


def comparisons(rows: pd.DataFrame, labels: Sequence[str], reference: str, metric: str = "dice") -> list[Comparison]:
    """Each of ``labels`` against ``reference`` in all data sets, protocols, scales and numbers M that have both.

    Only runs of folds, draws and seeds that both sides have are looked at. P values are not corrected yet
    (:func:`corrected`). ``rows`` are those of records, see :func:`labelled`; their columns ``steps`` and ``network``,
    which :func:`workflow.plan.evidence` adds, may be missing.
    """
    rows, found = labelled(rows), []
    for where, group in rows[rows["label"].isin([*labels, reference])].groupby(SHARED, sort=True):
        for label in labels:
            both = _paired(group[group["label"].isin([label, reference])], label, reference)
            if both["patient"].nunique() < 2:
                continue
            line = compare(both, [label], reference, metric, "label").iloc[0]
            runs = len(both[both["label"] == label][PAIRED].drop_duplicates())
            steps = set(both["steps"]) if "steps" in both else {0}
            related = "network" in both and both.groupby(PAIRED)["network"].nunique().eq(1).all()
            found.append(Comparison(
                label, reference, place_of(*where), int(line["patients"]), runs, line["difference"], line["low"],
                line["high"], line["p_wilcoxon"], int(steps.pop()) if len(steps) == 1 else 0,
                _over_runs(both, label, reference, metric), bool(related)))
    return found


def lost_dice(rows: pd.DataFrame, label: str, reference: str) -> list[Comparison]:
    """What each corruption at its hardest costs ``label`` in Dice beside what it costs ``reference``, by patient.

    ``rows`` are those of a record of corrupted images. A positive difference means that ``label`` loses less.
    """
    rows, found = labelled(rows), []
    run = ["label", *SHARED, *PAIRED, "patient"]
    clean = rows[rows["corruption"] == ""].set_index(run)["dice"]
    rows = rows.assign(lost=rows["dice"] - clean.reindex(pd.MultiIndex.from_frame(rows[run])).to_numpy())
    for kind, some in rows[rows["corruption"] != ""].groupby("corruption", sort=False):
        level = hardest(some, kind)
        lines = comparisons(some[some["level"] == level].drop(columns="label"), [label], reference, "lost")
        found += [replace(line, place=line.place._replace(about=f"{kind} {level:g}")) for line in lines]
    return found


def corrected(found: Iterable[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction for the number of those that could show anything."""
    found = list(found)
    adjusted = iter(holm(np.array([c.p for c in found if c.testable])))
    return [replace(c, p=float(next(adjusted))) if c.testable else c for c in found]


def _paired(rows: pd.DataFrame, label: str, reference: str) -> pd.DataFrame:
    """The runs of both sides that have a partner: same fold, draw and seed."""
    have = [set(rows[rows["label"] == name][PAIRED].itertuples(index=False, name=None)) for name in (label, reference)]
    keys = pd.Series(list(rows[PAIRED].itertuples(index=False, name=None)), index=rows.index)
    return rows[keys.isin(have[0] & have[1])]


def _over_runs(rows: pd.DataFrame, label: str, reference: str, metric: str) -> tuple[float, float]:
    """The 95 % t interval of the difference, each pair of runs counting once; NaN for a single pair."""
    means = rows.groupby([*PAIRED, "label", "patient"])[metric].mean().groupby([*PAIRED, "label"]).mean().unstack()
    difference = means[label] - means[reference]
    if len(difference) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.sem()
    return float(difference.mean() - half), float(difference.mean() + half)


def place_of(dataset: str, protocol: str, scale: str, m: int) -> Place:
    """The place of rows that share these values, in the order of :data:`SHARED`."""
    return Place(dataset, scale, int(m), "" if protocol.startswith("patient") else protocol)


def overall(found: Sequence[Comparison]) -> str:
    """One verdict of several comparisons: what all of them say, ``mixed``, or ``open`` without any."""
    if not found:
        return "open"
    said = {c.verdict for c in found if c.testable} or {"no difference shown"}
    if len(said) == 1:
        return said.pop()
    if {"better", "worse"} <= said:
        return "mixed"
    return next(v for v in ("better", "worse") if v in said) + " in some"
