"""Run folders: configuration, provenance, log and checkpoint of one training run (chapters 5 and 6).

A run folder is found again by the configuration in its name and refuses any other one, so that running
the same thing twice resumes or returns at once, and nothing is ever overwritten. Where several processes
train together all of them read, and the first one writes.
"""

import contextlib
import csv
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import kaf
from kaf.processes import rank


class Run:
    """One run folder: ``config.json``, ``provenance.json``, ``log.csv``, ``checkpoint.pt``.

    Raises ``ValueError`` where ``folder`` holds a run of another configuration.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]):
        self.folder = Path(folder)
        self.config = json.loads(json.dumps(config))  # tuples become lists, as they will be read back
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "config.json"
        if file.is_file():
            self._check(json.loads(file.read_text()))
        else:
            write_json(file, self.config)

    def _check(self, found: dict) -> None:
        if found != self.config:
            keys = sorted(k for k in found.keys() | self.config.keys() if found.get(k) != self.config.get(k))
            raise ValueError(f"{self.folder} holds a run with another configuration (differs in "
                             f"{', '.join(keys)}); choose another folder, or delete this one")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint at once: a run killed while writing keeps the one before."""
        if rank() > 0:
            return
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(dict(state), temporary)
        os.replace(temporary, self.checkpoint)

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The last checkpoint, or None. Raises ``ValueError`` for a file that cannot be read."""
        if not self.checkpoint.is_file():
            return None
        try:
            return torch.load(self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{self.checkpoint} cannot be read; delete it to start again") from error

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
        columns = list(row)
        if file.is_file():
            with file.open(newline="") as source:
                columns = next(csv.reader(source), columns)
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, columns, restval="")
            if out.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def rewind_log(self, step: int) -> None:
        """Forget rows at or after ``step``, which a resumed run writes again, and a last row cut short."""
        file = self.folder / "log.csv"
        if rank() > 0 or not file.is_file():
            return
        with file.open(newline="") as source:
            reader = csv.DictReader(source)
            rows, columns = [row for row in reader if None not in row.values()], reader.fieldnames
        temporary = file.with_suffix(".tmp")
        with temporary.open("w", newline="") as out:
            writer = csv.DictWriter(out, columns or [])
            writer.writeheader()
            writer.writerows(row for row in rows if int(row["step"]) < step)
        if step and columns:
            os.replace(temporary, file)
        else:  # from the start: the first row names the columns anew
            temporary.unlink()
            file.unlink()

    def history(self) -> Any:
        """The log as a table."""
        import pandas as pd

        return pd.read_csv(self.folder / "log.csv")

    def add_provenance(self, **facts: Any) -> dict[str, Any]:
        """Write what made this run: versions, machine kind, ``facts``. Returns it."""
        file = self.folder / "provenance.json"
        found = json.loads(file.read_text()) if file.is_file() else provenance()
        found.update(facts)
        if rank() == 0:
            write_json(file, found)
        return found


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
    here = Path(kaf.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except OSError:  # git is not installed
        return ""


def reset_peak_memory(device: str = "cpu") -> None:
    """Let :func:`peak_memory_mb` start again, so that a run is not charged with the one before it.

    For the memory of a process only Linux can do so; elsewhere the peak since its start remains.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: str = "cpu") -> float:
    """Largest memory since the start or the last reset (MiB): of the GPU where one is used, else of this process.

    NaN on Windows.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError):  # Linux; what getrusage says there can begin with the peak of a parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


def write_json(file: Path, content: Any) -> None:
    """Write JSON at once or not at all; several processes may write the same at the same time."""
    temporary = file.with_suffix(f".tmp{rank()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, file)


class Clock:
    """Seconds of work, added up over interruptions."""

    def __init__(self, before: float = 0.0):
        self.before, self.start = before, time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start
