"""How near a training step comes to what the device can do: operations and bytes against measured ceilings.

Usage: python -m benchmarks.roofline [--device cpu|cuda] [--sizes 224 352] [--batch 2] [--width 32] [--points 300]
                                     [--rounds 3] [--record]

For the UNet, the UNet of matched width and the KAF-UNet: images a second, share of the peak, peak memory, and the
shortest time that the roofline allows (Williams, Waterman and Patterson, 2009). The ceilings are measured here: a
large matrix product in the precision of the step (bfloat16 on a GPU, float32 on a CPU) and a copy.

Operations are those of the convolutions and matrix products of a forward pass, three times, since a backward pass
takes two more. Bytes are those of all tensors that the operations of a step read and write; an operation that finds
its input in a cache needs fewer, so the estimate of the time is not a strict bound where memory is the limit.
Without a GPU, ``--device cuda`` leaves its rows open.
"""

import argparse
from contextlib import nullcontext
from dataclasses import asdict, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import record
from benchmarks.growth import allocated_peak
from benchmarks.workload import NETWORKS, Step, Workload, interleaved, random_keypoints
from kaf import usage
from kaf.networks import build_network

UNITS = {"images a second": "images/s", "share of the peak": "", "memory": "MiB", "operations a byte": "",
         "time / roofline estimate": ""}
SHOWN = ("UNet", "wide UNet", "KAF default")


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def operations(name: str, work: Workload) -> float:
    """Operations (multiplication and addition apart) of a training step, counted on shapes alone."""
    network, layers = NETWORKS[name]
    one = replace(work, batch=1, device="meta")
    with torch.device("meta"):
        model = build_network(network, work.classes, work.width, layers).eval()
        forward = usage.operations(model, torch.empty(1, 1, work.size, work.size), random_keypoints(one))
    return 3.0 * work.batch * 2 * forward


def ceilings(device: str) -> tuple[float, float]:
    """Operations a second of a matrix product and bytes a second of a copy, as measured."""
    gpu = device.startswith("cuda")
    side, length = (8192, 2**30) if gpu else (2048, 2**27)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    b, source = a.clone(), torch.ones(length // 4, device=device)
    target = torch.empty_like(source)
    times = interleaved({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, 5)
    return 2 * side**3 / min(times["product"]), 2 * length / min(times["copy"])


def measured(name: str, work: Workload, rounds: int) -> tuple[float, float, float]:
    """Seconds, bytes moved and peak memory (MiB) of a training step."""
    step, gpu = Step(name, work), work.device.startswith("cuda")

    def take() -> None:
        with torch.autocast("cuda", torch.bfloat16) if gpu else nullcontext():
            step()

    seconds = min(interleaved({name: take}, rounds)[name])
    with Traffic() as traffic:
        take()
    if not gpu:
        return seconds, traffic.bytes, allocated_peak(take) / 2**20
    torch.cuda.reset_peak_memory_stats()
    take()
    return seconds, traffic.bytes, torch.cuda.max_memory_allocated() / 2**20


def step_values(name: str, work: Workload, rounds: int, peak: tuple[float, float]) -> tuple[dict[str, float], float]:
    """The quantities of :data:`UNITS` for one network, and the seconds of its step."""
    speed, bandwidth = peak
    ops, (seconds, moved, memory) = operations(name, work), measured(name, work, rounds)
    values = (work.batch / seconds, ops / seconds / speed, memory, ops / moved,
              seconds / max(ops / speed, moved / bandwidth))
    return dict(zip(UNITS, values, strict=True)), seconds


def size_rows(work: Workload, rounds: int, peak: tuple[float, float] | None) -> list[dict]:
    """Rows of one image size; ``peak`` None leaves them open."""
    rows, times = [], {}
    for name in SHOWN:
        values, times[name] = step_values(name, work, rounds, peak) if peak else (dict.fromkeys(UNITS), None)
        rows += [record.row(f"{what}, {name}, {work.size} px", values[what], unit, quantity=what, network=name,
                            size=work.size) for what, unit in UNITS.items()]
    ratio = times["KAF default"] / times["wide UNet"] if peak else None
    return [*rows, record.row(f"step, KAF default / wide UNet, {work.size} px", times["KAF default"], "s", ratio,
                              "<= 1.25", quantity="overhead", network="KAF default", size=work.size)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 352])
    for name, usual in (("batch", 2), ("width", 32), ("points", 300), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    record.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    here = options.device == "cpu" or torch.cuda.is_available()
    peak = ceilings(options.device) if here else None
    work = Workload(options.sizes[0], options.batch, options.width, options.points, device=options.device)
    rows = [row for size in options.sizes for row in size_rows(replace(work, size=size), options.rounds, peak)]
    unit = (peak[0] / 1e12, peak[1] / 1e9) if peak else (None, None)
    rows = [record.row("ceiling, matrix product", unit[0], "TFLOP/s", quantity="ceiling"),
            record.row("ceiling, copy", unit[1], "GB/s", quantity="ceiling"), *rows]
    record.finish(f"roofline, {options.device}", rows, options.record, **asdict(work) | {"size": options.sizes},
                  rounds=options.rounds)


if __name__ == "__main__":
    main()
