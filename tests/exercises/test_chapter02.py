"""The wrong answers that readers give to the exercises of chapter 2 fail, each at the step that names its fault."""

import contextlib
import io

import pytest
import torch

from kaf.exercises import grade


def cell(xy, level, height, width, half=True, clamp=True, swapped=False):
    found = (xy + 0.5 if half else xy) / 2**level
    found = found.floor().long()
    bounds = torch.tensor([height, width] if swapped else [width, height]) - 1
    return found.clamp(torch.zeros_like(bounds), bounds) if clamp else found


def window(xy, valid, radius, both=True, squared=False, edge=True):
    apart = (xy[:, :, None] - xy[:, None]).square().sum(-1)
    apart = apart if squared else apart.sqrt()
    near = apart <= radius if edge else apart < radius
    return near & valid[:, None] & (valid[:, :, None] if both else True)


def scatter_max(tokens, cell, valid, height, width, start=-torch.inf, padding=False, detached=False):
    shape = (len(tokens), height * width, tokens.shape[2])
    values = tokens.detach() if detached else tokens
    values = values if padding else values.masked_fill(~valid[..., None], -torch.inf)
    index = cell[..., None].expand_as(tokens)
    written = values.new_full(shape, start).scatter_reduce(1, index, values, "amax")
    written = written.masked_fill(written == -torch.inf, 0.0)
    return written.transpose(1, 2).unflatten(2, (height, width)) + (0 * tokens.sum() if detached else 0)


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("02.cell", lambda *a: cell(*a).float(), "shape"),
    ("02.cell", lambda *a: torch.ceil(cell(*a) / 2).long(), "whole pixels"),
    ("02.cell", lambda *a: cell(*a, half=False), "between pixels"),
    ("02.cell", lambda *a: cell(*a, clamp=False), "border"),
    ("02.receptive_field", lambda level: 4 * level + 5, "levels 1 to 3"),
    ("02.receptive_field", lambda level: (5, 14, 32, 68, 0, 0, 0)[level], "any level"),
    ("02.window", lambda *a: window(*a).float(), "shape"),
    ("02.window", lambda *a: window(*a, squared=True), "value"),
    ("02.window", lambda *a: window(*a, edge=False), "value"),
    ("02.window", lambda *a: window(*a, both=False), "padding"),
    ("02.break_even", lambda dim, share: 2 * dim, "all pairs"),
    ("02.break_even", lambda dim, share: 4 * dim, "a share"),
    ("02.scatter_max", lambda t, c, v, h, w: scatter_max(t, c, v, h, w).transpose(2, 3), "shape"),
    ("02.scatter_max", lambda *a: scatter_max(*a, padding=True), "one keypoint a cell"),
    ("02.scatter_max", lambda *a: scatter_max(*a, start=0.0), "one keypoint a cell"),
    ("02.scatter_max", lambda *a: scatter_max(*a, detached=True), "gradient"),
])
def test_a_wrong_answer_fails_where_its_fault_is(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        found = grade(key, student)
    assert found.failed == failed
