import pytest
import torch

from kaf.heads import BottleneckHead, KeypointHead, MatchHead
from tests.points import random_keypoints

SIZE = 32


def test_bottleneck_head_pools_and_projects():
    torch.manual_seed(0)
    head = BottleneckHead(8, out=5, norm=False)
    centre = torch.randn(3, 8, 2, 4)
    expected = head.mlp[3](head.mlp[0](centre.mean((2, 3))).relu())
    torch.testing.assert_close(head(centre), expected)
    assert head(centre).shape == (3, 5)


def test_batch_norm_tells_slices_apart_that_share_most_of_their_features():
    torch.manual_seed(0)
    centre = 5 + 0.1 * torch.randn(16, 64, 1, 1)  # what a pool of positive values looks like
    cosine = {norm: torch.cosine_similarity(f[:8], f[8:]).mean()
              for norm in (True, False) for f in [BottleneckHead(64, norm=norm)(centre)]}
    assert cosine[False] > 0.99 and cosine[True] < 0.8


def test_keypoint_head_depends_on_neither_padding_nor_order():
    torch.manual_seed(0)
    head = KeypointHead(2, 8, out=4).eval()
    levels = [torch.randn(2, 6, 8) for _ in range(2)]
    valid = torch.tensor([[True, True, True, False, False, False], [True] * 6])
    pooled, fused = head(levels, valid)
    assert pooled.shape == (2, 4) and fused.shape == (2, 6, 8) and fused[0, 3:].abs().max() == 0
    alone, _ = head([level[:1, :3] for level in levels], valid[:1, :3])
    torch.testing.assert_close(alone, pooled[:1])
    order = torch.randperm(6)
    shuffled, _ = head([level[:, order] for level in levels], valid[:, order])
    torch.testing.assert_close(shuffled, pooled)


def test_keypoint_head_gives_an_empty_slice_the_mean_zero():
    head = KeypointHead(1, 8).eval()
    pooled, fused = head([torch.randn(1, 3, 8)], torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(pooled, head.mlp(torch.zeros(1, 8)))
    assert fused.abs().max() == 0


def match_inputs(valid=None):
    a, b = (random_keypoints(2, 5, SIZE, seed, valid) for seed in (1, 2))
    return torch.randn(2, 5, 8), torch.randn(2, 5, 8), a, b


@pytest.mark.parametrize("block, norm", [("transformer", "layer"), ("paper", "batch")])
def test_match_head_is_the_same_from_either_side(block, norm):
    torch.manual_seed(0)
    head = MatchHead(8, block=block, position_norm=norm).eval()
    f, g, a, b = match_inputs()
    scores = head.scores(f, g, a, b, SIZE)
    torch.testing.assert_close(head.scores(g, f, b, a, SIZE), scores.transpose(1, 2))
    assert scores.std() > 1e-3


@pytest.mark.parametrize("block, norm", [("transformer", "layer"), ("paper", "batch")])
def test_match_head_gives_every_point_a_mass_of_one_and_ignores_padding(block, norm):
    torch.manual_seed(0)
    head = MatchHead(8, block=block, position_norm=norm).eval()
    valid = torch.tensor([[True, True, True, False, False], [True] * 5])
    f, g, a, b = match_inputs(valid)
    plan = head(f, g, a, b, SIZE).exp()
    assert plan.shape == (2, 6, 6) and plan[0, 3:5].sum() == plan[0, :, 3:5].sum() == 0
    torch.testing.assert_close(plan[0, :3].sum(1), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(plan[0, :, :3].sum(0), torch.ones(3), atol=1e-3, rtol=0)
    cut = [k.select(slice(1))._replace(xy=k.xy[:1, :3], valid=k.valid[:1, :3]) for k in (a, b)]
    alone = head(f[:1, :3], g[:1, :3], *cut, SIZE).exp()
    kept = torch.tensor([0, 1, 2, 5])
    torch.testing.assert_close(alone[0], plan[0][kept][:, kept], atol=1e-5, rtol=1e-4)


def test_match_head_survives_slices_without_keypoints():
    head = MatchHead(8)
    f, g, a, b = match_inputs()
    empty = b.moved(b.xy, torch.tensor([[False], [True]]).expand(2, 5))
    result = head(f.requires_grad_(), g, a, empty, SIZE)
    result[result.isfinite()].sum().backward()
    assert f.grad.isfinite().all() and all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_scores_whose_product_float16_cannot_hold_are_finite():
    head, (_, _, a, b) = MatchHead(16, depth=0), match_inputs()
    torch.nn.init.eye_(head.project.weight)
    f = torch.full((2, 5, 16), 80.0)  # the product is 16 * 80 * 80, beyond 65504; divided by sqrt(16) it is not
    head._place = lambda tokens, points, size: tokens
    assert head.half().scores(f.half(), f.half(), a, b, SIZE).isfinite().all()
