"""What is left of a grid, and how long it will take.

A job is done when a record in ``book/records`` holds its run under the configuration that the library resolves today.

Usage: ``python -m workflow.plan [GRID ...]`` prints this for the grids named, or for all.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from kaf.config import digest, training_part
from kaf.files import exclusive, make_writable
from kaf.protocols import PROTOCOLS
from kaf.records import ASKED, FOLDER, KEY, OF_RUN, Record, check_name, lineage, read_records
from kaf.study import configurations
from workflow.grids import FILE, Job, expand, get_grid, job_key, load_grids

COLUMNS = ["key", *ASKED, "levels", "method", "scale", "dataset", "setting", "seconds", "pretraining_seconds",
           "corrupting_seconds", "steps", "pretraining_steps"]


def recorded(records: Iterable[Record]) -> pd.DataFrame:
    """Every recorded run: the ``key`` of its job, what it was, seconds and steps of its training and its pretraining.

    ``levels`` are the corruptions and levels that it was scored under, empty for the images as they are.
    """
    lines = []
    for record in records:
        for (name, *asked), rows in record.rows.groupby(ASKED, sort=False):
            chain, what = list(lineage(record.runs[name])), _what(rows.iloc[0], record.runs[name])
            before = [facts for facts in chain if "method" not in facts["config"]]
            own = [facts for facts in chain if facts not in before]
            levels = frozenset(rows.get(["corruption", "level"], pd.DataFrame()).itertuples(index=False, name=None))
            lines.append({
                "key": job_key(what, [facts["config"]["experiment"] for facts in chain]), "levels": levels,
                **dict(zip(ASKED, (name, *asked), strict=True)),
                **{column: what[column] for column in ("method", "scale", "dataset", "setting")},
                "seconds": sum(facts["provenance"]["seconds"] for facts in own),
                "pretraining_seconds": sum(facts["provenance"]["seconds"] for facts in before),
                "corrupting_seconds": chain[0].get("seconds", 0.0),
                "steps": _steps(facts["config"]["experiment"] for facts in own),
                "pretraining_steps": _steps(facts["config"]["experiment"] for facts in before)})
    return pd.DataFrame(lines, columns=COLUMNS)


def read_recorded(folder: str | Path) -> list[tuple[Record, pd.DataFrame]]:
    """The records of a folder, each with its lines of :func:`recorded`; read again only where a file has changed.

    They are shared: who changes them takes a copy.
    """
    files = sorted(file for file in Path(folder).glob("*.*") if file.suffix in (".csv", ".json"))
    return _read_recorded(Path(folder), tuple((file.name, *_stamp(file)) for file in files))


@lru_cache(maxsize=1)  # every grid asks for all records
def _read_recorded(folder: Path, _stamps: tuple[tuple[str, int, int, int], ...]) -> list[tuple[Record, pd.DataFrame]]:
    return [(record, recorded([record])) for record in read_records(folder)]


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def recorded_keys(records: str | Path = FOLDER) -> set[str]:
    """Keys of the jobs recorded in a folder, on the images as they are. Waits for who writes there."""
    make_writable(Path(records))
    with exclusive(records):
        known = recorded(read_records(records))
    return set(known.loc[~known["levels"].astype(bool), "key"])


def _steps(chain: Iterable[Mapping[str, Any]]) -> int:
    """Steps of runs with these configurations in all; 0 where one counts passes over its data instead."""
    optims = [next(c[part] for part in ("selftrain", "finetune", "pretrain") if c.get(part))["optim"]
              for c in chain]
    return 0 if any(optim["epochs"] for optim in optims) else sum(optim["steps"] for optim in optims)


def _network(facts: Mapping[str, Any]) -> str:
    """A hash of the fine-tuning that made the network of a run, or that this went on from by self-training.

    What is done to predictions afterwards is left out, and so is the store, whose format may have changed meanwhile.
    """
    tuned = [before["config"] for before in lineage(facts) if "method" in before["config"]][-1]
    return digest({**tuned, "experiment": training_part(tuned["experiment"]), "store": None})


def _what(row: pd.Series, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The axes of a recorded run by their keys; rows have the names that readers see."""
    protocol = next((key for key, text in PROTOCOLS.items() if text == row["protocol"]), row["protocol"])
    return {**row, "protocol": protocol, "method": facts["config"]["method"]}


def _training_key(job: Job) -> str:
    """The same for jobs that differ only in how their trained network is used."""
    return job_key(asdict(job), [training_part(c) for c in configurations(job.experiment, job.method)])


class Plan:
    """What is left of a grid: ``jobs`` in all, ``missing`` ones, and the hours that these will take.

    Raises ``ValueError`` for an unknown grid, one with a mistake in it, and one with a name that no record may have.
    """

    def __init__(self, name: str, records: str | Path, file: str | Path = FILE):
        grid = get_grid(name, file)
        check_name(name, records)  # which is that of the record, found out before any training
        self.name, self.jobs = name, expand(grid)
        self.levels = grid.get("levels", {})  # of corruption, where the grid is about it
        self.records = read_recorded(records)
        self.known = pd.concat([recorded([]), *(lines for _, lines in self.records if len(lines))], ignore_index=True)
        wanted = {(kind, float(level)) for kind, levels in self.levels.items() for level in levels}
        same_kind = self.known[self.known["levels"].astype(bool) == bool(wanted)]
        done = {line.key for line in same_kind.itertuples() if line.levels >= wanted}
        self.missing = [job for job in self.jobs if job.key not in done]
        self.pretrainings = list({job.pretraining_key: job for job in self.missing if job.pretraining_key}.values())

    def hours(self) -> float | None:
        """Of one process, from what alike jobs took; None where nothing like one of them was recorded.

        Networks that are corrupted count as if they were to be trained first; those that several jobs use in different
        ways are trained once, if one process does these jobs.
        """
        trainings = {_training_key(job): job for job in self.missing}.values()
        fine = [self._seconds(job, "seconds") for job in trainings]
        before = [self._seconds(job, "pretraining_seconds") for job in self.pretrainings]
        after = [self._seconds(job, "corrupting_seconds") or 0.0 for job in self.missing if self.levels]
        return None if None in fine + before else sum(fine + before + after) / 3600

    def _seconds(self, job: Job, column: str) -> float | None:
        """Mean over recorded runs of the closest kind there is, as if they had been trained for as many steps."""
        alike = self.known[(self.known["scale"] == job.scale) & (self.known[column] > 0)]
        wanted = {"method": job.method, "setting": job.setting, "dataset": job.dataset}
        for names in (("method", "setting", "dataset"), ("method", "dataset"), ("method",), ()):
            found = alike
            for name in names:
                found = found[found[name] == wanted[name]]
            if len(found):
                return float((found[column] * self._times_longer(job, column, found)).mean())
        return None

    def _times_longer(self, job: Job, column: str, found: pd.DataFrame) -> pd.Series | float:
        """How many times as many steps a job trains for as recorded runs did; 1 where one of them counts otherwise."""
        if column == "corrupting_seconds":
            return 1.0
        pretraining = column == "pretraining_seconds"
        steps = _steps(c for c in configurations(job.experiment, job.method) if bool(c["pretrain"]) == pretraining)
        recorded_steps = found[column.replace("seconds", "steps")]
        return steps / recorded_steps if steps and recorded_steps.all() else 1.0

    def __str__(self) -> str:
        text = (f"grid {self.name}: {len(self.jobs)} runs, {len(self.jobs) - len(self.missing)} recorded, "
                f"{len(self.missing)} to do, which start from {len(self.pretrainings)} pretrainings")
        if not self.missing:
            return text
        hours = self.hours()
        known = "nothing alike was recorded" if hours is None else f"about {hours:.1f} hours of one process"
        return f"{text}; {known}"


def evidence(name: str, records: str | Path = FOLDER, file: str | Path = FILE) -> Record:
    """The recorded rows of a grid's jobs in their order, under the names of their settings in the grid, and their runs.

    A column ``steps`` says for how many steps each was fine-tuned; 0 where passes over the data were counted instead.
    A column ``network`` names the training: runs that share it have the same fine-tuned network, or go on from it.

    Rows of another configuration than the library resolves today are left out: they are no evidence about it.
    """
    plan, tables, runs = Plan(name, records, file), [], {}
    settings = {job.key: job.setting for job in plan.jobs}
    for record, lines in plan.records:
        lines = lines[lines["key"].isin(list(settings)) & (lines["levels"].astype(bool) == bool(plan.levels))]
        rows = record.rows.merge(lines[[*ASKED, "key"]], on=ASKED)  # keeps the order of the rows
        if len(rows):  # a record of another kind has columns of its own
            keys = rows.pop("key")
            own = {run: record.runs[run] for run in rows["run"].unique()}
            tunings = {run: {"finetune": facts["config"]["experiment"]["finetune"]} for run, facts in own.items()}
            steps = {run: _steps([tuning]) for run, tuning in tunings.items()}
            networks = {run: _network(facts) for run, facts in own.items()}
            tables.append(rows.assign(setting=keys.map(settings), place=keys.map(list(settings).index),
                                      steps=rows["run"].map(steps), network=rows["run"].map(networks)))
            runs |= own
    found = pd.concat(tables) if tables else pd.DataFrame(columns=[*OF_RUN, "patient", "group", "place", "steps"])
    found = found.sort_values("place", kind="stable").drop(columns="place")
    key = [c for c in (*KEY, "corruption", "level") if c in found]
    return Record(found.drop_duplicates(key, ignore_index=True), runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.plan", description=__doc__.split("\n")[0])
    parser.add_argument("grids", nargs="*", metavar="GRID")
    parser.add_argument("--records", default=FOLDER, help="folder of the records (default: book/records)")
    parser.add_argument("--file", default=FILE, help="file of the grids (default: workflow/grids.yaml)")
    a = parser.parse_args()
    try:
        for name in a.grids or load_grids(a.file):
            print(Plan(name, a.records, a.file))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
