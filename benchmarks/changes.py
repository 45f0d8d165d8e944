"""What each change for speed was expected to bring to a training step, and what it brings.

Usage: python -m benchmarks.changes [--device cpu] [--size 128] [--batch 4] [--width 16] [--points 300] [--rounds 5]
                                    [--only NAME] [--record]

Each line compares a step of the default KAF-UNet with and without one change, all others in place. The prediction
was written down before the measurement and stays as it was; ``kept`` says what the library does on this device.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from unittest import mock

import torch
from torch import Tensor

import kaf.fusion
from benchmarks import record
from benchmarks.workload import Step, Workload, interleaved, random_keypoints
from kaf.config import AUGMENT
from kaf.data.augment import augment
from kaf.fusion import scatter
from kaf.mixers import Attention

NETWORK = "KAF default"


class Under:
    """A step that is taken inside some context managers, which are entered anew each time."""

    def __init__(self, step: Callable[[], object], *contexts: Callable[[], AbstractContextManager]):
        self.step, self.contexts = step, contexts

    def __call__(self) -> object:
        with ExitStack() as stack:
            for context in self.contexts:
                stack.enter_context(context())
            return self.step()


def dense_conv3x3(tokens: Tensor, cell: Tensor, weight: Tensor, height: int, width: int,
                  conv: torch.nn.Conv2d) -> Tensor:
    """What :func:`kaf.fusion.sparse_conv3x3` computes, over the whole map."""
    return conv(scatter(tokens, cell, weight, height, width))


def matrix_attention(self: Attention, tokens: Tensor, source: Tensor, source_valid: Tensor) -> Tensor:
    """What :meth:`kaf.mixers.Attention.forward` computes, by way of the matrix of weights."""
    message = self.weights(tokens, source, source_valid) @ self._split(self.value(source))
    return self.merge(message.transpose(1, 2).flatten(2))


def sparse(work: Workload, on: bool) -> Callable[[], object]:
    """The first diffusion convolution at the keypoints alone, or over the map."""
    step = Step(NETWORK, work)
    return step if on else Under(step, lambda: mock.patch.object(kaf.fusion, "sparse_conv3x3", dense_conv3x3))


def attention(work: Workload, on: bool) -> Callable[[], object]:
    """One kernel for attention, or the matrix of weights."""
    step = Step(NETWORK, work)
    return step if on else Under(step, lambda: mock.patch.object(Attention, "forward", matrix_attention))


def layout(work: Workload, on: bool) -> Callable[[], object]:
    """Channels last, or the order of PyTorch."""
    step = Step(NETWORK, work)
    if not on:
        step.model.to(memory_format=torch.contiguous_format)
    return step


def optimiser(work: Workload, on: bool) -> Callable[[], object]:
    """All weights in one kernel, or one after another."""
    step = Step(NETWORK, work)
    if not on:
        usual = step.optimiser.defaults
        step.optimiser = torch.optim.Adam(step.model.parameters(), usual["lr"], weight_decay=usual["weight_decay"],
                                          foreach=False, fused=False)
    return step


def waiting(work: Workload, on: bool) -> Callable[[], object]:
    """The loss left on the device, or read after every step."""
    step = Step(NETWORK, work)
    return step if on else lambda: step().item()


def half(work: Workload, on: bool) -> Callable[[], object]:
    """Automatic bfloat16, or float32."""
    step = Step(NETWORK, work)
    return Under(step, lambda: torch.autocast(work.device.split(":")[0], torch.bfloat16)) if on else step


def compiled(work: Workload, on: bool) -> Callable[[], object]:
    """The network handed to ``torch.compile``, or not."""
    step = Step(NETWORK, work)
    if on:
        step.model.compile()
    return step


def joint_augmentation(work: Workload, on: bool) -> Callable[[], object]:
    """16 slices augmented at once on the device, or one after another."""
    many = Workload(work.size, 16, work.width, work.points, device=work.device)
    image, points = torch.randn(16, 1, work.size, work.size, device=work.device), random_keypoints(many)
    parts = [slice(None)] if on else [slice(i, i + 1) for i in range(16)]

    def step() -> None:
        generator = torch.Generator().manual_seed(0)
        for part in parts:
            augment(image[part], points.select(part), None, AUGMENT["default"], generator)

    return step


@dataclass(frozen=True)
class Change:
    """One change: time with it / time without it as predicted, by device; the reason; where it is kept."""

    what: str
    build: Callable[[Workload, bool], Callable[[], object]]
    cpu: float
    cuda: float
    reason: str
    kept: tuple[str, ...] = ("cpu", "cuda")


CHANGES = {
    "sparse": Change("first diffusion convolution at the keypoints", sparse, 0.85, 0.95,
                     "9 HW d h operations become 9 K d h; alone, at level 0, it takes a fourteenth of the time"),
    "attention": Change("attention in one kernel", attention, 0.98, 0.95,
                        "pairs are few at 300 keypoints; less memory moves, the arithmetic stays"),
    "layout": Change("channels last", layout, 0.85, 0.8, "convolutions read channels side by side"),
    "optimiser": Change("fused optimiser", optimiser, 0.97, 0.9,
                        "a fifth of the time of a loop, but the optimiser is a small part of a step"),
    "waiting": Change("no reading back in a step", waiting, 1.0, 0.95, "a CPU has no queue that could run empty"),
    "half": Change("bfloat16 where it is safe", half, 1.2, 0.5, "matrix units of a GPU; a CPU without them converts",
                   ("cuda",)),
    "compiled": Change("torch.compile", compiled, 0.95, 0.9, "normalisation and activation join the convolutions", ()),
    "augmentation": Change("augmentation of a whole batch", joint_augmentation, 0.6, 0.1,
                           "the same operations in fewer and larger calls"),
}


def change_row(change: Change, work: Workload, rounds: int) -> dict:
    """One change measured: seconds with it and their ratio to those without; open where it cannot run here."""
    kind = work.device.split(":")[0]
    more = {"predicted": getattr(change, kind), "reason": change.reason, "kept": kind in change.kept}
    if kind == "cuda" and not torch.cuda.is_available():
        return record.row(change.what, None, "s", **more)
    try:
        both = {on: change.build(work, on) for on in (True, False)}
        seconds = {on: min(times) for on, times in interleaved(both, rounds).items()}
    except Exception as error:  # a compiler may be missing, and other changes are still worth measuring
        if change.build is not compiled:
            raise
        return record.row(change.what, None, "s", error=f"{type(error).__name__}", **more)
    return record.row(change.what, seconds[True], "s", seconds[True] / seconds[False], **more)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="without a GPU, cuda leaves its rows open")
    for name, usual in (("size", 128), ("batch", 4), ("width", 16), ("points", 300)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CHANGES, action="append", help="by default all")
    record.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    work = Workload(options.size, options.batch, options.width, options.points, device=options.device)
    rows = [change_row(CHANGES[name], work, options.rounds) for name in options.only or CHANGES]
    record.finish(f"changes, {options.device}", rows, options.record, **asdict(work), rounds=options.rounds)


if __name__ == "__main__":
    main()
