import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kaf.fusion import (
    KAFLayer,
    add_positions,
    cell_of,
    gather_bilinear,
    gather_nearest,
    level_coordinates,
    scatter,
    scatter_weight,
    sparse_conv3x3,
)
from kaf.heads import MatchHead
from kaf.keypoints import Keypoints
from kaf.mixers import TokenMLP
from tests.golden_weights import CASES, arrays, copy_kaf_layer, drawn_state, keypoints_from_yx, relative_error
from tests.points import random_keypoints

PAPER = dict(mixer="paper", gather="nearest", scatter="overwrite", position_norm="batch")


@pytest.mark.parametrize("case", ["layer0", "layer1"])
def test_layer_reproduces_the_reference(case):
    setup, given = CASES[case], arrays(case)
    layer = KAFLayer(setup["channels"], depth=2 * setup["pairs"], **PAPER)
    copy_kaf_layer(layer, drawn_state(case))
    with torch.no_grad():
        fused, mixed = layer.eval()(given["feature"], keypoints_from_yx(given["keypoints_yx"]), stride=1)
    channels = setup["channels"]
    torch.testing.assert_close(fused[:, :channels], given["feature"])
    assert relative_error(fused[:, channels:], given["dense"]) < 1e-4
    assert relative_error(mixed.transpose(1, 2), given["sparse"]) < 1e-4


def test_autocast_leaves_the_places_of_keypoints_as_they_are():
    torch.manual_seed(0)
    mlp, zero = TokenMLP([2, 32, 64, 8]), torch.zeros(1, 2, 8, dtype=torch.bfloat16)
    relative = (torch.tensor([[[210.0, 20.0], [210.1, 20.0]]]) - 112) / (0.7 * 224)  # .1 px apart at 224 px
    valid = torch.ones(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(*mlp(relative, valid)[0]), "16 bit cannot tell them apart"
        one, other = add_positions(zero, mlp, relative, valid)[0]
    assert one.dtype == torch.bfloat16 and (one != other).any()
    torch.testing.assert_close(add_positions(zero.float(), mlp, relative, valid), mlp(relative, valid), rtol=0, atol=0)


@pytest.mark.parametrize("whose", ["layer", "head"])
def test_keypoints_a_tenth_of_a_pixel_apart_are_two_under_autocast(whose):
    torch.manual_seed(0)
    points = random_keypoints(1, 2, 224)
    points = points._replace(xy=torch.tensor([[[210.0, 20.0], [210.1, 20.0]]]))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        if whose == "layer":
            layer = KAFLayer(3, dim=32, depth=1, heads=2)
            one, other = layer.tokens(torch.zeros(1, 3, 224, 224), points.xy, points.valid)[0]
        else:
            one, other = MatchHead(32, depth=1)._place(torch.zeros(1, 2, 32), points, 224)[0]
    assert (one != other).any()


@pytest.mark.parametrize("how", ["mean", "sum", "overwrite"])
def test_sparse_convolution_equals_the_dense_one(how):
    g = torch.Generator().manual_seed(1)
    height, width = 6, 9
    tokens = torch.randn(2, 70, 5, generator=g, dtype=torch.float64)  # more points than cells: collisions
    cell = torch.randint(0, height * width, (2, 70), generator=g)  # corners and borders among them
    valid = torch.rand(2, 70, generator=g) > 0.3
    conv = nn.Conv2d(5, 4, 3, padding=1).double()
    weight = scatter_weight(cell, valid, height * width, how)
    dense = conv(scatter(tokens, cell, weight, height, width))
    torch.testing.assert_close(sparse_conv3x3(tokens, cell, weight, height, width, conv), dense)


def test_scatter_readings_on_a_shared_cell():
    tokens = torch.tensor([[[1.0], [5.0], [100.0], [7.0]]])
    cell = torch.tensor([[2, 2, 2, 0]])
    valid = torch.tensor([[True, True, False, True]])
    got = {}
    for how in ("mean", "sum", "overwrite"):
        got[how] = scatter(tokens, cell, scatter_weight(cell, valid, 4, how), 2, 2).flatten().tolist()
    assert got == {"mean": [7, 0, 3, 0], "sum": [7, 0, 6, 0], "overwrite": [7, 0, 5, 0]}


def test_bilinear_gather_reads_a_ramp_exactly():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    ramp = torch.stack([x, y])[None]
    xy = torch.tensor([[[0.0, 0.0], [3.25, 6.5], [11.0, 7.0]]])
    torch.testing.assert_close(gather_bilinear(ramp, xy), xy)
    torch.testing.assert_close(gather_nearest(ramp, xy), torch.tensor([[[0.0, 0.0], [3.0, 7.0], [11.0, 7.0]]]))


def test_level_coordinates_follow_average_pooling():
    # A ramp of x pooled 4 x 4 holds the mean x of its cells: reading it at the level's coordinate gives x back.
    x = torch.arange(16.0).expand(1, 1, 16, 16)
    pooled = nn.functional.avg_pool2d(x, 4)
    xy = torch.tensor([[[5.3, 8.0], [9.9, 4.0]]])
    torch.testing.assert_close(gather_bilinear(pooled, level_coordinates(xy, 4))[..., 0], xy[..., 0])


def test_cells_of_integer_points_are_the_integer_division():
    xy = torch.arange(32.0)[:, None].expand(-1, 2)
    for stride in (1, 2, 4, 8):
        cell = cell_of(level_coordinates(xy, stride), 32 // stride, 32 // stride)
        assert torch.equal(cell, (xy // stride).long())


@pytest.mark.parametrize("options", [{}, PAPER, {"fusion": "project"}, {"mixer": "none"}])
@pytest.mark.parametrize("train", [False, True])
def test_padding_and_order_of_keypoints_change_nothing(options, train):
    torch.manual_seed(0)
    layer = KAFLayer(4, dim=16, depth=2, hidden=8, **{**options, "scatter": "mean"}).train(train)
    feature, points = torch.randn(2, 4, 16, 16), random_keypoints(2, 9, 32)
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    fused, mixed = layer(feature, points, stride=2)

    order = torch.randperm(9)
    padding = torch.zeros(2, 3, dtype=torch.bool)
    padded = Keypoints(*(torch.cat([f[:, order], f.new_zeros(2, 3, *f.shape[2:])], 1) for f in points[:4]),
                       torch.cat([points.valid, padding], 1))
    layer.load_state_dict(state)
    fused_p, mixed_p = layer(feature, padded, stride=2)
    torch.testing.assert_close(fused_p, fused, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed_p[:, :9], mixed[:, order], atol=1e-5, rtol=1e-5)
    assert mixed_p[:, 9:].abs().max() == 0


@pytest.mark.parametrize("options", [{}, PAPER])
def test_a_prediction_does_not_depend_on_its_batch_mates(options):
    torch.manual_seed(0)
    layer = KAFLayer(4, dim=16, depth=2, hidden=8, **options).eval()
    valid = torch.rand(3, 9) > torch.tensor([[0.0], [0.5], [1.0]])  # the last image has no keypoint at all
    feature, points = torch.randn(3, 4, 16, 16), random_keypoints(3, 9, 16, valid=valid)
    fused, mixed = layer(feature, points, 1)
    assert torch.isfinite(fused).all()
    for i in range(3):
        alone, mixed_alone = layer(feature[i : i + 1], points.select(slice(i, i + 1)), 1)
        torch.testing.assert_close(alone[0], fused[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mixed_alone[0], mixed[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"mixer": "paper", "position_norm": "batch"}])
def test_images_without_keypoints_train(options):
    layer = KAFLayer(4, dim=16, depth=1, hidden=8, **options)
    points = random_keypoints(2, 5, 16, valid=torch.zeros(2, 5, dtype=torch.bool))
    fused, mixed = layer(torch.randn(2, 4, 16, 16), points, 1)
    (fused.square().sum() + mixed.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    assert all(torch.isfinite(b).all() for b in layer.buffers())


def test_information_crosses_the_whole_image_in_one_layer():
    torch.manual_seed(0)
    feature = torch.randn(1, 3, 64, 64)
    ones = torch.ones(1, 2)
    points = Keypoints(torch.tensor([[[2.0, 2.0], [60.0, 60.0]]]), ones, ones,
                       torch.zeros(1, 2, 0, dtype=torch.uint8), ones.bool())
    reach = {}
    for mixer in ("transformer", "none"):
        layer = KAFLayer(3, dim=16, depth=1, hidden=8, mixer=mixer).eval()
        x = feature.clone().requires_grad_()
        layer(x, points, 1)[0][0, 3:, 60, 60].sum().backward()
        reach[mixer] = x.grad[0, :, 2, 2].abs().sum().item()
    assert reach["transformer"] > 0 and reach["none"] == 0


def test_gradients_in_float64():
    torch.manual_seed(0)
    layer = KAFLayer(2, dim=8, depth=1, heads=2, hidden=3).double()
    valid = torch.tensor([[True] * 4 + [False]])
    points = random_keypoints(1, 5, 8, valid=valid)
    points = points._replace(xy=points.xy.double())
    feature = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda f: layer(f, points, 1), (feature,))


def test_projection_starts_as_the_identity():
    layer = KAFLayer(4, dim=16, depth=1, hidden=8, fusion="project").eval()
    feature = torch.randn(1, 4, 16, 16)
    fused, _ = layer(feature, random_keypoints(1, 5, 16), 1)
    torch.testing.assert_close(fused, feature)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="unknown scatter 'average'"):
        KAFLayer(4, scatter="average")
    with pytest.raises(ValueError, match="unknown mixer"):
        KAFLayer(4, mixer="mamba")
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        KAFLayer(4, dim=30, heads=4)


@pytest.mark.parametrize("x", [0.0, 200.0, 301.0, 511.0])
def test_gather_finds_its_place_on_a_16_bit_map(x):
    feature = torch.zeros(1, 2, 4, 512, dtype=torch.bfloat16)
    feature[0, :, 2, int(x)] = 1
    for gather in (gather_bilinear, gather_nearest):
        assert gather(feature, torch.tensor([[[x, 2.0]]])).tolist() == [[[1.0, 1.0]]]


def test_gather_equals_grid_sample():
    feature = torch.randn(2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    xy = torch.rand(2, 20, 2, dtype=torch.float64) * 12 - 2  # some outside
    grid = ((2 * xy + 1) / torch.tensor([7, 9]) - 1).unsqueeze(2)
    expected = F.grid_sample(feature, grid, padding_mode="border", align_corners=False).squeeze(3).transpose(1, 2)
    found = gather_bilinear(feature, xy)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((r * weight).sum(), feature)[0] for r in (found, expected)]
    torch.testing.assert_close(*gradients)
