"""Time of one pretraining pair on one core: read, match, augment.

Usage: python -m benchmarks.pair_time [--store STORE] [--size 224] [--points 300] [--pairs 100] [--record]

Prints milliseconds a pair, the median over the pairs: two slices of STORE (a folder written by
kaf.data.prepare; none: the phantom), their correspondences, and their augmentation with each preset in batches of
8 slices. The program released with the paper takes 160 ms for the whole.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from kaf.correspondence import match_keypoints
from kaf.data.augment import PRESETS, augment
from kaf.data.pairs import EpochSampler, PairDataset, Window, collate
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare
from kaf.data.store import Store
from kaf.keypoints import Keypoints

ORIGINAL_MS = 160  # SIFT twice, matching and two augmentations, on the same kind of core
PATIENTS = 4


def milliseconds(work: Callable[[Any], Any], arguments: Sequence) -> float:
    """Median time of ``work(argument)``, after one round to warm up."""
    work(arguments[0])
    times = []
    for argument in arguments:
        start = time.perf_counter()
        work(argument)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def time_parts(store: Store, size: int, points: int, pairs: int) -> dict[str, float]:
    """Milliseconds a pair for each part of the work."""
    volumes, window = store.select(), Window()
    datasets = {name: PairDataset(store, volumes, size, points, window, matching) for name, matching in (
        ("read", None), ("match", partial(match_keypoints, window=30)))}
    order = EpochSampler(len(datasets["read"]), pairs).batches(0)
    parts = {name: milliseconds(dataset.__getitem__, order) for name, dataset in datasets.items()}
    parts["match"] -= parts["read"]

    batch = collate([datasets["match"][n] for n in order[:4]])
    images = ((batch.image - batch.mean[..., None, None]) / batch.std[..., None, None]).flatten(0, 1)[:, None]
    keypoints = Keypoints(*(field.flatten(0, 1) for field in batch.keypoints))
    generator = torch.Generator().manual_seed(0)
    for name in ("default", "paper"):
        work = partial(augment, images, keypoints, None, PRESETS[name])
        parts[f"augment, {name}"] = milliseconds(work, [generator] * 30) / 4
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", type=Path, help="folder of a store; none: the phantom")
    parser.add_argument("--size", type=int, default=224, help="side of the crop, pixels")
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=100)
    record.add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = options.store
        if path is None:
            root, path = write_phantom(Path(folder) / "phantom", PATIENTS, progress=False), Path(folder) / "store"
            prepare("phantom", root, path, progress=False)
        store = Store.open(path)
        parts = time_parts(store, options.size, options.points, options.pairs)
    rows = [record.row(name, value, "ms") for name, value in parts.items()]
    for name in ("default", "paper"):
        whole = parts["read"] + parts["match"] + parts[f"augment, {name}"]
        rows.append(record.row(f"one pair, {name} augmentation", whole, "ms", target="<= 6", original=ORIGINAL_MS))
        rows.append(record.row(f"one pair, {name} augmentation / original", whole, "ms", whole / ORIGINAL_MS))
    data = store.settings.dataset
    record.finish(f"pretraining pair, {data}", rows, options.record, data=data, size=options.size,
                  points=options.points)


if __name__ == "__main__":
    main()
