"""Run folders: configuration, provenance, log and checkpoint of one training run (chapters 5 and 6).

A run folder is found again by the configuration in its name and refuses any other one, so that running
the same thing twice resumes or returns at once, and nothing is ever overwritten.
"""

import csv
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import kaf


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
            raise ValueError(f"{self.checkpoint} cannot be read ({error}); delete it to start again") from error

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to ``log.csv``; the first row names the columns."""
        file = self.folder / "log.csv"
        new = not file.is_file()
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def rewind_log(self, step: int) -> None:
        """Forget rows at or after ``step``: a resumed run writes them again."""
        file = self.folder / "log.csv"
        if not file.is_file():
            return
        with file.open(newline="") as source:
            rows = list(csv.DictReader(source))
        file.unlink()
        for row in rows:
            if int(row["step"]) < step:
                self.log(row)

    def history(self) -> "Any":
        """The log as a table."""
        import pandas as pd

        return pd.read_csv(self.folder / "log.csv")

    def add_provenance(self, **facts: Any) -> dict[str, Any]:
        """Write what made this run: versions, machine kind, ``facts``. Returns it."""
        file = self.folder / "provenance.json"
        found = json.loads(file.read_text()) if file.is_file() else provenance()
        found.update(facts)
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


def peak_memory_mb(device: str = "cpu") -> float:
    """Largest memory so far: of the GPU where one is used, otherwise of this process (MiB)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


def write_json(file: Path, content: Any) -> None:
    """Write JSON at once or not at all."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, file)


class Clock:
    """Seconds of work, added up over interruptions."""

    def __init__(self, before: float = 0.0):
        self.before, self.start = before, time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start
