"""The training loop that pretraining and fine-tuning share (chapters 5 and 6).

Everything random in step n comes from ``(seed, n)``, and the learning rate is a function of n: a run
that was interrupted and resumed ends with the same weights as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from kaf.config import OptimConfig
from kaf.runs import Clock, Run, peak_memory_mb, provenance

SAVE_EVERY_S = 60.0
Loss = Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float | Tensor]]]


def make_fabric(device: str = "auto") -> Fabric:
    """Fabric on one device: ``auto``, ``cpu``, ``cuda`` or ``mps``; bf16 autocast on a GPU, float32 elsewhere."""
    fabric = Fabric(accelerator=device, devices=1)
    if fabric.device.type == "cuda":
        fabric = Fabric(accelerator=device, devices=1, precision="bf16-mixed")
    return fabric


def make_optimiser(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration. Raises ``ValueError`` for an unknown name."""
    common = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if optim.name == "adamw":
        return torch.optim.AdamW(model.parameters(), **common)
    if optim.name == "adam":
        return torch.optim.Adam(model.parameters(), **common)
    if optim.name == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **common)
    raise ValueError(f"unknown optimiser {optim.name!r}; choose adamw, adam or sgd")


def learning_rate(optim: OptimConfig, step: int, steps: int) -> float:
    """Linear warm-up from 0, then a cosine to ``final * lr`` at the last step."""
    warm = round(optim.warmup * steps)
    if step < warm:
        return optim.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return optim.lr * (optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * done)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, on the CPU."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def fit(run: Run, fabric: Fabric, model: nn.Module, optim: OptimConfig, steps: int,
        batches: Callable[[int], Iterable], loss: Loss, log_every: int = 10, title: str = "train") -> nn.Module:
    """Train ``model`` for ``steps`` batches, resuming from the checkpoint of ``run``.

    ``batches(start)`` gives the batches from step ``start`` on; ``loss(model, batch, step)`` returns the
    loss and what to log. Saves every minute and at the end. Interrupting saves as well. A loss that is not
    finite stops the run with ``FloatingPointError`` after saving the batch as ``bad_batch.pt``.
    """
    state = run.load()
    start = state["step"] if state else 0
    if state:
        model.load_state_dict(state["model"])
    if start >= steps:
        return fabric.to_device(model)
    model = model.to(memory_format=torch.channels_last)  # a fifth faster on a CPU, and what tensor cores want
    optimiser = make_optimiser(model, optim)
    model, optimiser = fabric.setup(model, optimiser)
    if state:
        optimiser.load_state_dict(state["optimiser"])
    run.rewind_log(start)
    clock, device = Clock(state["seconds"] if state else 0.0), str(fabric.device)
    run.add_provenance(**provenance(device))
    model.train()
    saved, step = time.monotonic(), start

    def save() -> None:
        run.save({"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict(),
                  "seconds": clock.seconds()})

    try:
        for batch in tqdm(batches(start), desc=title, initial=start, total=steps, unit="step"):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(optim, step, steps)
            value, logged = loss(model, fabric.to_device(batch), step)
            if step % log_every == 0 or step == steps - 1:
                # Reading the loss makes a GPU wait: only where it is logged.
                if not math.isfinite(value.item()):
                    torch.save(batch, run.folder / "bad_batch.pt")
                    raise FloatingPointError(f"the loss is {value.item()} at step {step}; the batch is in "
                                             f"{run.folder / 'bad_batch.pt'}, the last good state in the checkpoint")
                run.log({"step": step, "lr": learning_rate(optim, step, steps), "loss": value.item(),
                         **{k: float(v) for k, v in logged.items()}})
            optimiser.zero_grad()
            fabric.backward(value)
            if optim.clip is not None:
                fabric.clip_gradients(model, optimiser, max_norm=optim.clip, error_if_nonfinite=False)
            optimiser.step()
            step += 1
            if time.monotonic() - saved > SAVE_EVERY_S:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        print(f"interrupted after step {step} of {steps}; run the same again to go on")
        raise
    save()
    run.add_provenance(seconds=round(clock.seconds(), 1), peak_memory_mb=round(peak_memory_mb(device)), steps=steps)
    return model.module
