"""The wrong answers that readers give to the exercises of chapter 1 fail, each at the step that names its fault."""

import contextlib
import io

import pytest
import torch

from kaf.exercises import grade


def strongest_of_all(score, valid, k):
    return torch.argsort(score, descending=True, stable=True)[:k]


def strongest_turned_round(score, valid, k):
    order = torch.argsort(score, stable=True).flip(0)
    return order[valid[order]][:k]


def again(a, b, matrix, size, px, transposed=False, exchanged=False, keep_all=False, guarded=True, margin=-0.5):
    moved = a @ (matrix[:, :2] if transposed else matrix[:, :2].T) + matrix[:, 2]
    x, y = moved.unbind(1)
    height, width = size[::-1] if exchanged else size
    if not keep_all:
        moved = moved[(x >= margin) & (x < width - 1 - margin) & (y >= margin) & (y < height - 1 - margin)]
    if guarded and not (len(moved) and len(b)):
        return 0.0
    return (torch.cdist(moved, b).amin(1) <= px).float().mean().item()


def blob_by_division(dxx, dyy, dxy, r):
    return (dxx + dyy) ** 2 / (dxx * dyy - dxy**2) < (r + 1) ** 2 / r


def blob_without_mixed(dxx, dyy, dxy, r):
    return (dxx * dyy > dxy.abs()) & ((dxx + dyy) ** 2 * r < (r + 1) ** 2 * dxx * dyy)


def far_from_all_stronger(xy, score, k, radius):
    order = torch.argsort(score, descending=True, stable=True)
    apart = torch.cdist(xy[order], xy[order])
    return order[[bool((apart[n, :n] >= radius).all()) for n in range(len(order))]][:k]


def farther_than_the_radius(xy, score, k, radius):
    kept = []
    for index in torch.argsort(score, descending=True, stable=True).tolist():
        if len(kept) < k and all((xy[index] - xy[other]).norm() > radius for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def first_k_only(xy, score, k, radius):
    kept = []
    for index in torch.argsort(score, descending=True, stable=True).tolist()[:k]:
        if all((xy[index] - xy[other]).norm() >= radius for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("01.strongest", strongest_turned_round, "ties"),
    ("01.strongest", strongest_of_all, "padding"),
    ("01.repeatability", lambda *a: again(*a, transposed=True), "moved"),
    ("01.repeatability", lambda *a: again(*a, keep_all=True), "outside"),
    ("01.repeatability", lambda *a: again(*a, exchanged=True), "value"),
    ("01.repeatability", lambda *a: again(*a, margin=0.0), "outside"),
    ("01.repeatability", lambda *a: again(*a, guarded=False), "empty"),
    ("01.blob", blob_by_division, "saddle"),
    ("01.blob", blob_without_mixed, "invariance"),
    ("01.spread_out", far_from_all_stronger, "value"),
    ("01.spread_out", farther_than_the_radius, "value"),
    ("01.spread_out", first_k_only, "count"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed
