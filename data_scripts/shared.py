"""What the scripts of this folder share: options, terms of use, the check, preparation."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path

from kaf.data.check import check_dataset
from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings

NATIVE = "native"  # the spacing of the files
BOOK = Path(__file__).resolve().parents[1] / "book"


def in_one_line(main: Callable[[], None]) -> Callable[[], None]:
    """``main`` of a script that ends in one line, also where an error or Ctrl-C ends it; after Ctrl-C with 130."""

    @wraps(main)
    def run() -> None:
        try:
            main()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise SystemExit(f"error: {error}") from None
        except KeyboardInterrupt as stop:
            hint = "Stopped. Run the same again: what is finished is kept, the rest goes on or starts over."
            print(f"\n{str(stop) or hint}", file=sys.stderr)
            raise SystemExit(130) from None

    return run


def parser(description: str, store: str, spacing_mm: float | None, usual: str = "") -> argparse.ArgumentParser:
    """The options every data set has; ``usual`` says what ``spacing_mm`` stands for where it is no default."""
    layout = argparse.RawDescriptionHelpFormatter  # keeps the lines of the example
    result = argparse.ArgumentParser(description=description, formatter_class=layout)
    result.add_argument("--store", type=Path, default=Path(store), help="to write (default: %(default)s)")
    usual = usual or usual_spacing(spacing_mm)
    result.add_argument("--spacing", type=spacing, default=spacing_mm,
                        help=f"mm in plane, or {NATIVE}: as in the files (default: {usual})")
    result.add_argument("--workers", type=int, help="processes (default: one for each core that has memory)")
    result.add_argument("--accept-licence", action="store_true", help="you have read and accept the terms")
    result.add_argument("--check-only", action="store_true", help="read every file, write no store")
    return result


def spacing(text: str) -> float | str:
    """A spacing as somebody writes it: mm, or :data:`NATIVE`."""
    if text == NATIVE:
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"mm in plane such as 1.5, or {NATIVE}, got {text!r}") from None


def usual_spacing(spacing_mm: float | None) -> str:
    """The in-plane spacing of a layout in words."""
    return NATIVE if spacing_mm is None else f"{spacing_mm} mm"


def add_data(options: argparse.ArgumentParser, data: str) -> None:
    """Where the files of the data set go."""
    options.add_argument("--data", type=Path, default=Path(data), help="where the files go (default: %(default)s)")


def add_source(options: argparse.ArgumentParser) -> None:
    """Files that are there already."""
    options.add_argument("--source", type=Path, help="a zip or folder that you have; without it: a download")


def agree(terms: str, accepted: bool) -> None:
    """Print the terms of a data set and go on only if they were accepted, by option or by answer."""
    print(terms.strip() + "\n")
    if not accepted and sys.stdin.isatty():
        with contextlib.suppress(EOFError):  # Ctrl-D is no answer
            accepted = input("Do you accept the licence and the terms? Type yes to go on: ").strip().lower() == "yes"
    if not accepted:
        raise SystemExit("Nothing was done. Read the terms above, then run again with --accept-licence.")


def missing_files(expected: Iterable[Path]) -> list[Path]:
    """Those of the files that are not there, or are empty."""
    return [path for path in expected if not path.is_file() or not path.stat().st_size]


def complete(missing: Sequence[Path], downloaded: Path | None, name: str) -> None:
    """Say what is missing of the full data set; after a download of ours that is an error."""
    if not missing:
        print(f"All files of {name} are there.")
    elif downloaded is None:
        print(f"note: {len(missing)} files of the full {name} are missing, the first is {missing[0]}")
    else:
        raise SystemExit(f"error: {len(missing)} files of {name} are missing in the download, the first is "
                         f"{missing[0]}; delete {downloaded} with what lies in it, and run again")  # fmt: skip


def check(dataset: str, root: Path, read: bool) -> None:
    """Print what the folder holds and all that is wrong with it; with ``read`` open every volume, else headers."""
    findings = check_dataset(dataset, root, voxels=read)
    print(findings)
    if findings.errors:
        raise SystemExit(f"error: {len(findings.errors)} in {root}, listed above; mend them and run again")


def finish(dataset: str, root: Path, arguments: argparse.Namespace) -> None:
    """Check the data set and, unless only a check was asked for, prepare it."""
    check(dataset, root, read=arguments.check_only)
    if not arguments.check_only:
        settings = StoreSettings(dataset, None if arguments.spacing == NATIVE else arguments.spacing)
        store = prepare(dataset, root, arguments.store, settings, arguments.workers)
        print(f"{store} in {store.path}")
        print(f"A chapter makes a store of its own, of the spacing of its scale:\n{for_chapter(dataset, root)}")


def for_chapter(dataset: str, root: Path) -> str:
    """The command that runs a chapter on these files, from any folder; a chapter draws its phantoms itself."""
    files = "" if dataset.startswith("phantom") else f" -p data_root {shlex.quote(str(root.resolve()))}"
    words = f"papermill chapters/05_pretrain.ipynb out05.ipynb -p dataset {dataset}{files}"
    return f"(cd {shlex.quote(str(BOOK))} && {words})"
