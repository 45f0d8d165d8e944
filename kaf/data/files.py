"""Files that must come back as they were written: digests, and JSON that carries its own."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` with a ``seal``, the sha256 of all the rest, as its last entry."""
    plain = json.loads(json.dumps(content))  # as it will be read back: keys are words, tuples are lists
    plain.pop("seal", None)
    text = json.dumps(plain, sort_keys=True)
    return {**plain, "seal": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(file: Path, remedy: str) -> dict[str, Any]:
    """The content of a JSON file, without its seal; files older than seals have none.

    Raises ``ValueError``, with ``remedy`` in it, where the file is cut short or altered.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except ValueError as error:  # also what JSONDecodeError and UnicodeDecodeError are
        raise ValueError(f"{file} is damaged ({error}); {remedy}") from None
    found = content.pop("seal", None)
    if found is not None and found != seal(content)["seal"]:
        raise ValueError(f"{file} was altered since it was written; {remedy}")
    return content


def make_writable(folder: Path) -> None:
    """Make a folder, if need be, and see whether files can be written there. Raises ``OSError`` with advice."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write into {folder} ({reason}); choose another folder, or make this one "
                          "writable and see that its disk is not full") from None
