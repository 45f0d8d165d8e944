"""What the training benchmarks measure: one training step of a network by name, its time and its peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from kaf.config import OptimConfig
from kaf.keypoints import Keypoints
from kaf.loop import make_optimiser
from kaf.networks import PRESETS, build_network

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = PRESETS["default"]
NETWORKS = {"UNet": ("unet", DEFAULT), "wide UNet": ("wide_unet", DEFAULT), "SwinUNETR": ("swin_unetr", DEFAULT),
            "KAF default": ("kaf_unet", DEFAULT), "KAF light": ("kaf_unet", PRESETS["light"]),
            "KAF paper": ("kaf_unet", PRESETS["paper"]),  # deeper, too, than the default with its block
            "KAF paper's block": ("kaf_unet", replace(DEFAULT, mixer="paper")),
            "KAF graph": ("kaf_unet", replace(DEFAULT, mixer="graph")),
            "KAF no mixing": ("kaf_unet", replace(DEFAULT, mixer="none"))}


@dataclass(frozen=True)
class Workload:
    """The sizes of one training step."""

    size: int = 256  # side of the image, pixels
    batch: int = 4
    width: int = 32  # filters f of the first block
    points: int = 300
    classes: int = 4
    device: str = "cpu"


def random_keypoints(work: Workload) -> Keypoints:
    """Points drawn uniformly from the image, all valid: ``(batch, points)``."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(work.batch, work.points, 2, generator=generator) * (work.size - 1)
    ones, none = torch.ones(work.batch, work.points), torch.zeros(work.batch, work.points, 0, dtype=torch.uint8)
    return Keypoints(xy, ones, ones, none, ones.bool()).to(work.device)


class Step:
    """Forward, cross-entropy, backward and an Adam step of one network, as :func:`kaf.loop.fit` takes them."""

    def __init__(self, name: str, work: Workload):
        network, layers = NETWORKS[name]
        torch.manual_seed(0)
        model = build_network(network, work.classes, work.width, layers).to(work.device)
        self.model = model.to(memory_format=torch.channels_last).train()
        self.optimiser = make_optimiser(self.model, OptimConfig(1, work.batch, name="adam"))
        self.image = torch.randn(work.batch, 1, work.size, work.size, device=work.device)
        shape = (work.batch, work.size, work.size)
        self.label = torch.randint(work.classes, shape, device=work.device)
        self.keypoints = random_keypoints(work)

    def __call__(self) -> torch.Tensor:
        self.optimiser.zero_grad()
        loss = F.cross_entropy(self.model(self.image, self.keypoints), self.label)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def settle() -> None:
    """Wait until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(steps: Mapping[Hashable, Callable[[], object]], rounds: int,
                clock: Callable[[], float] = time.perf_counter) -> dict[Hashable, list[float]]:
    """Seconds of every step in every round: in turn, so that a slow moment of the machine meets all of them.

    One more round comes first and is not counted. ``clock`` is that on the wall; ``time.process_time`` is less
    disturbed by other programs, but adds up the threads.
    """
    seconds = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            settle()
            start = clock()
            step()
            settle()
            seconds[name].append(clock() - start)
    return {name: times[1:] for name, times in seconds.items()}


def peak_memory_of(program: str, threads: int = 0) -> float:
    """Peak memory (MiB) of a fresh Python process that runs ``program`` and nothing else."""
    code = (f"import torch\nif {threads}: torch.set_num_threads({threads})\n{program}\n"
            "from kaf.usage import peak_memory_mb\nprint(peak_memory_mb())")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr}")
    return float(done.stdout)


def step_memory(name: str, work: Workload, steps: int = 2, threads: int = 0) -> float:
    """Peak memory (MiB) of a process that takes a few training steps of one network."""
    return peak_memory_of(f"from benchmarks.workload import Step, Workload\nstep = Step({name!r}, "
                          f"Workload(**{asdict(work)!r}))\nfor _ in range({steps}): step()", threads)
