"""The wrong answers that readers give to the exercises of chapter 5 fail, each at the step that names its fault."""

import contextlib
import io
import math

import pytest
import torch

from kaf.exercises import grade
from kaf.exercises.chapter05 import EXERCISES


def rate_from_zero(step, steps, peak, warm):
    return peak * step / warm if step < warm else 0.0


def rate_linear(step, steps, peak, warm):
    return peak * (step + 1) / warm if step < warm else peak * (1 - (step - warm) / (steps - warm))


def flatten_views_first(image, mean, std):
    return ((image.float() - mean[..., None, None]) / std[..., None, None]).transpose(0, 1).flatten(0, 1).unsqueeze(1)


def neighbours(s, slices, fraction, minimum, reach=lambda far: int(far + 1e-9), itself=False):
    if minimum == 0:
        return [s]
    far = max(reach(fraction * slices), minimum)
    return [n for n in range(max(0, s - far), min(slices, s + far + 1)) if itself or n != s]


def neighbours_over_the_border(s, slices, fraction, minimum):
    far = max(int(fraction * slices), minimum)
    return [n for n in range(s - far, s + far + 1) if n != s]


def error_within_the_patient(features, position, patient):
    unit = torch.nn.functional.normalize(features, dim=1)
    return float((position - position[(unit @ unit.T).fill_diagonal_(-1).argmax(1)]).abs().mean())


def error_with_zeros(features, position, patient):
    unit = torch.nn.functional.normalize(features, dim=1)
    alike = (unit @ unit.T) * (patient[:, None] != patient)
    return float((position - position[alike.argmax(1)]).abs().mean())


def train(model, optimiser, batch_of, stop, state=None, keep_optimiser=True, copied=True):
    first = 0
    if state:
        first = state["step"]
        model.load_state_dict(state["model"])
        if keep_optimiser:
            optimiser.load_state_dict(state["optimiser"])
    for n in range(first, stop):
        optimiser.zero_grad()
        model(batch_of(n)).square().mean().backward()
        optimiser.step()
    weights = model.state_dict()
    weights = {k: v.clone() for k, v in weights.items()} if copied else weights
    return {"step": stop, "model": weights, "optimiser": optimiser.state_dict()}


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("05.rate", rate_from_zero, "warm-up"),
    ("05.rate", rate_linear, "value"),
    ("05.flatten", flatten_views_first, "value"),
    ("05.neighbours", lambda *a: neighbours(*a, itself=True), "value"),
    ("05.neighbours", lambda *a: neighbours(*a, reach=math.ceil), "value"),
    ("05.neighbours", lambda s, n, fraction, minimum: neighbours(s, n, fraction, 1), "minimum"),
    ("05.neighbours", neighbours_over_the_border, "border"),
    ("05.neighbours", lambda s, n, fraction, minimum: neighbours(s, n, fraction, max(minimum, 1)), "itself"),
    ("05.position_error", error_within_the_patient, "value"),
    ("05.position_error", error_with_zeros, "opposite"),
    ("05.train", lambda *a: train(*a, keep_optimiser=False), "resumed"),
    ("05.train", lambda *a: train(*a, copied=False), "frozen"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed


def test_there_are_exercises_of_every_difficulty():
    assert len(EXERCISES) >= 4 and {e.stars for e in EXERCISES.values()} == {1, 2, 3}
