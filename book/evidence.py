"""What is recorded of a grid, for the page "Claims and evidence"."""

from functools import cache
from pathlib import Path

from kaf.records import Record
from workflow import plan


@cache
def evidence(grid: str, records: Path) -> Record:
    """What is recorded of a grid (:func:`workflow.plan.evidence`), read once."""
    return plan.evidence(grid, records)
