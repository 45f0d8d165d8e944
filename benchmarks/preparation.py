"""Slices that are prepared in a second on one core: read, resample, find keypoints, write.

Usage: python -m benchmarks.preparation [--root DIR] [--dataset acdc] [--patients 4] [--record]

Without ``--root`` the phantom. The process is bound to one core where the system allows it; ``prepare`` uses as
many processes as it is given, which share nothing, so slices a second grow with the cores. SIFT alone, on the same
slices, is printed beside it. Its time grows with the pixels, so both grids are measured: the usual one of the store
and that of the files, at which SIFT alone once gave 75 slices a second.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks import record
from kaf.data.cases import find_cases
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare_patient
from kaf.data.store import StoreSettings
from kaf.keypoints import detect_sift


def one_core() -> None:
    """Keep this process, with all its threads, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def all_in(settings: StoreSettings, root: Path, out: Path, patients: int) -> tuple[float, list[np.ndarray]]:
    """Seconds to prepare the first patients, after one to warm up; the slices that were prepared."""
    cases = find_cases(settings.dataset, root)
    names = sorted({case.patient for case in cases})[:patients]
    volumes = out / "timed" / "volumes"
    volumes.mkdir(parents=True)
    (out / "warm" / "volumes").mkdir(parents=True)
    prepare_patient([case for case in cases if case.patient == names[0]][:1], root, out / "warm", settings)
    start = time.perf_counter()
    for name in names:
        prepare_patient([case for case in cases if case.patient == name], root, out / "timed", settings)
    seconds = time.perf_counter() - start
    images = [np.load(file, allow_pickle=False) for file in sorted(volumes.glob("*/image.npy"))]
    return seconds, [slice_ for image in images for slice_ in image]


def grid_rows(settings: StoreSettings, root: Path, out: Path, patients: int) -> list[dict]:
    """Rows for one grid of the store."""
    seconds, slices = all_in(settings, root, out, patients)
    start = time.perf_counter()
    for slice_ in slices:
        detect_sift(slice_)
    sift = time.perf_counter() - start
    size = " x ".join(str(round(float(np.mean([s.shape[i] for s in slices])))) for i in (0, 1))
    grid = "grid of the files" if settings.spacing_mm is None else f"{settings.spacing_mm:g} mm"
    more = {"slices": len(slices), "mean_size": size}
    return [record.row(f"preparation, all in, {grid}", len(slices) / seconds, "slices/s", target=">= 50", **more),
            record.row(f"SIFT alone, {grid}", len(slices) / sift, "slices/s", **more),
            record.row(f"time of SIFT / all, {grid}", 1000 * seconds / len(slices), "ms", sift / seconds, **more)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of a data set; none: the phantom")
    parser.add_argument("--dataset", default="acdc")
    parser.add_argument("--patients", type=int, default=4)
    record.add_options(parser)
    options = parser.parse_args()
    one_core()
    with tempfile.TemporaryDirectory() as folder:
        root, dataset = options.root, options.dataset
        if root is None:
            root, dataset = write_phantom(Path(folder) / "phantom", options.patients, progress=False), "phantom"
        rows = []
        for spacing in (StoreSettings.usual(dataset).spacing_mm, None):
            settings = StoreSettings(dataset, spacing)
            rows += grid_rows(settings, root, Path(folder) / str(spacing), options.patients)
    record.finish(f"preparation, {dataset}", rows, options.record, data=dataset, patients=options.patients)


if __name__ == "__main__":
    main()
