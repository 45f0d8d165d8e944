import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kaf.mixers import Attention
from kaf.usage import Clock, operations, peak_memory_mb

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


def test_operations_are_counted_attention_included():
    with torch.device("meta"):
        tokens, valid = torch.empty(2, 5, 8), torch.empty(2, 5, dtype=torch.bool)
        linear, attention = torch.nn.Linear(8, 3), Attention(8, 2)
    assert operations(linear, tokens) == 2 * 5 * 8 * 3
    assert operations(attention, tokens, tokens, valid) == 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)


def test_operations_are_not_counted_where_some_would_be_overlooked():
    with pytest.raises(ValueError, match="device 'meta', the input lies on cpu"):
        operations(torch.nn.Linear(8, 3), torch.zeros(1, 8))


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
