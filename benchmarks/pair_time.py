"""Time of one pretraining pair on one core: read, match, augment.

Usage: python benchmarks/pair_time.py STORE [--size 224] [--keypoints 300] [--pairs 100]

Prints milliseconds per pair, the median over the pairs: two slices of STORE (a folder written by
kaf.data.prepare), their correspondences, and their augmentation with each preset in batches of 8 slices.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch

from kaf.correspondence import match_keypoints
from kaf.data.augment import PRESETS, augment
from kaf.data.pairs import EpochSampler, PairDataset, Window, collate
from kaf.data.store import Store
from kaf.keypoints import Keypoints


def milliseconds(work, arguments) -> float:
    """Median time of ``work(argument)``, after one round to warm up."""
    work(arguments[0])
    times = []
    for argument in arguments:
        start = time.perf_counter()
        work(argument)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--size", type=int, default=224, help="side of the crop, pixels")
    parser.add_argument("--keypoints", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store.open(options.store)
    volumes, window = store.select(), Window()

    def dataset(matching):
        return PairDataset(store, volumes, options.size, options.keypoints, window, matching)

    matching = partial(match_keypoints, window=30)
    whole, unmatched = dataset(matching), dataset(lambda a, b: torch.zeros(len(a.valid)).long())
    order = EpochSampler(len(whole), options.pairs).batches(0)
    read = milliseconds(unmatched.__getitem__, order)
    rows = {"read two slices": read, "match": milliseconds(whole.__getitem__, order) - read}

    batch = collate([whole[n] for n in order[:4]])
    images = ((batch.image - batch.mean[..., None, None]) / batch.std[..., None, None]).flatten(0, 1)[:, None]
    points = Keypoints(*(field.flatten(0, 1) for field in batch.keypoints))
    generator = torch.Generator().manual_seed(0)
    for name in ("default", "paper"):
        work = partial(augment, images, points, None, PRESETS[name])
        rows[f"augment, {name}"] = milliseconds(work, [generator] * 30) / 4
    for name, value in rows.items():
        print(f"{name:20s} {value:6.2f} ms a pair")


if __name__ == "__main__":
    main()
