"""NIfTI files: what the header says, the voxels, and what can be wrong with either (chapter 0).

nibabel repairs some headers silently, a voxel size of 0 becomes 1 mm, and does not look at the checksum at the end
of a gzip file. Here both are errors.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.imageglobals import logger

from kaf.data.problems import Problem, Report, allowed, stop

MAX_VOXELS = 2**28  # in one file; as numbers of 4 bytes they take a gigabyte, and preparing them a few
PLAUSIBLE_MM = (0.05, 200.0)  # outside, the unit is probably not the millimetre
IN_MM = (0, 2)  # codes of the unit of lengths in a header: not said, mm
AGAIN = "fetch or export it again"


class Header(NamedTuple):
    """What a file says about itself; its arrays have the axes (i, j, k) and, for several frames, t."""

    path: Path
    shape: tuple[int, ...]
    spacing_mm: tuple[float, float, float]  # (i, j, k)
    affine: np.ndarray  # (4, 4), voxel (i, j, k) to mm

    @property
    def orientation(self) -> str:
        """Where i, j, k point to, such as "RAS"."""
        return "".join(nib.aff2axcodes(self.affine))


def read_header(path: Path, axes: int = 3, report: Report = stop) -> Header | None:
    """The header of a file with 3 or 4 ``axes``; None where an error was reported that makes it useless."""
    file, problem = _open(path)
    if file is None:
        report(problem)
        return None
    if problem := _unreadable(file, path, axes):
        report(problem)
        if not problem.warning:
            return None
    spacing = tuple(float(size) for size in file.header["pixdim"][1:4])
    if not all(math.isfinite(size) and size > 0 for size in spacing):
        remedy = "it must be positive, write the true spacing into the header"
        found = tuple(round(size, 4) for size in spacing)
        report(Problem(path, f"has the voxel spacing {found} mm in its header", remedy))
        return None
    if problem := _other_unit(file, path, spacing):
        report(problem)
        if not problem.warning:
            return None
    affine = _affine(file)
    if affine is None:
        report(Problem(path, "has an affine that maps to no space", "repair the header, or export it anew"))
        return None
    return Header(path, file.shape, spacing, affine)


def read_voxels(path: Path, frame_index: int | None = None, report: Report = stop) -> np.ndarray | None:
    """Voxels ``(k, j, i)`` float32, scaled as the header says; None where the damage of a file was reported."""
    try:
        if frame_index is None:
            return _voxels(path).transpose(2, 1, 0)
        return _frames(path, path.stat().st_mtime_ns)[..., frame_index].transpose(2, 1, 0)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        damage = _short(error, path)
    report(Problem(path, f"is damaged ({damage})", AGAIN))
    return None


def why_no_access(path: Path) -> Problem | None:
    """The problem of a file or folder that cannot be opened: absent, a broken link, not permitted."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            os.stat(os.path.join(path, "."))  # to list a folder is one right, to enter it another
        else:
            path.open("rb").close()
    except FileNotFoundError:
        if path.is_symlink():
            return Problem(path, "is a link to a file that is not there", "put the file there", FileNotFoundError)
        return Problem(path, "is missing", AGAIN, FileNotFoundError)
    except PermissionError as error:
        remedy = "make it readable (chmod u+r FILE, chmod u+rx FOLDER)"
        return Problem(path, f"cannot be read ({error.strerror})", remedy, PermissionError)
    except OSError as error:  # a link that leads back to itself, a disk that fails
        return Problem(path, f"cannot be read ({error.strerror})", "replace it by the file itself", OSError)
    return None


def there(path: Path) -> bool:
    """Whether something has this name: a file, or a link that may lead nowhere, as those of data not yet fetched."""
    return path.is_file() or path.is_symlink()


def nifti_named(folder: Path, stem: str) -> Path:
    """``stem.nii.gz`` in ``folder``, or ``stem.nii`` where only that is there: some copies are not compressed."""
    packed, unpacked = folder / f"{stem}.nii.gz", folder / f"{stem}.nii"
    return unpacked if there(unpacked) and not there(packed) else packed


def is_folder(root: Path, report: Report) -> bool:
    """Whether the folder of a data set can be read; if not, why is reported."""
    problem = why_no_access(root)
    if root.is_file() or (problem and problem.kind is FileNotFoundError):
        remedy = "give the folder that holds the data set"
        kind = NotADirectoryError if root.is_file() else FileNotFoundError
        problem = Problem(root.absolute(), "is no folder", remedy, kind)  # a notebook runs in the folder of its page
    if problem:
        report(problem)
    return problem is None


def _open(path: Path) -> tuple[nib.Nifti1Pair | None, Problem | None]:
    """The file with its header as it stands there, or what prevents it."""
    if problem := why_no_access(path):
        return None, problem
    try:
        with _quiet():
            file = nib.load(path)
        if not isinstance(file, nib.Nifti1Pair):
            raise nib.filebasedimages.ImageFileError(f"it is {type(file).__name__}")
        with file.file_map["header" if "header" in file.file_map else "image"].get_prepare_fileobj("rb") as stream:
            raw = type(file.header).from_fileobj(stream, check=False)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError,
            nib.spatialimages.HeaderDataError) as error:
        return None, Problem(path, f"is no NIfTI file ({_short(error, path)})", AGAIN)
    file.header["pixdim"] = raw["pixdim"]
    return file, None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nibabel's remarks on what it repairs: what matters is reported here."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _short(error: Exception, path: Path) -> str:
    """The message of an error without the folder, which is said already."""
    return " ".join(str(error).split()).replace(str(path), path.name)


def _unreadable(file: nib.Nifti1Pair, path: Path, axes: int) -> Problem | None:
    """What makes the voxels of a file useless; a file over the limit may be allowed, with a warning."""
    if len(file.shape) != axes:
        remedy = "of a 4-D file one frame must be chosen" if axes == 3 else "a frame can be chosen of a 4-D file only"
        return Problem(path, f"has {len(file.shape)} axes, expected {axes}", remedy)
    if min(file.shape) < 1:
        return Problem(path, f"has the shape {file.shape}", "export it anew, no axis can be empty")
    dtype = file.get_data_dtype()
    if dtype.fields or dtype.kind not in "iuf":
        kind = "colours (RGB)" if dtype.fields else f"{dtype} numbers"
        return Problem(path, f"holds {kind}", "save one grey value per voxel")
    voxels = math.prod(file.shape)
    if voxels > MAX_VOXELS:
        remedy = "crop it, or set KAF_ALLOW=size if this machine has memory for several times 4 bytes of each"
        return Problem(path, f"has {voxels} voxels, more than {MAX_VOXELS}", remedy, warning=allowed("size"))
    return None


def _other_unit(file: nib.Nifti1Pair, path: Path, spacing: tuple[float, ...]) -> Problem | None:
    """Why lengths are hardly in mm, by the code of their unit or by their size; may be allowed, with a warning."""
    found, (low, high) = tuple(float(f"{size:.4g}") for size in spacing), PLAUSIBLE_MM
    code = int(file.header["xyzt_units"]) % 8  # the other bits are the unit of time
    what = f"has the voxel spacing {found} mm"
    if code not in IN_MM:
        unit = {1: "metres", 3: "micrometres"}.get(code, f"a unit with the unknown code {code}")
        what = f"has the voxel spacing {found} in {unit}"
    elif all(low <= size <= high for size in spacing):
        return None
    remedy = "write it in mm, with their code, or set KAF_ALLOW=spacing to read these numbers as mm"
    return Problem(path, what, remedy, warning=allowed("spacing"))


def _affine(file: nib.Nifti1Pair) -> np.ndarray | None:
    affine = file.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return None
    return affine


def doubts(header: Header) -> Iterator[Problem]:
    """Warnings about the header of an image that can be used."""
    path, spacing = header.path, tuple(round(size, 4) for size in header.spacing_mm)
    if max(spacing[:2]) > 2 * min(spacing[:2]):
        remedy = "check that its slices lie along the last axis"
        yield Problem(path, f"has the voxel spacing {spacing} mm, unequal in plane", remedy, warning=True)
    other = nib.affines.voxel_sizes(header.affine)
    if not np.allclose(other, spacing, rtol=0.01):
        found = tuple(round(float(size), 4) for size in other)
        yield Problem(path, f"has the voxel spacing {spacing} mm in its header, but {found} mm in its affine",
                      "the first is used, check it", warning=True)
    if header.shape[2] == 1:
        yield Problem(path, "is a single slice", "it has no neighbours and takes no part in pretraining", warning=True)


def _voxels(path: Path) -> np.ndarray:
    """All voxels of a file; a gzip file is read to its end, where its checksum lies."""
    with _quiet():
        if path.suffix != ".gz":
            return nib.load(path).get_fdata(dtype=np.float32)
        with gzip.open(path) as stream:
            voxels = type(nib.load(path)).from_stream(stream).get_fdata(dtype=np.float32)
            while stream.read(1 << 20):
                pass
    return voxels


@lru_cache(maxsize=1)
def _frames(path: Path, _modified: int) -> np.ndarray:
    """A whole cine file: its frames are read one after the other, and unpacking it takes longest."""
    return _voxels(path)
