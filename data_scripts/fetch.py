"""Download one file: continued after a break, verified, whole or not at all.

pooch, the usual library for this, begins a broken transfer anew, so the transfer itself is written here. What has
arrived lies in ``NAME.part``; the name itself appears only after the check.
"""

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from kaf.files import sync
from kaf.progress import progress_bar

TRIES = 6  # in one call; a further call continues
TIMEOUT_S = 30.0  # without a byte
SLOWEST = 1000  # bytes a second over TIMEOUT_S; what is slower is a connection that has died
WAIT_S = 2.0  # before the second try, doubled each time
BLOCK = 1 << 16
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may be well again in a minute


class Item(NamedTuple):
    """A file on a server."""

    url: str
    name: str
    size: int | None = None  # bytes; None: not published
    digest: str = ""  # "md5:..." or "sha256:..."; "": not published, then a zip must at least be complete


class Broken(Exception):
    """The transfer stopped early; what arrived is kept."""


def fetch(item: Item, folder: Path) -> Path:
    """The file in ``folder``, downloaded if it is not there yet; continues a broken transfer.

    Leaves with one line where the server refuses, sends a web page or another file than the published one, where
    the connection breaks :data:`TRIES` times, and where the disk is too small.
    """
    target, part = folder / item.name, folder / f"{item.name}.part"
    if target.is_file():
        if wrong := difference(item, target):
            raise SystemExit(f"error: {target} is not the file that was published: {wrong}; move it away and run again")
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer_all(item, part)
        wrong = difference(item, part)
        _tag_file(part).unlink(missing_ok=True)  # only now: whoever stops during the check still needs it
        if wrong:
            part.unlink()
        else:
            sync(part)
            os.replace(part, target)
    except OSError as error:
        raise SystemExit(f"error: {part} cannot be written or read: {error}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped. {part} is kept: run the same again and it continues.") from None
    if wrong:
        raise SystemExit(f"error: {item.name} from {item.url} is not the file that was published: {wrong}. It was "
                         "removed; run again, and if this stays so, the publisher has changed the file")  # fmt: skip
    return target


def _transfer_all(item: Item, part: Path) -> None:
    for attempt in range(TRIES):
        try:
            transfer(item, part)
            break
        except Broken as error:
            kept = f"; {part.stat().st_size / 1e6:.1f} MB are kept" if part.is_file() else ""
            if attempt + 1 == TRIES:
                said = f"{item.name} from {item.url}: {error}{kept}"
                raise SystemExit(f"error: {said}. Run the same again: it continues. Without a network here, download "
                                 "it elsewhere and give it as --source.") from None  # fmt: skip
            print(f"{item.name}: {error}{kept}; trying again")
            time.sleep(WAIT_S * 2**attempt)


def transfer(item: Item, part: Path) -> None:
    """Add to ``part`` what is missing. Raises :class:`Broken` where that stops early."""
    have = part.stat().st_size if part.is_file() else 0
    if have and have == item.size:
        return
    request = urllib.request.Request(item.url, headers={"User-Agent": "kaf", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if _tag_file(part).is_file():  # then the server sends the rest only of the very same file
            request.add_header("If-Range", _tag_file(part).read_text())
    response = _open(request, part, have)
    if response is None:
        return
    with response:
        _refuse_page(item, response)
        start, total = _extent(response, have)
        if item.size and total not in (None, item.size):
            raise SystemExit(f"error: {item.url} offers {total:,} bytes, but {item.name} was published with "
                             f"{item.size:,}: the publisher has changed the file")  # fmt: skip
        if total and shutil.disk_usage(part.parent).free < total - start:
            raise SystemExit(f"error: {part.parent} has not the {total / 1e9:.2f} GB free that {item.name} takes")
        if have and not start:
            print(f"The server cannot continue {item.name}; it begins anew.")
        _save_tag(response, part)
        _receive(response, part, start, total or item.size, item.name)


def _open(request: urllib.request.Request, part: Path, have: int) -> http.client.HTTPResponse | None:
    """The answer of the server; None where it says that nothing is missing of a file whose size was not published."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the file ends at the piece on disk, or before it: then the piece is of another
            if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                return None
            part.unlink()
            raise Broken("the piece on disk did not fit and was removed") from None
        if error.code in PASSING:
            raise Broken(f"the server answers {error.code} {error.reason}") from None
        said = f"{request.full_url} answers {error.code} {error.reason}"
        raise SystemExit(f"error: {said}; look at it in a browser") from None
    except (OSError, http.client.HTTPException) as error:
        raise Broken(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _refuse_page(item: Item, response: http.client.HTTPResponse) -> None:
    """A server that has moved a file, or wants a login, often sends a page about it as if it were the file."""
    if "html" in response.headers.get("Content-Type", ""):
        title = re.search(r"(?is)<title>(.*?)</title>", response.read1(BLOCK).decode(errors="replace"))
        said = f" ({title[1].strip()[:80]!r})" if title else ""
        raise SystemExit(f"error: {item.url} sends a web page{said}, not {item.name}; look at it in a browser")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how long the file is if the server says so."""
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) > have:
            raise Broken("the server sends another piece than it was asked for")
        return int(span[1]), None if span[2] == "*" else int(span[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _receive(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, name: str) -> None:
    done, mark, since = start, start, time.monotonic()
    bar = progress_bar(total=total, initial=start, unit="B", unit_scale=True, desc=name)
    with bar, open(part, "r+b" if start else "wb") as file:
        file.truncate(start)
        file.seek(start)
        while total is None or done < total:
            try:
                block = response.read1(BLOCK)  # what is there, without waiting for a full block
            except (OSError, http.client.HTTPException) as error:
                raise Broken(str(error) or type(error).__name__) from None
            if not block:
                break
            done += file.write(block)
            bar.update(len(block))
            if time.monotonic() - since > TIMEOUT_S:
                if done - mark < SLOWEST * TIMEOUT_S:
                    raise Broken(f"fewer than {SLOWEST} bytes a second arrive")
                since, mark = time.monotonic(), done
    if total and done < total:
        raise Broken(f"the connection was cut after {done:,} of {total:,} bytes")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _save_tag(response: http.client.HTTPResponse, part: Path) -> None:
    """Keep what names this version of the file, to ask for the rest of the same one after a break."""
    tag = response.headers.get("ETag", "")
    tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    if tag:
        _tag_file(part).write_text(tag)
    else:
        _tag_file(part).unlink(missing_ok=True)


def difference(item: Item, path: Path) -> str:
    """How a file differs from the published one; "" where it does not, as far as was published."""
    size = path.stat().st_size
    if item.size and size != item.size:
        return f"it has {size:,} bytes, not {item.size:,}"
    if item.digest:
        kind, _, expected = item.digest.partition(":")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        return f"its {kind} is {found}, not {expected}" if found != expected else ""
    return "it is no complete zip" if item.name.endswith(".zip") and not zipfile.is_zipfile(path) else ""
