"""Checks of the exercises of chapter 5: what surrounds a pretraining step."""

import copy
import math

import torch
from torch import nn

from kaf.config import OptimConfig
from kaf.exercises.grading import Exercise, step
from kaf.loop import learning_rate
from kaf.monitors import feature_spread


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _schedule(steps: int, warm: int) -> list[float]:
    optim = OptimConfig(steps, 1, lr=0.01, warmup=warm / steps)
    return [learning_rate(optim, n, steps) for n in range(steps)]


def _rate_warm_up(student) -> bool:
    return all(math.isclose(student(n, 100, 0.01, 10), 0.01 * (n + 1) / 10) for n in range(10))


def _rate_value(student) -> bool:
    return all(math.isclose(student(n, 100, 0.01, 10), rate, abs_tol=1e-12)
               for n, rate in enumerate(_schedule(100, 10)))


def _rate_without_warm_up(student) -> bool:
    return all(math.isclose(student(n, 7, 0.01, 0), rate, abs_tol=1e-12) for n, rate in enumerate(_schedule(7, 0)))


def _pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.arange(3 * 2 * 4 * 5, dtype=torch.uint8).reshape(3, 2, 4, 5)
    return image, torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([[1.0, 2], [4, 5], [8, 10]])


def _flatten_shape(student) -> bool:
    found = student(*_pairs())
    return tuple(found.shape) == (6, 1, 4, 5) and found.dtype == torch.float32


def _flatten_value(student) -> bool:
    image, mean, std = _pairs()
    return all(torch.allclose(student(image, mean, std)[2 * b + v, 0], (image[b, v].float() - mean[b, v]) / std[b, v])
               for b in range(3) for v in range(2))


def _spread_collapsed(student) -> bool:
    return abs(float(student(torch.ones(6, 4)))) < 1e-3


def _spread_orthogonal(student) -> bool:
    return math.isclose(float(student(torch.eye(5))), 1.0, rel_tol=1e-5)


def _spread_value(student) -> bool:
    features = _random(9, 6) + 1
    return math.isclose(float(student(features)), feature_spread(features), rel_tol=1e-4)


def _spread_length(student) -> bool:
    features = _random(9, 6) + 1
    lengths = torch.linspace(0.5, 20, 9).unsqueeze(1)
    return math.isclose(float(student(features * lengths)), feature_spread(features), rel_tol=1e-4)


def _line(volumes: int = 3, slices: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that turn with the position, alike in all volumes but for a part that tells the volume."""
    position = (torch.arange(slices) / slices).repeat(volumes)
    volume = torch.arange(volumes).repeat_interleave(slices)
    return torch.stack([position.cos(), position.sin(), volume.float()], 1), position, volume


def _position_perfect(student) -> bool:
    return abs(float(student(*_line()))) < 1e-6


def _position_volumes(student) -> bool:
    features, position, volume = _line(2, 4)
    features[4:] = features[4:].flip(0)  # the second volume stands on its head
    expected = (position[:4] - position[:4].flip(0)).abs().mean()
    return math.isclose(float(student(features, position, volume)), float(expected), rel_tol=1e-5)


def _position_length(student) -> bool:
    features, position, volume = _line()
    return abs(float(student(features * torch.linspace(1, 9, 15).unsqueeze(1), position, volume))) < 1e-6


def _toy() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def _batch(number: int) -> torch.Tensor:
    return _random(4, 3, seed=number)


def _uninterrupted(steps: int) -> dict[str, torch.Tensor]:
    model, optimiser = _toy()
    for number in range(steps):
        optimiser.zero_grad()
        model(_batch(number)).square().mean().backward()
        optimiser.step()
    return model.state_dict()


def _same(model: nn.Module, steps: int) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), _uninterrupted(steps).values(),
                                                 strict=True))


def _train_whole(student) -> bool:
    model, optimiser = _toy()
    return isinstance(student(model, optimiser, _batch, 6), dict) and _same(model, 6)


def _train_resumed(student) -> bool:
    state = student(*_toy(), _batch, 3)
    model, optimiser = _toy()
    student(model, optimiser, _batch, 6, state)
    return _same(model, 6)


def _train_frozen(student) -> bool:
    model, optimiser = _toy()
    state = student(model, optimiser, _batch, 3)
    student(model, optimiser, _batch, 6, copy.deepcopy(state))  # the first model goes on; the state must not follow
    model, optimiser = _toy()
    student(model, optimiser, _batch, 6, state)
    return _same(model, 6)


EXERCISES = {
    "05.rate": Exercise(stars=1, steps=(
        step("warm-up", "Step n of the warm-up has (n + 1) / warm of the peak: the first step is not wasted on 0.",
             _rate_warm_up),
        step("value", "Behind the warm-up, (step - warm) / (steps - warm) runs from 0 to 1, the cosine from 1 to -1.",
             _rate_value),
        step("no warm-up", "With warm = 0 the first step has the full peak.", _rate_without_warm_up),
    )),
    "05.flatten": Exercise(stars=1, steps=(
        step("shape", "Return float32 (2B, 1, H, W): flatten the first two dimensions and add one for the channel.",
             _flatten_shape),
        step("value", "Give mean and std two more dimensions, so that each slice is scaled by its own; the two slices "
             "of a pair stay next to each other.", _flatten_value),
    )),
    "05.spread": Exercise(stars=2, steps=(
        step("collapsed", "Equal features have the spread 0: look at the length of the mean of the unit features.",
             _spread_collapsed),
        step("orthogonal", "N features at right angles have the spread 1: multiply by N / (N - 1) below the root.",
             _spread_orthogonal),
        step("value", "sqrt((1 - |mean|^2) * N / (N - 1)), with the squared length of the mean.", _spread_value),
        step("invariance", "Only directions count: divide each feature by its own length first.", _spread_length),
    )),
    "05.position_error": Exercise(stars=2, steps=(
        step("value", "Where the most similar slice of another volume lies at the same position, the error is 0.",
             _position_perfect),
        step("other volumes", "Slices of the same volume are no candidates: set their similarity to -inf.",
             _position_volumes),
        step("invariance", "Similarity is the cosine: divide each feature by its length.", _position_length),
    )),
    "05.train": Exercise(stars=3, steps=(
        step("uninterrupted", "Steps 0 to stop - 1, batch n is batch_of(n), the loss is model(batch).square().mean(); "
             "return a dictionary.", _train_whole),
        step("resumed", "AdamW remembers moments and how many steps it took: keep optimiser.state_dict() and the step, "
             "not only the weights.", _train_resumed),
        step("frozen", "state_dict() holds the tensors themselves, and training changes them in place: "
             "keep a copy.deepcopy.", _train_frozen),
    )),
}
