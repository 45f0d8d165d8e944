"""What lies on disk: one small function per folder layout gives the cases of a data set (chapter 0).

A data set is added with one function ``(root, report) -> list[Case]`` and one line in :data:`LAYOUTS`. What is
wrong with a folder goes to ``report`` (:mod:`kaf.data.problems`), which by default raises it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kaf.choices import check_choice
from kaf.data.hvsmr import read_hvsmr
from kaf.data.nifti import Header, is_folder, nifti_named, read_header, there, why_no_access
from kaf.data.problems import Problem, Report, stop
from kaf.data.sunnybrook import read_sunnybrook
from kaf.data.volumes import (  # noqa: F401  part of this module's interface
    Case,
    Volume,
    check_headers,
    read_volume,
    write_labels,
)


@dataclass(frozen=True)
class Layout:
    """What the library knows about a data set."""

    reader: Callable[[Path, Report], list[Case]]
    structures: dict[int, str]  # label value -> name, without the background
    spacing_mm: float | None  # usual in-plane spacing of a store, None: as in the files
    drop_labels: bool = False  # label values without a name become 0 (True) or an error (False)
    unused: tuple[str, ...] = ()  # names of further files that the data set comes with


def read_acdc(root: str | Path, report: Report = stop) -> list[Case]:
    """Cases of a folder in the layout of the ACDC challenge, sorted by id (Bernard et al. 2018).

    ``patientNNN/`` holds ``Info.cfg`` and, for the frames ED and ES named there, ``patientNNN_frameFF.nii.gz``
    with its truth ``..._gt.nii.gz``. Every other frame of an optional ``patientNNN_4d.nii.gz`` is an unlabelled
    case. Any of them may lack the ending ``.gz``. A patient may come without any truth, as in the challenge's
    first test set. Raises ``FileNotFoundError`` or ``ValueError`` for anything missing.
    """
    root = Path(root)
    if not is_folder(root, report):
        return []
    folders = sorted(p for p in root.iterdir() if p.name.startswith("patient") and (p.is_symlink() or p.is_dir()))
    if not folders:
        deeper = sorted({p.parent.parent.relative_to(root).as_posix() for p in root.glob("*/**/Info.cfg")})
        remedy = "give the folder that holds them"
        if deeper:
            remedy = f"patients lie in its subfolder {' and '.join(deeper)}, give that one"
        what = "is not in the ACDC layout: it has no folder patientNNN"
        report(Problem(root, what, remedy, FileNotFoundError))
    return sorted((case for folder in folders for case in _acdc_patient(folder, report)), key=lambda c: c.id)


def _acdc_patient(folder: Path, report: Report) -> list[Case]:
    if problem := why_no_access(folder):
        report(problem)
        return []
    patient, info = folder.name, _read_info(folder / "Info.cfg", report)
    if info is None:
        return []
    frames = {"ED": int(info["ED"]), "ES": int(info["ES"])}
    cases = []
    for frame, number in frames.items():
        image = nifti_named(folder, f"{patient}_frame{number:02d}")
        if not there(image):
            what = f"is missing, which Info.cfg beside it names as the {frame} frame"
            report(Problem(image, what, "add the file, or correct Info.cfg", FileNotFoundError))
            continue
        label = nifti_named(folder, f"{patient}_frame{number:02d}_gt")
        label = label if there(label) else None
        cases.append(Case(f"{patient}_frame{number:02d}", patient, frame, info["Group"], image, label))
    if len({case.label is None for case in cases}) == 2:
        report(Problem(folder, "has _gt.nii.gz for only one of ED and ES", "add the other", FileNotFoundError))
    cine = nifti_named(folder, f"{patient}_4d")
    header = read_header(cine, 4, report) if cine.is_file() else None
    for number in sorted(set(range(1, header.shape[3] + 1 if header else 0)) - set(frames.values())):
        name, frame = f"{patient}_frame{number:02d}", f"t{number:02d}"
        cases.append(Case(name, patient, frame, info["Group"], cine, None, number - 1))
    return cases


def _read_info(path: Path, report: Report) -> dict[str, str] | None:
    if problem := why_no_access(path):
        what = f"{problem.what}, which every ACDC patient folder needs for ED, ES and Group"
        report(replace(problem, what=what))
        return None
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    info = {key.strip(): value.strip() for key, value in pairs}
    example = {"ED": "ED: 1", "ES": "ES: 12", "Group": "Group: NOR"}
    for key in example:
        value = info.get(key)
        if not value or (key != "Group" and not (value.isascii() and value.isdigit())):
            remedy = f"add a line such as {example[key]!r}"
            report(Problem(path, f"has no usable entry {key!r}, found {value!r}", remedy))
            return None
    if int(info["ED"]) == int(info["ES"]):
        report(Problem(path, f"names frame {info['ED']} as both ED and ES", "correct one of the two"))
        return None
    return info


def read_chd(root: str | Path, report: Report = stop) -> list[Case]:
    """Cases of a folder in the layout of CHD-68, sorted by id (Xu et al. 2019).

    ``ct_NNNN_image.nii.gz`` beside ``ct_NNNN_label.nii.gz``, in ``root`` or below it; an image
    without a label file is an unlabelled case; both may lack the ending ``.gz``. Raises
    ``FileNotFoundError`` where there is no image, ``ValueError`` where a scan lies there twice.
    """
    root, cases = Path(root), {}
    if not is_folder(root, report):
        return []
    images = (image for end in ("nii.gz", "nii") for image in root.rglob(f"ct_*_image.{end}"))
    for image in sorted(images):
        name = image.name.partition("_image.")[0]
        if name in cases:
            report(Problem(image, f"is a second file of {name}, beside {cases[name].image}", "keep one of the two"))
            continue
        label = nifti_named(image.parent, f"{name}_label")
        label = label if there(label) else None
        cases[name] = Case(name, name, "", "", image, label)
    if not cases:
        what = "is not in the CHD-68 layout: it has no file ct_NNNN_image.nii.gz"
        report(Problem(root, what, "give the folder that holds them", FileNotFoundError))
    return [cases[name] for name in sorted(cases)]


ACDC_STRUCTURES = {1: "RV", 2: "MYO", 3: "LV"}
CHD_STRUCTURES = {1: "LV", 2: "RV", 3: "LA", 4: "RA", 5: "MYO", 6: "AO", 7: "PA"}
HVSMR_STRUCTURES = {1: "LV", 2: "RV", 3: "LA", 4: "RA", 5: "AO", 6: "PA", 7: "SVC", 8: "IVC"}
LAYOUTS: dict[str, Layout] = {
    "acdc": Layout(read_acdc, ACDC_STRUCTURES, spacing_mm=1.25),
    "chd": Layout(read_chd, CHD_STRUCTURES, spacing_mm=None, drop_labels=True),
    "hvsmr": Layout(read_hvsmr, HVSMR_STRUCTURES, spacing_mm=None, unused=("pat*_seg_endpoints.nii.gz",)),
    "sunnybrook": Layout(read_sunnybrook, {1: "MYO", 2: "LV"}, spacing_mm=1.25),
    "phantom": Layout(read_acdc, ACDC_STRUCTURES, spacing_mm=1.25),
    "phantom-ct": Layout(read_chd, CHD_STRUCTURES, spacing_mm=None, drop_labels=True),
}


def get_layout(dataset: str) -> Layout:
    """The layout by name. Raises ``ValueError`` for an unknown one."""
    check_choice("data set", dataset, LAYOUTS)
    return LAYOUTS[dataset]


def find_cases(dataset: str, root: str | Path, report: Report = stop) -> list[Case]:
    """All cases of the data set below ``root``, sorted by id, with the label values they may hold."""
    layout = get_layout(dataset)
    rules = {"structures": tuple(layout.structures), "drop_labels": layout.drop_labels}
    return [replace(case, **rules) for case in layout.reader(Path(root), report)]


def check_cases(cases: Iterable[Case], report: Report = stop) -> dict[str, Header]:
    """Check the headers of all cases against the rules of ``read_volume``; the headers of their images, by id."""
    found, headers = {}, {}
    for case in cases:
        files = (case.image, case.label)  # the frames of a cine file share them
        if files not in found:
            found[files] = check_headers(case, report)[0]
        if found[files]:
            headers[case.id] = found[files]
    return headers
