"""The file that keeps what the benchmarks measure: ``book/records/cost.json``.

Each benchmark records its rows under a name of its own, with the machine and the date, and replaces only what
it recorded before. A row is a dict with the keys of :data:`COLUMNS`::

    record("step cost", [row("training step, paper preset / wide UNet", seconds, "s", ratio=1.43, target="<= 1.50")])

A row may have further keys, for instance ``points`` or ``size`` along a curve. What cannot be measured on this
machine stays in the table with ``value`` None and the status ``open``.

Benchmarks are run from the root of the repository as ``python -m benchmarks.NAME``.
"""

import argparse
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from kaf.cost import COST
from kaf.files import exclusive, read_json, write_json
from kaf.usage import count_cores

FILE = COST
COLUMNS = ("what", "value", "unit", "ratio", "target", "status")
MET, MISSED, OPEN, NO_TARGET = "met", "not met", "open", ""


def row(what: str, value: float | None, unit: str, ratio: float | None = None, target: str = "",
        **more: Any) -> dict[str, Any]:
    """One row of the table.

    ``target`` is ``"<= 1.5"`` or ``">= 50"``; it is held against ``ratio`` where there is one, else against
    ``value``. The status follows: met, not met, open (nothing measured), or nothing where there is no target.
    Raises ``ValueError`` for a target of another form.
    """
    return {"what": what, "value": _rounded(value), "unit": unit, "ratio": _rounded(ratio), "target": target,
            "status": status(value if ratio is None else ratio, target), **more}


def status(measured: float | None, target: str) -> str:
    """``met``, ``not met`` or ``open``; empty where there is no target."""
    if measured is None:
        return OPEN
    if not target:
        return NO_TARGET
    sign, _, bound = target.partition(" ")
    if sign not in ("<=", ">="):
        raise ValueError(f"a target is '<= NUMBER' or '>= NUMBER', got {target!r}")
    return MET if (measured <= float(bound) if sign == "<=" else measured >= float(bound)) else MISSED


def machine() -> dict[str, Any]:
    """What the numbers were measured on: no host, no user, no paths."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu_model(), "cores": count_cores(), "threads": torch.get_num_threads(), "memory_gb": _memory_gb(),
            "gpu": gpu, "system": platform.system(), "python": platform.python_version(), "torch": torch.__version__}


def record(name: str, rows: list[dict[str, Any]], file: Path | None = None, **settings: Any) -> None:
    """Put the rows of one benchmark into the record file, in place of those it recorded before.

    ``settings`` says how it was measured, for instance the image size. Raises ``ValueError`` for a row
    that lacks one of :data:`COLUMNS`.
    """
    for given in rows:
        missing = [column for column in COLUMNS if column not in given]
        if missing:
            raise ValueError(f"a row of {name!r} lacks {', '.join(missing)}: {given}; make it with record.row()")
    file = FILE if file is None else file
    file.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(file.parent):  # others may record at the same time
        found = read(file) if file.is_file() else {}
        found[name] = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "settings": settings,
                       "rows": rows}
        write_json(file, dict(sorted(found.items())), indent=1)


def read(file: Path | None = None) -> dict[str, Any]:
    """Everything recorded: ``{name: {"machine", "date", "settings", "rows"}}``."""
    return read_json(FILE if file is None else file)


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    wide = max(len(given["what"]) for given in rows)
    print(f"{'':{wide}} {'value':>10} {'unit':10} {'ratio':>7} {'target':8} status")
    for given in rows:
        value, ratio = (("" if given[key] is None else f"{given[key]:.4g}") for key in ("value", "ratio"))
        print(f"{given['what']:{wide}} {value:>10} {given['unit']:10} {ratio:>7} {given['target']:8} {given['status']}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks share."""
    parser.add_argument("--record", action="store_true", help=f"put the rows into {FILE.name}")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0: as many as it chooses")


def finish(name: str, rows: list[dict[str, Any]], keep: bool, **settings: Any) -> None:
    """Print the rows, and record them if ``keep``."""
    show(rows)
    if keep:
        record(name, rows, **settings)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _proc(file: str, field: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), None)


def _cpu_model() -> str:
    return _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    total = _proc("/proc/meminfo", "MemTotal")
    return None if total is None else round(int(total.split()[0]) / 1024**2, 1)
