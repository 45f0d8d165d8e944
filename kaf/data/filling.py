"""The folder of a store while it is filled: what must be known first, the manifest (chapter 0)."""

import shutil
from dataclasses import asdict, fields
from math import prod
from pathlib import Path

import cv2
import torch

from kaf import __version__
from kaf.data.cases import Case, check_cases, get_layout
from kaf.data.grid import store_shape
from kaf.data.store import VERSION, StoreSettings, VolumeRecord, read_manifest
from kaf.files import clear_drafts, digest_once, read_json, seal, write_json


def check_first(cases: list[Case], out: Path, settings: StoreSettings) -> None:
    """What can be known to be wrong before the first volume is read."""
    headers = check_cases(case for case in cases if not (out / "volumes" / case.id / "record.json").exists())
    need = 0
    for case in cases:
        if case.id in headers:
            i, j, k = headers[case.id].shape[:3]
            spacing = headers[case.id].spacing_mm
            stored = k * prod(store_shape((j, i), spacing[1::-1], settings.spacing_mm))
            need += 2 * stored + (stored + i * j * k if case.label else 0)  # image and keypoints; labels twice
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise OSError(f"the store {out} needs about {need / 1e9:.2g} GB, its disk has {free / 1e9:.2g} GB free; "
                      "make room or choose another folder")


def begin(out: Path, settings: StoreSettings) -> None:
    """Begin a store, or check one already begun and clear what a killed run left half-written."""
    if (out / "manifest.json").exists():
        read_manifest(out, settings)
    elif any(not path.name.startswith(".") for path in (out / "volumes").iterdir()):  # file managers leave .DS_Store
        raise ValueError(f"{out} is no store: it holds volumes but no manifest.json; choose another folder")
    else:
        write_manifest(out, settings, [], complete=False)
    clear_drafts(out / "volumes")


def is_complete(out: Path) -> bool:
    """Whether nothing is missing in a store, by its manifest."""
    file = out / "manifest.json"
    return file.is_file() and read_json(file, "delete the store and run prepare again").get("complete", False)


def names(out: Path, cases: list[Case]) -> bool:
    """Whether the manifest is complete and names the volumes of ``cases`` and no other."""
    return is_complete(out) and {v["id"] for v in read_json(out / "manifest.json")["volumes"]} == {c.id for c in cases}


def is_ready(out: Path, cases: list[Case], root: Path, settings: StoreSettings) -> bool:
    """Whether nothing is to be written. Raises ``ValueError`` as :func:`begin` and :func:`finished`."""
    if not is_complete(out):
        return False
    read_manifest(out, settings)
    return len(finished(out, cases, root)) == len(cases) and names(out, cases)


def clear_unfinished(out: Path, cases: list[Case]) -> None:
    """Remove the folders of ``cases`` without a record, as a store that was copied in part has them.

    Only for the one that holds the store; what else lies there is left alone.
    """
    for folder in (out / "volumes" / case.id for case in cases):
        if folder.is_dir() and not (folder / "record.json").exists():
            shutil.rmtree(folder)


MEND = "delete its folder and run prepare again"
ANEW = ("delete the store, it is made anew and runs that read none of what changed are found again; or give another "
        "output")


def finished(out: Path, cases: list[Case], root: Path) -> dict[str, VolumeRecord]:
    """Records of the volumes already in the store, by id. Raises ``ValueError`` unless they are those of ``cases``."""
    wanted, done = {case.id: case for case in cases}, {}
    for file in sorted((out / "volumes").glob("[!.]*/record.json")):  # another process may be writing drafts
        record = _read_record(file)
        case = wanted.get(record.id)
        if case is None:
            raise ValueError(f"the store {out} holds {record.id}, but {root} does not; {ANEW}")
        sources = {f.relative_to(root).as_posix(): f for f in (case.image, case.label) if f}
        sizes = {name: source.stat().st_size for name, source in sources.items()}
        made, of_source = file.stat().st_mtime_ns, (record.patient, record.frame, record.group)
        # A corrected label often has as many bytes as the one before it. What is older than the store is not read.
        changed = sizes != record.source_bytes or any(
            source.stat().st_mtime_ns > made and digest_once(source) != record.checksums.get(name)
            for name, source in sources.items())
        if changed or of_source != (case.patient, case.frame, case.group):
            raise ValueError(f"{record.id} in {root} changed since {out} was made; {ANEW}")
        done[record.id] = record
    return done


def _read_record(file: Path) -> VolumeRecord:
    found, known = read_json(file, MEND), [field.name for field in fields(VolumeRecord)]
    missing, unknown = [name for name in known if name not in found], sorted(set(found) - set(known))
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has the unknown {', '.join(unknown)}"
        raise ValueError(f"{file} is damaged (it {what}); {MEND}")
    return VolumeRecord.from_json(found)


def write_manifest(out: Path, settings: StoreSettings, records: list[VolumeRecord], complete: bool) -> None:
    """Replace the manifest at once."""
    manifest = {
        "version": VERSION,
        "settings": asdict(settings),
        "digest": settings.digest,
        "structures": get_layout(settings.dataset).structures,
        "made_with": {"kaf": __version__, "opencv": cv2.__version__, "torch": torch.__version__},
        "complete": complete,
        "volumes": [asdict(record) for record in records],
    }
    write_json(out / "manifest.json", seal(manifest), indent=1)
