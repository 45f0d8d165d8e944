"""The wrong answers that readers give to the exercises of chapter 4 fail, each at the step that names its fault."""

import contextlib
import io

import pytest
import torch

from kaf.exercises import grade


def euclidean(a, b, window):
    return torch.cdist(a, b) < window


def up_to_the_window(a, b, window):
    return (a[:, None] - b[None]).abs().sum(-1) <= window


def ratio_of_largest(distance, ratio):
    two, index = distance.topk(2, dim=1)
    return torch.where(two[:, 1] < ratio * two[:, 0], index[:, 1], -1)


def ratio_by_division(distance, ratio):
    two, index = distance.topk(2, dim=1, largest=False)
    return torch.where(two[:, 0] / two[:, 1] >= ratio, -1, index[:, 0])


def rows_without_mass(z, v, mass):
    return -torch.logsumexp(z + v, 1)


def rows_by_exp(z, v, mass):
    return (mass / (z + v).exp().sum(1)).log()


def precision_counts_nobody(match, truth):
    right = ((match == truth) & (match > -2)).sum().item()
    return right / max(1, (match >= 0).sum().item()), right / max(1, (truth >= 0).sum().item())


def precision(match, truth, ignoring=True, empty=1.0):
    counted = (match > -2) & (truth > -2) if ignoring else torch.ones_like(match, dtype=torch.bool)
    right = int((counted & (match >= 0) & (match == truth)).sum())
    claimed, true = int((counted & (match >= 0)).sum()), int((counted & (truth >= 0)).sum())
    return right / claimed if claimed else empty, right / true if true else empty


def dual_of_rows(scores, match):
    i = torch.nonzero(match >= 0)[:, 0]
    return -scores.log_softmax(1)[i, match[i]].sum() / max(1, len(i))


def dual_mean(scores, match):
    i = torch.nonzero(match >= 0)[:, 0]
    return -(scores.log_softmax(1) + scores.log_softmax(0))[i, match[i]].mean()


def dual_by_softmax(scores, match):
    i = torch.nonzero(match >= 0)[:, 0]
    return -(scores.softmax(1) * scores.softmax(0))[i, match[i]].log().sum() / max(1, len(i))


@pytest.mark.parametrize(("key", "student", "failed"), [
    ("04.candidates", euclidean, "value"),
    ("04.candidates", up_to_the_window, "value"),
    ("04.ratio", ratio_of_largest, "value"),
    ("04.ratio", ratio_by_division, "zero"),
    ("04.rows", rows_without_mass, "value"),
    ("04.rows", rows_by_exp, "large"),
    ("04.precision", precision_counts_nobody, "value"),
    ("04.precision", lambda a, b: precision(a, b)[::-1], "value"),
    ("04.precision", lambda a, b: precision(a, b, ignoring=False), "ignored"),
    ("04.precision", lambda a, b: precision(a, b, empty=0.0), "nothing"),
    ("04.dual", dual_of_rows, "value"),
    ("04.dual", dual_mean, "empty"),
    ("04.dual", dual_by_softmax, "gradient"),
])
def test_wrong_answer_fails_where_it_is_wrong(key, student, failed):
    with contextlib.redirect_stdout(io.StringIO()):
        assert grade(key, student).failed == failed
