"""A case and its voxels: reading image and truth, checking that they fit, writing labels (chapter 0).

NIfTI arrays have the axes ``(i, j, k)``; here they become ``(slice k, row j, column i)``.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from kaf.data.nifti import Header, doubts, read_header, read_voxels
from kaf.data.problems import Problem, Report, allowed, stop


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


def read_volume(case: Case, report: Report = stop) -> Volume | None:
    """Read a case, in the grid of its file.

    Raises the first error: ``FileNotFoundError`` or ``PermissionError`` for a file that cannot be opened;
    ``ValueError`` for one that is no sound NIfTI file of the expected axes, a spacing that is not positive, values
    that are not finite or all the same, a truth of another grid, or label values the case does not allow. With
    another ``report`` all of them, and the warnings, are handed to it, and the volume is None where there was one.
    """
    failed = []

    def note(problem: Problem) -> None:
        failed.append(not problem.warning)
        report(problem)

    header, truth = check_headers(case, note)
    image = header and _image(case, note)
    label = truth and _label(case, note)
    if any(failed) or header is None or image is None:
        return None
    return Volume(image, label, header.spacing_mm[::-1], header.affine, header.orientation)


def check_headers(case: Case, report: Report = stop) -> tuple[Header | None, Header | None]:
    """The headers of image and truth, checked against each other; reads no voxels. Errors as of ``read_volume``."""
    image = read_header(case.image, 3 if case.frame_index is None else 4, report)
    if image and case.frame_index is not None and not 0 <= case.frame_index < image.shape[3]:
        last = image.shape[3] - 1
        report(Problem(case.image, f"has the frames 0 to {last}, not {case.frame_index}", "choose one of these"))
        image = None
    for problem in doubts(image) if image else ():
        report(problem)
    label = read_header(case.label, report=report) if case.label else None
    if image and label:
        _compare(image, label, report)
    return image, label


def _compare(image: Header, label: Header, report: Report) -> None:
    """A truth has the shape of its image, and lies in the same place up to half a voxel."""
    shape = image.shape[:3]  # the truth of one frame of a 4-D file is 3-D
    if label.shape != shape:
        remedy = "export both in one grid"
        report(Problem(label.path, f"has shape (i, j, k) {label.shape}, its image {shape}", remedy))
        return
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))]).T
    apart = np.abs(np.linalg.solve(image.affine, label.affine @ corners) - corners).max()
    if apart > 0.5:
        facts = [f"{h.orientation}, {tuple(round(size, 3) for size in h.spacing_mm)} mm" for h in (label, image)]
        what = f"lies up to {apart:.1f} voxels away from its image (it has {facts[0]}; the image {facts[1]})"
        remedy = "export both in one grid, or set KAF_ALLOW=geometry to go by the order of the voxels"
        report(Problem(label.path, what, remedy, warning=allowed("geometry")))


def _image(case: Case, report: Report) -> np.ndarray | None:
    image = read_voxels(case.image, case.frame_index, report)
    if image is None:
        return None
    where = "" if case.frame_index is None else f" in its frame {case.frame_index}"
    if not np.isfinite(image).all():
        report(Problem(case.image, f"holds NaN or infinite values{where}", "repair or remove this scan"))
    elif image.min() == image.max():
        report(Problem(case.image, f"has the value {image.min():g} everywhere{where}", "export it anew, or remove it"))
    return image


def _label(case: Case, report: Report) -> np.ndarray | None:
    label = read_voxels(case.label, None, report)
    if label is None:
        return None
    if not np.isfinite(label).all():
        report(Problem(case.label, "holds NaN or infinite values", "repair or remove it"))
        return None
    if (label != np.rint(label)).any():
        found = np.unique(label[label != np.rint(label)])[:3].tolist()
        report(Problem(case.label, f"holds the fractions {found} as labels",
                       "labels are whole numbers: resample with nearest neighbour, and save as integers"))
        return None
    known = np.isin(label, (0, *case.structures) if case.structures else range(256))
    if not case.drop_labels and not known.all():
        found = np.unique(label[~known]).astype(int).tolist()
        allowed = ", ".join(map(str, case.structures)) or "1 to 255"
        remedy = f"allowed are 0 and {allowed}: give its structures these numbers, or move the case away"
        report(Problem(case.label, f"holds the labels {found}", remedy))
    label = np.where(known, label, 0).astype(np.uint8)
    if not label.any():
        report(Problem(case.label, "is background everywhere", "check that this is meant", warning=True))
    return label


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
