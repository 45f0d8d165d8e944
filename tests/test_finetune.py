import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kaf import finetune as module
from kaf import loop
from kaf.config import FinetuneConfig, OptimConfig
from kaf.data.augment import AugmentConfig
from kaf.data.pairs import collate
from kaf.data.prepare import prepare
from kaf.data.store import SliceSample, Store, StoreSettings
from kaf.finetune import (
    METHODS,
    SegmentationLoss,
    finetune,
    get_method,
    labelled_volumes,
    load_network,
    parse_methods,
)
from kaf.keypoints import from_arrays, pad
from kaf.networks import PRESETS
from kaf.predict import evaluate
from kaf.pretrain import pretrain
from kaf.runs import Run
from tests.data.layouts import write_acdc_patient
from tests.tiny import LAYERS, interrupting, must_not_train, same_weights, tiny_experiment

LABELLED = ("patient001", "patient002")
PAPER = replace(PRESETS["paper"], dim=8, depth=1, hidden=4)


def run_it(store, folder, method="kaf_scratch", pretrained=None, patients=LABELLED, **changes):
    return finetune(tiny_experiment(**changes), store, patients, folder, method, pretrained, device="cpu")


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    return run_it(store, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def pretrained(store, tmp_path_factory):
    return pretrain(tiny_experiment(), store, LABELLED, tmp_path_factory.mktemp("pre"), device="cpu")


@pytest.mark.parametrize("how, at", [("ctrl-c", 2), ("error", 1)])
def test_an_interrupted_run_ends_with_the_same_weights(store, tmp_path, monkeypatch, finished, how, at):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(module, "SegmentationLoss", interrupting(SegmentationLoss, at, how))
        with pytest.raises(KeyboardInterrupt):
            run_it(store, tmp_path)
    resumed = run_it(store, tmp_path)
    assert resumed.folder.name == finished.folder.name
    assert same_weights(resumed.weights(), finished.weights()) and resumed.history().equals(finished.history())


def test_a_finished_run_returns_at_once(store, finished, monkeypatch):
    monkeypatch.setattr(module, "SegmentationLoss", lambda *_: must_not_train)
    assert run_it(store, finished.folder.parent).folder == finished.folder
    identity = json.loads((finished.folder / "config.json").read_text())
    assert identity["patients"] == list(LABELLED) and identity["experiment"]["pretrain"] is None


def test_another_seed_gives_other_numbers(store, tmp_path, finished):
    again, other = run_it(store, tmp_path), run_it(store, tmp_path, seed=1)
    assert same_weights(again.weights(), finished.weights())
    assert not same_weights(other.weights(), finished.weights())


def test_pretraining_is_where_training_starts(store, tmp_path, pretrained):
    run = run_it(store, tmp_path, "kaf_pretrained", pretrained, finetune__optim__lr=0.0)
    assert run.config["pretrained"] == pretrained.folder.name
    before = pretrained.weights()
    for name, value in run.weights().items():
        if name.startswith("encoder.") and "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), name


def test_methods_and_pretraining_must_agree(store, tmp_path, pretrained):
    with pytest.raises(ValueError, match="'kaf_pretrained' has pretraining 'kaf', but no pretraining run was given"):
        run_it(store, tmp_path, "kaf_pretrained")
    with pytest.raises(ValueError, match="'unet' has pretraining 'none', but a pretraining run was given"):
        run_it(store, tmp_path, "unet", pretrained)
    with pytest.raises(ValueError, match="holds the weights of another network"):
        run_it(store, tmp_path, "kaf_pretrained", pretrained, width=4)
    with pytest.raises(ValueError, match=f"unknown method 'vnet'; choose one of {', '.join(METHODS)}"):
        get_method("vnet")
    with pytest.raises(ValueError, match="unknown loss 'focal'"):
        SegmentationLoss(replace(tiny_experiment().finetune, loss="focal"), 0)


def test_methods_are_read_from_words():
    assert parse_methods("unet, kaf_scratch") == ("unet", "kaf_scratch")
    with pytest.raises(ValueError, match="unknown method 'vnet'"):
        parse_methods("unet, vnet")


def test_patients_without_labels_are_refused(store):
    other = Store.open(store.path)
    other.volumes = tuple(replace(v, labelled=v.labelled and v.patient != "patient003") for v in other.volumes)
    assert [other.volumes[v].patient for v in labelled_volumes(other, LABELLED)] == [p for p in LABELLED for _ in "12"]
    with pytest.raises(ValueError, match="patients without labels: patient003; leave them out"):
        labelled_volumes(other, (*LABELLED, "patient003"))
    with pytest.raises(ValueError, match="none were given"):
        labelled_volumes(other, ())


def test_the_loss_is_soft_dice_and_cross_entropy():
    logits, label = torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 16, 16))
    batch = collate([_sample(label[i]) for i in range(2)])
    network = lambda image, keypoints: logits  # noqa: E731
    config = FinetuneConfig(OptimConfig(1, 2), augment=AugmentConfig())
    values = {loss: SegmentationLoss(replace(config, loss=loss), 0)(network, batch, 0)[0] for loss in ("ce", "dice_ce")}
    entropy = F.cross_entropy(logits, label)
    one_hot, p = F.one_hot(label, 3).movedim(-1, 1).float(), logits.softmax(1)
    dice = 2 * (p * one_hot).sum((0, 2, 3)) / (p.sum((0, 2, 3)) + one_hot.sum((0, 2, 3)))
    torch.testing.assert_close(values["ce"], entropy)
    torch.testing.assert_close(values["dice_ce"], entropy + 1 - dice.mean(), atol=1e-4, rtol=0)


def _sample(label):
    points = pad(from_arrays(np.zeros((0, 2))), 3)
    return SliceSample(torch.zeros(label.shape, dtype=torch.uint8), label, points, 0.0, 1.0, 0.0, 0, 0)


def test_a_network_comes_back_as_it_was_trained(store, finished):
    network = load_network(finished, tiny_experiment(), store, "kaf_scratch")
    assert not network.training and same_weights(network.state_dict(), finished.weights())


def test_an_unfinished_run_gives_no_network(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "SegmentationLoss", interrupting(SegmentationLoss, 0, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt):
            run_it(store, tmp_path)
    (folder,) = tmp_path.glob("finetune-*")
    half = Run(folder, json.loads((folder / "config.json").read_text()))
    with pytest.raises(ValueError, match="unfinished .1 of 4 steps"):
        load_network(half, tiny_experiment(), store, "kaf_scratch")


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_mean_of_the_weights_is_kept_and_loaded(store, tmp_path, finished, decay):
    experiment = tiny_experiment(finetune__ema=decay)
    run = run_it(store, tmp_path, finetune__ema=decay)
    network, last = load_network(run, experiment, store, "kaf_scratch").state_dict(), finished.weights()
    assert same_weights(network, last) == (decay == 0.0)
    if decay:  # a mean of the weights that a training without it has, for it changes nothing in them
        student = {name.removeprefix("student."): value for name, value in run.weights().items()
                   if name.startswith("student.")}
        assert same_weights(student, last) and run.history().equals(finished.history())


def test_the_mean_of_the_weights_follows_every_step_and_survives_an_interruption(store, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    seen = []

    class Watching(SegmentationLoss):
        def __call__(self, model, batch, step):
            seen.append(model.student.decoder.head.weight.detach().clone())
            return super().__call__(model, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(module, "SegmentationLoss", Watching)
        run = run_it(store, whole, finetune__ema=0.75)
    mean = seen[0]
    for step, value in enumerate(seen[1:], 1):
        decay = min(0.75, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
    torch.testing.assert_close(run.weights()["teacher.decoder.head.weight"], mean)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(module, "SegmentationLoss", interrupting(SegmentationLoss, 2, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt):
            run_it(store, broken, finetune__ema=0.75)
    assert same_weights(run_it(store, broken, finetune__ema=0.75).weights(), run.weights())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("layers", [LAYERS, PAPER], ids=["default", "paper"])
def test_16_bit_autocast_trains_close_to_32_bit(store, tmp_path, layers, precision):
    full = run_it(store, tmp_path / "32", kaf=layers)
    half = run_it(store, tmp_path / "16", kaf=layers, precision=precision)
    assert not same_weights(half.weights(), full.weights())
    assert half.history()["loss"].tolist() == pytest.approx(full.history()["loss"].tolist(), rel=0.03)
    assert {v.dtype for v in half.weights().values()} == {torch.float32, torch.int64}


def test_training_learns_what_it_is_shown(tmp_path):
    write_acdc_patient(tmp_path / "acdc", 1)
    store = prepare("acdc", tmp_path / "acdc", tmp_path / "store", StoreSettings("acdc", None), 1, False)
    e = tiny_experiment(data__spacing_mm=None, data__size=48, width=4, finetune__augment=AugmentConfig(),
                        finetune__optim__steps=60, finetune__optim__batch=4, finetune__optim__lr=0.02)
    run = finetune(e, store, ["patient001"], tmp_path, "unet", device="cpu")
    rows = evaluate(load_network(run, e, store, "unet"), store, ["patient001"], e)
    assert rows["dice"].mean() > 0.4  # four steps reach .1; the smallest structure comes last
