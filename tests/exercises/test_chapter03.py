"""The wrong answers that readers give to the exercises of chapter 3 fail, each at the step that names its fault."""

import contextlib
import io

import pytest
import torch
import torch.nn.functional as F

from kaf.exercises import grade


def near(position, patient, threshold):
    return (position[:, None] - position[None, :]).abs() < threshold


def spread_without_correction(features):
    return (1 - F.normalize(features, dim=1).mean(0).square().sum()).clamp(min=0).sqrt()


def spread_of_lengths(features):
    n = len(features)
    mean = (features / features.norm(dim=1).mean()).mean(0).square().sum()
    return ((1 - mean) * n / (n - 1)).clamp(min=0).sqrt()


def gradient(logits, positives, diagonal_counts=False, anchors=True):
    diagonal = torch.eye(len(logits), dtype=torch.bool)
    positives = positives & ~diagonal
    count = positives.sum(1, keepdim=True)
    push = (logits if diagonal_counts else logits.masked_fill(diagonal, -torch.inf)).softmax(1)
    per_anchor = (push - positives / count.clamp(min=1)) * (count > 0)
    return per_anchor / ((count > 0).sum() if anchors else 1)


def log_of_the_mean(positives):
    return (positives & ~torch.eye(len(positives), dtype=torch.bool)).sum(1).double().mean().log()


def kernel(features, weights, temperature, scaled=True, detached=False):
    diagonal = torch.eye(len(features), dtype=torch.bool)
    unit = F.normalize(features.detach() if detached else features, dim=1)
    log_p = (unit @ unit.T / temperature).masked_fill(diagonal, -torch.inf).log_softmax(1).masked_fill(diagonal, 0.0)
    weights = weights.masked_fill(diagonal, 0.0)
    total = weights.sum(1)
    per_anchor = -(weights * log_p).sum(1) / (total.where(total > 0, 1.0) if scaled else 1.0)
    return per_anchor[total > 0].mean()


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("03.mask", near, "value"),
    ("03.spread", spread_without_correction, "ends"),
    ("03.spread", spread_of_lengths, "value"),
    ("03.gradient", lambda a, b: gradient(a, b, diagonal_counts=True), "value"),
    ("03.gradient", lambda a, b: gradient(a, b, anchors=False), "value"),
    ("03.floor", log_of_the_mean, "value"),
    ("03.floor", lambda positives: torch.zeros(()), "everything is positive"),
    ("03.kernel", lambda *a: kernel(*a, scaled=False), "0 and 1"),
    ("03.kernel", lambda *a: kernel(*a, detached=True), "gradient"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed
