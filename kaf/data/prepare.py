"""From the files of a data set to a store: resample, clip, count, find keypoints, once (chapter 0)."""

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch

from kaf.data.arrays import write_array
from kaf.data.cases import Case, Volume, find_cases, read_volume
from kaf.data.filling import (
    begin,
    check_first,
    clear_unfinished,
    finished,
    is_complete,
    is_ready,
    names,
    write_manifest,
)
from kaf.data.grid import resample, resample_labels, store_shape
from kaf.data.store import Store, StoreSettings, VolumeRecord
from kaf.files import building, digest_once, exclusive, file_digest, make_writable, seal
from kaf.keypoints import Keypoints, deduplicate, get_detector
from kaf.progress import progress_bar
from kaf.usage import count_cores

WORKER_GB = 2  # memory that a process takes which prepares a scan of CHD
GUARD = 'put the code of your script under `if __name__ == "__main__":`, or pass workers=1'


def prepare(
    dataset: str,
    root: str | Path,
    out: str | Path,
    settings: StoreSettings | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Store:
    """Prepare the data set in ``root`` into the store ``out`` and open it.

    Continues where a killed run stopped and adds volumes that are new in ``root``; a second process
    waits for the first. A store with nothing to add may lie where nothing can be written. ``workers`` processes share
    the patients, by default :func:`preparers`; with 1 everything happens in this one.
    Of a file's header only size, spacing and orientation are kept. Names of files and of patient folders are kept as
    ids: where they identify someone, rename them before.

    Raises ``ValueError`` if ``out`` was made with other settings, holds volumes that ``root`` has not,
    or if a file changed since; it never reuses such a store. See ``read_volume`` for bad files: what their headers
    tell is found before anything is written. Raises ``OSError`` where ``out`` cannot be written or is too small,
    ``BrokenProcessPool``, a ``RuntimeError``, where a process ends before its work is done, as those of a script
    without a guard do.
    """
    settings, root, out = settings or StoreSettings.usual(dataset), Path(root), Path(out)
    workers = preparers() if workers is None else workers
    if out.resolve() == root.resolve():
        raise ValueError(f"{out} is the folder of the data set itself; give the store another one")
    if settings.dataset != dataset:
        raise ValueError(f"the settings are for {settings.dataset!r}, not for {dataset!r}")
    # A new process runs an unguarded script again and comes here, where it would wait for its parent for ever.
    if workers > 1 and getattr(multiprocessing.current_process(), "_inheriting", False) and not is_complete(out):
        raise BrokenProcessPool(f"a process that prepares {out} has run your script again: {GUARD}")
    cases = find_cases(dataset, root)
    check_first(cases, out, settings)
    if is_ready(out, cases, root, settings):
        return Store.open(out, settings)
    make_writable(out / "volumes")
    with exclusive(out):  # a second process waits
        begin(out, settings)
        done = finished(out, cases, root)
        missing = [case for case in cases if case.id not in done]
        if missing:
            write_manifest(out, settings, [], complete=False)
            clear_unfinished(out, missing)
            done |= _run(missing, root, out, settings, workers, progress)
        if not names(out, cases):  # a finished store keeps the versions that made it
            write_manifest(out, settings, [done[case.id] for case in cases], complete=True)
    return Store.open(out, settings)


def preparers() -> int:
    """How many processes prepare a data set: one for each core, as far as memory allows, and 2 at least."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows does not say how much there is
        return 2
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return max(2, min(count_cores(), int(gigabytes / 2 / WORKER_GB)))  # half of it: others work here, too


def _run(cases: list[Case], root, out, settings, workers, progress) -> dict[str, VolumeRecord]:
    patients = [list(group) for _, group in groupby(cases, key=lambda case: case.patient)]
    done = {}
    with progress_bar(total=len(cases), unit="volume", desc="prepare", quiet=not progress) as bar:
        try:
            for records in _map(patients, root, out, settings, min(workers, len(patients))):
                done |= {record.id: record for record in records}
                bar.update(len(records))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped with {len(done)} of {len(cases)} volumes prepared; run the same again "
                                    "to go on") from None
        except BrokenProcessPool:
            raise BrokenProcessPool(
                f"a process ended with {len(done)} of {len(cases)} volumes prepared: {GUARD}; if that is so already, "
                "memory may have run out: close other programs and run the same again, it goes on") from None
    return done


def _map(patients, root, out, settings, workers) -> Iterator[list[VolumeRecord]]:
    if workers <= 1:
        yield from (prepare_patient(cases, root, out, settings) for cases in patients)
        return
    # Fresh processes: forking a process that already runs threads of torch and OpenCV can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        jobs = [pool.submit(prepare_patient, cases, root, out, settings) for cases in patients]
        try:
            yield from (job.result() for job in as_completed(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first error ends the run, finished volumes stay
            raise


def _start_worker() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()  # a killed parent would leave its workers waiting forever
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def prepare_patient(cases: list[Case], root: Path, out: Path, settings: StoreSettings) -> list[VolumeRecord]:
    """Write the volumes of one patient; each appears in the store whole or not at all."""
    return [_write_volume(case, root, out, settings) for case in cases]


def _write_volume(case: Case, root: Path, out: Path, settings: StoreSettings) -> VolumeRecord:
    volume = read_volume(case)
    arrays, counts = prepare_volume(volume, settings)
    with building(out / "volumes" / case.id) as draft:
        record = _write_arrays(draft, case, volume, arrays, counts, root)
        (draft / "record.json").write_text(json.dumps(seal(asdict(record))))
    return record


def _write_arrays(draft: Path, case: Case, volume: Volume, arrays: dict, counts: tuple, root: Path) -> VolumeRecord:
    checksums = {}
    for name, array in arrays.items():
        write_array(draft / name, array)
        checksums[name] = file_digest(draft / name)
    sources = {file.relative_to(root).as_posix(): file for file in (case.image, case.label) if file}
    checksums |= {name: digest_once(file) for name, file in sources.items()}
    image = arrays["image.npy"]
    native = volume.image.shape
    spacing = tuple((np.array(volume.spacing_mm) * native / image.shape).tolist())  # same field of view
    return VolumeRecord(
        case.id, case.patient, case.frame, case.group, volume.label is not None,
        image.shape, native, spacing, volume.spacing_mm,
        *statistics(image), volume.orientation,
        case.image.relative_to(root).as_posix(), counts,
        {name: file.stat().st_size for name, file in sources.items()}, checksums,
    )  # fmt: skip


def prepare_volume(volume: Volume, settings: StoreSettings) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """The arrays of a volume by file name, and the number of keypoints in each slice."""
    shape = store_shape(volume.image.shape[1:], volume.spacing_mm[1:], settings.spacing_mm)
    image = to_8bit(volume.image, settings.clip, shape)
    arrays = {"image.npy": image}
    if volume.label is not None:
        arrays["label.npy"] = resample_labels(volume.label, shape)
        if shape != volume.label.shape[1:]:
            arrays["truth.npy"] = volume.label
    arrays["keypoints.npy"], counts = find_keypoints(image, settings.detector)
    return arrays, counts


def statistics(image: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of an 8-bit volume; the latter 1 where it is flat, to divide by."""
    std = float(image.std())
    return float(image.mean()), std if std > 0 else 1.0


def to_8bit(image: np.ndarray, clip: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Scale ``(S, H, W)`` between two percentiles of the volume to 0..255 and resample it to ``shape``.

    Clipping comes first, so that single bright voxels do not bleed into their neighbours. A flat
    volume becomes 0.
    """
    low, high = np.percentile(image, clip)
    scaled = np.clip((image - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return np.rint(255 * resample(scaled, shape)).astype(np.uint8)


def detect(image: np.ndarray, detector: str) -> Keypoints:
    """All keypoints of one slice ``(H, W)``, de-duplicated."""
    return deduplicate(get_detector(detector)(np.ascontiguousarray(image)))


def find_keypoints(image: np.ndarray, detector: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """De-duplicated keypoints of every slice of ``(S, H, W)`` as one table, and their number per slice."""
    found = [detect(slice_, detector) for slice_ in image]
    length = found[0].descriptor.shape[-1:]
    columns = [("xy", "f4", 2), ("scale", "f4"), ("score", "f4"), ("descriptor", "u1", length)]
    table = np.zeros(sum(len(points.valid) for points in found), columns)
    for name in table.dtype.names:
        table[name] = torch.cat([getattr(points, name) for points in found]).numpy()
    return table, tuple(len(points.valid) for points in found)
