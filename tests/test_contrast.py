"""Contrastive losses: reference values, closed forms, an independent implementation."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss

from kaf.contrast import contrast, gcl, partition_mask, positional_contrast, positional_mask, simclr
from tests.golden_weights import arrays, relative_error

THRESHOLD = {"pcl0": 0.1, "pcl1": 0.35, "pcl2": 0.02}


def random_views(batch=6, views=2, dim=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, views, dim, generator=generator, dtype=dtype)
    return features, torch.rand(batch, generator=generator)


@pytest.mark.parametrize("case", sorted(THRESHOLD))
def test_reference_values(case, record_property):
    features, position, expected = arrays(case).values()
    losses = torch.stack([positional_contrast(features, position, THRESHOLD[case]), simclr(features)])
    error = relative_error(losses * 0.1 / 0.07, expected)
    record_property("golden_error", error)
    assert error < 1e-4


def test_simclr_of_orthogonal_slices_has_a_closed_form():
    batch, temperature = 5, 0.5
    features = torch.eye(batch)[:, None].expand(batch, 2, batch) * 3.0
    expected = -math.log(math.exp(2) / (math.exp(2) + 2 * batch - 2))
    assert simclr(features, temperature).item() == pytest.approx(expected, rel=1e-6)


def test_collapsed_features_cost_the_logarithm_of_the_number_of_others():
    features, position = torch.ones(4, 2, 3), torch.rand(4)
    for loss in (simclr(features), gcl(features, position), positional_contrast(features, position, 0.3)):
        assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_pytorch_metric_learning(seed):
    features, position = random_views(seed=seed)
    flat, per_view = features.flatten(0, 1), position.repeat_interleave(2)
    oracle = SupConLoss(temperature=0.1)
    slices = torch.arange(6).repeat_interleave(2)
    parts = (per_view * 4).long()
    torch.testing.assert_close(simclr(features), oracle(flat, slices))
    torch.testing.assert_close(contrast(flat, partition_mask(per_view)), oracle(flat, parts))
    close = (per_view[:, None] - per_view[None]).abs() < 0.2
    anchors = close & ~torch.eye(12, dtype=torch.bool)
    pairs = (*torch.where(anchors), *torch.where(~close))
    expected = oracle(flat, indices_tuple=pairs)
    torch.testing.assert_close(positional_contrast(features, position, 0.2), expected)


def test_masks():
    position = torch.tensor([0.0, 0.24, 0.25, 0.99, 1.0])
    assert torch.equal(partition_mask(position).int(), torch.block_diag(torch.ones(2, 2), torch.ones(1, 1),
                                                                        torch.ones(2, 2)).int())
    expected = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert positional_mask(torch.tensor([0.0, 0.25, 0.5]), 0.5).int().tolist() == expected  # strictly below


@pytest.mark.parametrize("slices, threshold", [(10, 0.2), (20, 0.35), (30, 0.1), (100, 0.1)])
def test_slices_at_the_threshold_itself_are_no_positives_however_that_is_rounded(slices, threshold):
    index = torch.arange(slices)
    apart = (index[:, None] - index).abs()
    assert torch.equal(positional_mask(index / slices, threshold), apart < round(threshold * slices))


def test_special_cases_of_the_positional_mask():
    features, position = random_views(views=3)
    torch.testing.assert_close(positional_contrast(features, position, 0.0), simclr(features))
    torch.testing.assert_close(gcl(features, position, parts=1), positional_contrast(features, position, 2.0))


def test_views_from_neighbouring_slices_stay_positives():
    features, position = random_views()
    far = torch.stack([position, position + 10], 1)
    torch.testing.assert_close(positional_contrast(features, far, 1e-9), simclr(features))


def test_order_and_length_of_the_features_do_not_matter():
    features, position = random_views()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    loss = positional_contrast(features, position, 0.2)
    torch.testing.assert_close(loss, positional_contrast(features[order] * 7, position[order], 0.2))


def test_anchor_without_positives_is_left_out_but_stays_a_negative():
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    positives = torch.zeros(3, 3, dtype=torch.bool)
    positives[0, 1] = positives[1, 0] = True
    unit = torch.nn.functional.normalize(features, dim=1)
    s = (unit @ unit.T / 0.1).exp()
    expected = -(torch.log(s[0, 1] / (s[0, 1] + s[0, 2])) + torch.log(s[1, 0] / (s[1, 0] + s[1, 2]))) / 2
    torch.testing.assert_close(contrast(features, positives), expected)


@pytest.mark.parametrize("case", ["no positives", "one view", "nothing valid"])
def test_nothing_to_learn_gives_zero_loss_and_gradient(case):
    n = 1 if case == "one view" else 4
    features = torch.randn(n, 5, requires_grad=True)
    positives = torch.full((n, n), case == "nothing valid")
    valid = torch.zeros(n, dtype=torch.bool) if case == "nothing valid" else None
    loss = contrast(features, positives, valid=valid)
    loss.backward()
    assert loss.item() == 0 and torch.equal(features.grad, torch.zeros(n, 5))


def test_invalid_views_change_nothing_even_when_they_are_not_numbers():
    features, position = random_views()
    expected = positional_contrast(features[:4], position[:4], 0.2)
    valid = torch.tensor([[True, True]] * 4 + [[False, False]] * 2)
    broken = torch.where(valid[..., None], features, torch.nan).requires_grad_()
    loss = positional_contrast(broken, position, 0.2, valid=valid)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(broken.grad[4:], torch.zeros(2, 2, 8)) and broken.grad[:4].abs().sum() > 0


def test_gradients_in_double_precision():
    features, position = random_views(batch=3, dtype=torch.float64)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: positional_contrast(f, position, 0.3), (features,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    features, position = random_views(batch=16, dim=64)
    half = (features * 100).to(dtype)
    expected = positional_contrast(half.float(), position, 0.1, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = positional_contrast(half, position, 0.1, temperature=0.01)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_descent_brings_slices_at_similar_positions_together():
    features, position = random_views(batch=8, dim=4)
    features.requires_grad_()
    optimizer = torch.optim.SGD([features], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        positional_contrast(features, position, 0.25, temperature=0.5).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(features.detach().flatten(0, 1), dim=1)
    close = positional_mask(position.repeat_interleave(2), 0.25)
    cosine = unit @ unit.T
    assert cosine[close].mean() > cosine[~close].mean() + 0.8


def test_wrong_arguments_are_named():
    features, position = random_views()
    with pytest.raises(ValueError, match=r"position must be \(6,\) or \(6, 2\)"):
        positional_contrast(features, position[:5], 0.1)
    with pytest.raises(ValueError, match="slices, views, dimension"):
        simclr(features.flatten(0, 1))
    with pytest.raises(ValueError, match="positives"):
        contrast(features.flatten(0, 1), torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="temperature"):
        simclr(features, 0.0)
