"""Memory and time of reading training pairs from a large store and from a small one.

Usage: python -m benchmarks.loader [--slices 1000 20000] [--size 128] [--points 300] [--workers 2] [--record]

Generates a store of each size in a temporary folder (60 kB a slice), then reads as many pairs from each, in batches
of 32, in fresh processes with ``--workers`` loader processes, by turns. The shortest time of each store counts, and
the largest memory of all its processes together:

``rss``      resident memory, with the pages of files that are mapped; counted again in every process that maps them
``private``  what no other process shares, mapped files included (USS)
``anonymous`` what cannot be dropped and read again from disk: the objects of the program itself

The page cache, which the system fills with whatever is read and empties at need, belongs to none of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from benchmarks import record
from kaf.correspondence import match_keypoints
from kaf.data.cases import get_layout
from kaf.data.pairs import EpochSampler, PairDataset, Window, collate
from kaf.data.store import VERSION, Store, StoreSettings, VolumeRecord

ROOT = Path(__file__).resolve().parents[1]
SLICES, BATCH, WARM = 10, 32, 4  # slices of a volume, pairs of a batch, batches before the clock starts
KINDS = {"rss": ("Rss",), "private": ("Private_Clean", "Private_Dirty"), "anonymous": ("Anonymous",)}


def write_store(path: Path, slices: int, size: int, points: int) -> None:
    """A store without labels: noise, and points drawn uniformly, the same in every volume."""
    rng = np.random.default_rng(0)
    columns = [("xy", "f4", 2), ("scale", "f4"), ("score", "f4"), ("descriptor", "u1", 128)]
    table = np.zeros(SLICES * points, columns)
    table["xy"] = rng.uniform(0, size - 1, (len(table), 2))
    table["score"] = rng.uniform(0, 1, len(table))
    table["descriptor"] = rng.integers(0, 256, (len(table), 128))
    image = rng.integers(0, 256, (SLICES, size, size), dtype=np.uint8)
    settings, records = StoreSettings("acdc", 1.25), []
    for number in range(slices // SLICES):
        name = f"volume{number:05d}"
        folder = path / "volumes" / name
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", image)
        np.save(folder / "keypoints.npy", table)
        files = ("image.npy", "keypoints.npy", f"{name}/{name}.nii.gz")
        sums = {file: rng.bytes(32).hex() for file in files}
        shape, spacing = image.shape, (10.0, 1.25, 1.25)
        records.append(VolumeRecord(name, name, "ED", "NOR", False, shape, shape, spacing, spacing, 127.5, 74.0, "RAS",
                                    files[2], (points,) * SLICES, {files[2]: 10**6}, sums))
    manifest = {"version": VERSION, "settings": asdict(settings), "digest": settings.digest, "made_with": {},
                "structures": get_layout("acdc").structures, "complete": True, "volumes": [asdict(r) for r in records]}
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))


def read_pairs(path: Path, size: int, points: int, workers: int, batches: int) -> dict[str, float]:
    """Milliseconds a pair and MiB of memory, by kind, after so many batches, over as many epochs as that takes."""
    store = Store.open(path)
    dataset = PairDataset(store, store.select(), size, points, Window(), partial(match_keypoints, window=30.0))
    loader = DataLoader(dataset, batch_sampler=EpochSampler(len(dataset), BATCH, steps=WARM + batches),
                        collate_fn=collate, num_workers=workers, persistent_workers=workers > 0)
    steps = iter(loader)
    for _ in range(WARM):
        next(steps)
    start = time.perf_counter()
    for _ in steps:
        pass
    seconds = time.perf_counter() - start
    processes = [os.getpid(), *(w.pid for w in loader._iterator._workers)] if workers else [os.getpid()]
    memory = {kind: sum(memory_mb(p, kind) for p in processes) for kind in KINDS}
    return {"ms": 1000 * seconds / (batches * BATCH), **memory}


def memory_mb(pid: int, kind: str) -> float:
    """Memory of a process (MiB) as Linux counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return sum(kilobytes[name] for name in KINDS[kind]) / 1024


def measure(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """One store, read in a fresh process."""
    words = [sys.executable, "-m", "benchmarks.loader", "--read", str(path)]
    for name in ("size", "points", "workers", "batches"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"reading failed:\n{done.stderr}")
    return json.loads(done.stdout)


def compare(options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Shortest time and largest memory of each store, by its slices; read by turns, the first turn not counted."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {slices: Path(folder, str(slices)) for slices in options.slices}
        for slices, path in paths.items():
            write_store(path, slices, options.size, options.points)
        turns = [{slices: measure(path, options) for slices, path in paths.items()}
                 for _ in range(options.rounds + 1)][1:]
    best = {"ms": min} | dict.fromkeys(KINDS, max)
    return {slices: {key: pick(turn[slices][key] for turn in turns) for key, pick in best.items()} for slices in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels")
    parser.add_argument("--points", type=int, default=300, help="keypoints of a slice")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=300, help="batches read from each store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    record.add_options(parser)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read_pairs(options.read, options.size, options.points, options.workers, options.batches)))
        return
    found = compare(options)
    small, large = found[min(found)], found[max(found)]
    rows = [record.row(f"a pair, store of {n} slices", f["ms"], "ms", slices=n) for n, f in found.items()]
    rows.append(record.row("time of a pair, large store / small store", large["ms"], "ms", large["ms"] / small["ms"],
                           "<= 1.1"))
    for kind in KINDS:
        rows += [record.row(f"{kind} memory, store of {n} slices", f[kind], "MiB", slices=n) for n, f in found.items()]
        rows.append(record.row(f"{kind} memory, difference", large[kind] - small[kind], "MiB", target="<= 200"))
    record.finish("loader", rows, options.record, size=options.size, points=options.points, workers=options.workers,
                  batches=options.batches, rounds=options.rounds)


if __name__ == "__main__":
    main()
