"""A training of twelve steps that takes milliseconds, for tests of the loop and of what can stop it."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from kaf.config import OptimConfig
from kaf.loop import fit, make_fabric, step_generator
from kaf.runs import Run

STEPS = 12


class Noisy:
    """Regression on random numbers; every step draws its own noise."""

    def __call__(self, model, batch, step):
        noise = torch.randn(batch.shape, generator=step_generator(0, step))
        value = (model(batch + 0.1 * noise) - batch.sum(1, keepdim=True)).square().mean()
        return value, {"noise": noise.mean()}


def batches(start):
    return (torch.randn(8, 3, generator=step_generator(1, step)) for step in range(start, STEPS))


def train(folder, loss, name="adamw", hidden=4, precision="auto", **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 1))
    run = Run(folder, {})
    optim = OptimConfig(STEPS, 8, name=name, lr=0.05, **changes)
    fit(run, make_fabric("cpu", precision=precision), model, optim, STEPS, batches, loss, log_every=5)
    return run


def in_a_process(step_code: str, folder: Path) -> subprocess.Popen:
    """Train into ``folder`` in a process of its own, which runs ``step_code`` in every step and saves after each.

    The code may use ``step``, ``os``, ``signal`` and ``time``.
    """
    lines = "".join(f"        {line}\n" for line in step_code.splitlines())
    program = ("import os, signal, sys, time; from kaf import loop; from tests import noisy\n"
               "class Interrupted(noisy.Noisy):\n"
               "    def __call__(self, model, batch, step):\n"
               f"{lines}"
               "        return super().__call__(model, batch, step)\n"
               "loop.SAVE_EVERY_S = -1.0; noisy.train(sys.argv[1], Interrupted())")
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE, cwd=Path(__file__).parents[1],
                            env={**os.environ, "TQDM_DISABLE": "1"})
