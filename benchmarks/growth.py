"""How the cost of a training step grows with the number of keypoints and with the size of the image.

Usage: python -m benchmarks.growth [--what points|size|attention] [--size 256] [--batch 2] [--width 16]
                                   [--points 300] [--rounds 2] [--record]

``points``     seconds and memory of a step of the KAF-UNet for K = 64 ... 2048 keypoints; memory is the most that it
               holds at once beside weights and optimiser
``size``       the same for images of 64 ... 512 pixels, beside the UNet and the UNet of matched width
``attention``  memory of one attention layer, forward and backward, for K = 64 ... 2048, and the exponent of its
               growth: 1 is linear. The matrix of attention weights, which is never built in training, beside it.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import record
from benchmarks.workload import Step, Workload, interleaved
from kaf.mixers import Attention

POINTS = (64, 128, 256, 512, 1024, 2048)
SIZES = (64, 128, 256, 384, 512)
SMALL = Workload(batch=2, width=16)


def allocated_peak(function: Callable[[], object]) -> int:
    """Most bytes of tensors that ``function`` holds at once, beside those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    steps = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum([0, *steps]).max())


def exponent(x: list[float], y: list[float]) -> float:
    """The p of the power law ``y ~ x^p`` that fits best."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def attention_peak(points: int, how: str = "message", dim: int = 256, batch: int = 2) -> int:
    """Peak bytes of one attention layer with its gradient: of its ``message``, or of its ``weights``."""
    torch.manual_seed(0)
    attention = Attention(dim)
    tokens = torch.randn(batch, points, dim, requires_grad=True)
    valid = torch.ones(batch, points, dtype=torch.bool)
    layer = attention if how == "message" else attention.weights
    return allocated_peak(lambda: layer(tokens, tokens, valid).square().sum().backward())


def attention_rows(points: tuple[int, ...] = POINTS) -> list[dict]:
    """Memory of attention against K and the exponent of its growth, over the larger half of K."""
    rows = []
    for how, name in (("message", "attention"), ("weights", "the matrix of attention weights")):
        bytes_ = [attention_peak(k, how) for k in points]
        rows += [record.row(f"memory of {name}, K = {k}", b / 2**20, "MiB", points=k, curve=how)
                 for k, b in zip(points, bytes_, strict=True)]
        large = len(points) // 2
        rows.append(record.row(f"exponent of the memory of {name} in K", exponent(points[large:], bytes_[large:]), "",
                               target="<= 1.1" if how == "message" else ""))
    return rows


def curve_rows(cases: list[tuple[str, Workload]], rounds: int) -> list[dict]:
    """Seconds and memory of a step for every network and size."""
    rows = []
    for name, work in cases:
        step = Step(name, work)
        seconds = min(interleaved({name: step}, rounds)[name])
        memory = allocated_peak(step) / 2**20
        where = {"network": name, "points": work.points, "size": work.size}
        label = f"{name}, {work.size} px, K = {work.points}"
        rows += [record.row(f"training step, {label}", seconds, "s", **where),
                 record.row(f"memory, {label}", memory, "MiB", **where)]
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--what", choices=("points", "size", "attention"), action="append", help="by default all")
    for name in ("size", "batch", "width", "points"):
        parser.add_argument(f"--{name}", type=int, default=getattr(SMALL, name))
    parser.add_argument("--upto", type=int, default=None, help="leave out what is larger than this")
    parser.add_argument("--rounds", type=int, default=2)
    record.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    work = Workload(options.size, options.batch, options.width, options.points)
    points, sizes = ([n for n in given if options.upto is None or n <= options.upto] for given in (POINTS, SIZES))
    cases = {"points": [("KAF default", replace(work, points=k)) for k in points],
             "size": [(name, replace(work, size=s)) for s in sizes for name in ("UNet", "wide UNet", "KAF default")]}
    for what in options.what or ("points", "size", "attention"):
        rows = (attention_rows(tuple(points)) if what == "attention"
                else curve_rows(cases[what], options.rounds))
        record.finish(f"growth, {what}", rows, options.record, **asdict(work), rounds=options.rounds)


if __name__ == "__main__":
    main()
