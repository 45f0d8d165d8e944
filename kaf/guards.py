"""What stops a training run, and what is kept then: a wish to stop, a number that is not finite (chapter 5)."""

import math
import signal
import threading
from typing import Any

import torch
from torch import Tensor, nn

from kaf.processes import any_of, rank
from kaf.runs import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C or the stop button of a notebook; a scheduler before it kills


class Interrupts:
    """Turns the first wish to stop into one that is granted between two steps; the second one stops at once.

    Stopped in the middle of a step, a model has half of its updates and can go on from nowhere exactly.
    """

    def __enter__(self) -> "Interrupts":
        self.here = False
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def asked(self) -> bool:
        """Whether this process, or one that trains with it, was asked to stop. All get the same answer."""
        return any_of(self.here)

    def _ask(self, *_: Any) -> None:
        self.here = True
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)

    def __exit__(self, *_: Any) -> None:
        if self.main:
            for number, handler in self.before.items():
                signal.signal(number, handler or signal.SIG_DFL)


class LossWatch:
    """The losses not yet looked at, with their batches: looking makes a GPU finish, so it is done now and then."""

    def __init__(self, run: Run):
        self.run = run
        self.losses: list[Tensor] = []
        self.batches: list[tuple[int, Any]] = []

    def add(self, step: int, batch: Any, loss: Tensor) -> None:
        """Remember the loss of a step."""
        self.losses.append(loss.detach())
        self.batches.append((step, batch))

    def check(self) -> float | None:
        """Look at all that was added; returns the last. Raises ``FloatingPointError`` for the first not finite."""
        values = torch.stack(self.losses).tolist() if self.losses else []
        for value, (step, batch) in zip(values, self.batches, strict=True):
            if not math.isfinite(value):
                raise broken(self.run, batch, f"the loss is {value}", step)
        self.losses, self.batches = [], []
        return values[-1] if values else None


def check_weights(run: Run, model: nn.Module, batch: Any, step: int) -> None:
    """Raise ``FloatingPointError`` for a weight that is not finite: a gradient can be so where the loss is not."""
    if not torch.stack([p.isfinite().all() for p in model.parameters()]).all():
        raise broken(run, batch, "a weight is not finite", step)


def broken(run: Run, batch: Any, what: str, step: int) -> FloatingPointError:
    """The error of a run gone wrong; keeps the batch it happened at, with one file for each process."""
    file = run.folder / (f"bad_batch-{rank()}.pt" if rank() else "bad_batch.pt")
    run.keep(file, {"step": step, "what": what, "batch": plain(batch)})
    kept = "the last good state is in the checkpoint" if run.checkpoint.is_file() else "there is no checkpoint yet"
    return FloatingPointError(
        f"{what} at step {step}; the batch is in {file}, {kept}. torch.load({str(file)!r}, weights_only=True)['batch'] "
        "opens it. The same run again ends the same way: lower the learning rate, or leave out the images that do it")


def plain(batch: Any) -> Any:
    """A batch as dicts of tensors by field, which torch reads without running anything from the file."""
    if hasattr(batch, "_asdict"):
        return {name: plain(value) for name, value in batch._asdict().items()}
    return tuple(map(plain, batch)) if isinstance(batch, tuple) else batch
