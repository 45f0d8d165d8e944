"""Phantoms: made-up patients in the layouts of the real data sets, so that everything runs without a download.

``mr`` is a short-axis cine stack at end diastole and end systole in the layout of ACDC, with its labels
1 RV, 2 MYO, 3 LV and its five groups; ``ct`` is an axial chest scan in the layout of CHD-68 with
1 LV, 2 RV, 3 LA, 4 RA, 5 MYO, 6 AO, 7 PA. Patient ``p`` of seed ``s`` is the same whatever else is written.

Command: ``python -m kaf.data.phantom ROOT [--patients N] [--kind mr|ct] [--compare DIR]``.
"""

import argparse
import shutil
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from kaf.data.phantom_ct import ct_volume
from kaf.data.phantom_heart import GROUPS
from kaf.data.phantom_mr import mr_stack
from kaf.files import building, exclusive, read_json, replacing, write_json
from kaf.progress import progress_bar

VERSION = 2  # raise it when the same seed gives other patients
DEFAULTS = {"mr": {"size": 240, "slices": (6, 12)}, "ct": {"size": 256, "slices": (24, 36)}}
MANIFEST = "phantom.json"


class Patient(NamedTuple):
    """One made-up patient; ``P`` is 2 (ED, ES) for MR and 1 for CT."""

    id: str  # "patient001", "ct_0001"
    group: str  # one of the five groups of ACDC; "" for CT
    frames: tuple[str, ...]  # ("ED", "ES") or ("",)
    images: np.ndarray  # (P, S, H, W) int16
    labels: np.ndarray  # (P, S, H, W) uint8
    spacing_mm: tuple[float, float, float]  # (slice, row, col)


def make_patient(
    index: int, seed: int = 0, kind: str = "mr", size: int | None = None, slices: tuple[int, int] | None = None
) -> Patient:
    """Patient ``index`` (from 0) of a phantom. Groups follow each other in the order of ``GROUPS``.

    ``size`` is the longer side of the image in pixels, ``slices`` the fewest and most slices of a
    volume; None means the default of the kind. Raises ``ValueError`` for an unknown kind, a size
    below 32 or a range of slices without an element.
    """
    size, slices = _geometry(kind, size, slices)
    if index < 0:
        raise ValueError(f"a patient's index starts at 0, got {index}")
    rng = np.random.default_rng((seed, index, list(DEFAULTS).index(kind)))
    if kind == "ct":
        image, label, spacing = ct_volume(rng, size, slices)
        return Patient(f"ct_{index + 1:04d}", "", ("",), image[None], label[None], spacing)
    group = GROUPS[index % len(GROUPS)]
    images, labels, spacing = mr_stack(rng, group, size, slices)
    return Patient(f"patient{index + 1:03d}", group, ("ED", "ES"), images, labels, spacing)


def write_phantom(
    root: str | Path,
    patients: int = 20,
    seed: int = 0,
    kind: str = "mr",
    size: int | None = None,
    slices: tuple[int, int] | None = None,
    progress: bool = True,
) -> Path:
    """Write the first ``patients`` patients as NIfTI below ``root`` and return ``root``.

    A patient appears complete or not at all; those already there are kept, so that a call may be
    repeated, continued or extended. Raises ``ValueError`` where ``root`` holds a phantom of other
    settings or anything else.
    """
    root = Path(root)
    if patients < 1:
        raise ValueError(f"a phantom needs 1 patient or more, got {patients}")
    size, slices = _geometry(kind, size, slices)
    settings = {"version": VERSION, "kind": kind, "seed": seed, "size": size, "slices": list(slices)}
    _check(root, settings)  # before a lock lies in a folder of something else
    write = {"mr": _write_mr, "ct": _write_ct}[kind]
    done = {"mr": "patient{:03d}/Info.cfg", "ct": "ct_{:04d}_image.nii.gz"}[kind]

    def missing() -> list[int]:
        return [p for p in range(patients) if not (root / done.format(p + 1)).is_file()]

    if missing():
        root.mkdir(parents=True, exist_ok=True)
        with exclusive(root):  # waits for another process, which may have made them by then, or others
            _check(root, settings)
            if not (root / MANIFEST).is_file():
                write_json(root / MANIFEST, settings, indent=1)
            for index in progress_bar(missing(), not progress, desc=f"phantom {kind}", unit="patient"):
                write(make_patient(index, seed, kind, size, slices), root)
    return root


def _geometry(kind: str, size: int | None, slices: tuple[int, int] | None) -> tuple[int, tuple[int, int]]:
    if kind not in DEFAULTS:
        raise ValueError(f"unknown kind of phantom {kind!r}; choose one of {sorted(DEFAULTS)}")
    size = DEFAULTS[kind]["size"] if size is None else int(size)
    low, high = DEFAULTS[kind]["slices"] if slices is None else slices
    if size < 32 or not 1 <= low <= high:
        raise ValueError(f"a phantom needs size >= 32 and 1 <= fewest <= most slices, got {size} and {(low, high)}")
    return size, (int(low), int(high))


def _check(root: Path, settings: dict) -> None:
    """Raise ``ValueError`` where a folder holds a phantom of other settings or anything else."""
    # In this order: another process may be about to begin here, and the manifest is the first that it writes.
    filled = root.is_dir() and any(not p.name.startswith(".") for p in root.iterdir())
    if (root / MANIFEST).is_file():
        found = read_json(root / MANIFEST)
        if found != settings:
            other = {k: (found.get(k), v) for k, v in settings.items() if found.get(k) != v}
            raise ValueError(f"{root} holds a phantom of other settings (there, asked): {other}; give another folder")
    elif filled:
        raise ValueError(f"{root} is not empty and holds no {MANIFEST}; give an empty or a new folder")


def _write_mr(patient: Patient, root: Path) -> None:
    """The files of ACDC for one patient, in a folder that appears whole."""
    rng = np.random.default_rng([ord(c) for c in patient.id])
    numbers = (1, int(rng.integers(8, 14)))
    affine = np.diag([*patient.spacing_mm[::-1], 1.0])  # as in ACDC, which keeps no orientation
    info = {"ED": numbers[0], "ES": numbers[1], "Group": patient.group, "Height": round(rng.normal(170, 9), 1)}
    info |= {"NbFrame": 30, "Weight": round(rng.normal(76, 12), 1)}
    shutil.rmtree(root / patient.id, ignore_errors=True)  # what is there is incomplete
    with building(root / patient.id) as folder:
        for number, image, label in zip(numbers, patient.images, patient.labels, strict=True):
            name = f"{patient.id}_frame{number:02d}"
            _save(folder / f"{name}.nii.gz", image, affine)
            _save(folder / f"{name}_gt.nii.gz", label, affine)
        (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in info.items()))


def _write_ct(patient: Patient, root: Path) -> None:
    """The two files of CHD-68 for one patient; the image, which says that it is there, comes last."""
    sizes = np.array(patient.spacing_mm[::-1]) * (-1, -1, 1)  # i to the left, j to the back, k upwards
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -sizes * (np.array(patient.images.shape[:0:-1]) - 1) / 2  # the centre is the origin
    for name, array in (("label", patient.labels[0]), ("image", patient.images[0])):
        with replacing(root / f"{patient.id}_{name}.nii.gz") as draft:
            _save(draft, array, affine)


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write ``(S, H, W)`` with the axes of NIfTI: ``(column i, row j, slice k)``."""
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def main(arguments: list[str] | None = None) -> None:
    """The command: write a phantom, or set it beside a real data set."""
    parser = argparse.ArgumentParser(prog="python -m kaf.data.phantom", description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the phantom")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(DEFAULTS), default="mr")
    parser.add_argument("--size", type=int, help="longer side in pixels")
    parser.add_argument("--slices", type=int, nargs=2, metavar=("FEWEST", "MOST"))
    parser.add_argument("--compare", type=Path, metavar="DIR", help="print statistics beside those of this data set")
    a = parser.parse_args(arguments)
    try:
        write_phantom(a.root, a.patients, a.seed, a.kind, a.size, a.slices)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if a.compare:
        from kaf.data.phantom_compare import compare  # only here: it reads data sets, phantoms do not

        print(compare(a.root, a.compare, a.kind, a.patients).to_string())


if __name__ == "__main__":
    main()
