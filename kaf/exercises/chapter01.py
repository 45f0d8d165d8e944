"""Checks of the exercises of chapter 1: keypoints."""

import torch
from torch import Tensor

from kaf.exercises.grading import Exercise, step
from kaf.keypoints import from_arrays, inside, top_k


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# ---- 01.strongest


def _strongest_shape(student) -> bool:
    found = student(_random(9), torch.ones(9, dtype=torch.bool), 4)
    return found.shape == (4,) and found.dtype == torch.int64


def _strongest_value(student) -> bool:
    score = _random(20, seed=1)
    numbered = from_arrays(torch.stack([torch.arange(20.0)] * 2, 1).numpy(), score=score.numpy())
    expected = top_k(numbered, 7).xy[:, 0].long()
    return torch.equal(student(score, torch.ones(20, dtype=torch.bool), 7), expected)


def _strongest_ties(student) -> bool:
    score = torch.tensor([1.0, 2.0, 2.0, 0.5] * 20)  # many: an unstable order shows
    expected = [4 * n + i for n in range(20) for i in (1, 2)]
    return student(score, torch.ones(80, dtype=torch.bool), 40).tolist() == expected


def _strongest_padding(student) -> bool:
    score, valid = torch.tensor([0.0, -1.0, 5.0, -3.0]), torch.tensor([False, True, False, True])
    return student(score, valid, 3).tolist() == [1, 3]


# ---- 01.repeatability

SIZE = (40, 60)  # rows, columns


def _stay() -> Tensor:
    """The motion that moves nothing; a new tensor for every student, who may work in place."""
    return torch.eye(2, 3)


def _again_shape(student) -> bool:
    return isinstance(student(_random(5, 2), _random(4, 2), _stay(), SIZE, 1.0), float)


def _again_value(student) -> bool:
    a = torch.tensor([[10.0, 5.0], [20.0, 5.0], [30.0, 5.0], [40.0, 5.0]])
    b = torch.tensor([[13.0, 9.0], [20.0, 6.0]])  # 5 and 1 pixels away
    return [student(a, b, _stay(), SIZE, px) for px in (5.0, 4.9, 0.5)] == [0.5, 0.25, 0.0]


def _again_moved(student) -> bool:
    turn = torch.tensor([[0.0, -1.0, 39.0], [1.0, 0.0, 2.0]])  # a quarter turn and a shift
    a = torch.tensor([[10.0, 5.0], [20.0, 7.0]])
    return student(a, torch.tensor([[34.0, 12.0], [32.0, 22.0]]), turn, SIZE, 0.1) == 1.0


def _again_outside(student) -> bool:
    away = _stay() + torch.tensor([0.0, 0.0, 30.0])
    a = _random(50, 2, seed=2) * torch.tensor([60.0, 40.0]) - 0.5
    moved = a @ away[:, :2].T + away[:, 2]
    stays = inside(moved, *SIZE)
    edge = torch.tensor([[-0.4, 5.0], [59.4, 5.0], [10.0, 39.4], [10.0, 5.0]])  # all of them within the image
    return (0 < stays.sum() < 50 and student(a, moved[stays], away, SIZE, 0.1) == 1.0
            and student(edge, edge[3:], _stay(), SIZE, 1.0) == 0.25)


def _again_empty(student) -> bool:
    none = torch.zeros(0, 2)
    return student(none, _random(3, 2), _stay(), SIZE, 1.0) == 0 == student(_random(3, 2), none, _stay(), SIZE, 1.0)


# ---- 01.blob


def _blob_shape(student) -> bool:
    found = student(_random(6), _random(6), _random(6), 10)
    return found.shape == (6,) and found.dtype == torch.bool


def _blob_value(student) -> bool:
    # Of curvatures 1 and c the ratio is c: kept below r, whichever is larger and whatever their common sign.
    one, other = torch.ones(6), torch.tensor([1.0, 9.9, 10.1, 1 / 9.9, 1 / 10.1, 5.0])
    expected = torch.tensor([True, True, False, True, False, True])
    return all(torch.equal(student(sign * one, sign * other, torch.zeros(6), 10), expected) for sign in (1, -1))


def _blob_saddle(student) -> bool:
    dxx, dyy, dxy = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    return not student(dxx, dyy, dxy, 10).any()


def _blob_invariance(student) -> bool:
    angle = torch.tensor(0.6)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    for other, kept in ((8.0, True), (12.0, False)):
        hessian = turn @ torch.diag(torch.tensor([1.0, other])) @ turn.T
        if student(hessian[None, 0, 0], hessian[None, 1, 1], hessian[None, 0, 1], 10).tolist() != [kept]:
            return False
    return True


# ---- 01.spread_out


def _spread_shape(student) -> bool:
    found = student(_random(9, 2) * 50, _random(9, seed=1), 3, 0.0)
    return found.shape == (3,) and found.dtype == torch.int64


def _spread_value(student) -> bool:
    xy = torch.tensor([[0.0, 0.0], [3.0, 4.0], [8.0, 4.0], [30.0, 0.0], [0.0, 1.0]])
    score = torch.tensor([5.0, 4.0, 3.0, 2.0, 9.0])
    # 4 is the strongest; 0 lies 1 from it, 1 lies 4.2 from it, 2 lies 5 from 1, which is not always kept.
    return (student(xy, score, 5, 4.0).tolist() == [4, 1, 2, 3] and student(xy, score, 5, 5.5).tolist() == [4, 2, 3]
            and student(xy[:2], score[:2], 2, 5.0).tolist() == [0, 1])  # exactly the radius apart


def _spread_count(student) -> bool:
    xy, score = _random(60, 2, seed=3) * 100, _random(60, seed=4)
    return student(xy, score, 5, 25.0).tolist() == student(xy, score, 60, 25.0).tolist()[:5]


def _spread_invariance(student) -> bool:
    xy, score = _random(60, 2, seed=5) * 100, _random(60, seed=6)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(7))
    kept = student(xy, score, 60, 9.0)
    apart = torch.cdist(xy[kept], xy[kept]).fill_diagonal_(99)
    return bool(apart.min() >= 9) and torch.equal(order[student(xy[order], score[order], 60, 9.0)], kept)


EXERCISES = {
    "01.strongest": Exercise(1, (
        step("shape", "At most k indices, int64: torch.argsort gives such.", _strongest_shape),
        step("value", "Sort from high to low.", _strongest_value),
        step("ties", "Sort with stable=True, and with descending=True instead of turning the order round.",
             _strongest_ties),
        step("padding", "Take the invalid ones away before you cut at k; their score may be the highest.",
             _strongest_padding),
    )),
    "01.repeatability": Exercise(2, (
        step("shape", "One float: .item() of a mean.", _again_shape),
        step("value", "torch.cdist gives all distances; a point counts if its smallest one is at most px.",
             _again_value),
        step("moved", "Points are rows: a @ matrix[:, :2].T + matrix[:, 2].", _again_moved),
        step("outside", "x is compared with the width, size[1], and y with the height, size[0]; the image reaches "
             "from -0.5 to the side minus 0.5.", _again_outside),
        step("empty", "A mean of nothing is NaN: return 0.0 before it is taken.", _again_empty),
    )),
    "01.blob": Exercise(2, (
        step("shape", "A bool for every place.", _blob_shape),
        step("value", "Multiply both sides of the equation by the determinant and by r.", _blob_value),
        step("saddle", "The determinant must be above 0, or the two curvatures have different signs.", _blob_saddle),
        step("invariance", "Turning the image must change nothing: did you forget the square of dxy?",
             _blob_invariance),
    )),
    "01.spread_out": Exercise(3, (
        step("shape", "At most k indices, int64.", _spread_shape),
        step("value", "Compare with those that were kept, not with all that are stronger; closer means <.",
             _spread_value),
        step("count", "Stop when k are kept, not after k were looked at.", _spread_count),
        step("invariance", "The order of the input must not matter, and no two that are kept lie closer than radius.",
             _spread_invariance),
    )),
}  # fmt: skip
