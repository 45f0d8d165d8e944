"""Dice against the number of labelled patients, with intervals, beside the paper's values (chapter 6)."""

from collections.abc import Collection
from typing import Any

import pandas as pd
from IPython.display import HTML

from kaf.choices import check_choice
from kaf.evaluate import summarise
from kaf.explorers.page import explorer

ALL = "mean of the structures"
ABOUT = ("dataset", "scale", "fold", "draw", "seed", "device")  # columns that say where rows come from


def explore_labels(rows: pd.DataFrame, paper: pd.DataFrame | None = None, shown: Collection[str] = ()) -> HTML:
    """Dice of every method against the number ``m`` of labelled patients, per structure, to show and hide.

    ``rows`` have the columns of :data:`kaf.evaluate.COLUMNS`. A point is the mean over patients, a band its 95 %
    bootstrap interval (:func:`kaf.evaluate.summarise`). ``paper`` has a line per published value: ``method``, ``m``,
    ``dice``, where known ``dataset`` and ``sd`` (over folds), and ``setting``, empty for main results; only those
    are drawn, dashed, for the mean of the structures. ``shown`` are the methods that are drawn at first, with the
    colours of :func:`kaf.canvas.looks` in the order of the rows; empty: all. Raises ``ValueError`` for missing
    columns, rows of several data sets or protocols, published values of several data sets, none of them that of the
    rows, or methods in ``shown`` that nothing is known of.
    """
    _check(rows)
    structures = list(rows["structure"].unique())
    groups = {ALL: rows, **{name: rows[rows["structure"] == name] for name in structures if len(structures) > 1}}
    methods = list(rows["method"].unique())
    data = {
        "about": _about(rows), "structures": list(groups), "methods": methods,
        "curves": [[_curve(group[group["method"] == method]) for method in methods] for group in groups.values()],
        "paper": [] if paper is None else _published(paper, rows),
    }
    names = list(dict.fromkeys([*methods, *(line["name"] for line in data["paper"])]))
    for name in shown:
        check_choice("method", name, sorted(names))
    data["shown"] = sorted(set(shown or names))
    data["looks"] = sorted(names, key=lambda name: name not in data["shown"])  # as kaf.canvas.looks of those shown
    return explorer("labels", "Choose a structure and the methods, and compare Dice against the number of labelled "
                              "patients.", data)


def _check(rows: pd.DataFrame) -> None:
    needed = {"method", "m", "patient", "structure", "dice", "missed", "absent"}
    if missing := needed - set(rows):
        raise ValueError(f"rows lack the columns {', '.join(sorted(missing))}")
    if rows.empty or rows["m"].isna().any():
        raise ValueError("there are no rows, or some do not say the number m of labelled patients")
    for column in (c for c in ("dataset", "protocol") if c in rows):
        if rows[column].nunique() > 1:
            raise ValueError(f"the rows mix several values of {column!r}: {', '.join(rows[column].unique())}")


def _curve(rows: pd.DataFrame) -> list[list[float | None]]:
    """``[m, mean, low, high, patients]`` for every ``m``; no ends (None) for a single patient."""
    table = summarise(rows, ["m"], ["dice"]).sort_values("m").dropna(subset="dice")
    return [[int(m), *(None if pd.isna(value) else round(float(value), 4) for value in values), int(patients)]
            for m, *values, patients in table[["m", "dice", "dice_low", "dice_high", "patients"]].itertuples(False)]


def _about(rows: pd.DataFrame) -> str:
    """Where the rows come from, in words: ``phantom; scale smoke; seed 0; ...``."""
    parts = []
    for column in (c for c in ABOUT if c in rows):
        values = sorted(rows[column].dropna().unique())
        text = ", ".join(map(str, values))
        parts.append(text if column in ("dataset", "device") else f"{column}{'s' * (len(values) > 1)} {text}")
    return "; ".join(part for part in parts if part)


def _published(paper: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Published curves: ``name``, ``dataset``, ``points`` ``[m, dice, sd]``."""
    if missing := {"method", "m", "dice"} - set(paper):
        raise ValueError(f"the published values lack the columns {', '.join(sorted(missing))}")
    if "setting" in paper:
        paper = paper[paper["setting"].fillna("") == ""]
    dataset = ""
    if "dataset" in paper and len(paper):
        own = rows["dataset"].iloc[0] if "dataset" in rows else None
        names = list(paper["dataset"].unique())
        if own not in names and len(names) > 1:
            raise ValueError(f"the published values are of {', '.join(names)}, the rows of {own}; select one data set")
        dataset = own if own in names else names[0]
        paper = paper[paper["dataset"] == dataset]
    paper = paper.assign(sd=paper.get("sd")).dropna(subset=["m", "dice"])
    return [{"name": str(name), "dataset": dataset.upper(),
             "points": [[int(m), float(dice), None if pd.isna(sd) else float(sd)]
                        for m, dice, sd in group.sort_values("m")[["m", "dice", "sd"]].itertuples(False)]}
            for name, group in paper.groupby("method", sort=False)]
