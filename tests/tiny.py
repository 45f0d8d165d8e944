"""Experiments and losses small enough for tests of the loops, on the store of ``tests/conftest.py``."""

import signal

import torch

from kaf.config import Experiment, resolve
from kaf.networks import KAFConfig

LAYERS = KAFConfig(dim=8, depth=1, hidden=4)


def tiny_experiment(**changes) -> Experiment:
    """Four steps of two items on crops of 32 pixels."""
    small = {"data__spacing_mm": 1.25, "data__size": 32, "data__points": 12, "width": 2, "kaf": LAYERS}
    steps = {f"{part}__optim__{name}": value for part in ("pretrain", "finetune")
             for name, value in (("steps", 4), ("batch", 2))}
    return resolve("smoke", "acdc").changed(**{**small, **steps, **changes})


def interrupting(loss_class, at: int, how: str):
    """A loss like ``loss_class`` that is interrupted inside step ``at``: by Ctrl-C, or as by an error.

    The forward pass is over by then, and the running statistics of its norms have moved.
    """

    class Interrupting(loss_class):
        def __call__(self, model, batch, step):
            result = super().__call__(model, batch, step)
            if step == at and how == "ctrl-c":
                signal.raise_signal(signal.SIGINT)
            elif step == at:
                raise KeyboardInterrupt
            return result

    return Interrupting


def must_not_train(*_):
    raise AssertionError("a finished run was trained again")


def same_weights(a: dict, b: dict) -> bool:
    """Whether two state dicts are equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
