"""What becomes of keypoints and monitors on corrupted images, in words (entries C3, L1, F1 and F2)."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from book.evidence import evidence
from book.names import SCRATCH
from kaf.robustness import UNITS, hardest
from kaf.verdicts import labelled


def keypoints_under(kinds: tuple[str, ...], column: str, words: str, digits: int = 2) -> Callable[[Path], str]:
    """A finding: the mean of a column on the images as they are and under each corruption at its hardest."""

    def finding(records: Path) -> str:
        rows = evidence("corruption", records).rows
        rows = labelled(rows)[lambda table: table["label"] == SCRATCH] if len(rows) else rows
        if rows.empty:
            return ""
        parts = []
        for kind in kinds:
            level = hardest(rows, kind)
            mean = rows.loc[(rows["corruption"] == kind) & (rows["level"] == level), column].mean()
            parts.append(f"{kind} {level:g} ({UNITS[kind]}): "
                         + ("no keypoints" if pd.isna(mean) else f"{mean:.{digits}f}"))
        asis = rows.loc[rows["corruption"] == "", column].mean()
        where = (f"{rows['dataset'].iloc[0]}, {rows['patient'].nunique()} patients, {SCRATCH}, "
                 f"{rows['run'].nunique()} training{'s' * (rows['run'].nunique() > 1)}")
        return f"{where}. {words}: as it is {asis:.{digits}f}, {', '.join(parts)}."

    return finding


def found_less(kinds: tuple[str, ...]) -> Callable[[Path], str]:
    """A verdict: under which corruptions, at their hardest, fewer than half of the keypoints are found again."""
    return _where(kinds, "repeatability", lambda worse, _: worse.mean() < 0.5, "Fewer than half are found again")


def told_by_monitor(kinds: tuple[str, ...], column: str, limit: float | None = None) -> Callable[[Path], str]:
    """A verdict: under which corruptions, at their hardest, a monitor tells most patients from all images as they are.

    It tells a patient whose value is above the largest of theirs. With a ``limit``, also where the mean is above it.
    """
    told = _where(kinds, column, lambda worse, clean: (worse > clean.max()).mean() > 0.5,
                  "Most patients lie above every clean image", "there are no keypoints")
    if limit is None:
        return told
    above = _where(kinds, column, lambda worse, _: worse.mean() > limit, f"Above {limit:g} in the mean")
    return lambda records: " ".join(filter(None, (above(records), told(records))))


def _where(kinds: tuple[str, ...], column: str, happens: Callable[[pd.Series, pd.Series], bool], words: str,
           without: str = "") -> Callable[[Path], str]:
    """A verdict: under which corruptions something happens; ``without``: what is said of those that leave no values."""

    def verdict(records: Path) -> str:
        rows = evidence("corruption", records).rows
        rows = labelled(rows)[lambda table: table["label"] == SCRATCH] if len(rows) else rows
        if rows.empty:
            return ""
        clean = rows.loc[rows["corruption"] == "", column]
        worse = {kind: rows.loc[(rows["corruption"] == kind) & (rows["level"] == hardest(rows, kind)), column]
                 for kind in kinds}
        there = [kind for kind in kinds if happens(worse[kind], clean)]
        undefined = [kind for kind in kinds if worse[kind].isna().all()]
        others = [kind for kind in kinds if kind not in there and not (without and kind in undefined)]
        told = f"{words} under {_listed(there)}" + (f", not under {_listed(others)}." if others else ".") \
            if there else f"{words} under none of these."
        return told + (f" Under {_listed(undefined)} {without}." if undefined and without else "")

    return verdict


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
