"""Checks of the exercises of chapter 9: mean teacher, Pareto front and graphs of keypoints."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kaf.evaluate import pareto_front
from kaf.exercises.grading import Exercise, step
from kaf.mixers import max_relative
from kaf.teacher import MeanTeacher


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _follow_value(student) -> bool:
    model = MeanTeacher(torch.nn.Linear(3, 2))
    teacher, moved = (model.teacher.weight.detach().clone() for _ in range(2))
    with torch.no_grad():
        model.student.weight.add_(1.0)
    model.follow(0.9)
    torch.testing.assert_close(student(moved, model.student.weight.detach(), 0.9), model.teacher.weight.detach())
    return not torch.equal(teacher, model.teacher.weight)


def _follow_ends(student) -> bool:
    a, b = _random(4), _random(4, seed=1)
    return torch.equal(student(a, b, 1.0), a) and torch.allclose(student(a, b, 0.0), b)


def _follow_input(student) -> bool:
    a, b = _random(4), _random(4, seed=1)
    student(a, b, 0.5)
    return torch.equal(a, _random(4)) and torch.equal(b, _random(4, seed=1))


def _logits() -> tuple[Tensor, Tensor]:
    """Logits of a student and of a teacher, who is sure of some pixels."""
    return _random(2, 3, 4, 5), 3 * _random(2, 3, 4, 5, seed=1)


def _agreement_all(student) -> bool:
    logits, teacher = _logits()
    torch.testing.assert_close(student(logits, teacher, 0.0), F.cross_entropy(logits, teacher.argmax(1)))
    return True


def _agreement_sure(student) -> bool:
    logits, teacher = _logits()
    p, said = teacher.softmax(1).max(1)
    said = said.masked_fill(p < 0.8, -100)  # what torch ignores
    torch.testing.assert_close(student(logits, teacher, 0.8), F.cross_entropy(logits, said))
    return True


def _agreement_gradient(student) -> bool:
    logits, teacher = (x.requires_grad_() for x in _logits())
    student(logits, teacher, 0.8).backward()
    unsure = teacher.softmax(1).amax(1) < 0.8
    there = logits.grad.abs().amax(1)
    return teacher.grad is None and bool((there[unsure] == 0).all()) and bool((there[~unsure] > 0).all())


def _agreement_nobody(student) -> bool:
    logits, teacher = _logits()
    return float(student(logits, teacher, 1.01)) == 0


def _front_shape(student) -> bool:
    found = np.asarray(student(np.array([1.0, 2, 3]), np.array([0.1, 0.3, 0.2])))
    return found.shape == (3,) and found.dtype == bool


def _front_value(student) -> bool:
    rng = np.random.default_rng(0)
    cost, gain = rng.random((2, 30))
    return np.array_equal(student(cost, gain), pareto_front(cost, gain))


def _front_ties(student) -> bool:
    cost, gain = np.array([1.0, 1, 2, 2, 3]), np.array([0.4, 0.5, 0.5, 0.6, 0.6])
    return np.array_equal(student(cost, gain), pareto_front(cost, gain))


def _front_twins(student) -> bool:
    return bool(np.all(student(np.array([1.0, 1]), np.array([0.5, 0.5]))))


def _tokens() -> tuple[Tensor, Tensor]:
    return _random(12, 6), torch.arange(12) % 4 > 0


def _message_shape(student) -> bool:
    tokens, valid = _tokens()
    return student(tokens, torch.ones_like(valid), 3).shape == tokens.shape


def _message_value(student) -> bool:
    tokens, valid = _tokens()
    everything = torch.ones_like(valid)
    torch.testing.assert_close(student(tokens, everything, 3), max_relative(tokens[None], everything[None], 3)[0])
    return True


def _message_mask(student) -> bool:
    tokens, valid = _tokens()
    torch.testing.assert_close(student(tokens, valid, 3)[valid], max_relative(tokens[None], valid[None], 3)[0, valid])
    return True


def _message_few(student) -> bool:
    tokens, _ = _tokens()
    valid = torch.arange(12) < 2
    torch.testing.assert_close(student(tokens, valid, 5)[valid], max_relative(tokens[None], valid[None], 5)[0, valid])
    return True


def _message_order(student) -> bool:
    tokens, valid = _tokens()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(student(tokens[order], valid[order], 3), student(tokens, valid, 3)[order])
    return True


def _ring(count: int, reach: int = 1) -> Tensor:
    """Each hears itself and the ``reach`` next ones of a ring, in one direction."""
    return (torch.arange(count)[:, None] + torch.arange(reach + 1)) % count


def _hops_shape(student) -> bool:
    found = student(_ring(5))
    return found.shape == (5, 5) and not found.is_floating_point()


def _hops_value(student) -> bool:
    ahead = (torch.arange(9) - torch.arange(9)[:, None]) % 9
    return torch.equal(student(_ring(9)).long(), ahead) and torch.equal(student(_ring(9, 2)).long(), (ahead + 1) // 2)


def _hops_never(student) -> bool:
    apart = torch.cat([_ring(3), 3 + _ring(3)])  # two rings that never hear of each other
    found = student(apart).long()
    across = torch.cat([found[:3, 3:], found[3:, :3]])
    return bool((across == -1).all()) and torch.equal(found[:3, :3], found[3:, 3:])


EXERCISES = {
    "09.follow": Exercise(stars=1, steps=(
        step("value", "A mean of both, with weight decay for the teacher and the rest for the student.", _follow_value),
        step("ends", "With a decay of 1 the teacher stands still; with 0 it is the student.", _follow_ends),
        step("input", "Return a new tensor: lerp_ and += change the teacher that was given.", _follow_input),
    )),
    "09.agreement": Exercise(stars=2, steps=(
        step("value", "At threshold 0 it is the cross-entropy against teacher.argmax(1).", _agreement_all),
        step("sure", "Pixels below the threshold count neither in the sum nor in the number that divides it.",
             _agreement_sure),
        step("gradient", "The teacher's logits must get no gradient (detach), nor the student's where nothing counts.",
             _agreement_gradient),
        step("nobody", "Where no pixel counts there is nothing to divide by: 0, not NaN.", _agreement_nobody),
    )),
    "09.front": Exercise(stars=2, steps=(
        step("shape", "One boolean for each entry.", _front_shape),
        step("value", "Entry i is beaten if some j costs at most as much and is at least as good.", _front_value),
        step("ties", "At equal cost the better one beats the other, and at equal Dice the cheaper one.", _front_ties),
        step("twins", "Two equal entries do not beat each other: one must be better in something.", _front_twins),
    )),
    "09.message": Exercise(stars=2, steps=(
        step("shape", "One message for each token, of its width.", _message_shape),
        step("value", "torch.cdist and topk(k, largest=False) give the neighbours; the message is the amax of "
             "tokens[near] - tokens[:, None].", _message_value),
        step("mask", "Put padded columns at distance infinity before topk.", _message_mask),
        step("few", "With fewer than k valid tokens topk still returns padded ones: their differences must not count; "
             "0 is what a token has from itself.", _message_few),
        step("invariance", "The order of the keypoints means nothing.", _message_order),
    )),
    "09.hops": Exercise(stars=3, steps=(
        step("shape", "A whole number for each pair.", _hops_shape),
        step("value", "Everybody knows itself at block 0. Multiply what was heard so far by the matrix of edges, once "
             "for each block, and write down the block in which an entry becomes positive first.", _hops_value),
        step("never", "Stop after K blocks; what was not heard by then never will be: -1.", _hops_never),
    )),
}
