"""Checks of the exercises of chapter 4: local self-supervision."""

import torch
from torch import Tensor

from kaf.correspondence import log_sinkhorn, match_keypoints
from kaf.exercises.grading import Exercise, step
from kaf.keypoints import from_arrays


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _same(actual, expected) -> bool:
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64),
                               torch.as_tensor(expected, dtype=torch.float64))
    return True


# ---- 04.candidates


def _candidates_shape(student) -> bool:
    found = student(_random(4, 2), _random(7, 2), 1.0)
    return found.shape == (4, 7) and found.dtype == torch.bool


def _candidates_value(student) -> bool:
    a, b = torch.zeros(1, 2), torch.tensor([[2.0, 2.0], [-3.0, 0.0], [0.0, 3.9], [4.0, 0.0], [-2.0, 1.0]])
    return student(a, b, 4.0).tolist() == [[False, True, True, False, True]]


def _candidates_agree(student) -> bool:
    a, b = 10 * _random(12, 2), 10 * _random(12, 2, seed=1)
    # One candidate each way makes a match by place; a match is always a candidate.
    match = match_keypoints(from_arrays(a.numpy()), from_arrays(b.numpy()), 6.0)
    found = student(a.float(), b.float(), 6.0)
    matched = all(found[i, j] for i, j in enumerate(match.tolist()) if j >= 0)
    return matched and torch.equal(found.T, student(b.float(), a.float(), 6.0))


# ---- 04.ratio


def _ratio_shape(student) -> bool:
    found = student(_random(5, 3).abs(), 0.8)
    return found.shape == (5,) and found.dtype == torch.int64


def _ratio_value(student) -> bool:
    distance = torch.tensor([[9.0, 1.0, 2.0], [3.0, 2.9, 9.0], [4.0, 8.0, 2.0], [5.0, 5.0, 9.0]])
    return student(distance, 0.8).tolist() == [1, -1, 2, -1] and student(distance, 0.5).tolist() == [-1, -1, -1, -1]


def _ratio_zero(student) -> bool:
    return student(torch.tensor([[0.0, 3.0], [0.0, 0.0]]), 0.8).tolist() == [0, -1]


# ---- 04.rows


def _rows_shape(student) -> bool:
    return student(_random(4, 6), _random(6), torch.ones(4, dtype=torch.float64)).shape == (4,)


def _rows_value(student) -> bool:
    z, v, mass = _random(4, 6), _random(6, seed=1), torch.tensor([1.0, 1.0, 1.0, 5.0], dtype=torch.float64)
    u = student(z, v, mass)
    return _same((z + u[:, None] + v).exp().sum(1), mass)


def _rows_large(student) -> bool:
    z = torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]], dtype=torch.float64)
    return _same(student(z, torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
                 torch.tensor([-1000.0, 1000.0], dtype=torch.float64) - torch.tensor(2.0, dtype=torch.float64).log())


def _rows_whole(student) -> bool:
    scores, z = _random(3, 3, seed=2), torch.full((4, 4), 0.3, dtype=torch.float64)
    z[:3, :3] = scores
    mass, u, v = torch.tensor([1.0, 1.0, 1.0, 3.0], dtype=torch.float64), 0, torch.zeros(4, dtype=torch.float64)
    for _ in range(40):
        u = student(z, v, mass)
        v = student(z.T, u, mass)
    return _same(z + u[:, None] + v, log_sinkhorn(scores[None], 0.3, 40)[0])


# ---- 04.precision


def _precision_shape(student) -> bool:
    found = student(torch.tensor([0, 1]), torch.tensor([0, -1]))
    return len(found) == 2 and all(isinstance(part, float) for part in found)


def _precision_value(student) -> bool:
    match, truth = torch.tensor([3, 1, -1, 4, -1, 0, -1]), torch.tensor([3, 2, 5, -1, 7, 0, -1])
    return _same(student(match, truth), [2 / 4, 2 / 5]) and _same(student(match[:5], truth[:5]), [1 / 3, 1 / 4])


def _precision_ignored(student) -> bool:
    match, truth = torch.tensor([3, -2, 2, -2, -1]), torch.tensor([3, 4, -2, -2, 1])
    return _same(student(match, truth), [1.0, 0.5])


def _precision_nothing(student) -> bool:
    none, some = torch.tensor([-1, -1]), torch.tensor([1, -1])
    return _same(student(none, none), [1.0, 1.0]) and _same(student(none, some), [1.0, 0.0])


# ---- 04.dual


def _dual_shape(student) -> bool:
    return student(_random(4, 5), torch.tensor([0, -1, 2, 3])).shape == ()


def _dual_value(student) -> bool:
    equal = student(torch.zeros(4, 5, dtype=torch.float64), torch.tensor([0, -1, 2, 3]))
    scores, match = _random(4, 5), torch.tensor([2, -1, 0, 4])
    rows, columns = scores.exp() / scores.exp().sum(1, keepdim=True), scores.exp() / scores.exp().sum(0)
    product = torch.stack([rows[i, j] * columns[i, j] for i, j in ((0, 2), (2, 0), (3, 4))])
    return _same(equal, torch.tensor(20.0).double().log()) and _same(student(scores, match), -product.log().mean())


def _dual_empty(student) -> bool:
    scores = _random(4, 5).requires_grad_()
    loss = student(scores, torch.full((4,), -1))
    loss.backward()
    return loss.item() == 0 and not scores.grad.any()


def _dual_gradient(student) -> bool:
    scores = (300 * _random(4, 5)).requires_grad_()
    student(scores, torch.tensor([2, -1, 0, 4])).backward()
    return bool(scores.grad.isfinite().all()) and bool(scores.grad.any())


EXERCISES = {
    "04.candidates": Exercise(1, (
        step("shape", "A bool matrix: compare a[:, None] with b[None].", _candidates_shape),
        step("value", "Manhattan distance is the sum of |dx| and |dy|, and it must be less than the window.",
             _candidates_value),
        step("invariance", "Exchanging a and b must transpose the matrix.", _candidates_agree),
    )),
    "04.ratio": Exercise(2, (
        step("shape", "One index for every row, int64.", _ratio_shape),
        step("value", "topk(2, largest=False) gives the two smallest and where they are.", _ratio_value),
        step("zero", "Do not divide: the second smallest distance may be 0.", _ratio_zero),
    )),
    "04.rows": Exercise(2, (
        step("shape", "One number for every row.", _rows_shape),
        step("value", "Add v to every row before the sum over columns, and take the logarithm of the mass.",
             _rows_value),
        step("large", "exp(1000) is infinite; torch.logsumexp never forms it.", _rows_large),
        step("invariance", "Served in turn with the columns it must give the assignment of the library.", _rows_whole),
    )),
    "04.precision": Exercise(2, (
        step("shape", "Two floats.", _precision_shape),
        step("value", "Right are those that claim the true partner; -1 equal to -1 is no match. Precision comes "
             "first.", _precision_value),
        step("ignored", "Leave a keypoint out if it is -2 in either.", _precision_ignored),
        step("nothing", "If nothing was claimed, nothing was claimed wrongly.", _precision_nothing),
    )),
    "04.dual": Exercise(3, (
        step("shape", "A scalar tensor.", _dual_shape),
        step("value", "The logarithm of a product is a sum: log_softmax over 1 plus log_softmax over 0.", _dual_value),
        step("empty", "Divide the sum by at least 1; a mean of nothing is NaN.", _dual_empty),
        step("gradient", "Stay in logarithms: a softmax of large scores is 0, and its logarithm minus infinity.",
             _dual_gradient),
    )),
}  # fmt: skip
