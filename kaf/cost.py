"""What the benchmarks measured: seconds and memory, kept in ``cost.json`` beside the recorded runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaf.files import read_json
from kaf.records import FOLDER

COST = FOLDER / "cost.json"


@dataclass(frozen=True)
class Cost:
    """What one benchmark measured: rows, machine, date (ISO) and settings."""

    rows: pd.DataFrame
    machine: dict[str, Any]
    date: str
    settings: dict[str, Any]

    @property
    def label(self) -> str:
        """What a figure of these rows must say: machine and date."""
        on_gpu = str(self.settings.get("device", "cpu")).startswith("cuda")
        where = self.machine["gpu"] or "no GPU" if on_gpu else f"{self.machine['cpu']}, {self.machine['cores']} cores"
        return f"{where}; torch {self.machine['torch']}; {self.date}"


def read_costs(file: str | Path = COST) -> dict[str, Cost]:
    """Everything that the benchmarks recorded, by the name of the benchmark. Raises ``FileNotFoundError``."""
    found = read_json(file)
    return {name: Cost(**{**part, "rows": pd.DataFrame(part["rows"])}) for name, part in found.items()}
