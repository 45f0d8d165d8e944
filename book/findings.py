"""What the recorded runs say about an entry of the page "Claims and evidence"."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from book.entries import PARTS, Entry
from book.evidence import evidence
from book.names import SCRATCH
from kaf.config import restore
from kaf.finetune import get_method
from kaf.noise import NoiseByPlace, below_floor, noise_by_place, noise_floor
from kaf.records import FOLDER, Record, lineage
from kaf.verdicts import Comparison, Place, comparisons, corrected, labelled, lost_dice, overall
from workflow.plan import Plan

OPEN = "Open: nothing is recorded under today's configuration."
ALONE = "for these trained networks alone"  # where it may be the luck of trainings
Pair = tuple[frozenset[str], Place, float]
ENTRIES = tuple(entry for entries in PARTS.values() for entry in entries)
FAIR = ": as many steps"  # of a reference that was trained for as long as both trainings of the other side


@cache
def measure(entry: Entry, records: Path, without: frozenset[str] = frozenset()) -> list[Comparison]:
    """All comparisons of an entry, their p values corrected together; made once. Patients ``without`` do not count.

    Of a comparison that stands in several entries of the page, all have the largest of its p values.
    """
    largest = _largest_p(records, without, ENTRIES)
    return [replace(c, p=max(c.p, largest.get(_pair(c), 0.0))) for c in _corrected(entry, records, without)]


def settled(found: Iterable[Comparison], records: Path = FOLDER) -> list[Comparison]:
    """Comparisons with the p values of the page, so that the book has one verdict of each.

    Those that the page does not have are corrected for the number of all that are given.
    """
    found = corrected(found)
    asked = {frozenset((c.label, c.reference)) for c in found}
    entries = tuple(entry for entry in ENTRIES if asked & {
        frozenset((label, trial.reference)) for trial in entry.trials for label in trial.labels})
    known = _largest_p(records, frozenset(), entries)  # of others there is nothing to know
    return [replace(c, p=known.get(_pair(c), c.p)) for c in found]


def _pair(c: Comparison) -> Pair:
    """What a comparison shares with the same one elsewhere, from whichever side that is told.

    Its size tells it from one of the same names in another grid, whose trainings were longer, for instance.
    """
    return frozenset((c.label, c.reference)), c.place, round(abs(c.difference), 9)


@cache
def _largest_p(records: Path, without: frozenset[str], entries: tuple[Entry, ...]) -> dict[Pair, float]:
    found: dict[Pair, float] = {}
    for entry in entries:
        for c in _corrected(entry, records, without):
            found[_pair(c)] = max(c.p, found.get(_pair(c), 0.0))
    return found


@cache
def _corrected(entry: Entry, records: Path, without: frozenset[str]) -> list[Comparison]:
    found = []
    for trial in entry.trials:
        rows = evidence(trial.grid, records).rows
        rows = rows[~rows["patient"].isin(without)]
        for group in sorted(set(rows["group"]) - {""}) if entry.by_group else [""]:
            some = rows[rows["group"] == group] if group else rows
            lines = [line for label in trial.labels for line in lost_dice(some, label, trial.reference)] \
                if trial.hardest and len(some) else comparisons(some, trial.labels, trial.reference)
            found += [replace(line, place=line.place._replace(about=group)) if group else line for line in lines]
    return corrected(found)


def verdict_of(entry: Entry, found: list[Comparison], noise: NoiseByPlace) -> str:
    """The verdict in words: of a claim whether it holds, of a question what the comparisons say.

    Where some references were trained for as many steps in all as the other side, and some were not, it has two parts.
    It is limited to the trained networks where no difference that is shown holds over trainings. A claim is not shown
    where all of these differences are below the noise floor, too.
    """
    said = overall(found)
    if said == "open":
        return OPEN
    fair = [c for c in found if c.reference.endswith(FAIR) and not c.related]  # who goes on from it trains longer
    if fair and len(fair) < len(found):
        other = [c for c in found if c not in fair]
        return (f"{overall(other).capitalize()}{_limits(other)}; beside as many steps in all: "
                f"{overall(fair)}{_limits(fair)}.")
    if not entry.claim or said == "mixed":
        return f"{said.capitalize()}{_limits(found)}."
    if said == "no difference shown":
        return "Not shown."
    holds = "Supported" if said.startswith(entry.claim) else "Contradicted"
    some = " in some comparisons, not shown in others" if said.endswith("some") else ""
    limits = _limits(found)
    if limits and all(below_floor(c, noise) for c in found if c.shown):
        return f"Not shown beyond the luck of trainings; {holds.lower()} over these patients{some}."
    return f"{holds}{some}{limits}."


def _limits(found: list[Comparison]) -> str:
    """What limits a verdict to the trained networks; empty where a difference that is shown holds over trainings."""
    shown = [c for c in found if c.shown]
    return f", {ALONE}" if shown and not any(c.runs > 1 and c.trainings_agree for c in shown) else ""


def luck_of(found: list[Comparison], noise: NoiseByPlace) -> tuple[str, str]:
    """How many of the differences that are shown hold over trainings, too, and how many are below the noise floor.

    Each as ``2 of 3``: of those of which it is known. Empty where it is known of none.
    """
    shown = [c for c in found if c.shown]
    several = [c.trainings_agree for c in shown if c.runs > 1]
    below = [below_floor(c, noise) for c in shown if not isnan(noise_floor(c, noise))]
    hold, small = (f"{sum(some)} of {len(some)}" if some else "" for some in (several, below))
    return hold, small


@cache
def luck(records: Path) -> NoiseByPlace:
    """The noise between trainings, from the grid that measures it; made once."""
    return noise_by_place(evidence("seeds", records).rows)


@cache
def planned(grid: str, records: Path) -> pd.DataFrame:
    """All runs of a grid: their ``label``, and whether they are ``recorded``."""
    plan = Plan(grid, records)
    missing = {job.key for job in plan.missing}
    jobs = [(get_method(job.method).name, job.setting, job.key not in missing) for job in plan.jobs]
    return labelled(pd.DataFrame(jobs, columns=["method", "setting", "recorded"]))


def still_open(entry: Entry, records: Path) -> str:
    """Which runs of an entry the grids have and the records do not yet; empty where all are recorded."""
    wanted: dict[str, set[str]] = {}
    for trial in entry.trials:
        wanted.setdefault(trial.grid, set()).update((*trial.labels, trial.reference))
    runs = pd.concat([planned(grid, records)[lambda table, names=names: table["label"].isin(names)]
                      for grid, names in wanted.items()]) if wanted else pd.DataFrame({"recorded": []})
    missing = runs[~runs["recorded"].astype(bool)]
    if missing.empty:
        return ""
    each = ", ".join(f"{label} ({len(some)})" for label, some in missing.groupby("label", sort=False))
    return f"Not recorded yet, {len(missing)} of {len(runs)} runs: {each}."


def as_it_is(entry: Entry, grid: str, records: Path) -> list[str]:
    """What networks with KAF layers are without a setting, a sentence each, where settings are compared with them."""
    rows, runs = evidence(grid, records).rows, evidence(grid, records).runs
    references = {trial.reference for trial in entry.trials if trial.grid == grid and trial.reference.startswith("KAF")
                  and any(label.startswith(f"{trial.reference}: ") for label in trial.labels)}
    said = []
    for name in sorted(references) if len(rows) else []:
        own = labelled(rows)[lambda table, name=name: table["label"] == name]
        for dataset, some in own.groupby("dataset", sort=False):
            facts = ", ".join(_facts_of(runs[some["run"].iloc[0]]))
            said.append(f"{name} as it is, in `{grid}` on {dataset}: {facts}.")
    return said


def _facts_of(run: Mapping[str, Any]) -> Iterator[str]:
    """What settings of grids change, as a recorded run has it."""
    chain = [facts["config"]["experiment"] for facts in lineage(run)]
    e, before = restore(chain[0]), [restore(found).pretrain for found in chain if found.get("pretrain")]
    yield f"{e.data.points} keypoints of {e.data.detector.upper()} a slice at most"
    yield f"layers behind levels {', '.join(str(level + 1) for level in e.kaf.levels)}, {e.kaf.depth} blocks deep"
    for pretrain in before:
        yield f"weights {', '.join(f'{w:g}' for w in pretrain.weights)} of L_pcl, L_global and L_local"
        unit = "mm" if e.data.spacing_mm else "px"
        yield f"a matching window of {pretrain.match_px * (e.data.spacing_mm or 1):g} {unit}"
    optim = e.finetune.optim
    yield f"{optim.epochs} epochs of fine-tuning" if optim.epochs else f"{optim.steps} steps of fine-tuning"


def sizes_of(entry: Entry, grid: str, records: Path) -> list[str]:
    """How large and how long trained the runs of a grid were that the entry compares."""
    record = evidence(grid, records)
    compared = {name for trial in entry.trials if trial.grid == grid for name in (*trial.labels, trial.reference)}
    names = compared or {SCRATCH}  # whom findings in words are about
    own = labelled(record.rows)[lambda table: table["label"].isin(names)]["run"].unique() if len(record.rows) else ()
    return Record(record.rows, {run: record.runs[run] for run in own}).sizes
