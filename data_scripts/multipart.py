"""Unpack a zip that came in several parts, ``NAME.z01``, ``NAME.z02``, ..., and a last one.

Python's zipfile does not read these, and the program zip 3.0 damages files that reach over three parts when
it joins them. Format: PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from unpack import Entry, refuse, whole

from kaf.progress import progress_bar


class Member(NamedTuple):
    """A file in the archive; ``part`` and ``offset`` say where its header starts."""

    name: str
    method: int  # 0 stored, 8 deflated
    crc: int
    size: int  # compressed, bytes
    unpacked: int  # bytes
    mode: int  # of Unix
    part: int
    offset: int


def unpack_parts(last: Path, target: Path) -> Path:
    """Unpack into ``target``, whole or not at all; what is unpacked already is kept.

    Raises ``ValueError`` for a missing part or a damaged file.
    """
    if target.is_dir():
        return target
    parts = [*sorted(last.parent.glob(f"{last.stem}.z[0-9]*")), last]
    members = list_members(parts)
    refuse([Entry(member.name, member.unpacked, member.mode) for member in members], last)
    with whole(target) as partial:
        for member in progress_bar(members, desc="unpack", unit="file"):
            path = partial / member.name
            if not member.name.endswith("/"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_read_member(parts, member))
    return target


def list_members(parts: list[Path]) -> list[Member]:
    """The table of contents, which the end of the last part points to."""
    tail = parts[-1].read_bytes()[-(1 << 16) - 22 :]
    start = tail.rfind(b"PK\x05\x06")
    if start < 0:
        raise ValueError(f"{parts[-1]} is not the last part of a zip; download it again")
    end, begin, _, count, size, offset = struct.unpack_from("<4H2L", tail, start + 4)
    if end != len(parts) - 1:
        raise ValueError(f"{parts[-1]} is part {end + 1}, but there are {len(parts)} parts; download all of them")
    table, members = _read(parts, begin, offset, size), []
    for _ in range(count):
        head = struct.unpack_from("<4s6H3L5H2L", table)
        if head[0] != b"PK\x01\x02":
            raise ValueError(f"the table of contents in {parts[-1]} is damaged; download it again")
        name_end = 46 + head[10]
        name = table[46:name_end].decode()
        members.append(Member(name, head[4], head[7], head[8], head[9], head[15] >> 16, head[13], head[16]))
        table = table[name_end + head[11] + head[12] :]
    return members


def _read_member(parts: list[Path], member: Member) -> bytes:
    head = struct.unpack("<4s5H3L2H", _read(parts, member.part, member.offset, 30))
    data = _read(parts, member.part, member.offset + 30 + head[9] + head[10], member.size)
    try:
        data = zlib.decompressobj(-15).decompress(data, max(1, member.unpacked)) if member.method == 8 else data
    except zlib.error:
        data = b""
    if zlib.crc32(data) != member.crc:
        raise ValueError(f"{member.name} in {parts[-1]} is damaged; download the parts again")
    return data


def _read(parts: list[Path], part: int, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` of a part on, continued in the parts after it."""
    pieces = []
    for path in parts[part:]:
        length = path.stat().st_size
        if size > 0 and offset < length:
            with open(path, "rb") as file:
                file.seek(offset)
                pieces.append(file.read(size))
            size -= len(pieces[-1])
        offset = max(0, offset - length)
    if size > 0:
        raise ValueError(f"{parts[-1]} ends too early; download all parts again")
    return b"".join(pieces)
