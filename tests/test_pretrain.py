import json
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch

from kaf import loop
from kaf import pretrain as module
from kaf.contrast import gcl, positional_contrast, simclr
from kaf.correspondence import match_keypoints
from kaf.data.pairs import PairDataset, Window, collate
from kaf.data.store import Store
from kaf.networks import PRESETS, build_network
from kaf.pretrain import (
    KINDS,
    Pretrainer,
    PretrainLoss,
    encoder_entropy,
    fingerprint,
    flatten_pairs,
    load_pretrained,
    pair_losses,
    pretrain,
)
from kaf.runs import Run
from tests.tiny import LAYERS, interrupting, must_not_train, same_weights, tiny_experiment

TRAIN, TEST = ("patient001", "patient002", "patient003"), "patient005"
PAPER = replace(PRESETS["paper"], dim=8, depth=1, hidden=4)


def run_it(store, folder, **changes):
    return pretrain(tiny_experiment(**changes), store, TRAIN, folder, device="cpu")


def pairs(store, count=2, k=12):
    volumes = store.select(patients=TRAIN)
    dataset = PairDataset(store, volumes, 32, k, Window(0.18, 2), partial(match_keypoints, window=30.0))
    return collate([dataset[5 * i] for i in range(count)])


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    return run_it(store, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("how, at", [("ctrl-c", 1), ("error", 3)])
def test_an_interrupted_run_ends_with_the_same_weights(store, tmp_path, monkeypatch, finished, how, at):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(module, "PretrainLoss", interrupting(PretrainLoss, at, how))
        with pytest.raises(KeyboardInterrupt):
            run_it(store, tmp_path)
    half = Run(tmp_path / finished.folder.name, finished.config)
    with pytest.raises(ValueError, match=f"unfinished .{at + (how == 'ctrl-c')} of 4 steps"):
        load_pretrained(half, build_network("kaf_unet", 4, 2, LAYERS))
    resumed = run_it(store, tmp_path)
    assert same_weights(resumed.weights(), finished.weights())
    assert resumed.history().equals(finished.history()) and resumed.history()["step"].tolist() == [0, 3]


def test_a_finished_run_returns_at_once(store, finished, monkeypatch):
    monkeypatch.setattr(module, "PretrainLoss", lambda *_: must_not_train)
    assert run_it(store, finished.folder.parent).folder == finished.folder


@pytest.mark.parametrize("dim, heads, mixer", [(8, 8, "transformer"), (42, 6, "transformer"), (42, 6, "none")])
def test_keypoints_are_matched_by_as_many_heads_as_the_layers_have(dim, heads, mixer):
    layers = replace(LAYERS, dim=dim, heads=heads, mixer=mixer)
    model = Pretrainer(build_network("kaf_unet", 2, 2, layers).encoder, tiny_experiment().pretrain)
    assert {block.attention.heads for block in model.match.blocks} == {heads}


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(store, tmp_path, finished):
    again, other = run_it(store, tmp_path), run_it(store, tmp_path, seed=1)
    assert again.folder.name == finished.folder.name != other.folder.name
    assert same_weights(again.weights(), finished.weights())
    assert not same_weights(other.weights(), finished.weights())


def test_test_patients_are_neither_listed_nor_read(store, tmp_path, monkeypatch):
    read, sample = set(), Store.sample

    def spy(self, v, *rest):
        read.add(self.volumes[v].patient)
        return sample(self, v, *rest)

    monkeypatch.setattr(Store, "sample", spy)
    run = run_it(store, tmp_path, pretrain__optim__steps=12, pretrain__optim__batch=4)
    identity = json.loads((run.folder / "config.json").read_text())
    assert identity["patients"] == list(TRAIN) and TEST not in json.dumps(identity)
    assert read == set(TRAIN)


def test_other_data_under_the_same_names_are_another_run(store):
    volumes = store.select(patients=TRAIN)
    other = Store.open(store.path)
    assert fingerprint(other, volumes) == fingerprint(store, volumes) != fingerprint(store, volumes[1:])
    first = other.volumes[0]
    other.volumes = (replace(first, checksums={**first.checksums, "image.npy": "0"}), *other.volumes[1:])
    assert fingerprint(other, volumes) != fingerprint(store, volumes)


def test_the_encoder_moves_with_its_keypoint_layers(finished):
    network = build_network("kaf_unet", 4, 2, LAYERS)
    decoder = {k: v.clone() for k, v in network.state_dict().items() if k.startswith("decoder.")}
    load_pretrained(finished, network)
    weights = finished.weights()
    for name, value in network.state_dict().items():
        source = decoder[name] if name.startswith("decoder.") else weights[name]
        assert torch.equal(value, source), name
    assert any(".layers.3.mixer.blocks.0." in name for name in network.state_dict())
    assert any(name.startswith("match.") for name in weights)


@pytest.mark.parametrize("name, width", [("unet", 2), ("kaf_unet", 4)])
def test_an_encoder_that_does_not_fit_is_refused(finished, name, width):
    with pytest.raises(ValueError, match="holds the weights of another network"):
        load_pretrained(finished, build_network(name, 4, width, LAYERS))


def test_a_unet_has_only_the_bottleneck_loss(store, tmp_path):
    with pytest.raises(ValueError, match="need KAF layers"):
        pretrain(tiny_experiment(), store, TRAIN, tmp_path, network="unet", device="cpu")
    e = tiny_experiment(pretrain__weights=(1.0, 0.0, 0.0))
    run = pretrain(e, store, TRAIN, tmp_path, network="unet", device="cpu")
    assert "pcl" in run.history() and not {"global", "local"} & set(run.history())
    assert run.history()["entropy"].isna().all()


@pytest.mark.parametrize("kind, expected", [
    ("simclr", lambda f, z: simclr(f)), ("gcl", lambda f, z: gcl(f, z)),
    ("pcl", lambda f, z: positional_contrast(f, z, 0.35)),
])
def test_every_kind_of_contrast_is_its_loss_on_two_views_of_one_slice(store, kind, expected):
    config = tiny_experiment().changed(**KINDS[kind]).pretrain
    dataset = PairDataset(store, store.select(patients=TRAIN), 32, 12, Window(*config.neighbour))
    batch = collate([dataset[i] for i in range(8)])
    assert torch.equal(batch.image[:, 0], batch.image[:, 1]) and batch.position[:, 0].unique().numel() > 2
    model = Pretrainer(build_network("unet", 2, 2).encoder, config)
    losses, centre = pair_losses(model, *flatten_pairs(batch), batch, config)
    assert list(losses) == ["pcl"]
    torch.testing.assert_close(losses["pcl"], expected(centre.unflatten(0, (-1, 2)), batch.position))


@pytest.mark.parametrize("network, change, sought", [
    ("kaf_unet", {}, True), ("kaf_unet", {"pretrain__weights": (1.0, 1.0, 0.0)}, False),
    ("unet", KINDS["pcl"], False), ("unet", KINDS["rotation"], False)])
def test_only_the_local_loss_has_correspondences_sought(store, tmp_path, monkeypatch, network, change, sought):
    calls = []
    monkeypatch.setattr("kaf.pretrain.match_keypoints",
                        lambda a, b, **_: (calls.append(1), match_keypoints(a, b, 30))[1])
    pretrain(tiny_experiment(pretrain__optim__steps=1, **change), store, TRAIN, tmp_path, network, device="cpu")
    assert bool(calls) == sought


def test_pretraining_may_read_some_frames_only(store, tmp_path, monkeypatch):
    read, sample = set(), Store.sample
    monkeypatch.setattr(Store, "sample", lambda self, v, *rest: (read.add(self.volumes[v].frame),
                                                                 sample(self, v, *rest))[1])
    run_it(store, tmp_path, pretrain__optim__steps=8, pretrain__optim__batch=4)
    assert read > {"ED", "ES"}, "the cine frames take part"
    read.clear()
    run_it(store, tmp_path, pretrain__optim__steps=8, pretrain__optim__batch=4, pretrain__frames=("ED", "ES"))
    assert read == {"ED", "ES"}


def test_what_cannot_be_pretrained_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="'swin_unetr' has no encoder to pretrain"):
        pretrain(tiny_experiment(), store, TRAIN, tmp_path, "swin_unetr", "cpu")
    with pytest.raises(ValueError, match="unknown pretraining task 'jigsaw'; choose one of contrast, rotation, rest"):
        run_it(store, tmp_path, pretrain__task="jigsaw")


def test_pairs_are_laid_out_one_after_the_other(store):
    batch = pairs(store)
    image, keypoints = flatten_pairs(batch)
    for pair in range(2):
        for view in range(2):
            expected = (batch.image[pair, view].float() - batch.mean[pair, view]) / batch.std[pair, view]
            assert torch.equal(image[2 * pair + view, 0], expected)
            assert torch.equal(keypoints.xy[2 * pair + view], batch.keypoints.xy[pair, view])
    model = Pretrainer(build_network("kaf_unet", 2, 2, LAYERS).encoder, tiny_experiment().pretrain).eval()
    with torch.no_grad():
        fused = model(image, keypoints)[2]
        together = model.log_assignment(fused, keypoints, 32)
        alone = model.log_assignment(fused[2:], keypoints.select(slice(2, 4)), 32)
    torch.testing.assert_close(together[1:], alone)


def test_the_total_is_the_weighted_sum_of_what_is_logged(store):
    config = tiny_experiment(pretrain__weights=(2.0, 0.5, 0.25)).pretrain
    model = Pretrainer(build_network("kaf_unet", 2, 2, LAYERS).encoder, config)
    total, logged = PretrainLoss(config, 0)(model, pairs(store), 1)
    expected = 2 * logged["pcl"] + 0.5 * logged["global"] + 0.25 * logged["local"]
    torch.testing.assert_close(total.detach(), expected)
    assert list(logged) == ["pcl", "global", "local"]


def test_a_collapse_is_told_once(store):
    config = tiny_experiment().pretrain
    model, loss, batch = Pretrainer(build_network("kaf_unet", 2, 2, LAYERS).encoder, config), None, pairs(store)
    loss = PretrainLoss(config, 0)
    with torch.no_grad():  # the head forgets its input
        model.bottleneck.mlp[-1].weight.zero_()
    with pytest.warns(UserWarning, match="step 10: the features of all slices are nearly the same"):
        _, logged = loss(model, batch, 10)
    assert logged["spread"] == pytest.approx(0, abs=1e-3) and 0 <= logged["entropy"] <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(model, batch, 20)
        PretrainLoss(config, 0)(Pretrainer(build_network("kaf_unet", 2, 2, LAYERS).encoder, config), batch, 10)


def test_looking_at_the_attention_changes_nothing(store):
    encoder = build_network("kaf_unet", 2, 2, PAPER).encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    image, keypoints = flatten_pairs(pairs(store))
    assert 0 < encoder_entropy(encoder, image, keypoints) <= 1
    assert encoder.training and same_weights(before, encoder.state_dict())


@pytest.mark.parametrize("layers", [LAYERS, PAPER], ids=["default", "paper"])
def test_16_bit_autocast_stays_close_to_32_bit(store, layers):
    torch.manual_seed(0)
    e = tiny_experiment(width=8, kaf=layers)
    model = Pretrainer(build_network("kaf_unet", 2, e.width, layers).encoder, e.pretrain)
    image, keypoints = flatten_pairs(pairs(store, count=4))
    with torch.no_grad():
        full = model(image, keypoints)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(image, keypoints)
    assert half[0].dtype == half[1].dtype == torch.float32  # what the contrast sees
    for one, other in zip(half, full, strict=True):
        # Rounding is .4 % a layer, and the norms enlarge it; a wrong type somewhere would change everything.
        assert (one.float() - other).norm() < 0.2 * other.norm()


@pytest.mark.parametrize("layers", [LAYERS, PAPER], ids=["default", "paper"])
def test_16_bit_autocast_trains(store, tmp_path, layers):
    run = run_it(store, tmp_path, kaf=layers, precision="bf16")
    weights = run.weights()
    assert all(value.isfinite().all() for value in weights.values())
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
