"""Checks of the exercises of chapter 5: what surrounds a pretraining step."""

import copy
import math

import torch
from torch import nn

from kaf.config import OptimConfig
from kaf.data.pairs import Window
from kaf.exercises.grading import Exercise, step
from kaf.loop import learning_rate


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


def _neighbours_value(student) -> bool:
    return _listed(student, 10, 20, 0.18, 2) == [7, 8, 9, 11, 12, 13]


def _neighbours_minimum(student) -> bool:
    return _listed(student, 4, 9, 0.18, 2) == [2, 3, 5, 6]


def _neighbours_border(student) -> bool:
    return all(_listed(student, *case) == Window(*case[2:]).neighbours(*case[:2])
               for case in ((0, 10, 0.18, 2), (9, 10, 0.18, 2), (1, 2, 0.18, 2), (1, 30, 0.2, 1)))


def _neighbours_itself(student) -> bool:
    return _listed(student, 4, 9, 0.0, 0) == [4]


def _listed(student, s: int, slices: int, fraction: float, minimum: int) -> list[int]:
    return [int(found) for found in student(s, slices, fraction, minimum)]


def _line(patients: int = 3, slices: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that turn with the position, alike in all patients but for a part that tells the patient."""
    position = (torch.arange(slices) / slices).repeat(patients)
    patient = torch.arange(patients).repeat_interleave(slices)
    return torch.stack([position.cos(), position.sin(), patient.float()], 1), position, patient


def _position_perfect(student) -> bool:
    return abs(float(student(*_line()))) < 1e-6


def _position_patients(student) -> bool:
    features, position, patient = _line(2, 4)
    features[4:] = features[4:].flip(0)  # the second patient stands on his head
    expected = (position[:4] - position[:4].flip(0)).abs().mean()
    return math.isclose(float(student(features, position, patient)), float(expected), rel_tol=1e-5)


def _position_opposite(student) -> bool:
    """Of two slices both other ones are unlike: what is left out must be less alike than the opposite."""
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-0.8, -0.5]])
    position = torch.tensor([0.0, 0.5, 0.0, 0.5])
    return math.isclose(float(student(features, position, torch.tensor([0, 0, 1, 1]))), 0.375, rel_tol=1e-5)


def _position_length(student) -> bool:
    features, position, patient = _line()
    return abs(float(student(features * torch.linspace(1, 9, 15).unsqueeze(1), position, patient))) < 1e-6


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
    "05.neighbours": Exercise(stars=1, steps=(
        step("value", "In 20 slices .18 reaches 3 slices far; the slice itself is not its neighbour.",
             _neighbours_value),
        step("minimum", "A reach below the minimum is raised to it.", _neighbours_minimum),
        step("border", "Below 0 and from `slices` on there is nothing.", _neighbours_border),
        step("itself", "With a minimum of 0 return [s].", _neighbours_itself),
    )),
    "05.position_error": Exercise(stars=2, steps=(
        step("value", "Where the most similar slice of another patient lies at the same position, the error is 0.",
             _position_perfect),
        step("other patients", "Slices of the same patient are no candidates.", _position_patients),
        step("opposite", "A cosine can be negative: set that of the same patient to -inf, not to 0.",
             _position_opposite),
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
