"""Markdown of the page "Claims and evidence", line by line."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isnan

from kaf.noise import NoiseByPlace, in_words, noise_floor
from kaf.report import p_value, signed
from kaf.verdicts import Comparison


def anchor(key: str) -> str:
    """The name by which other places link to an entry."""
    return f"entry-{key.lower()}"


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of the page, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def comparison_table(found: list[Comparison], noise: NoiseByPlace) -> list[str]:
    """Comparisons as lines, a table for each data set and scale, beside the noise floor where ``noise`` has one."""
    lines = []
    head = ["", "verdict", "difference in Dice (95 % over patients)", "p (Holm)", "95 % over trainings", "noise floor",
            "patients", "trainings"]
    known = list(dict.fromkeys(c.place.setup for c in found))
    for at, some in groupby(sorted(found, key=lambda c: known.index(c.place.setup)), key=lambda c: c.place.setup):
        rows = [head]
        for c in some:
            floor, (low, high) = noise_floor(c, noise), c.over_runs
            told = in_words(c, noise) if c.testable else "too few patients to show any"
            here = ", ".join([f"M = {c.place.m}", *c.place.details]
                             + [f"{c.steps} steps"] * bool(c.steps and " steps" not in c.reference))
            p = p_value(c.p).replace("-", "\u2011")  # a hyphen at which no line breaks
            rows.append([f"{c.label} against {c.reference}, {here}", told,
                         f"{signed(c.difference)} ({signed(c.low)} to {signed(c.high)})", p,
                         "" if isnan(low) else f"{signed(low)} to {signed(high)}",
                         "related" if c.related else "" if isnan(floor) else f"{floor:.3f}", str(c.patients),
                         str(c.runs)])
        said = [cells for cells in zip(*rows, strict=True) if any(cells[1:])]  # columns that say something
        first, *others = zip(*said, strict=True)
        lines += ["", f"On {at}:", "", *table_lines(first, others)]
    return lines
