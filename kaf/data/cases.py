"""What lies on disk: one small function per folder layout, and the NIfTI files behind a case (chapter 0).

A data set is added with one function ``root -> list[Case]`` and one line in :data:`LAYOUTS`.
NIfTI arrays have the axes ``(i, j, k)``; here they become ``(slice k, row j, column i)``.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class Case:
    """One volume on disk: a 3-D file, or one frame of a 4-D file."""

    id: str  # "patient001_frame01", "ct_1001"
    patient: str  # "patient001"; what splits are made of
    frame: str  # "ED", "ES", "" where there is only one, "t07" for an unlabelled cine frame
    group: str  # pathology group, "" where unknown
    image: Path
    label: Path | None = None  # None: unlabelled, joins the pretraining pool only
    frame_index: int | None = None  # index into the last axis of a 4-D file, None for a 3-D file
    structures: tuple[int, ...] = ()  # label values a truth may hold beside 0; empty: any
    drop_labels: bool = False  # other label values become 0 instead of raising an error


class Volume(NamedTuple):
    """A case in memory, in the grid of its file."""

    image: np.ndarray  # (S, H, W) float32
    label: np.ndarray | None  # (S, H, W) uint8
    spacing_mm: tuple[float, float, float]  # (slice, row, col)
    affine: np.ndarray  # (4, 4), voxel (i, j, k) to mm
    orientation: str  # where i, j, k point to, such as "RAS"


@dataclass(frozen=True)
class Layout:
    """What the library knows about a data set."""

    reader: Callable[[Path], list[Case]]
    structures: dict[int, str]  # label value -> name, without the background
    spacing_mm: float | None  # usual in-plane spacing of a store, None: as in the files
    drop_labels: bool = False  # label values without a name become 0 (True) or an error (False)


def read_acdc(root: str | Path) -> list[Case]:
    """Cases of a folder in the layout of the ACDC challenge, sorted by id (Bernard et al. 2018).

    ``patientNNN/`` holds ``Info.cfg`` and, for the frames ED and ES named there,
    ``patientNNN_frameFF.nii.gz`` with its truth ``..._gt.nii.gz``. Every other frame of an optional
    ``patientNNN_4d.nii.gz`` is an unlabelled case. A patient may come without any truth, as in the
    challenge's first test set. Raises ``FileNotFoundError`` or ``ValueError`` for anything missing.
    """
    root = _folder(root)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name.startswith("patient"))
    if not folders:
        deeper = sorted({p.parent.parent.relative_to(root).as_posix() for p in root.glob("*/**/Info.cfg")})
        hint = f"; patients lie in its subfolder {' and '.join(deeper)}, give that one" if deeper else ""
        raise FileNotFoundError(f"{root} is not in the ACDC layout: it has no folder patientNNN{hint}")
    return sorted((case for folder in folders for case in _acdc_patient(folder)), key=lambda c: c.id)


def _acdc_patient(folder: Path) -> list[Case]:
    patient, info = folder.name, _read_info(folder / "Info.cfg")
    frames = {"ED": int(info["ED"]), "ES": int(info["ES"])}
    cases = []
    for frame, number in frames.items():
        image = folder / f"{patient}_frame{number:02d}.nii.gz"
        if not image.is_file():
            raise FileNotFoundError(f"{image} is missing; Info.cfg beside it names it as the {frame} frame")
        label = image.with_name(f"{patient}_frame{number:02d}_gt.nii.gz")
        label = label if label.is_file() else None
        cases.append(Case(f"{patient}_frame{number:02d}", patient, frame, info["Group"], image, label))
    if len({case.label is None for case in cases}) == 2:
        raise FileNotFoundError(f"{folder} has _gt.nii.gz for only one of ED and ES; add the other")
    cine = folder / f"{patient}_4d.nii.gz"
    count = _load(cine).shape[3] if cine.is_file() else 0
    for number in sorted(set(range(1, count + 1)) - set(frames.values())):
        name, frame = f"{patient}_frame{number:02d}", f"t{number:02d}"
        cases.append(Case(name, patient, frame, info["Group"], cine, None, number - 1))
    return cases


def _read_info(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; every ACDC patient folder needs it for ED, ES and Group")
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    info = {key.strip(): value.strip() for key, value in pairs}
    for key in ("ED", "ES", "Group"):
        if not info.get(key) or (key != "Group" and not info[key].isdigit()):
            raise ValueError(f"{path} has no usable entry {key!r}, found {info.get(key)!r}")
    return info


def read_chd(root: str | Path) -> list[Case]:
    """Cases of a folder in the layout of CHD-68, sorted by id (Xu et al. 2019).

    ``ct_NNNN_image.nii.gz`` beside ``ct_NNNN_label.nii.gz``, in ``root`` or below it; an image
    without a label file is an unlabelled case. Raises ``FileNotFoundError`` where there is no
    image, ``ValueError`` where a scan lies there twice.
    """
    root, cases = _folder(root), {}
    for image in sorted(root.rglob("ct_*_image.nii.gz")):
        name = image.name.removesuffix("_image.nii.gz")
        if name in cases:
            raise ValueError(f"{name} lies in {root} twice: {cases[name].image} and {image}; keep one")
        label = image.with_name(f"{name}_label.nii.gz")
        cases[name] = Case(name, name, "", "", image, label if label.is_file() else None)
    if not cases:
        raise FileNotFoundError(f"{root} is not in the CHD-68 layout: it has no file ct_NNNN_image.nii.gz")
    return [cases[name] for name in sorted(cases)]


ACDC_STRUCTURES = {1: "RV", 2: "MYO", 3: "LV"}
CHD_STRUCTURES = {1: "LV", 2: "RV", 3: "LA", 4: "RA", 5: "MYO", 6: "AO", 7: "PA"}
LAYOUTS: dict[str, Layout] = {
    "acdc": Layout(read_acdc, ACDC_STRUCTURES, spacing_mm=1.25),
    "chd": Layout(read_chd, CHD_STRUCTURES, spacing_mm=None, drop_labels=True),
    "phantom": Layout(read_acdc, ACDC_STRUCTURES, spacing_mm=1.25),
    "phantom-ct": Layout(read_chd, CHD_STRUCTURES, spacing_mm=None, drop_labels=True),
}


def get_layout(dataset: str) -> Layout:
    """The layout by name. Raises ``ValueError`` for an unknown one."""
    if dataset not in LAYOUTS:
        raise ValueError(f"unknown data set {dataset!r}; choose one of {sorted(LAYOUTS)}")
    return LAYOUTS[dataset]


def find_cases(dataset: str, root: str | Path) -> list[Case]:
    """All cases of the data set below ``root``, sorted by id, with the label values they may hold."""
    layout = get_layout(dataset)
    rules = {"structures": tuple(layout.structures), "drop_labels": layout.drop_labels}
    return [replace(case, **rules) for case in layout.reader(root)]


def read_volume(case: Case) -> Volume:
    """Read a case, in the grid of its file.

    Raises ``FileNotFoundError`` for a missing file; ``ValueError`` for values that are not finite, a
    spacing that is not positive, a truth of another shape, or label values the case does not allow.
    """
    image, affine, zooms = _read(case.image, case.frame_index)
    if not np.isfinite(image).all():
        raise ValueError(f"{case.image} holds NaN or infinite values; repair or remove this scan")
    if not all(np.isfinite(z) and z > 0 for z in zooms):
        raise ValueError(f"{case.image} has the voxel spacing {zooms} mm in its header; it must be positive")
    label = None
    if case.label is not None:
        label = _clean(_read(case.label, None)[0], case)
        if label.shape != image.shape:
            raise ValueError(f"{case.label} has shape (S, H, W) {label.shape}, its image {image.shape}")
    return Volume(image, label, zooms[::-1], affine, "".join(nib.aff2axcodes(affine)))


def write_labels(path: str | Path, labels: np.ndarray, case: Case) -> None:
    """Write ``labels (S, H, W)`` as NIfTI in the grid of the case's image: the inverse of ``read_volume``.

    Only the geometry of the source is copied, none of its other header fields. Raises ``ValueError``
    for another shape.
    """
    source = nib.load(case.image)
    if labels.shape != source.shape[2::-1]:
        raise ValueError(f"labels have shape {labels.shape}, {case.image} has {source.shape[2::-1]}")
    result = nib.Nifti1Image(np.ascontiguousarray(labels.astype(np.uint8).transpose(2, 1, 0)), source.affine)
    result.header.set_zooms(source.header.get_zooms()[:3])
    result.header.set_xyzt_units("mm")
    for form in ("qform", "sform"):  # programs choose between the two by their codes
        matrix, code = getattr(source, f"get_{form}")(coded=True)
        if code:
            getattr(result, f"set_{form}")(matrix, code)
    nib.save(result, path)


def _folder(root: str | Path) -> Path:
    if not Path(root).is_dir():
        raise FileNotFoundError(f"there is no folder {root}; give the folder that holds the data set")
    return Path(root)


def _read(path: Path, frame_index: int | None) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Array (k, j, i), affine and spacing (i, j, k) of a NIfTI file or of one frame of it."""
    file = _load(path)
    if len(file.shape) != (3 if frame_index is None else 4):
        expected = "3; of a 4-D file one frame must be chosen" if frame_index is None else "4, to choose a frame"
        raise ValueError(f"{path} has {len(file.shape)} axes; expected {expected}")
    if frame_index is not None and not 0 <= frame_index < file.shape[3]:
        raise ValueError(f"{path} has the frames 0 to {file.shape[3] - 1}, not {frame_index}")
    zooms = tuple(float(z) for z in file.header.get_zooms()[:3])
    if frame_index is None:
        return _values(file).transpose(2, 1, 0), file.affine, zooms
    return _read_4d(path, path.stat().st_mtime_ns)[..., frame_index].transpose(2, 1, 0), file.affine, zooms


@lru_cache(maxsize=1)
def _read_4d(path: Path, _modified: int) -> np.ndarray:
    """A whole cine file: its frames are read one after the other, and unpacking it takes longest."""
    return _values(_load(path))


def _load(path: Path) -> nib.spatialimages.SpatialImage:
    try:
        return nib.load(path)
    except nib.filebasedimages.ImageFileError as error:
        raise ValueError(f"{path} is no NIfTI file ({error}); fetch it again") from None


def _values(file: nib.spatialimages.SpatialImage) -> np.ndarray:
    try:
        return file.get_fdata(dtype=np.float32)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file.get_filename()} is damaged ({error}); fetch it again") from None


def _clean(label: np.ndarray, case: Case) -> np.ndarray:
    if not np.isfinite(label).all():
        raise ValueError(f"{case.label} holds NaN or infinite values; repair or remove it")
    allowed = np.isin(label, (0, *case.structures) if case.structures else range(256))
    if not case.drop_labels and not allowed.all():
        found = np.unique(label[~allowed]).tolist()
        raise ValueError(f"{case.label} holds the labels {found}; allowed: 0, {case.structures or '1-255'}")
    return np.where(allowed, label, 0).astype(np.uint8)
