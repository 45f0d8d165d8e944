"""Cost of a training step: the KAF-UNets beside the UNet and the UNet of matched width.

Usage: python -m benchmarks.step_cost [--group matched|light|alternatives|sparse] [--size 256] [--batch 4] [--width 32]
                                      [--points 300] [--rounds 3] [--record]

Prints seconds of a training step (forward, backward, Adam; float32) and the peak memory of a fresh process,
each as a ratio within this run, against its target. Seconds are the best of the rounds; the networks take turns. With
one thread they are seconds of the processor, so that a machine with other work to do measures them, too.

``matched``  the UNet of matched width, the default layers (6 blocks), the paper's (16 blocks)
``light``    the UNet, the light preset (fusion projected back to C channels)
``alternatives``  what else there is: UNet, SwinUNETR, and the layers with other mixers of the same depth
``sparse``   the first diffusion convolution of level 0, at the keypoints alone and over the whole map
"""

import argparse
import time
from dataclasses import asdict

import torch
from torch import nn

from benchmarks import record
from benchmarks.workload import Step, Workload, interleaved, peak_memory_of, random_keypoints, step_memory
from kaf.fusion import cell_of, scatter, scatter_weight, sparse_conv3x3
from kaf.networks import PRESETS

# Network, what it is compared with, the limit of the ratio of seconds and of memory.
GROUPS = {
    "matched": (("wide UNet", None, "", ""), ("KAF default", "wide UNet", "<= 1.25", ""),
                ("KAF paper", "wide UNet", "<= 1.5", "<= 1.6")),
    "light": (("UNet", None, "", ""), ("KAF light", "UNet", "<= 1.7", "")),
    "alternatives": (("wide UNet", None, "", ""), *((name, "wide UNet", "", "") for name in (
        "UNet", "SwinUNETR", "KAF default", "KAF paper's block", "KAF graph", "KAF no mixing"))),
}
# The authors' program, time and memory; it has no light form, so its one form stands for it against the UNet.
ORIGINAL = {"KAF default": (1.92, 1.8), "KAF paper": (2.46, 2.95), "KAF light": (8.1, 5.4)}


def network_rows(group: str, work: Workload, rounds: int, threads: int = 0) -> list[dict]:
    """Time and memory of the networks of a group."""
    names = [name for name, *_ in GROUPS[group]]
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = {n: min(times) for n, times in interleaved({n: Step(n, work) for n in names}, rounds, clock).items()}
    memory = {n: step_memory(n, work, threads=threads) for n in names}
    rows = []
    for measured, unit, what in ((seconds, "s", "training step"), (memory, "MiB", "peak memory")):
        for name, base, *targets in GROUPS[group]:
            target = targets[0 if unit == "s" else 1]
            label = f"{what}, {name}" + (f" / {base}" if base else "")
            rows.append(record.row(label, measured[name], unit, measured[name] / measured[base] if base else None,
                                   target, network=name, quantity=what, **original(name, unit)))
    return rows


def original(name: str, unit: str) -> dict[str, float]:
    """The same ratio of the authors' program, measured once on two cores of another machine of this kind."""
    return {"original": ORIGINAL[name][unit != "s"]} if name in ORIGINAL else {}


class Diffusion:
    """The first diffusion convolution of level 0, forward and backward: ``sparse`` or ``dense``."""

    def __init__(self, how: str, work: Workload):
        torch.manual_seed(0)
        kaf, side = PRESETS["default"], work.size
        self.how, self.side = how, side
        self.conv = nn.Conv2d(kaf.dim, kaf.hidden, 3, padding=1).to(memory_format=torch.channels_last)
        self.tokens = torch.randn(work.batch, work.points, kaf.dim, requires_grad=True)
        keypoints = random_keypoints(work)
        x, y = cell_of(keypoints.xy, side, side).unbind(-1)
        self.cell = y * side + x
        self.weight = scatter_weight(self.cell, keypoints.valid, side * side, kaf.scatter)

    def forward(self) -> torch.Tensor:
        """The spread features ``(B, hidden, size, size)``."""
        if self.how == "sparse":
            return sparse_conv3x3(self.tokens, self.cell, self.weight, self.side, self.side, self.conv)
        return self.conv(scatter(self.tokens, self.cell, self.weight, self.side, self.side))

    def __call__(self) -> None:
        self.conv.zero_grad()
        self.tokens.grad = None
        self.forward().square().mean().backward()


def sparse_rows(work: Workload, rounds: int, threads: int = 0) -> list[dict]:
    """The convolution at the keypoints against the dense one: time, memory, largest difference."""
    both = {how: Diffusion(how, work) for how in ("dense", "sparse")}
    seconds = {how: min(times) for how, times in interleaved(both, rounds).items()}
    with torch.no_grad():
        difference = (both["sparse"].forward() - both["dense"].forward()).abs().max().item()
    memory = {how: peak_memory_of("from benchmarks.step_cost import Diffusion, Workload\n"
                                  f"work = Diffusion({how!r}, Workload(**{asdict(work)!r}))\nwork(), work()", threads)
              for how in both}
    rows = []
    for measured, unit, what in ((seconds, "s", "first diffusion convolution"), (memory, "MiB", "its peak memory")):
        rows += [record.row(f"{what}, dense", measured["dense"], unit),
                 record.row(f"{what}, sparse / dense", measured["sparse"], unit,
                            measured["sparse"] / measured["dense"])]
    return [*rows, record.row("largest difference, sparse - dense", difference, "", target="<= 1e-5")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--group", choices=[*GROUPS, "sparse"], action="append", help="by default all")
    for name in ("size", "batch", "width", "points"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Workload(), name))
    parser.add_argument("--rounds", type=int, default=3)
    record.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    work = Workload(options.size, options.batch, options.width, options.points)
    for group in options.group or [*GROUPS, "sparse"]:
        rows = (sparse_rows(work, options.rounds, options.threads) if group == "sparse"
                else network_rows(group, work, options.rounds, options.threads))
        record.finish(f"training step, {group}", rows, options.record, **asdict(work), rounds=options.rounds)


if __name__ == "__main__":
    main()
