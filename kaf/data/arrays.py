"""Writing ``.npy`` files, and reading parts of them by position.

To read, a memory map would do, but the pages it has touched count as memory of the process for as long as it is open: a
loader that goes through a large store in random order seems to grow until it holds all of it.
"""

import os
import weakref
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np


def write_array(file: str | Path, array: np.ndarray) -> None:
    """Write what :func:`numpy.save` would. Into a file of its own numpy writes without saying why it failed."""
    with open(file, "wb") as out:
        np.lib.format.write_array(SimpleNamespace(write=out.write), array, allow_pickle=False)


class Header(NamedTuple):
    """What a ``.npy`` file says about itself."""

    start: int  # where its numbers begin, bytes
    shape: tuple[int, ...]
    dtype: np.dtype


def read_header(path: str | Path) -> Header:
    """Raises ``ValueError`` for a file that is not in C order."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_column, dtype = read[version](file)
        if by_column and len(shape) > 1:
            raise ValueError(f"{path} is stored column by column; write it with numpy's default order")
        return Header(file.tell(), shape, dtype)


class ArrayFile:
    """An open ``.npy`` file."""

    def __init__(self, path: str | Path, header: Header | None = None):
        self.path = path
        self.start, self.shape, self.dtype = read_header(path) if header is None else header
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.handle)

    def rows(self, first: int, last: int) -> np.ndarray:
        """Entries ``first`` to ``last`` of the first axis, read-only. Raises ``ValueError`` for a file cut short."""
        shape = (last - first, *self.shape[1:])
        step = prod(self.shape[1:]) * self.dtype.itemsize
        size, where = shape[0] * step, self.start + first * step
        if hasattr(os, "pread"):  # of one handle that several processes share
            data = os.pread(self.handle, size, where)
        else:  # Windows
            os.lseek(self.handle, where, os.SEEK_SET)
            data = os.read(self.handle, size)
        if len(data) < size:
            raise ValueError(f"{self.path} is shorter than it says; delete its folder and run prepare again")
        return np.frombuffer(data, self.dtype).reshape(shape)


def _open_files() -> int:
    """How many files may stay open: half of the handles that a process may have."""
    try:
        import resource
    except ImportError:  # Windows
        return 256
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if limit < 0 else min(1024, max(16, limit // 2))


@lru_cache(maxsize=_open_files())
def open_array(file: str, checksum: str) -> ArrayFile:
    """An array file that stays open for a while; the checksum in the key tells a remade file from the old one."""
    return ArrayFile(file, _known_header(file, checksum))


@cache
def _known_header(file: str, _checksum: str) -> Header:
    """Half a kilobyte to keep, and ten times as long to read as the file takes to open."""
    return read_header(file)
