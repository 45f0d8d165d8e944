"""Files that appear whole or not at all, and folders into which one process at a time writes.

A file is written under another name beside its place, brought to the disk, and only then renamed. A killed process, a
full disk or a power cut leave what stood there before. Drafts that a killed process leaves behind begin with
:data:`DRAFT`; the next one that holds the folder (:func:`exclusive`) removes them.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

DRAFT = ".draft-"
LOCK = ".lock"
ADVICE = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "your share of the disk is used up; make room",
    errno.EFBIG: "a file may not grow so large here; raise the limit (ulimit -f) or choose another disk",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "you may not write there; choose another folder or change its permissions",
    errno.ENOLCK: "this disk cannot lock files; choose a folder on another one",
    errno.EOPNOTSUPP: "this disk cannot lock files; choose a folder on another one",
    errno.EPERM: "you may not write there; choose another folder or change its permissions",
    errno.ENOTEMPTY: "a folder of this name holds something; move it away or delete it",
}


@contextlib.contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``file`` where the block ends without an error.

    It lies beside ``file`` and has the same suffixes. Raises ``OSError`` that says why, and what to do, where the
    disk is full, read-only or closed to this user; ``file`` is then as it was before.
    """
    file = Path(file)
    draft = _draft(file)
    try:
        with _explained(file):
            yield draft
            sync(draft)
            os.replace(draft, file)
            sync(file.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def building(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which gets the name ``folder`` where the block ends without an error.

    Raises ``OSError`` as :func:`replacing`, and where ``folder`` is there already with something in it.
    """
    folder = Path(folder)
    draft = _draft(folder)
    try:
        with _explained(folder):
            draft.mkdir()
            yield draft
            for path in [*draft.rglob("*"), draft]:
                sync(path)
            os.replace(draft, folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(file: str | Path, content: Any, indent: int = 2) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(content, indent=indent) + "\n"
    with replacing(file) as draft:
        draft.write_text(text)


def read_json(file: str | Path, remedy: str = "put a copy in its place, or delete the folder and start again") -> dict:
    """The content of a JSON file, without its :func:`seal`, which not every file has.

    Raises ``ValueError``, with ``remedy`` in it, where the file is cut short or altered.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except ValueError as error:  # also what JSONDecodeError and UnicodeDecodeError are
        raise ValueError(f"{file} is damaged ({error}); {remedy}") from None
    found = content.pop("seal", None)
    if found is not None and found != seal(content)["seal"]:
        raise ValueError(f"{file} was altered since it was written; {remedy}")
    return content


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` with a ``seal``, the sha256 of all the rest, as its last entry."""
    plain = json.loads(json.dumps(content))  # as it will be read back: keys are words, tuples are lists
    plain.pop("seal", None)
    text = json.dumps(plain, sort_keys=True)
    return {**plain, "seal": hashlib.sha256(text.encode()).hexdigest()}


def file_digest(file: str | Path) -> str:
    """sha256 of a file."""
    with open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def digest_once(file: str | Path) -> str:
    """:func:`file_digest`, taken again only where the file was written since: a cine file holds many frames."""
    return _digest(Path(file), Path(file).stat().st_mtime_ns)


@cache
def _digest(file: Path, _modified: int) -> str:
    return file_digest(file)


def write_csv(file: str | Path, table: Any, **options: Any) -> None:
    """Write a pandas table without its index, whole or not at all; ``options`` as for ``DataFrame.to_csv``."""
    with replacing(file) as draft:
        table.to_csv(draft, index=False, **options)


def append_line(file: str | Path, line: str) -> None:
    """Add a line to the end of a text file, whole or not at all as long as the process lives.

    A line that a killed process has not finished has no end: :func:`whole_lines` leaves it out.
    """
    file = Path(file)
    with _explained(file), file.open("ab", buffering=0) as out:
        before, data = out.tell(), line.encode() + b"\n"
        try:
            while data:
                data = data[out.write(data) :]
        except OSError:
            out.truncate(before)
            raise


def whole_lines(file: str | Path) -> list[str]:
    """The lines of a text file without one that was not finished."""
    return Path(file).read_bytes().rpartition(b"\n")[0].decode().splitlines()


@contextlib.contextmanager
def exclusive(folder: str | Path, refusal: str = "") -> Iterator[None]:
    """Let one process at a time write into ``folder``; drafts of those before it are removed.

    The hold ends with the process, however that ends; its child processes have no part in it. With ``refusal`` a
    folder that is held raises ``BlockingIOError`` with these words, without it the process waits.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as held:
        with _explained(folder / LOCK):
            try:
                held.enter_context(FileLock(folder / LOCK, timeout=0 if refusal else -1))
            except Timeout:
                raise BlockingIOError(refusal) from None
        clear_drafts(folder)
        yield


def clear_drafts(folder: str | Path) -> None:
    """Remove what processes that were killed have left half-written; only for the one that holds the folder."""
    for path in Path(folder).glob(f"{DRAFT}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_writable(folder: Path) -> None:
    """Make a folder, if need be, and see whether files can be written there. Raises ``OSError`` with advice."""
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write into {folder} ({reason}); choose another folder, or make this one "
                          "writable and see that its disk is not full") from None


def sync(path: Path) -> None:
    """Bring to the disk what was written into a file, or the names in a folder where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


def _draft(path: Path) -> Path:
    return path.with_name(f"{DRAFT}{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in an error of writing what it means for ``path`` and what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        behind = (error, error.__cause__, error.__context__)  # torch hides the cause behind an error of its own
        cause = next((e for e in behind if getattr(e, "errno", None) in ADVICE), None)
        if cause is None:
            raise
        raise OSError(cause.errno, f"{path} was not written: {ADVICE[cause.errno]}, then run the same again; "
                                   "what was there before is unharmed") from error
