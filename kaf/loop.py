"""The training loop that pretraining and fine-tuning share (chapters 5 and 6).

Everything random in step n comes from ``(seed, n)``, and the learning rate is a function of n: a run
that was interrupted and resumed ends with the same weights as one that was not (bit by bit on a CPU; a
GPU adds in an order of its own).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from kaf.choices import check_choice
from kaf.config import OptimConfig
from kaf.guards import Interrupts, LossWatch, check_weights
from kaf.parameters import PRECISIONS
from kaf.processes import joint_statistics
from kaf.progress import progress_bar
from kaf.runs import Run, load_weights, provenance
from kaf.usage import Clock, peak_memory_mb, reset_peak_memory

SAVE_EVERY_S = 60.0
#: What a training runs on.
DEVICES = ("auto", "cpu", "cuda", "mps")
MIXED = {"bf16": "bf16-mixed", "fp16": "16-mixed"}  # our names and Fabric's
Loss = Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float | Tensor]]]


def make_fabric(device: str = "auto", devices: int = 1, num_nodes: int = 1, precision: str = "auto") -> Fabric:
    """Fabric on one of :data:`DEVICES`; ``auto`` takes an NVIDIA GPU where there is one, else the processor.

    ``mps``, the GPU of a Mac, was never tested: only who asks for it by name gets it.

    ``precision`` is float32 (``32``; convolutions on a GPU round to TF32, as torch does unless told otherwise),
    autocast to bfloat16 (``bf16``; processors with AMX train two to three times as fast with it, most others more
    slowly) or to float16 with a scaled loss (``fp16``), or ``auto``: on a GPU bf16, or fp16 where it has no bfloat16,
    and float32 elsewhere.

    With ``devices`` on each of ``num_nodes`` machines there is one process for each. They are started here, by
    running the program again, unless torchrun or SLURM has done so; a notebook cannot be run again.
    """
    check_choice("precision", precision, PRECISIONS)
    check_choice("device", device, DEVICES)
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(device)
    if there and not there():
        raise ValueError(f"device {device!r} was asked for, but torch {torch.__version__} finds none here: take 'auto' "
                         "or 'cpu', or install the build of torch for it")
    device = chosen_device(device)
    if min(devices, num_nodes) < 1:
        raise ValueError(f"devices and num_nodes are counts of 1 or more, got {devices} and {num_nodes}")
    if devices * num_nodes > 1:
        return _join(device, devices, num_nodes, precision)
    return Fabric(accelerator=device, devices=1, plugins=[_precision(device, precision)])


def chosen_device(device: str) -> str:
    """What ``auto`` means on this machine; any other of :data:`DEVICES` is itself."""
    if device == "auto":  # Fabric's own choice would prefer mps
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _precision(device: str, precision: str) -> Precision:
    if precision == "32":
        return Precision()
    if precision == "auto":
        if device != "cuda":
            return Precision()
        # An older GPU, such as the T4, only emulates bfloat16: slower than float32, and without convolutions of cuDNN.
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Autocast(MIXED[precision], device)


class Autocast(MixedPrecision):
    """Mixed precision that hands on what a network is given as it is.

    Fabric's own makes all of it 16 bit. In bfloat16 a keypoint would be off by up to half a pixel, and numbers of
    cells beyond 256 would be those of other cells.
    """

    def convert_input(self, data: Any) -> Any:
        return data


class Averaging(DDPStrategy):
    """Gradients averaged over the processes; looks for weights without one only where a model is ``idle`` in part."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        self._ddp_kwargs["find_unused_parameters"] = getattr(module, "idle", False)
        return super().setup_module(module)


@lru_cache
def _join(device: str, devices: int, num_nodes: int, precision: str) -> Fabric:
    """Start the other processes and join them; where another precision has done so, they are there already."""
    fabric = Fabric(accelerator=device, devices=devices, num_nodes=num_nodes, strategy=Averaging(),
                    plugins=[_precision(device, precision)])
    fabric.launch()
    return fabric


def make_optimiser(model: nn.Module, optim: OptimConfig, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser of a configuration; ``fused`` is one kernel for all weights, in a fifth of the time of a loop.

    Without it torch takes what is fastest on the device.
    """
    common = {"lr": optim.lr, "weight_decay": optim.weight_decay, "fused": fused or None}
    if optim.name == "adamw":
        return torch.optim.AdamW(model.parameters(), **common)
    if optim.name == "adam":
        return torch.optim.Adam(model.parameters(), **common)
    return torch.optim.SGD(model.parameters(), momentum=0.9, **common)


def learning_rate(optim: OptimConfig, step: int, steps: int) -> float:
    """Linear warm-up from 0, then a cosine that reaches ``final * lr`` after the last step."""
    warm = round(optim.warmup * steps)
    if step < warm:
        return optim.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return optim.lr * (optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * done)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, on the CPU."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


@contextmanager
def enough_memory(part: str, optim: OptimConfig) -> Iterator[None]:
    """Where a device has too little memory for a batch, say what makes it smaller; ``part`` is that of an experiment.

    Raises ``torch.OutOfMemoryError``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"{part} with {optim.batch} in a batch takes more memory than the device has. Take a smaller scale or "
            f"batch, for instance --set {part}__optim__batch={max(1, optim.batch // 2)}: that is another experiment, "
            f"with a name of its own. Torch says: {error}") from error


def fit(run: Run, fabric: Fabric, model: nn.Module, optim: OptimConfig, steps: int,
        batches: Callable[[int], Iterable], loss: Loss, log_every: int = 10, title: str = "train") -> nn.Module:
    """Train ``model`` for ``steps`` batches, resuming from the checkpoint of ``run``.

    ``batches(start)`` gives the batches from step ``start`` on; ``loss(model, batch, step)`` returns the
    loss and what to log. Saves every minute, at the end, and when asked to stop, by Ctrl-C or by the system (SIGTERM):
    then ``KeyboardInterrupt`` says how to go on. A loss or a weight that is not finite stops the run with
    ``FloatingPointError``, before it is logged or saved; the batch is kept as ``bad_batch.pt``. Between logging and
    saving no step waits for the device. Of several processes only the first writes into ``run``. What only a run that
    goes on needs, such as the state of the optimiser, is not in the last checkpoint.

    Raises ``BlockingIOError`` where another process trains in the folder of ``run``, ``ValueError`` where its
    checkpoint is damaged or of another network, ``OSError`` where it cannot be written; the last one stays.
    """
    state = run.load()
    if state and state["step"] >= steps:
        load_weights(model, state["model"], run.checkpoint)
        run.finish(state)  # the process that trained may have been killed after its last checkpoint
        return fabric.to_device(model)
    with run.alone():
        return _train(run, fabric, model, optim, steps, batches, loss, log_every, title)


def _train(run: Run, fabric: Fabric, model: nn.Module, optim: OptimConfig, steps: int,
           batches: Callable[[int], Iterable], loss: Loss, log_every: int, title: str) -> nn.Module:
    state = run.load()  # again: another process may have gone on until now
    start = state["step"] if state else 0
    if state:
        load_weights(model, state["model"], run.checkpoint)
    if fabric.device.type != "mps":
        model = model.to(memory_format=torch.channels_last)  # convolutions take a sixth less time
    model = joint_statistics(model, fabric.device)
    precision = fabric.strategy.precision
    # With a scaled loss gradients are scaled back to be clipped; Fabric cannot do that with fused optimisers.
    optimiser = make_optimiser(model, optim, fused=getattr(precision, "scaler", None) is None)
    model, optimiser = fabric.setup(model, optimiser)
    if state and start < steps:  # a finished run has none
        optimiser.load_state_dict(state["optimiser"])
        if scale := state.get("precision"):  # of fp16 alone: a run may go on where another precision is the fastest
            precision.load_state_dict(scale)
    run.rewind_log(start)
    clock, device = Clock(state["seconds"] if state else 0.0), str(fabric.device)
    if start < steps:
        run.begin(provenance(device), goes_on=start > 0)
    reset_peak_memory(device)
    model.train()
    saved, step, watch = time.monotonic(), start, LossWatch(run)
    progress = progress_bar(batches(start), desc=title, initial=start, total=steps, unit="step")
    with Interrupts() as interrupts, progress:
        for batch in progress:
            rate = learning_rate(optim, step, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            value, logged = loss(model, fabric.to_device(batch), step)
            watch.add(step, batch, value)
            if step % log_every == 0 or step == steps - 1:
                last = watch.check()
                numbers = {name: float(number) for name, number in logged.items()}
                run.log({"step": step, "lr": rate, "loss": last, **numbers})
            optimiser.zero_grad()
            fabric.backward(value)
            if optim.clip is not None:
                fabric.clip_gradients(model, optimiser, max_norm=optim.clip, error_if_nonfinite=False)
            optimiser.step()
            step += 1
            stop = interrupts.asked()
            if step < steps and not stop and time.monotonic() - saved < SAVE_EVERY_S:
                continue
            watch.check()
            check_weights(run, model, batch, step - 1)
            state = {"step": step, "steps": steps, "model": model.state_dict(), "seconds": clock.seconds(),
                     "peak_memory_mb": peak_memory_mb(device)}
            if step < steps:
                state |= {"optimiser": optimiser.state_dict(), "precision": precision.state_dict()}
            run.save(state)
            if step == steps:
                run.finish(state)  # not before: seconds say that a run is finished
            saved = time.monotonic()
            if stop and step < steps:
                raise KeyboardInterrupt(f"stopped after step {step} of {steps}; run the same again to go on")
    fabric.barrier()  # the other processes find what the first one has written
    return model.module
