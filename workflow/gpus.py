"""Which GPU of a machine a job trains on, where there are several."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what the processes of a job see


@contextmanager
def own_gpu(device: str, folder: Path) -> Iterator[None]:
    """Let a job on ``cuda`` see one GPU alone, on which no more jobs run than on any other.

    ``folder`` is common to the jobs. It takes locks, which end with their process. A machine with one GPU, or a cluster
    that gives each job its own, leaves nothing to choose.
    """
    there = torch.cuda.device_count() if device == "cuda" else 0
    if there < 2:
        yield
        return
    before = os.environ.get(VISIBLE)
    names = before.split(",")[:there] if before else [str(n) for n in range(there)]
    folder = folder / platform.node()
    folder.mkdir(parents=True, exist_ok=True)
    places = ((name, folder / f"{name}-{round_}.lock") for round_ in count() for name in names)
    name, lock = next((name, lock) for name, file in places if _held(lock := FileLock(file)))
    os.environ[VISIBLE] = name
    try:
        yield
    finally:
        lock.release()
        os.environ.pop(VISIBLE, None)
        os.environ.update({VISIBLE: before} if before else {})


def _held(lock: FileLock) -> bool:
    """Take a lock unless another job has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
