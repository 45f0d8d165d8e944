"""Matching rule, Sinkhorn and local loss: reference values, closed forms, independent solvers."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaf.correspondence import RULES, local_loss, log_sinkhorn, match_keypoints
from kaf.keypoints import Keypoints, from_arrays, pad
from tests.golden_weights import arrays, relative_error


def random_points(n, seed, size=100, descriptors=True):
    rng = np.random.default_rng(seed)
    descriptor = rng.integers(0, 256, (n, 128), dtype=np.uint8) if descriptors else None
    return from_arrays(rng.uniform(0, size, (n, 2)), descriptor=descriptor)


def naive_sinkhorn(scores, dustbin, iterations=100):
    """The textbook form: logarithms and plain autograd all the way, no padding."""
    m, n = scores.shape[1:]
    z = torch.nn.functional.pad(scores, (0, 1, 0, 1)) + dustbin * torch.nn.functional.pad(
        torch.zeros_like(scores), (0, 1, 0, 1), value=1.0)
    mu = torch.tensor([1.0] * m + [n], dtype=z.dtype).log()[None, :, None]
    nu = torch.tensor([1.0] * n + [m], dtype=z.dtype).log()[None, None, :]
    v = torch.zeros_like(nu)
    for _ in range(iterations):
        u = mu - torch.logsumexp(z + v, 2, keepdim=True)
        v = nu - torch.logsumexp(z + u, 1, keepdim=True)
    return z + u + v


# ---- matching rule


@pytest.mark.parametrize("case", ["match0", "match1"])
def test_reference_matches(case, record_property):
    kp1, kp2, d1, d2, pairs = arrays(case).values()
    a, b = (from_arrays(k.flip(-1).numpy(), descriptor=d.numpy()) for k, d in ((kp1, d1), (kp2, d2)))
    match = match_keypoints(a, b, window=30, rule="released")
    found = {(i, j) for i, j in enumerate(match.tolist()) if j >= 0}
    wrong = found ^ set(map(tuple, pairs.tolist()))
    record_property("golden_error", float(len(wrong)))
    assert not wrong


def test_mutual_rule_agrees_with_a_loop():
    a, b = random_points(60, 0), random_points(70, 1)

    def nearest(p, q, i):
        near = [j for j in range(len(q.xy)) if (p.xy[i] - q.xy[j]).abs().sum() < 25]
        return min(near, key=lambda j: (p.descriptor[i].double() - q.descriptor[j]).norm(), default=None)

    expected = []
    for i in range(60):
        j = nearest(a, b, i)
        expected.append(j if j is not None and nearest(b, a, j) == i else -1)
    match = match_keypoints(a, b, 25)
    assert match.tolist() == expected and 10 < (match >= 0).sum() < 60


def test_window_is_open_and_counts_manhattan_pixels():
    a = from_arrays(np.array([[10.0, 10.0]]))
    b = from_arrays(np.array([[13.0, 14.0]]))
    assert match_keypoints(a, b, 7.01).tolist() == [0] and match_keypoints(a, b, 7).tolist() == [-1]


def test_the_same_points_match_themselves_and_points_without_descriptors_match_by_place():
    a = random_points(50, 0)
    assert match_keypoints(a, a, 20).tolist() == list(range(50))
    bare = random_points(50, 0, descriptors=False)
    moved = bare._replace(xy=bare.xy + 0.01)
    assert match_keypoints(bare, moved, 20).tolist() == list(range(50))


@pytest.mark.parametrize("rule", RULES)
def test_padding_and_order_do_not_change_matches(rule):
    a, b = random_points(40, 0), random_points(50, 1)
    match = match_keypoints(a, b, 25, rule)
    padded = match_keypoints(pad(a, 60), pad(b, 64), 25, rule)
    assert padded[:40].tolist() == match.tolist() and padded[40:].tolist() == [-2] * 20
    p, q = (torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (40, 50))
    shuffled = match_keypoints(a.select(p), b.select(q), 25, rule)
    assert torch.where(shuffled >= 0, q[shuffled.clamp(min=0)], shuffled).tolist() == match[p].tolist()


@pytest.mark.parametrize("rule", RULES)
def test_no_keypoints_no_matches(rule):
    a, none = random_points(4, 0), random_points(0, 0)
    assert match_keypoints(a, none, 25, rule).tolist() == [-1] * 4
    assert match_keypoints(none, a, 25, rule).tolist() == []
    assert match_keypoints(pad(a, 6), pad(none, 6), 25, rule).tolist() == [-1] * 4 + [-2] * 2
    assert match_keypoints(pad(none, 3), pad(a, 6), 25, rule).tolist() == [-2] * 3


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="matching rule"):
        match_keypoints(random_points(1, 0), random_points(1, 0), 25, "nearest")
    with pytest.raises(ValueError, match="reduction"):
        local_loss(torch.zeros(1, 2, 2), torch.zeros(1, 1, dtype=torch.int64), reduction="sum")
    with pytest.raises(ValueError, match="match must be"):
        local_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="iterations"):
        log_sinkhorn(torch.zeros(1, 2, 2), 1.0, iterations=0)


# ---- Sinkhorn


@pytest.mark.parametrize(("case", "dustbin", "iterations"), [("ot0", 1.0, 100), ("ot1", 0.3, 50)])
def test_reference_assignments(case, dustbin, iterations, record_property):
    scores, expected = arrays(case).values()
    error = relative_error(log_sinkhorn(scores, dustbin, iterations), expected)
    record_property("golden_error", error)
    assert error < 1e-4


def test_constant_scores_have_a_closed_form():
    n, score, dustbin = 6, 1.7, 0.4
    root = math.exp((score - dustbin) / 2)  # Sinkhorn keeps the cross-ratio of the matrix
    match = root / (n * (1 + root))
    p = log_sinkhorn(torch.full((1, n, n), score, dtype=torch.float64), dustbin, 200).exp()[0]
    expected = torch.full((n + 1, n + 1), match, dtype=torch.float64)
    expected[:, -1] = expected[-1] = 1 - n * match
    expected[-1, -1] = n * n * match
    torch.testing.assert_close(p, expected)


def test_converges_to_what_pot_finds():
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    bordered = torch.nn.functional.pad(scores, (0, 1, 0, 1), value=0.5).numpy()
    mu, nu = np.array([1.0] * 7 + [5]) / 12, np.array([1.0] * 5 + [7]) / 12
    plan = ot.sinkhorn(mu, nu, -bordered, reg=1.0, method="sinkhorn_log", numItermax=5000, stopThr=1e-14)
    ours = log_sinkhorn(scores[None], 0.5, iterations=5000)[0].exp().numpy()
    np.testing.assert_allclose(ours, plan * 12, rtol=1e-6)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 60), st.floats(-30, 30), st.integers(0, 999))
def test_is_the_naive_form_for_any_scores(m, n, scale, dustbin, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(2, m, n, generator=generator) * scale).requires_grad_()
    weight = torch.rand(2, m + 1, n + 1, generator=generator)
    fast, slow = log_sinkhorn(scores, dustbin, 37), naive_sinkhorn(scores.double(), dustbin, 37)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=2e-4)
    gradients = [torch.autograd.grad((p * weight).mean(), scores)[0] for p in (fast, slow)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


PLACES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.booleans()), min_size=1, max_size=12)


def keypoints_at(places, seed):
    """Keypoints at whole places; descriptors of few values, so that distances are often equal."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.tensor([there for *_, there in places])
    xy = torch.tensor([[x, y] for x, y, _ in places], dtype=torch.float32)
    descriptor = torch.randint(0, 3, (len(places), 4), generator=generator, dtype=torch.uint8)
    ones = torch.ones(len(places))
    return Keypoints(xy, ones, ones, descriptor, valid)


@given(PLACES, PLACES, st.floats(1, 80), st.integers(0, 99))
def test_matches_of_any_points_are_near_one_to_one_and_ignore_padding(left, right, window, seed):
    a, b = keypoints_at(left, seed), keypoints_at(right, seed + 100)
    match = match_keypoints(a, b, window)
    assert torch.equal(match == -2, ~a.valid)
    i = (match >= 0).nonzero().squeeze(1)
    j = match[i]
    assert len(set(j.tolist())) == len(j) and b.valid[j].all()
    assert ((a.xy[i] - b.xy[j]).abs().sum(1) < window).all()
    kept = match_keypoints(a.select(a.valid), b.select(b.valid), window)  # without the padding, the same pairs
    place = b.valid.cumsum(0) - 1
    expected = torch.where(match[a.valid] >= 0, place[match[a.valid].clamp(min=0)], -1)
    assert torch.equal(kept, expected)


@given(PLACES, PLACES, st.integers(0, 99))
def test_no_pair_that_prefers_each_other_is_left_out(left, right, seed):
    a, b = keypoints_at(left, seed), keypoints_at(right, seed + 100)
    match = match_keypoints(a, b, 30.0)
    near = (torch.cdist(a.xy, b.xy, p=1) < 30) & a.valid[:, None] & b.valid[None]
    cost = torch.cdist(a.descriptor.double(), b.descriptor.double()).masked_fill(~near, torch.inf)
    for i, j in near.nonzero().tolist():
        others = torch.cat([cost[i, :j], cost[i, j + 1 :], cost[:i, j], cost[i + 1 :, j]])
        assert match[i] == j or not (others > cost[i, j]).all()


def test_unbalanced_groups_that_hardly_connect_stay_finite():
    scores = torch.full((1, 300, 300), -200.0)  # scales keep growing in every round here
    scores[:, :299, 0] = scores[:, 299, 1:] = 200.0
    fast, slow = log_sinkhorn(scores, -200.0), naive_sinkhorn(scores.double(), -200.0)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-3)


def test_padding_changes_nothing_and_batch_equals_singles():
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 7), (9, 4), (1, 1), (8, 8)]
    valid0, valid1 = torch.zeros(4, 9, dtype=torch.bool), torch.zeros(4, 8, dtype=torch.bool)
    scores = torch.full((4, 9, 8), torch.nan, dtype=torch.float64)
    for i, (m, n) in enumerate(sizes):
        valid0[i, torch.randperm(9, generator=generator)[:m]] = True  # padding anywhere, not only at the end
        valid1[i, torch.randperm(8, generator=generator)[:n]] = True
    scores[valid0[:, :, None] & valid1[:, None]] = torch.randn(
        sum(m * n for m, n in sizes), generator=generator, dtype=torch.float64)
    batch = log_sinkhorn(scores, 0.3, valid0=valid0, valid1=valid1)
    border = torch.ones(1, dtype=torch.bool)
    for i in range(len(sizes)):
        rows, cols = torch.cat([valid0[i], border]), torch.cat([valid1[i], border])
        single = log_sinkhorn(scores[i][valid0[i]][:, valid1[i]][None], 0.3)[0]
        torch.testing.assert_close(batch[i][rows][:, cols], single, rtol=0, atol=1e-12)
        assert (batch[i][~rows] == -torch.inf).all() and (batch[i][:, ~cols] == -torch.inf).all()


def test_permuted_points_give_the_permuted_assignment():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 6, 8, generator=generator, dtype=torch.float64)
    p, q = torch.randperm(6, generator=generator), torch.randperm(8, generator=generator)
    rows, cols = torch.cat([p, torch.tensor([6])]), torch.cat([q, torch.tensor([8])])
    expected = log_sinkhorn(scores, 1.0)[:, rows][:, :, cols]
    torch.testing.assert_close(log_sinkhorn(scores[:, p][:, :, q], 1.0), expected)


@pytest.mark.parametrize("iterations", [1, 6, 13])
def test_gradients_in_double_precision(iterations):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    dustbin = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    valid0 = torch.tensor([[True] * 4, [True, True, False, False]])
    valid1 = torch.tensor([[True] * 3, [False, True, True]])
    match = torch.tensor([[1, -1, 0, -1], [2, -1, -2, -2]])

    def loss(scores, dustbin):
        assignment = log_sinkhorn(scores, dustbin, iterations, valid0, valid1)
        return local_loss(assignment, match, valid0, valid1, "paper")

    assert torch.autograd.gradcheck(loss, (scores, dustbin))


def test_half_precision_is_computed_in_float32():
    scores = (torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(0)) * 20).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = log_sinkhorn(scores, torch.tensor(1.0))
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.double(), naive_sinkhorn(scores.double(), 1.0), rtol=1e-5, atol=1e-4)


# ---- local loss


def test_loss_terms_are_matches_and_dustbins_of_the_unmatched():
    p = log_sinkhorn(torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)), 1.0)
    match = torch.tensor([[2, -1, -2, -1]])
    matches = [-p[0, 0, 2]]
    dustbins = [-p[0, 1, 3], -p[0, 3, 3], -p[0, 4, 0], -p[0, 4, 1]]
    total = sum(matches) + sum(dustbins)
    torch.testing.assert_close(local_loss(p, match, reduction="paper"), total)
    torch.testing.assert_close(local_loss(p, match), total / 5)
    released = 0.45 * matches[0] + sum(dustbins) / 4
    torch.testing.assert_close(local_loss(p, match, reduction="released"), released)


def test_partner_that_left_the_image_leaves_its_point_unmatched():
    p = log_sinkhorn(torch.zeros(1, 2, 2), 1.0, valid1=(v := torch.tensor([[True, False]])))
    a, b = (local_loss(p, torch.tensor([m]), valid1=v, reduction="paper") for m in ([1, 0], [-1, 0]))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reduction", ["mean", "paper", "released"])
@pytest.mark.parametrize("empty", ["first", "second", "both", "no points at all"])
def test_nothing_to_match_gives_zero_loss_and_gradient(empty, reduction):
    k = 0 if empty == "no points at all" else 5
    scores, dustbin = torch.randn(2, k, k, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    valid0 = torch.full((2, k), empty == "second")
    valid1 = torch.full((2, k), empty == "first")
    p = log_sinkhorn(scores, dustbin, valid0=valid0, valid1=valid1)
    loss = local_loss(p, torch.where(valid0, -1, -2), valid0, valid1, reduction)
    loss.backward()
    assert loss.item() == 0 and dustbin.grad == 0 and torch.equal(scores.grad, torch.zeros(2, k, k))


@pytest.mark.parametrize("reduction", ["mean", "paper", "released"])
def test_loss_of_a_batch_is_the_mean_of_its_pairs_also_beside_an_empty_one(reduction):
    scores = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    valid0 = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [False] * 6])
    valid1 = torch.tensor([[True] * 6, [True] * 6, [True] * 6])
    match = torch.tensor([[-1] * 6, [0, 2, -1, 5, -2, -2], [-2] * 6])  # a pair without any match, too

    def loss(pairs: slice):
        masks = valid0[pairs], valid1[pairs]
        return local_loss(log_sinkhorn(scores[pairs], 1.0, 100, *masks), match[pairs], *masks, reduction)

    whole, *singles = (loss(pairs) for pairs in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)))
    torch.testing.assert_close(whole, sum(singles) / 3)
    whole.backward()
    assert scores.grad.isfinite().all() and scores.grad[:2].abs().sum() > 0 and (scores.grad[2] == 0).all()


def test_descent_finds_the_matches():
    scores, dustbin = torch.zeros(1, 8, 9, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    match = torch.tensor([[3, -1, 0, 8, -1, 1, 2, 7]])
    optimizer = torch.optim.Adam([scores, dustbin], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        local_loss(log_sinkhorn(scores, dustbin), match).backward()
        optimizer.step()
    best = log_sinkhorn(scores, dustbin)[0, :-1].argmax(1)
    assert torch.where(best == 9, -1, best).tolist() == match[0].tolist()
