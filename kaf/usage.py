"""What a run takes: time and peak memory."""

import contextlib
import ctypes
import platform
import time
from pathlib import Path

import torch


def reset_peak_memory(device: str = "cpu") -> None:
    """Let :func:`peak_memory_mb` start again, so that a run is not charged with the one before it.

    For the memory of a process only Linux can do so; elsewhere the peak since its start remains.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    # What was freed may still be held for later use, and would be counted; C libraries other than glibc have no trim.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
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


class Clock:
    """Seconds of work, added up over interruptions."""

    def __init__(self, before: float = 0.0):
        self.before, self.start = before, time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start
