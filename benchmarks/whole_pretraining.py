"""How long a whole pretraining takes: all patients of ACDC, 51 epochs, f = 48, 224 px.

Usage: python -m benchmarks.whole_pretraining [--root DIR] [--patients 80] [--epochs 51] [--width 48] [--size 224]
                                              [--batch 32] [--steps N] [--device cuda] [--workers 8] [--record]

Without ``--root`` as many patients of the phantom, whose volumes have as many slices. With ``--steps`` only so many
are taken: the first ones are slower, so that the seconds of a step are those of the steps behind them, and the rest is
the start, which is paid once. The row has both. The run is written to a temporary folder. Without a GPU,
``--device cuda`` leaves the row open.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import ClassVar
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import record
from kaf import pretrain as pretraining
from kaf.config import resolve
from kaf.data.pairs import PairSample
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare
from kaf.pretrain import PretrainLoss

TARGET = "<= 10"  # minutes
WARM = 20  # steps in which a GPU tries algorithms and memory is asked for


class Timed(PretrainLoss):
    """The loss of pretraining; ``begins`` has the times at which steps of :attr:`at` begin, all before them done."""

    at: ClassVar[tuple[int, ...]] = ()
    begins: ClassVar[dict[int, float]] = {}

    def __call__(self, model: nn.Module, batch: PairSample, step: int) -> tuple[Tensor, dict]:
        if step in self.at:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.begins[step] = time.perf_counter()
        return super().__call__(model, batch, step)


def minutes(options: argparse.Namespace, folder: Path) -> tuple[float, dict[str, float]]:
    """Minutes of the whole pretraining; its steps, how many of them were taken, and seconds of the start and a step.

    What is written at the end counts to the start, what is written every minute to the steps.
    """
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
    if taken < 2:
        raise ValueError(f"{taken} step has no step behind it to be timed; take 2 or more")
    Timed.at, Timed.begins = (min(WARM, taken // 2 - 1), taken - 1), {}
    start = time.perf_counter()
    with mock.patch.object(pretraining, "PretrainLoss", Timed):
        pretraining.pretrain(experiment, store, patients, folder / "runs", device=options.device,
                             workers=options.workers)
    seconds = time.perf_counter() - start
    first, last = Timed.at
    step = (Timed.begins[last] - Timed.begins[first]) / (last - first)
    before = seconds - step * taken
    return (before + step * whole) / 60, {"steps": whole, "steps_taken": taken, "start_s": before, "step_s": step}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of ACDC; none: the phantom")
    for name, usual in (("patients", 80), ("epochs", 51), ("width", 48), ("size", 224), ("batch", 32), ("workers", 8)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--steps", type=int, help="take so many steps only, 2 or more")
    parser.add_argument("--device", default="cuda")
    record.add_options(parser)
    options = parser.parse_args(arguments)
    what = f"pretraining, {options.patients} patients, {options.epochs} epochs, f = {options.width}, {options.size} px"
    shown = {name: value for name, value in vars(options).items() if name not in ("root", "steps", "record", "threads")}
    if options.device == "cuda" and not torch.cuda.is_available():
        rows = [record.row(what, None, "min", target=TARGET)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            whole, more = minutes(options, Path(folder))
        rows = [record.row(what, whole, "min", target=TARGET, **more)]
    record.finish(f"whole pretraining, {options.device}", rows, options.record, **shown)


if __name__ == "__main__":
    main()
