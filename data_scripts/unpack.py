"""Unpack a zip safely: no path outside the target, no links, no more than a limit; whole or not at all."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from kaf.progress import progress_bar

LARGEST = 20 * 10**9  # bytes unpacked; the largest of these data sets takes about 6 GB
MOST_FILES = 100_000


class Entry(NamedTuple):
    """What an archive says about one of its members."""

    name: str
    size: int  # bytes, unpacked
    mode: int  # of Unix, 0 where the archive says nothing


def unpack(source: Path) -> Path:
    """The folder itself, or a zip unpacked beside it; an unpacked one is kept."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise SystemExit(f"There is no folder or zip file {source}.")
    target = source.with_suffix("")
    if target == source:
        raise SystemExit(f"{source} is neither a folder nor named .zip.")
    if target.is_dir():
        print(f"{target} is there already: using it.")
        return target
    if not zipfile.is_zipfile(source):
        raise SystemExit(f"{source} is no complete zip file; download it again.")
    try:
        with zipfile.ZipFile(source) as archive, whole(target) as partial:
            members = archive.infolist()
            refuse([Entry(m.orig_filename, m.file_size, m.external_attr >> 16) for m in members], source)
            for member in progress_bar(members, desc="unpack", unit="file"):
                archive.extract(member, partial)  # compares the CRC, and stops at the size stated
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {source} cannot be unpacked ({error}); nothing was left behind") from None
    return target


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` at the end, or vanishes where anything goes wrong."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse(entries: list[Entry], source: Path) -> None:
    """Leave before anything is written, if one entry is not to be trusted."""
    total, names = sum(entry.size for entry in entries), {entry.name.casefold() for entry in entries}
    for entry in entries:
        if reason := _suspicious(entry):
            raise SystemExit(f"error: {source} holds {entry.name!r}, {reason}; it was not unpacked. Get it elsewhere.")
    if len(names) < len(entries):
        raise SystemExit(f"error: {source} holds two files of one name; it was not unpacked. Get it elsewhere.")
    if total > LARGEST or len(entries) > MOST_FILES:
        raise SystemExit(f"error: {source} would unpack to {len(entries):,} files and {total / 1e9:.1f} GB, more than "
                         f"{MOST_FILES:,} or {LARGEST / 1e9:.0f} GB; it was not unpacked")  # fmt: skip
    if total > (free := shutil.disk_usage(source.parent).free):
        raise SystemExit(f"error: {source} unpacks to {total / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free there")


def _suspicious(entry: Entry) -> str:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or PureWindowsPath(entry.name).drive or "\\" in entry.name or "\0" in entry.name:
        return "an absolute path or one of another system"
    if ".." in path.parts:
        return "a path outside its folder"
    kind = stat.S_IFMT(entry.mode)
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a special file"
