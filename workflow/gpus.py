"""Which GPU of a machine a job trains on, where there are several."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from kaf.files import exclusive, make_writable

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what the processes of a job see


@contextmanager
def own_gpu(device: str, folder: Path) -> Iterator[None]:
    """Let a job on ``cuda`` see one GPU alone, that with the fewest jobs on it.

    ``folder`` is common to the jobs. It takes locks, which end with their process. A machine with one GPU, or a cluster
    that gives each job its own, leaves nothing to choose.
    """
    there = torch.cuda.device_count() if device == "cuda" else 0
    if there < 2:
        yield
        return
    before = os.environ.get(VISIBLE)
    names = [name.strip() for name in before.split(",")][:there] if before else [str(n) for n in range(there)]
    folder = folder / platform.node()
    make_writable(folder)
    with exclusive(folder):  # one job chooses at a time
        name = min(names, key=lambda name: len(_jobs(folder, name)))
        taken = _jobs(folder, name)
        lock = next(FileLock(folder / f"{name}-{n}.lock") for n in count() if n not in taken)
        lock.acquire()
    os.environ[VISIBLE] = name
    try:
        yield
    finally:
        lock.release()
        os.environ.pop(VISIBLE, None)
        os.environ.update({VISIBLE: before} if before else {})


def _jobs(folder: Path, name: str) -> set[int]:
    """The numbers of the jobs that run on a GPU: their locks are held."""
    return {int(file.stem.rpartition("-")[2]) for file in folder.glob(f"{name}-*.lock") if _held(file)}


def _held(file: Path) -> bool:
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
