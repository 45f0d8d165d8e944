"""Recorded runs: what cost more than a page may take, kept as rows and provenance (chapters 5 to 9).

Usage: ``python -m kaf.records RUNS NAME [--into FOLDER] [--note TEXT] [--setting NAME] [--replace]`` gathers the
scored runs in RUNS as ``NAME.csv`` (rows of :data:`kaf.evaluate.COLUMNS`, ``group`` and ``setting``) and ``NAME.json``
(configuration and provenance of every run and of those it went on from). Runs recorded before stay, but for those that
the new ones stand for: the same run, or one of the same method, setting, patients and seed under another
configuration. The command takes the place of such another one with ``--replace`` only.

``setting`` names what a grid of experiments changed, such as ``level 1``; it is empty for the method as it is.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import kaf
from kaf.evaluate import COLUMNS
from kaf.fields import differences
from kaf.files import exclusive, make_writable, read_json, replacing, sync
from kaf.finetune import METHODS
from kaf.report import size_line

FOLDER = Path(kaf.__file__).resolve().parents[1] / "book" / "records"
ASKED = ["run", "protocol", "draw", "fold"]  # a run is scored for each: two folds may label the same patients
KEY = [*ASKED, "patient", "frame", "structure"]  # what tells rows apart
OF_RUN = ["dataset", "protocol", "method", "pretraining", "m", "draw", "fold", "scale", "seed", "device", "run",
          "setting"]
#: Columns of what became of corrupted images (:mod:`kaf.robustness`), one row per patient, corruption and level.
CORRUPTED = [*OF_RUN, "patient", "group", "corruption", "level", "dice", "points", "repeatability", "on_background",
             "entropy"]
SAME = ["dataset", "protocol", "scale", "method", "setting", "m", "draw", "fold", "seed"]  # what a run stands for
TESTED = "tested"  # column of scores.csv: a fingerprint of the images and the truth of the test patients
# No numbers, though some look like it: a patient may be called 001. Empty where there is nothing to say.
WORDS = dict.fromkeys(("dataset", "protocol", "method", "pretraining", "scale", "device", "run", "setting", "patient",
                       "frame", "structure", "group", "corruption", TESTED), str)
KINDS = ("finetune", "selftrain")  # of runs that are scored
DIGITS = 5  # decimals of the metrics; finer than any two runs agree
RESTORE = ("restore both files of the record from a copy, or delete both and record the runs again (python -m "
           "kaf.records RUNS NAME)")


@dataclass(frozen=True)
class Record:
    """Recorded rows and, by the name of its run folder, where each run comes from."""

    rows: pd.DataFrame
    runs: dict[str, dict[str, Any]]

    @property
    def sizes(self) -> list[str]:
        """How large the images and the networks were, and how long these were trained: each kind of run once."""
        return list(dict.fromkeys(size_line(run) for run in self.runs.values()))

    @property
    def label(self) -> str:
        """What a figure of these rows must say: data set, scale, sizes, folds, draws, seeds, device, date."""
        if self.rows.empty:
            return "nothing yet"
        parts = [", ".join(self.rows["dataset"].unique()), "scale " + ", ".join(self.rows["scale"].unique())]
        parts += self.sizes
        for name in ("fold", "draw", "seed"):
            values = sorted(self.rows[name].unique())
            parts.append(f"{name}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}")
        dates = sorted({run["provenance"]["date"] for run in self.runs.values()})
        parts += [", ".join(self.rows["device"].unique()), " to ".join(dict.fromkeys((dates[0], dates[-1])))]
        return "; ".join(parts)


def lineage(run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The facts of a recorded run and of those that it went on from."""
    yield run
    for name in ("finetuning", "pretraining"):
        if name in run:
            yield from lineage(run[name])


class Torn(ValueError):
    """Rows and runs of a record are not of the same moment."""


def read_record(name: str, folder: str | Path = FOLDER) -> Record:
    """The record ``name``. Raises ``FileNotFoundError`` without one, ``ValueError`` where rows and runs disagree.

    Who reads while another process writes may meet one new file and one old: it reads again.
    """
    for seconds in (0.1, 0.5, 2.0):
        with contextlib.suppress(Torn):
            return _read_record(name, folder)
        time.sleep(seconds)
    return _read_record(name, folder)


def _read_record(name: str, folder: str | Path) -> Record:
    file = Path(folder) / f"{name}.csv"
    if not file.is_file() or not file.with_suffix(".json").is_file():
        raise FileNotFoundError(f"no record {name!r} in {folder}: it needs {file.name} and {file.stem}.json, "
                                "which `python -m kaf.records` writes; the committed ones come with the repository")
    rows = read_rows(file, RESTORE)
    columns, key = (CORRUPTED, [*ASKED, "patient", "corruption", "level"]) if "corruption" in rows else (COLUMNS, KEY)
    if missing := [c for c in columns if c not in rows]:
        raise ValueError(f"{file} lacks the columns {', '.join(missing)}; {RESTORE}")
    if not file.read_bytes().endswith(b"\n") or (rows["run"] == "").any():  # half a number is a number, too
        raise ValueError(f"{file} is cut short; {RESTORE}")
    runs = read_json(file.with_suffix(".json"), RESTORE).get("runs")
    if runs is None:
        raise ValueError(f"{file.stem}.json in {folder} is no record of runs; choose another name")
    if strangers := set(rows["run"]) ^ set(runs):
        raise Torn(f"{file} and its JSON name different runs: {', '.join(sorted(strangers))}; {RESTORE}")
    if rows.duplicated(key).any():
        raise ValueError(f"{file} scores a structure twice: {rows[rows.duplicated(key)][key].iloc[0].to_dict()}; "
                         f"{RESTORE}")
    return Record(rows, runs)


def check_name(name: str, folder: str | Path = FOLDER) -> None:
    """Raises ``ValueError`` for a name that no record in ``folder`` may have, such as ``cost``, which is taken."""
    if Path(name).name != name:
        raise ValueError(f"the name of a record is that of a file, such as fewshot, got {name!r}")
    table, facts = (Path(folder) / f"{name}.{kind}" for kind in ("csv", "json"))
    if table.is_file() and not facts.is_file():
        raise ValueError(f"{facts.name} is missing beside {table}: put a copy in its place, or choose another name")
    try:
        content = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {"runs": {}}
    except ValueError:  # who reads the record says what to do
        content = {"runs": {}} if table.is_file() else {}
    if not isinstance(content, dict) or "runs" not in content:
        raise ValueError(f"{facts.name} in {folder} is no record of runs; choose another name")


def read_rows(file: Path, remedy: str = "put a copy in its place, or delete it if it is the scores.csv of a run, which "
              "is scored again then") -> pd.DataFrame:
    """Rows of results; ``setting`` is added where they have none.

    Raises ``ValueError``, with ``remedy`` in it, for a file that holds no table.
    """
    try:
        rows = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=WORDS)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} holds no table ({error}); {remedy}") from None
    rows = rows.fillna({name: "" for name in WORDS if name in rows})
    return rows if "setting" in rows else rows.assign(setting="")


def gather(folder: str | Path, setting: str = "") -> Record:
    """The scored runs in a folder; ``setting`` names what was changed for all of them.

    Raises ``FileNotFoundError`` without any, ``ValueError`` where two are the same.
    """
    files = sorted(file for kind in KINDS for file in Path(folder).glob(f"{kind}-*/scores.csv"))
    if not files:
        raise FileNotFoundError(f"no scored run in {folder}: expected folders {' or '.join(KINDS)}-* with scores.csv")
    found = [of_run(file.parent, setting) for file in files]
    rows = pd.concat([record.rows for record in found], ignore_index=True)
    runs = {name: facts for record in found for name, facts in record.runs.items()}
    return _no_rivals(Record(_in_order(rows), runs))


def _no_rivals(record: Record) -> Record:
    """Raises ``ValueError`` for two runs that stand for the same thing: whoever reads both would take their mean."""
    for what, some in record.rows.groupby(SAME, dropna=False, sort=False)["run"]:
        if len(names := list(some.unique())) > 1:
            facts = ", ".join(f"{name} {value}" for name, value in zip(SAME, what, strict=True) if value != "")
            differ = _differ(*map(record.runs.get, names))
            raise ValueError(f"the runs {' and '.join(names)} stand for the same thing ({facts}), but differ in "
                             f"{', '.join(differ) or 'nothing'}; record one of them by itself and say what was changed "
                             "for it, write_record(of_run(FOLDER, SETTING), NAME), and move its folder away")
    return record


def _differ(*runs: Mapping[str, Any]) -> list[str]:
    """The fields in which the configurations of runs, and of those that they went on from, are not all the same."""
    return [name for name in differences(*runs) if "config" in name.split(".")]


def of_run(folder: Path, setting: str = "", rows: pd.DataFrame | None = None) -> Record:
    """One scored run, with those of its ``rows`` that are given, or all; ``setting`` names what was changed for it."""
    if rows is None:
        file = folder / "scores.csv"
        rows = read_rows(file).drop(columns=TESTED, errors="ignore")
        if rows.empty or (missing := [c for c in COLUMNS if c not in rows]):
            lacks = "rows" if rows.empty else f"the columns {', '.join(missing)}"
            raise ValueError(f"{file} lacks {lacks}; delete it, the run is scored again")
    return Record(rows.assign(setting=setting), {folder.name: _facts(folder)})


def of_corrupted(run: Record, rows: pd.DataFrame, **facts: Any) -> Record:
    """What :func:`kaf.robustness.evaluate_corrupted` found for one scored run: means over frames.

    ``facts``, such as seconds, are kept beside those of the run.
    """
    by = ["patient", "group", "corruption", "level"]
    means = rows.groupby(by, sort=False).mean(numeric_only=True).reset_index()
    means = means.assign(**{name: run.rows[name].iloc[0] for name in OF_RUN})[CORRUPTED]
    return Record(means, {name: {**found, **facts} for name, found in run.runs.items()})


def read_records(folder: str | Path = FOLDER) -> list[Record]:
    """All records of runs in a folder; those of benchmarks and facts are others."""
    files = sorted(file.with_suffix("") for file in Path(folder).glob("*.json"))
    names = [file.name for file in files if file.with_suffix(".csv").is_file()
             and "runs" in read_json(file.with_suffix(".json"))]
    return [read_record(name, folder) for name in names]


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods as they are listed in :data:`kaf.finetune.METHODS`, unknown ones last; settings as they came."""
    place = {method.name: n for n, method in enumerate(METHODS.values())}
    settings = {name: n for n, name in enumerate(rows["setting"].unique())}
    rows = rows.assign(order=rows["method"].map(lambda name: place.get(name, len(place))),
                       turn=rows["setting"].map(settings))
    order = ["order", "turn", "m", "draw", "fold", "seed"]
    return rows.sort_values(order, kind="stable", ignore_index=True).drop(columns=["order", "turn"])


def _facts(folder: Path) -> dict[str, Any]:
    """Configuration and provenance of a run, and of those that it went on from."""
    facts = {name: read_json(folder / f"{name}.json") for name in ("config", "provenance")}
    for key, name in (("pretrained", "pretraining"), ("source", "finetuning")):
        if source := facts["config"].get(key):
            facts[name] = _facts(folder.parent / source)
    return facts


def write_record(record: Record, name: str, folder: str | Path = FOLDER, note: str = "", replace: bool = True) -> None:
    """Add ``record`` to the record ``name`` in ``folder``, creating it; ``note`` is kept beside the new runs.

    Several processes may add to one record: each waits for the others. ``ValueError`` where two runs are the same,
    where ``name`` is that of another file and, with ``replace=False``, where recorded runs of another configuration or
    setting would go.
    """
    check_name(name, folder)
    file = Path(folder) / f"{name}.csv"
    runs = {run: {**facts, **({"note": note} if note else {})} for run, facts in record.runs.items()}
    rows = _no_rivals(record).rows
    make_writable(file.parent)
    with exclusive(file.parent):
        if file.is_file():
            before = read_record(name, folder)
            if not replace and (gone := _others(before, record)):
                raise ValueError(f"{file} holds {len(gone)} of another configuration or setting that would be lost: "
                                 f"{_some(gone)}; give --replace if they may go, --setting NAME to keep them beside "
                                 "the new ones, or another name of a record")
            before = _without(before, rows)
            rows = _in_order(pd.concat([before.rows, rows], ignore_index=True))
            runs = {**before.runs, **runs}
        elif (facts := file.with_suffix(".json")).is_file() and (lost := read_json(facts)["runs"].keys() - runs.keys()):
            # A first write that was killed between its two files left the runs that are written now, and no others.
            raise ValueError(f"{file} is missing beside {facts.name}, which names {len(lost)} other runs: "
                             f"{_some(sorted(lost))}; put a copy in its place, or delete {facts.name}")
        rows = rows.round(dict.fromkeys(rows.select_dtypes("float"), DIGITS))
        with replacing(file) as draft:  # nothing but renaming lies between the two
            rows.to_csv(draft, index=False)
            sync(draft)
            _write_runs(file.with_suffix(".json"), runs)


def _write_runs(file: Path, runs: dict[str, dict[str, Any]]) -> None:
    """JSON with one run a line: a third of the size, and a new run is a new line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in runs.items())
    with replacing(file) as draft:
        draft.write_text(f'{{"runs": {{\n{lines}\n}}}}\n')


def _without(record: Record, rows: pd.DataFrame) -> Record:
    """A record without the runs that ``rows`` hold, or hold anew under another configuration."""
    gone = np.zeros(len(record.rows), bool)
    for columns in (SAME, ASKED):
        old, new = (pd.MultiIndex.from_frame(table[columns]) for table in (record.rows, rows))
        gone |= old.isin(new)
    kept = record.rows[~gone]
    return Record(kept, {run: record.runs[run] for run in kept["run"].unique()})


def _others(before: Record, record: Record) -> list[str]:
    """The runs that ``record`` would take the place of and that are others: names, with what is other about them."""
    columns = list(dict.fromkeys([*SAME, *ASKED]))
    old, new = (table.rows[columns].drop_duplicates() for table in (before, record))
    found = {}
    for run, other in old.merge(new, on=SAME, suffixes=("", "_new"))[["run", "run_new"]].itertuples(index=False):
        if differ := _differ(before.runs[run], record.runs[other]):
            found[run] = f"{run} ({', '.join(differ)})"
    for line in old.merge(new, on=ASKED, suffixes=("", "_new")).itertuples():
        if line.setting != line.setting_new:
            found[line.run] = f"{line.run} (setting {line.setting!r}, not {line.setting_new!r})"
    return list(found.values())


def _some(names: list[str], most: int = 5) -> str:
    """Names in a line, which has no room for hundreds."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kaf.records", description=__doc__.split("\n")[0])
    parser.add_argument("runs", help="folder of run folders")
    parser.add_argument("name", help="name of the record, such as fewshot")
    parser.add_argument("--into", default=FOLDER, help="folder of the record (default: book/records)")
    parser.add_argument("--note", default="", help="what a reader must know about these runs")
    parser.add_argument("--setting", default="", help="what was changed for these runs, such as 'level 1'")
    parser.add_argument("--replace", action="store_true", help="let recorded runs of another configuration go")
    options = parser.parse_args()
    try:
        record = gather(options.runs, options.setting)
        write_record(record, options.name, options.into, options.note, options.replace)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(record.runs)} runs, {len(record.rows)} rows added to {options.name}")


if __name__ == "__main__":
    main()
