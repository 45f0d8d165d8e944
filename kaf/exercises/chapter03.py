"""Checks of the exercises of chapter 3: global self-supervision."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kaf.contrast import contrast, partition_mask, positional_mask
from kaf.exercises.grading import Exercise, step
from kaf.monitors import feature_spread


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _slices(n: int = 12) -> tuple[Tensor, Tensor]:
    """Positions in [0, 1) and patients of ``n`` slices, in no order."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def _same(actual, expected) -> bool:
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64),
                               torch.as_tensor(expected, dtype=torch.float64))
    return True


# ---- 03.mask


def _mask_shape(student) -> bool:
    mask = student(*_slices(), 0.2)
    return mask.shape == (12, 12) and mask.dtype == torch.bool


def _mask_value(student) -> bool:
    position, patient = _slices()
    expected = positional_mask(position, 0.2) & (patient[:, None] != patient[None, :])
    edge = student(torch.tensor([0.0, 0.25]), torch.tensor([0, 1]), 0.25)
    return torch.equal(student(position, patient, 0.2), expected) and not edge.any()


def _mask_invariance(student) -> bool:
    position, patient = _slices()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    return torch.equal(student(position[order], patient[order], 0.2), student(position, patient, 0.2)[order][:, order])


# ---- 03.spread


def _spread_shape(student) -> bool:
    return torch.as_tensor(student(_random(6, 4))).numel() == 1


def _spread_ends(student) -> bool:
    return _same(student(torch.eye(5)), 1.0) and abs(float(student(torch.ones(5, 3)))) < 1e-3


def _spread_value(student) -> bool:
    features = _random(20, 6).float() + 1
    return math.isclose(float(student(features)), feature_spread(features), rel_tol=1e-4)


def _spread_invariance(student) -> bool:
    features = _random(20, 6).float()
    lengths = 1 + torch.arange(20)[:, None]
    return math.isclose(float(student(features * lengths)), float(student(features)), rel_tol=1e-4)


# ---- 03.gradient


def _anchors() -> tuple[Tensor, Tensor]:
    """Logits and positives of 7 views; view 2 has no positive."""
    positives = torch.rand(7, 7, generator=torch.Generator().manual_seed(3)) < 0.4
    positives[2] = False
    return _random(7, 7, seed=4), positives


def _gradient_by_autograd() -> Tensor:
    logits, positives = _anchors()
    logits.requires_grad_()
    diagonal = torch.eye(7, dtype=torch.bool)
    log_p = torch.log_softmax(logits.masked_fill(diagonal, -1e9), 1)
    rows = [-log_p[i][positives[i] & ~diagonal[i]].mean() for i in range(7) if (positives[i] & ~diagonal[i]).any()]
    torch.stack(rows).mean().backward()
    return logits.grad


def _gradient_shape(student) -> bool:
    return student(*_anchors()).shape == (7, 7)


def _gradient_rows(student) -> bool:
    return _same(student(*_anchors()).sum(1), torch.zeros(7))


def _gradient_value(student) -> bool:
    return _same(student(*_anchors()), _gradient_by_autograd())


# ---- 03.floor


def _floor_two_views(student) -> bool:
    pairs = torch.arange(10) // 2
    return abs(float(student(pairs[:, None] == pairs[None, :]))) < 1e-6


def _floor_collapsed(student) -> bool:
    everything = torch.ones(9, 9, dtype=torch.bool)
    return _same(student(everything), contrast(torch.ones(9, 3), everything).double())


def _floor_ideal(student) -> bool:
    parts = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 3])  # the last one has no positive
    positives = partition_mask((parts + 0.5) / 4)
    ideal = F.one_hot(parts).float()
    return _same(student(positives), contrast(ideal, positives, temperature=0.01).double())


# ---- 03.kernel


def _kernel_inputs() -> tuple[Tensor, Tensor]:
    position = torch.rand(8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return _random(8, 5, seed=6), torch.exp(-0.5 * ((position[:, None] - position[None, :]) / 0.2) ** 2)


def _kernel_shape(student) -> bool:
    return student(*_kernel_inputs(), 0.1).shape == ()


def _kernel_hard(student) -> bool:
    features, weights = _kernel_inputs()
    positives = weights > 0.5
    positives[3], positives[:, 3] = False, False  # an anchor without positives
    return _same(student(features, positives.double(), 0.1), contrast(features, positives, 0.1))


def _kernel_value(student) -> bool:
    features, weights = _kernel_inputs()
    unit, rows = F.normalize(features, dim=1), []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        log_p = torch.log_softmax(unit[others] @ unit[i] / 0.5, 0)
        rows.append(-(weights[i, others] * log_p).sum() / weights[i, others].sum())
    return _same(student(features, weights, 0.5), torch.stack(rows).mean())


def _kernel_gradient(student) -> bool:
    features, weights = _kernel_inputs()
    features.requires_grad_()
    student(features, weights, 0.1).backward()
    return bool(features.grad.isfinite().all() and features.grad.abs().sum() > 0)


def _kernel_invariance(student) -> bool:
    features, weights = _kernel_inputs()
    scaled = weights * torch.arange(1, 9)[:, None]
    return _same(student(features, scaled, 0.1), student(features, weights, 0.1))


EXERCISES = {
    "03.mask": Exercise(1, (
        step("shape", "A bool matrix (N, N): compare position[:, None] with position[None, :].", _mask_shape),
        step("value", "Two conditions joined by &: closer than the threshold (strictly), and another patient.",
             _mask_value),
        step("invariance", "The mask of reordered slices is the reordered mask: look at nothing but position and "
             "patient.", _mask_invariance),
    )),
    "03.spread": Exercise(1, (
        step("shape", "One number: the square root of 1 minus the squared length of the mean unit feature.",
             _spread_shape),
        step("ends", "Orthogonal features have spread 1 and equal ones 0: multiply by N / (N - 1) under the root.",
             _spread_ends),
        step("value", "Normalise each feature first, then take the mean over the slices.", _spread_value),
        step("invariance", "The length of a feature must not matter.", _spread_invariance),
    )),
    "03.gradient": Exercise(2, (
        step("shape", "As many numbers as logits: (N, N).", _gradient_shape),
        step("rows", "The pulls and pushes of an anchor cancel: softmax without the diagonal, minus 1 / |P| at its "
             "positives, which must not contain the anchor itself.", _gradient_rows),
        step("value", "The loss is a mean over the anchors that have positives: divide by their number, and give the "
             "others 0.", _gradient_value),
    )),
    "03.floor": Exercise(2, (
        step("two views", "With a single positive its probability can reach 1, and -log 1 is 0. Leave the diagonal "
             "out before you count.", _floor_two_views),
        step("everything is positive", "The probabilities of |P| positives add up to 1 at most; the mean of their "
             "-log is smallest where they are equal.", _floor_collapsed),
        step("value", "Mean of log |P| over the anchors that have positives.", _floor_ideal),
    )),
    "03.kernel": Exercise(3, (
        step("shape", "One number.", _kernel_shape),
        step("0 and 1", "With weights 0 and 1 this is the loss of the chapter: an anchor without any weight is left "
             "out of the mean over anchors, and the diagonal counts nowhere.", _kernel_hard),
        step("value", "Divide the weights of an anchor by their sum, without the diagonal.", _kernel_value),
        step("gradient", "Minus infinity times a weight of 0 is not a number: fill the diagonal of the log "
             "probabilities before you multiply.", _kernel_gradient),
        step("invariance", "Only the ratios of the weights of an anchor may matter.", _kernel_invariance),
    )),
}  # fmt: skip
