"""The Sunnybrook cardiac data: cine MR of 45 patients as DICOM, with contours as text (Radau et al. 2009).

The files as published are converted once, by :func:`convert`, to NIfTI, which :func:`read_sunnybrook` reads. Of the
DICOM headers only the geometry is taken over. Where something is not as described here the patient is refused.
http://hdl.handle.net/10380/3070; ``data_scripts/sunnybrook.py`` fetches and converts it.
"""

import csv
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from kaf.data.nifti import is_folder
from kaf.data.problems import Problem, Report, stop
from kaf.data.volumes import Case

MYO, LV = 1, 2
IMAGE = re.compile(r"IM-\d+-(\d+)\.dcm")
CONTOUR = re.compile(r"IM-\d+-(\d+)-([io])contour-manual\.txt")  # i: inner, endocardium; o: outer, epicardium
SAME_PLACE_MM = 0.1
UNEVEN = 0.1  # share by which distances between slices may differ


class Cine(NamedTuple):
    """A short-axis series in memory."""

    image: np.ndarray  # (T, S, H, W)
    affine: np.ndarray  # (4, 4), voxel (i, j, k) to mm
    places: dict[int, tuple[int, int]]  # number in the file name -> (phase, slice)


def read_sunnybrook(root: str | Path, report: Report = stop) -> list[Case]:
    """Cases of a folder written by :func:`convert`, sorted by id.

    ``SCDNNNNNNN/`` holds ``Info.cfg`` with the number of the ED frame, of all frames, and the group, the cine file
    ``..._4d.nii.gz``, and the truth of the ED frame, with myocardium and left ventricle. All other frames are
    unlabelled: in systole only the inner contour was drawn. Raises ``FileNotFoundError`` or ``ValueError`` for
    anything missing.
    """
    root, cases = Path(root), []
    if not is_folder(root, report):
        return []
    for info in sorted(root.glob("SCD*[0-9]/Info.cfg")):
        entries = dict(line.split(": ", 1) for line in info.read_text(errors="replace").splitlines() if ": " in line)
        if entries.keys() >= {"ED", "NbFrame", "Group"} and (entries["ED"] + entries["NbFrame"]).isdigit():
            cases += _cases_of(info.parent, int(entries["ED"]), int(entries["NbFrame"]), entries["Group"], report)
        else:
            report(Problem(info, "has no usable entries ED, NbFrame and Group", "convert the patient again"))
    if not cases:
        what = "holds no converted patient SCDNNNNNNN/Info.cfg"
        remedy = "the DICOM files as published are converted by data_scripts/sunnybrook.py"
        report(Problem(root, what, remedy, FileNotFoundError))
    return cases


def _cases_of(folder: Path, ed: int, frames: int, group: str, report: Report) -> list[Case]:
    patient = folder.name
    cine, truth = (folder / f"{patient}_{name}.nii.gz" for name in ("4d", f"frame{ed:02d}_gt"))
    missing = [file for file in (cine, truth) if not file.is_file()]
    for file in missing:
        report(Problem(file, "is missing", "convert the patient again", FileNotFoundError))
    cases = []
    for number in range(1, 0 if missing else frames + 1):
        label, frame = (truth, "ED") if number == ed else (None, f"t{number:02d}")
        cases.append(Case(f"{patient}_frame{number:02d}", patient, frame, group, cine, label, number - 1))
    return cases


def find_patients(source: Path) -> dict[str, tuple[str, Path]]:
    """Name in the study and image folder of each patient in ``source`` or below it, by id.

    Raises ``FileNotFoundError`` without the table of patients, ``ValueError`` for one with other columns.
    """
    table = next(iter(sorted(source.rglob("scd_patientdata.csv"))), None)
    if table is None:
        raise FileNotFoundError(f"{source} has no scd_patientdata.csv, which says whose contours are whose")
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"PatientID", "OriginalID"} <= rows[0].keys():
        raise ValueError(f"{table} has no columns PatientID and OriginalID; fetch it again")
    folders = {path.parent.name: path.parent for path in sorted(source.rglob("CINESAX*"))}
    return {row["PatientID"]: (row["OriginalID"].strip(), folders[row["PatientID"]])
            for row in rows if row["PatientID"] in folders}  # fmt: skip


def convert(source: Path, patient: str, original: str, images: Path, target: Path) -> None:
    """Write one patient as NIfTI into the empty folder ``target``.

    Raises ``FileNotFoundError`` or ``ValueError`` where images and contours are not as this module expects.
    """
    contours = read_contours(source, original)
    cine = read_cine(find_series(images, contours))
    phases = Counter(cine.places[n][0] for n, kinds in contours.items() if "o" in kinds)
    (phase, count), *_ = phases.most_common(1) or [(0, 0)]
    if 2 * count <= phases.total():
        raise ValueError(f"{patient}: the outer contours lie in no common phase ({dict(phases)}: phase, how many); "
                         "which one is diastole cannot be told")  # fmt: skip
    truth = np.zeros(cine.image.shape[1:], np.uint8)
    for n, kinds in contours.items():
        if cine.places[n][0] == phase:
            truth[cine.places[n][1]] = draw(kinds, truth.shape[1:])
    _save(cine.image, cine.affine, target / f"{patient}_4d.nii.gz")
    _save(truth[None], cine.affine, target / f"{patient}_frame{phase + 1:02d}_gt.nii.gz")
    group = re.sub(r"^SC-|-\d+$", "", original)  # HF-I, HF-NI, HYP or N
    (target / "Info.cfg").write_text(f"ED: {phase + 1}\nGroup: {group}\nNbFrame: {len(cine.image)}\n")


def read_contours(source: Path, original: str) -> dict[int, dict[str, np.ndarray]]:
    """Points ``(N, 2)`` as (x, y) in pixels, by number of the image and ``i`` or ``o``."""
    name = re.sub(r"\d+$", lambda m: m[0].zfill(2), original)  # SC-HF-I-1 has the folder SC-HF-I-01
    contours = defaultdict(dict)
    for file in sorted(source.rglob(f"{name}/contours-manual/IRCCI-expert/*.txt")):
        if found := CONTOUR.fullmatch(file.name):
            points = np.loadtxt(file, ndmin=2)
            if points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
                raise ValueError(f"{file} holds no polygon: expected lines with x and y")
            contours[int(found[1])][found[2]] = points
    if not contours:
        raise FileNotFoundError(f"{source} has no contours {name}/contours-manual/IRCCI-expert/IM-*contour-manual.txt")
    return dict(contours)


def find_series(images: Path, contours: Mapping[int, Any]) -> Path:
    """The one short-axis series that holds every image that was contoured."""
    held = {}
    for folder in sorted(images.glob("CINESAX*")):
        held[folder] = {int(found[1]) for file in folder.iterdir() if (found := IMAGE.fullmatch(file.name))}
    fitting = [folder for folder, numbers in held.items() if contours.keys() <= numbers]
    if len(fitting) != 1:
        raise ValueError(f"{images}: {len(fitting)} of its {len(held)} series CINESAX* hold all {len(contours)} "
                         "contoured images, it should be one; move the others away")  # fmt: skip
    return fitting[0]


def read_cine(folder: Path) -> Cine:
    """Sort the images of a series by place and phase. Raises ``ValueError`` for anything but a regular stack."""
    numbered = {int(found[1]): file for file in folder.iterdir() if (found := IMAGE.fullmatch(file.name))}
    files = {number: _read_dicom(numbered[number]) for number in sorted(numbered)}
    first = files[min(files)]
    across = np.cross(first["rows"], first["columns"])
    if any(f["pixels"].shape != first["pixels"].shape or not np.allclose(f["grid"], first["grid"], atol=1e-3)
           for f in files.values()):
        raise ValueError(f"{folder}: its images differ in size, spacing or direction")
    slices = defaultdict(list)
    for number in files:
        slices[round(float(files[number]["corner"] @ across) / SAME_PLACE_MM)].append(number)
    places = sorted(slices, reverse=slices[min(slices)][0] > slices[max(slices)][0])  # begin where the file names do
    phases = {len(numbers) for numbers in slices.values()}
    gaps = np.abs(np.diff(places)) * SAME_PLACE_MM
    if len(phases) > 1 or len(places) < 2 or gaps.max() > (1 + UNEVEN) * gaps.min():
        raise ValueError(f"{folder} is no regular stack: {sorted(phases)} images per place, "
                         f"places {gaps.round(1)} mm apart")  # fmt: skip
    stack = [slices[place] for place in places]
    step = (files[stack[-1][0]]["corner"] - files[stack[0][0]]["corner"]) / (len(stack) - 1)
    height, width = first["spacing"]  # between rows, between columns
    affine = np.eye(4)
    affine[:3] = np.stack([first["rows"] * width, first["columns"] * height, step, files[stack[0][0]]["corner"]], 1)
    image = np.stack([[files[numbers[t]]["pixels"] for numbers in stack] for t in range(phases.pop())])
    found = {n: (t, s) for s, numbers in enumerate(stack) for t, n in enumerate(numbers)}
    return Cine(image, np.diag([-1.0, -1, 1, 1]) @ affine, found)  # DICOM's axes point left and back


def _read_dicom(file: Path) -> dict[str, Any]:
    try:
        import pydicom
    except ImportError:
        raise ImportError("reading DICOM needs pydicom, which comes with `pip install 'kaf[data]'`") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # identifiers with letters, which are not used here
            image = pydicom.dcmread(file)
            direction = np.array(image.ImageOrientationPatient, float)
            spacing = np.array(image.PixelSpacing, float)
            return {"pixels": image.pixel_array, "corner": np.array(image.ImagePositionPatient, float),
                    "rows": direction[:3], "columns": direction[3:], "spacing": spacing,
                    "grid": np.concatenate([direction, spacing])}  # fmt: skip
    except Exception as error:  # pydicom has no class for what it raises
        raise ValueError(f"{file} cannot be read as DICOM ({type(error).__name__}: {error}); fetch it again") from None


def draw(contours: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Labels ``(H, W)`` of a slice: the pixels whose centre lies inside the outer and inside the inner contour.

    How the contours count pixels is published without an offset; (0, 0) is taken as the centre of the first one.
    """
    from matplotlib.path import Path as Polygon

    labels = np.zeros(shape, np.uint8)
    centres = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[0])), -1).reshape(-1, 2)
    for kind, value in (("o", MYO), ("i", LV)):
        if kind in contours:
            labels[Polygon(contours[kind]).contains_points(centres).reshape(shape)] = value
    return labels


def _save(array: np.ndarray, affine: np.ndarray, file: Path) -> None:
    """Write ``(T, S, H, W)`` as NIfTI; a single frame as 3-D."""
    array = array.transpose(3, 2, 1, 0)
    image = nib.Nifti1Image(array[..., 0] if array.shape[3] == 1 else array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, file)
