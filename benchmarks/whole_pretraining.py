"""How long a whole pretraining takes: all patients of ACDC, 51 epochs, f = 48, 224 px.

Usage: python -m benchmarks.whole_pretraining [--root DIR] [--patients 80] [--epochs 51] [--width 48] [--size 224]
                                              [--batch 32] [--steps N] [--device cuda] [--workers 8] [--record]

Without ``--root`` as many patients of the phantom, whose volumes have as many slices. With ``--steps`` only so many
are taken and the time is multiplied; the row says so. The run is written to a temporary folder. Without a GPU,
``--device cuda`` leaves the row open.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import record
from kaf.config import resolve
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare
from kaf.pretrain import pretrain

TARGET = "<= 10"  # minutes


def minutes(options: argparse.Namespace, folder: Path) -> tuple[float, int, int]:
    """Minutes of the whole pretraining, its steps, and how many of them were taken."""
    root, dataset = options.root, "acdc"
    if root is None:
        root, dataset = write_phantom(folder / "phantom", options.patients, progress=False), "phantom"
    store = prepare(dataset, root, folder / "store", progress=False)
    patients = sorted({volume.patient for volume in store.volumes})[:options.patients]
    pairs = sum(store.volumes[v].shape[0] for v in store.select(patients=patients))
    experiment = resolve("full", dataset).changed(
        width=options.width, data__size=options.size, pretrain__optim__batch=options.batch,
        pretrain__optim__epochs=options.epochs)
    whole = taken = experiment.pretrain.optim.total(pairs)
    if options.steps:
        taken = min(whole, options.steps)
        experiment = experiment.changed(pretrain__optim__epochs=0, pretrain__optim__steps=taken)
    start = time.perf_counter()
    pretrain(experiment, store, patients, folder / "runs", device=options.device, workers=options.workers)
    return (time.perf_counter() - start) / 60 * whole / taken, whole, taken


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of ACDC; none: the phantom")
    for name, usual in (("patients", 80), ("epochs", 51), ("width", 48), ("size", 224), ("batch", 32), ("workers", 8)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--steps", type=int, help="take so many steps only, and multiply")
    parser.add_argument("--device", default="cuda")
    record.add_options(parser)
    options = parser.parse_args(arguments)
    what = f"pretraining, {options.patients} patients, {options.epochs} epochs, f = {options.width}, {options.size} px"
    shown = {name: value for name, value in vars(options).items() if name not in ("root", "steps", "record", "threads")}
    if options.device == "cuda" and not torch.cuda.is_available():
        rows = [record.row(what, None, "min", target=TARGET)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            whole, steps, taken = minutes(options, Path(folder))
        rows = [record.row(what, whole, "min", target=TARGET, steps=steps, steps_taken=taken)]
    record.finish(f"whole pretraining, {options.device}", rows, options.record, **shown)


if __name__ == "__main__":
    main()
