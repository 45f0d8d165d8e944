"""What the scripts of this folder share: terms of use, unpacking, the check, preparation."""

import argparse
import shutil
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from kaf.data.check import check_dataset
from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings


def parser(description: str, store: str, spacing_mm: float | None) -> argparse.ArgumentParser:
    """The options every data set has."""
    layout = argparse.RawDescriptionHelpFormatter  # keeps the lines of the example
    result = argparse.ArgumentParser(description=description, formatter_class=layout)
    result.add_argument("--store", type=Path, default=Path(store), help="to write (default: %(default)s)")
    usual = "as in the files" if spacing_mm is None else f"{spacing_mm} mm"
    result.add_argument("--spacing", type=float, default=spacing_mm, help=f"mm in plane (default: {usual})")
    result.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    result.add_argument("--check-only", action="store_true", help="read every file, write no store")
    return result


def agree(terms: str, accepted: bool) -> None:
    """Print the terms of a data set and go on only if they were accepted."""
    print(terms.strip() + "\n")
    if not accepted:
        raise SystemExit("Read the terms above, then run again with --accept-licence.")


def unpack(source: Path) -> Path:
    """The folder itself, or a zip unpacked beside it, whole or not at all; an unpacked one is kept."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise SystemExit(f"There is no folder or zip file {source}.")
    target, partial = source.with_suffix(""), source.with_suffix(".partial")
    if target == source:
        raise SystemExit(f"{source} is neither a folder nor named .zip.")
    if target.is_dir():
        print(f"{target} is there already: using it.")
        return target
    if not zipfile.is_zipfile(source):
        raise SystemExit(f"{source} is no complete zip file; download it again.")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(source) as archive:
        for member in tqdm(archive.infolist(), desc="unpack", unit="file"):
            archive.extract(member, partial)  # compares the CRC of every file
    partial.rename(target)
    return target


def check(dataset: str, root: Path, read: bool) -> None:
    """Print what the folder holds and all that is wrong with it; with ``read`` open every volume, else headers."""
    findings = check_dataset(dataset, root, voxels=read)
    print(findings)
    if findings.errors:
        raise SystemExit(f"error: {len(findings.errors)} in {root}, listed above; mend them and run again")


def finish(dataset: str, root: Path, arguments: argparse.Namespace) -> None:
    """Check the data set and, unless only a check was asked for, prepare it. Errors become one line."""
    try:
        check(dataset, root, read=arguments.check_only)
        if not arguments.check_only:
            settings = StoreSettings(dataset, arguments.spacing)
            store = prepare(dataset, root, arguments.store, settings, arguments.workers)
            print(f"{store} in {store.path}")
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
