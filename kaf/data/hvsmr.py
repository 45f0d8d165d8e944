"""The layout of HVSMR-2.0: whole-heart MR of 60 patients with congenital heart disease (Pace et al. 2024).

Doi 10.1038/s41597-024-03469-9; ``data_scripts/hvsmr.py`` fetches it.
"""

import csv
from pathlib import Path

from kaf.data.nifti import is_folder, there
from kaf.data.problems import Problem, Report, stop
from kaf.data.volumes import Case

IMAGE, LABEL = "_cropped_norm.nii.gz", "_cropped_seg.nii.gz"


def read_hvsmr(root: str | Path, report: Report = stop) -> list[Case]:
    """Cases of a folder in the layout of HVSMR-2.0, variant ``cropped_norm``, sorted by number.

    ``patN_cropped_norm.nii.gz`` beside ``patN_cropped_seg.nii.gz``, in ``root`` or below it; the files
    ``..._seg_endpoints.nii.gz`` are not read. The group is the severity in ``hvsmr_clinical.csv``, if that lies there
    too. Raises ``FileNotFoundError`` where there is no such image or no segmentation of it, ``ValueError`` where a
    patient lies there twice or the table has other columns.
    """
    root, cases = Path(root), {}
    if not is_folder(root, report):
        return []
    severity = _severity(next(iter(sorted(root.rglob("hvsmr_clinical.csv"))), None), report)
    for image in sorted(root.rglob(f"pat*{IMAGE}")):
        patient = image.name.removesuffix(IMAGE)
        label = image.with_name(f"{patient}{LABEL}")
        if not patient[3:].isdigit():
            report(Problem(image, f"has no number in its name, such as pat7{IMAGE}", "give it the name it came with"))
        elif patient in cases:
            other = cases[patient].image
            report(Problem(image, f"is a second file of {patient}, beside {other}", "keep one of the two"))
        elif not there(label):
            report(Problem(label, f"is missing beside {image.name}", "fetch it again", FileNotFoundError))
        else:
            cases[patient] = Case(patient, patient, "", severity.get(int(patient[3:]), ""), image, label)
    if not cases:
        what = f"is not in the layout of HVSMR-2.0: it has no file patN{IMAGE} with a segmentation"
        report(Problem(root, what, "give the folder that holds the variant cropped_norm", FileNotFoundError))
    return sorted(cases.values(), key=lambda case: int(case.patient[3:]))


def _severity(table: Path | None, report: Report) -> dict[int, str]:
    if table is None:
        return {}
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"Pat", "Category"} <= rows[0].keys():
        remedy = "fetch it again, or remove it to have no groups"
        report(Problem(table, "has no columns Pat and Category", remedy))
        return {}
    return {int(row["Pat"]): row["Category"].strip() for row in rows if row["Pat"].strip().isdigit()}
