"""Run folders: configuration, provenance, log and checkpoint of one training run (chapters 5 and 6).

A run folder is found again by the configuration in its name and refuses any other one, so that running
the same thing twice resumes or returns at once, and nothing is ever overwritten. Where several processes
train together all of them read, and the first one writes. Two that do not know of each other cannot train in one
folder (:meth:`Run.alone`); any number may read it.
"""

import contextlib
import csv
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import kaf
from kaf.files import append_line, exclusive, make_writable, read_json, replacing, sync, whole_lines, write_json
from kaf.processes import rank


class Run:
    """One run folder: ``config.json``, ``provenance.json``, ``log.csv``, ``checkpoint.pt``.

    What is known about the ``data`` besides the configuration is kept in ``data.json``. Raises ``ValueError`` where
    ``folder`` holds a run of another configuration, ``OSError`` where a new run cannot be written into it.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any], data: Mapping[str, Any] | None = None):
        self.folder = Path(folder)
        self.config = json.loads(json.dumps(config))  # tuples become lists, as they will be read back
        file = self.folder / "config.json"
        if rank() == 0 and not file.is_file():
            make_writable(self.folder)
            with exclusive(self.folder):  # or another process that begins the same would take drafts for left behind
                if not file.is_file():
                    if data is not None:
                        write_json(self.folder / "data.json", data)
                    write_json(file, self.config)
        if file.is_file():
            self._check(read_json(file))

    def _check(self, found: dict) -> None:
        if found != self.config:
            keys = sorted(k for k in found.keys() | self.config.keys() if found.get(k) != self.config.get(k))
            raise ValueError(f"{self.folder} holds a run with another configuration (differs in "
                             f"{', '.join(keys)}); choose another folder, or delete this one")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def alone(self) -> AbstractContextManager[None]:
        """Keep every other process from training in this folder, until the block or this process ends.

        Raises ``BlockingIOError`` where another one trains there. Of several processes that train together the first
        one holds it for all.
        """
        if rank() > 0:
            return contextlib.nullcontext()
        return exclusive(self.folder, f"{self.folder} is in use: another process trains there. Wait until it has "
                         "ended, or end it; then run the same again, it continues")

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint at once: a run killed while writing keeps the one before."""
        if rank() > 0:
            return
        log = self.folder / "log.csv"
        if log.is_file():
            sync(log)  # or a power cut could leave a checkpoint that knows more than the log
        self.keep(self.checkpoint, state)

    def keep(self, file: Path, content: Any) -> None:
        """Write what :func:`torch.save` can into a file of this folder, whole or not at all."""
        # Into an open file: given a name, torch does not say why it failed.
        with replacing(file) as draft, draft.open("wb") as out:
            torch.save(content, out)

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The last checkpoint, or None. Raises ``ValueError`` for a file that is no checkpoint or is damaged."""
        file = self.checkpoint
        if not file.is_file():
            return None
        try:
            state = torch.load(file, map_location=device, weights_only=True)
            missing = {"step", "steps", "model"} - set(state)
        except OSError:
            raise  # it says why itself, and the file may be sound
        except Exception as error:
            raise ValueError(f"{file} cannot be read: with {file.stat().st_size} bytes it is cut short, damaged, or no "
                             "checkpoint; put a copy in its place, or delete it to start this run again") from error
        if missing:
            raise ValueError(f"{file} is no checkpoint of a run, it lacks {', '.join(sorted(missing))}; put a copy "
                             "in its place, or delete it to start this run again")
        return state

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights. Raises ``ValueError`` where the run is unfinished."""
        state = self.load()
        if state is None or state["step"] < state["steps"]:
            done = f"{state['step']} of {state['steps']} steps" if state else "no checkpoint"
            raise ValueError(f"{self.folder} is unfinished ({done}); run the same again, it continues")
        return state["model"]

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to ``log.csv``; the first row names the columns, later ones may leave some empty.

        Raises ``ValueError`` for a column that the first row did not have.
        """
        if rank() > 0:
            return
        file = self.folder / "log.csv"
        columns = None
        if file.is_file():
            with file.open(newline="") as source:
                columns = next(csv.reader(source), None)
        append_line(file, _csv_text(columns or list(row), [row], header=not columns))

    def rewind_log(self, step: int) -> None:
        """Forget rows at or after ``step``, which a resumed run writes again, and a last row cut short."""
        file = self.folder / "log.csv"
        if rank() > 0 or not file.is_file():
            return
        reader = csv.DictReader(whole_lines(file))
        rows = [row for row in reader if int(row["step"]) < step]
        if rows:
            with replacing(file) as draft:
                draft.write_text(_csv_text(reader.fieldnames, rows, header=True) + "\n")
        else:  # from the start: the first row names the columns anew
            file.unlink()

    def history(self) -> Any:
        """The log as a table, without a row that is being written. Raises ``FileNotFoundError`` where there is none."""
        import pandas as pd

        return pd.read_csv(io.StringIO("\n".join(whole_lines(self.folder / "log.csv"))))

    def begin(self, facts: Mapping[str, Any], goes_on: bool) -> None:
        """Write ``facts``, such as :func:`provenance`, as what makes this run from here on.

        Where it ``goes_on`` from a checkpoint of another commit or device, the facts before are kept in ``earlier``.
        """
        file = self.folder / "provenance.json"
        before = read_json(file) if goes_on and file.is_file() else {}
        earlier = before.pop("earlier", [])
        if before and any(before.get(name) != facts[name] for name in ("commit", "device")):
            earlier.append(before)
        if rank() == 0:
            write_json(file, {**facts, **({"earlier": earlier} if earlier else {})})

    def finish(self, state: Mapping[str, Any]) -> None:
        """Add to the provenance what a finished run took, unless it is there; ``state`` is its last checkpoint."""
        file = self.folder / "provenance.json"
        if file.is_file() and "seconds" not in read_json(file):
            peak = state.get("peak_memory_mb", float("nan"))  # which older checkpoints lack
            self.add_provenance(seconds=round(state["seconds"], 1), steps=state["steps"], peak_memory_mb=round(peak, 0))

    def add_provenance(self, **facts: Any) -> dict[str, Any]:
        """Write what made this run: versions, machine kind, ``facts``. Returns it."""
        file = self.folder / "provenance.json"
        found = read_json(file) if file.is_file() else provenance()
        found.update(facts)
        if rank() == 0:
            write_json(file, found)
        return found


def _csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool) -> str:
    """Rows as lines of CSV, without the end of the last."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().removesuffix("\n")


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], file: Path) -> None:
    """Copy the weights that were read from ``file`` into ``module``.

    Raises ``ValueError`` where they belong to another network, and says in what the two differ.
    """
    both = module.state_dict(), weights
    ours, theirs = ({name: tuple(value.shape) for name, value in part.items()} for part in both)
    differences = [f"{name} is {_shape(theirs.get(name))} there, {_shape(ours.get(name))} here"
                   for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{file} holds the weights of another network: {'; '.join(differences[:3])}{more}. Choose the "
                         "network that it was trained with, or another run folder")
    module.load_state_dict(weights)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a number"


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Versions, date, kind of machine; no user, no host, no paths."""
    import cv2
    import monai
    import numpy

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "kaf": kaf.__version__, "commit": commit(), "python": platform.python_version(),
        "torch": torch.__version__, "numpy": numpy.__version__, "opencv": cv2.__version__,
        "monai": monai.__version__, "system": platform.system(), "device": name,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
    }


def commit() -> str:
    """Short commit of the checkout that ``kaf`` runs from, ``+`` if changed, empty outside a checkout."""
    here = Path(kaf.__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        top = git("rev-parse", "--show-toplevel")
        if not top or Path(top).resolve() != here.parent:  # installed into an environment inside another repository
            return ""
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except OSError:  # git is not installed
        return ""
