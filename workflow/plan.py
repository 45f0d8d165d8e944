"""What is left of a grid, and how long it will take.

A job is done when a record in ``book/records`` holds its run under the configuration that the library resolves today.

Usage: ``python -m workflow.plan [GRID ...]`` prints this for the grids named, or for all.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kaf.choices import check_choice
from kaf.records import FOLDER, Record, read_record
from kaf.study import PROTOCOLS
from workflow.grids import FILE, Job, expand, job_key, load_grids

COLUMNS = ["key", "method", "scale", "dataset", "setting", "seconds", "pretraining_seconds"]


def recorded(records: Iterable[Record]) -> pd.DataFrame:
    """Every recorded run: the ``key`` of its job, what it was, and the seconds that it and its pretraining took."""
    lines = []
    for record in records:
        for name, row in record.rows.groupby("run", sort=False).first().iterrows():
            chain = list(_chain(record.runs[name]))
            protocol = next((key for key, text in PROTOCOLS.items() if text == row["protocol"]), row["protocol"])
            what = {**row, "protocol": protocol, "method": chain[0]["config"]["method"]}
            before = [facts for facts in chain if "method" not in facts["config"]]
            lines.append({
                "key": job_key(what, [facts["config"]["experiment"] for facts in chain]),
                **{name: what[name] for name in ("method", "scale", "dataset", "setting")},
                "seconds": sum(facts["provenance"]["seconds"] for facts in chain if facts not in before),
                "pretraining_seconds": sum(facts["provenance"]["seconds"] for facts in before)})
    return pd.DataFrame(lines, columns=COLUMNS)


def _chain(facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A run and those that it went on from."""
    yield facts
    for name in ("finetuning", "pretraining"):
        if name in facts:
            yield from _chain(facts[name])


def read_records(folder: str | Path) -> list[Record]:
    """All records of runs in a folder."""
    found = []
    for file in sorted(Path(folder).glob("*.csv")):
        facts = file.with_suffix(".json")
        if facts.is_file() and "runs" in json.loads(facts.read_text()):
            found.append(read_record(file.stem, folder))
    return found


class Plan:
    """What is left of a grid: ``jobs`` in all, ``missing`` ones, and the hours that these will take."""

    def __init__(self, name: str, records: str | Path, file: str | Path = FILE):
        grids = load_grids(file)
        check_choice("grid", name, grids)
        self.name, self.jobs = name, expand(grids[name])
        self.known = recorded(read_records(records))
        done = set(self.known["key"])
        self.missing = [job for job in self.jobs if job.key not in done]
        self.pretrainings = list({job.pretraining_key: job for job in self.missing if job.pretraining_key}.values())

    def hours(self) -> float | None:
        """Of one process, from what alike jobs took; None where nothing like one of them was recorded."""
        fine = [self._seconds(job, "seconds") for job in self.missing]
        before = [self._seconds(job, "pretraining_seconds") for job in self.pretrainings]
        return None if None in fine + before else sum(fine + before) / 3600

    def _seconds(self, job: Job, column: str) -> float | None:
        """Mean over recorded runs, of the closest kind there is."""
        alike = self.known[(self.known["scale"] == job.scale) & (self.known[column] > 0)]
        wanted = {"method": job.method, "setting": job.setting, "dataset": job.dataset}
        for names in (("method", "setting", "dataset"), ("method", "dataset"), ("method",), ()):
            found = alike
            for name in names:
                found = found[found[name] == wanted[name]]
            if len(found):
                return float(found[column].mean())
        return None

    def __str__(self) -> str:
        text = (f"grid {self.name}: {len(self.jobs)} runs, {len(self.jobs) - len(self.missing)} recorded, "
                f"{len(self.missing)} to do, which start from {len(self.pretrainings)} pretrainings")
        if not self.missing:
            return text
        hours = self.hours()
        known = "nothing alike was recorded" if hours is None else f"about {hours:.1f} hours of one process"
        return f"{text}; {known}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.plan", description=__doc__.split("\n")[0])
    parser.add_argument("grids", nargs="*", metavar="GRID")
    parser.add_argument("--records", default=FOLDER, help="folder of the records (default: book/records)")
    parser.add_argument("--file", default=FILE, help="file of the grids (default: workflow/grids.yaml)")
    a = parser.parse_args()
    for name in a.grids or load_grids(a.file):
        print(Plan(name, a.records, a.file))


if __name__ == "__main__":
    main()
