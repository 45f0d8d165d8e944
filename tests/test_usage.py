import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kaf.usage import Clock, peak_memory_mb

RESET = """
import torch
from kaf.usage import peak_memory_mb, reset_peak_memory
pieces = [bytearray(60_000) for _ in range(8000)]  # 480 MB, each too small to get pages of its own
last = pieces[-1]
del pieces  # the C library keeps it all, below what is still in use, and gives of it to those who ask next
block = torch.ones(25_000_000)
before = peak_memory_mb()
del block
reset_peak_memory()
print(before, peak_memory_mb())
"""


def test_memory_and_time_are_measured():
    before = peak_memory_mb()
    block = torch.ones(200 * 2**18)  # 200 MiB
    assert peak_memory_mb() >= before > 50 and peak_memory_mb() > block.numel() * 4 / 2**20
    assert 10 <= Clock(10).seconds() < 11


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the peak of a process")
def test_a_reset_forgets_the_memory_of_what_ran_before():
    # In a process of its own: what another test has left there would decide what is measured.
    done = subprocess.run([sys.executable, "-c", RESET], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[1])
    before, after = map(float, done.stdout.split())
    assert after < before - 400, "of 580 MB some stays with what is still in use"
