"""What the chapters gave when they were last executed: ``book/chapters.json``.

For every chapter the minutes and memory that it takes, and every number that it shows with
:func:`kaf.report.show_numbers`, with how far it may move: processors round differently, and training magnifies that.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaf.files import replacing

FILE = Path(__file__).with_name("chapters.json")
MARGIN = 3  # times what it was seen to move
FLOAT32 = 1e-5  # what a sum of float32 may differ by, relative


def read_chapters(file: Path = FILE) -> dict[str, Any]:
    """By chapter: ``minutes``, ``gigabytes``, and ``numbers`` as ``name: {"value": ..., "tolerance": ...}``."""
    return json.loads(file.read_text()) if file.is_file() else {}


def write_chapters(chapters: Mapping[str, Any], file: Path = FILE) -> None:
    """One number a line, chapters in order."""
    parts = []
    for chapter, facts in sorted(chapters.items()):
        numbers = ",\n".join(f"    {json.dumps(k)}: {json.dumps(number)}" for k, number in facts["numbers"].items())
        head = "".join(f'  "{key}": {json.dumps(facts[key])},\n' for key in ("minutes", "gigabytes"))
        parts.append(f'"{chapter}": {{\n{head}  "numbers": {{\n{numbers}\n  }}\n}}')
    with replacing(file) as draft:
        draft.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def compare(shown: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers that a notebook shows; empty: each is there and within its tolerance."""
    faults = [f"{name} is shown no more" for name in expected if name not in shown]
    for name, value in shown.items():
        if name not in expected:
            faults.append(f"{name} is new")
        elif not distance(value, expected[name]["value"]) <= expected[name]["tolerance"]:
            faults.append(f"{name} is {value}, expected {expected[name]['value']} ± {expected[name]['tolerance']}")
    return faults


def distance(value: Any, other: Any) -> float:
    """Largest difference of two numbers or lists; NaN, which is None, is only near itself."""
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return max(map(distance, value, other), default=0.0)
    if value is None or other is None or isinstance(value, list) or isinstance(other, list):
        return 0.0 if value == other else math.inf
    return abs(value - other)


def update(expected: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """The new values with the tolerances known; a new count must stay, a new float may differ by rounding."""
    return {name: {"value": value, "tolerance": expected[name]["tolerance"] if name in expected else _rounding(value)}
            for name, value in shown.items()}


def widen(expected: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Tolerances of at least MARGIN times the largest distance of any run. What was seen before counts on."""
    found = {}
    for name, number in expected.items():
        moved = MARGIN * max(distance(run[name], number["value"]) for run in runs)
        found[name] = {"value": number["value"], "tolerance": max(number["tolerance"], _up(moved))}
    return found


def _rounding(value: Any) -> float:
    return 0.0 if _is_count(value) else _up(_largest(value) * FLOAT32 + 1e-9)


def _is_count(value: Any) -> bool:
    return all(map(_is_count, value)) if isinstance(value, list) else value is None or isinstance(value, int)


def _largest(value: Any) -> float:
    return max(map(_largest, value), default=0.0) if isinstance(value, list) else abs(value or 0.0)


def _up(tolerance: float) -> float:
    """Rounded up to its first digit."""
    if tolerance == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(tolerance))
    return float(f"{math.ceil(tolerance / unit - 1e-9) * unit:.0e}")
