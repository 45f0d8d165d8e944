"""The wrong answers that readers give to the exercises of chapter 9 fail, each at the step that names its fault."""

import contextlib
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kaf.exercises import grade
from kaf.exercises.chapter09 import EXERCISES


def agreement(logits, teacher, threshold, detach=True, divide="sure"):
    p, said = (teacher.detach() if detach else teacher).softmax(1).max(1)
    sure = p >= threshold
    each = F.cross_entropy(logits, said, reduction="none") * (sure if detach else p / p.detach() * sure)
    return each.mean() if divide == "all" else each.sum() / sure.sum()


def front(cost, dice, strict=True):
    beats = (cost[:, None] <= cost) & (dice[:, None] >= dice)
    if strict:
        beats = (cost[:, None] < cost) & (dice[:, None] > dice)
    return ~(beats & ~np.eye(len(cost), dtype=bool)).any(0)


def message(tokens, valid, k, mask=True):
    apart = torch.cdist(tokens, tokens)
    if mask:
        apart = apart.masked_fill(~valid, torch.inf)
    apart.fill_diagonal_(0.0)
    near = apart.topk(k, largest=False).indices
    return (tokens[near] - tokens[:, None]).amax(1)


def message_by_place(tokens, valid, k):
    right = torch.stack([tokens.roll(-n, 0) - tokens for n in range(k)])
    return right.amax(0)


def hops(near, never=-1, own=True):
    count = len(near)
    edges = torch.zeros(count, count).scatter_(1, near, 1.0)
    edges = edges + torch.eye(count) if own else edges
    heard = torch.eye(count) if own else edges
    found = torch.full((count, count), never)
    for blocks in range(count):
        found[(heard > 0) & (found == never)] = blocks
        heard = ((edges @ heard) > 0).float()
    return found


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("09.follow", lambda t, s, d: (1 - d) * t + d * s, "value"),
    ("09.follow", lambda t, s, d: t.lerp_(s, 1 - d), "input"),
    ("09.agreement", lambda a, b, t: F.cross_entropy(a, b.softmax(1)), "value"),
    ("09.agreement", lambda a, b, t: agreement(a, b, t, divide="all"), "sure"),
    ("09.agreement", lambda a, b, t: agreement(a, b, t, detach=False), "gradient"),
    ("09.agreement", agreement, "nobody"),
    ("09.front", lambda cost, dice: dice == dice.max(), "value"),
    ("09.front", front, "ties"),
    ("09.front", lambda cost, dice: front(cost, dice, strict=False), "twins"),
    ("09.message", message_by_place, "value"),
    ("09.message", lambda t, v, k: message(t, v, k, mask=False), "mask"),
    ("09.message", message, "few"),
    ("09.hops", lambda near: hops(near) + 0.0, "shape"),
    ("09.hops", lambda near: hops(near, own=False), "value"),
    ("09.hops", lambda near: hops(near, never=99), "never"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed


def test_there_are_exercises_of_every_difficulty():
    assert len(EXERCISES) >= 4 and {e.stars for e in EXERCISES.values()} == {1, 2, 3}
