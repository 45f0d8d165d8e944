"""What a run takes: operations, time and peak memory."""

import contextlib
import ctypes
import platform
import time
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_cores() -> int:
    """How many processor cores this process may use: those that its affinity and its container leave to it."""
    return cpu_count()


def operations(network: nn.Module, *inputs: Any) -> int:
    """Multiplications with an addition in the matrix products and convolutions of one forward pass.

    Counted on shapes alone, nothing is computed: the network and the first of ``inputs`` lie on the device ``meta``.
    Raises ``ValueError`` for another device, on which the counter overlooks fused attention.
    """
    if not inputs[0].is_meta:
        raise ValueError(f"operations are counted on the device 'meta', the input lies on {inputs[0].device}")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2


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
