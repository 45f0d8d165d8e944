from dataclasses import replace

import pytest
import torch

from kaf.networks import INITS, NETWORKS, PRESETS, KAFConfig, KAFUNet, build_network, parameter_count
from tests.golden_weights import CASES, arrays, copy_network, drawn_state, keypoints_from_yx, relative_error
from tests.points import random_keypoints

SMALL = KAFConfig(dim=16, depth=1, hidden=8)


def test_network_reproduces_the_reference():
    setup, given = CASES["unet0"], arrays("unet0")
    config = KAFConfig(**{**vars(PRESETS["paper"]), "depth": 2 * setup["pairs"]})
    network = KAFUNet(setup["classes"], setup["filters"], config)
    copy_network(network, drawn_state("unet0"))
    with torch.no_grad():
        logits = network.eval()(given["image"], keypoints_from_yx(given["keypoints_yx"]))
    assert relative_error(logits, given["logits"]) < 1e-4


@pytest.mark.parametrize("classes, width, unet, kaf, widened",
                         [(8, 32, 7.8, 71.7, 27.9), (4, 48, 17.5, 106.8, 62.8)])
def test_parameter_counts_agree_with_the_published_ones(classes, width, unet, kaf, widened):
    networks = {name: build_network(name, classes, width, PRESETS["paper"])
                for name in ("unet", "wide_unet", "kaf_unet")}
    millions = {name: parameter_count(network) / 1e6 for name, network in networks.items()}
    assert round(millions["unet"], 1) == unet
    # The released layers also carry a projection (256 x 256 + 256) and a dustbin score that are never used.
    unused = 4 * (256 * 256 + 256 + 1) / 1e6
    assert round(millions["kaf_unet"] + unused, 1) == kaf
    # The published "UNet with doubled widths" is the KAF-UNet without its layers: wide between the levels,
    # narrow in their convolutions. Ours doubles those too and is the stronger control.
    assert round(millions["kaf_unet"] - parameter_count(networks["kaf_unet"].encoder.layers) / 1e6, 1) == widened
    assert millions["wide_unet"] > widened


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("levels", [(0, 1, 2, 3), (0,), (1, 3), ()])
def test_every_network_maps_images_to_logits(name, levels):
    network = build_network(name, 4, 4, KAFConfig(levels=levels, dim=16, depth=1, hidden=8))
    logits = network(torch.randn(2, 1, 32, 48), random_keypoints(2, 6, 32))
    assert logits.shape == (2, 4, 32, 48)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_wide_unet_has_the_widths_of_the_kaf_unet():
    wide, kaf = build_network("wide_unet", 4, 8), build_network("kaf_unet", 4, 8, SMALL)
    assert wide.encoder.widths == kaf.encoder.widths == [16, 32, 64, 128, 256]
    light = build_network("kaf_unet", 4, 8, KAFConfig(dim=16, depth=1, fusion="project"))
    assert light.encoder.widths == build_network("unet", 4, 8).encoder.widths


@pytest.mark.parametrize("init", INITS)
def test_layers_that_start_from_zero_add_nothing_until_they_have_learned(init):
    network = build_network("kaf_unet", 4, 4, replace(SMALL, zero_start=True), init=init)
    assert not any(network.encoder.layers[name].conv2.bias.any() for name in network.encoder.layers)
    image, points, others = torch.randn(2, 1, 32, 32), random_keypoints(2, 6, 32), random_keypoints(2, 6, 32, seed=1)
    assert torch.equal(network(image, points), network(image, others))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network(image, points).square().mean().backward()
    optimiser.step()
    assert not torch.equal(network(image, points), network(image, others))
    at_once = build_network("kaf_unet", 4, 4, SMALL)
    assert not torch.equal(at_once(image, points), at_once(image, others))


def test_a_kaf_unet_without_layers_is_the_unet():
    torch.manual_seed(0)
    plain = build_network("unet", 4, 4)
    kaf = build_network("kaf_unet", 4, 4, KAFConfig(levels=()))
    kaf.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(kaf.eval()(image, None), plain.eval()(image))


def test_batch_equals_singles():
    torch.manual_seed(0)
    network = build_network("kaf_unet", 4, 4, SMALL).eval()
    valid = torch.rand(3, 12) > torch.tensor([[0.0], [0.5], [1.0]])
    image, points = torch.randn(3, 1, 32, 32), random_keypoints(3, 12, 32, valid=valid)
    together = network(image, points)
    for i in range(3):
        alone = network(image[i : i + 1], points.select(slice(i, i + 1)))
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["unet", "wide_unet", "kaf_unet"])
def test_with_instance_norm_a_slice_in_training_does_not_depend_on_the_others(name):
    torch.manual_seed(0)
    network = build_network(name, 4, 4, SMALL, norm="instance").train()
    image, points = torch.randn(3, 1, 32, 32), random_keypoints(3, 12, 32)
    together = network(image, points)
    torch.testing.assert_close(network(image[:1], points.select(slice(1)))[0], together[0], atol=1e-4, rtol=1e-4)
    assert parameter_count(network) == parameter_count(build_network(name, 4, 4, SMALL))


@pytest.mark.parametrize("init, variance", [("he", 2.0), ("torch", 1 / 3)])
def test_weights_begin_as_the_initialisation_says(init, variance):
    torch.manual_seed(0)
    network = build_network("kaf_unet", 4, 32, SMALL, init=init)
    inner = network.encoder.blocks[2][3].weight, network.encoder.centre[0].weight, network.decoder.blocks[0][0].weight
    for weight in inner:  # times the number of inputs
        assert weight.var().item() * weight[0].numel() == pytest.approx(variance, rel=0.05)
    assert network.decoder.head.weight.var().item() * 64 == pytest.approx(variance, rel=0.5)


def test_encoded_parts_and_attention_maps_have_the_documented_shapes():
    network = build_network("kaf_unet", 4, 4, KAFConfig(levels=(0, 2), dim=16, depth=2, hidden=8))
    image, points = torch.randn(2, 1, 32, 32), random_keypoints(2, 7, 32)
    encoded = network.encoder(image, points)
    assert [s.shape[1] for s in encoded.skips] == [8, 8, 32, 32] and encoded.centre.shape == (2, 64, 2, 2)
    assert [p.shape for p in encoded.points] == [(2, 7, 16)] * 2
    maps = network.encoder.attention_maps(image, points)
    assert list(maps) == [0, 2] and [m.shape for m in maps[2]] == [(2, 4, 7, 7)] * 2


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown network 'vnet'"):
        build_network("vnet", 4, 8)
    with pytest.raises(ValueError, match="unknown norm 'layer'"):
        build_network("unet", 4, 8, norm="layer")
    with pytest.raises(ValueError, match="unknown initialisation 'zeros'"):
        build_network("unet", 4, 8, init="zeros")
    with pytest.raises(ValueError, match="multiples of 16"):
        build_network("unet", 4, 4)(torch.zeros(1, 1, 30, 32))
    with pytest.raises(ValueError, match="among 0..3"):
        KAFUNet(4, 8, KAFConfig(levels=(4,)))
