"""A phantom beside a real data set: the numbers that should agree if it is to be as hard."""

from pathlib import Path

import numpy as np
import pandas as pd

from kaf.data.cases import find_cases, get_layout, read_volume
from kaf.data.prepare import to_8bit
from kaf.keypoints import deduplicate, detect_sift

DATASETS = {"mr": ("phantom", "acdc"), "ct": ("phantom-ct", "chd")}  # names of the layouts: made up, real


def describe(dataset: str, root: str | Path, cases: int | None = None) -> pd.DataFrame:
    """One row per labelled volume of a data set; at most ``cases`` of them, evenly chosen.

    Intensities are those of the volume scaled to 0..255 between its percentiles 1 and 99, ``sift`` is
    the median over slices of the keypoints left after de-duplication, volumes are in ml, spacing in
    mm, and ``seen`` is the share of slices that show the structure.
    """
    chosen = [case for case in find_cases(dataset, root) if case.label is not None]
    if cases is not None and cases < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, cases).round().astype(int)]
    structures = get_layout(dataset).structures
    return pd.DataFrame(
        [{"group": c.group, "frame": c.frame, **_volume_row(read_volume(c), structures)} for c in chosen]
    )


def _volume_row(volume, structures: dict[int, str]) -> dict[str, float]:
    image = to_8bit(volume.image, (1, 99), volume.image.shape[1:])
    counts = [int(deduplicate(detect_sift(s)).valid.sum()) for s in image]
    rows, cols = image.shape[1:]
    row = {
        "sift": float(np.median(counts)), "slices": len(image), "rows": rows, "cols": cols,
        "slice mm": volume.spacing_mm[0], "pixel mm": volume.spacing_mm[1],
        "mean": image.mean(), "median": float(np.median(image)), "labelled %": 100 * (volume.label > 0).mean(),
    }  # fmt: skip
    for value, name in structures.items():
        mask = volume.label == value
        row[f"{name} ml"] = mask.sum() * np.prod(volume.spacing_mm) / 1000
        row[f"{name} mean"] = image[mask].mean() if mask.any() else np.nan
        row[f"{name} sd"] = image[mask].std() if mask.any() else np.nan
        row[f"{name} seen"] = mask.any((1, 2)).mean()
    return row


def compare(root: str | Path, real: str | Path, kind: str = "mr", patients: int = 20) -> pd.DataFrame:
    """Quartiles over volumes, phantom beside real data: a table with one line per quantity.

    ``kind`` is that of the phantom; at most two volumes per patient of ``patients`` are read of each.
    """
    tables = {}
    for name, dataset, folder in zip(("phantom", "real"), DATASETS[kind], (root, real), strict=True):
        quartiles = describe(dataset, folder, 2 * patients).quantile([0.25, 0.5, 0.75], numeric_only=True)
        tables[name] = quartiles.T.rename(columns=lambda q: f"{100 * q:.0f} %")
    return pd.concat(tables, axis=1).round(2)
