"""Slices with nothing to hold on to: every kind of network goes on and stays finite, through the real loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kaf.data.prepare import prepare
from kaf.data.splits import Split
from kaf.data.store import Store, StoreSettings
from kaf.finetune import METHODS, finetune, load_network
from kaf.networks import PRESETS
from kaf.parameters import CHOICES
from kaf.predict import predict
from kaf.pretrain import pretrain
from kaf.segment import Segmenter
from kaf.study import Study
from tests.data.layouts import save, write_acdc_patient
from tests.tiny import LAYERS, tiny_experiment

PATIENTS = ("patient001", "patient002")
EVERYTHING = Store.keypoints


def none(points):
    return points.select(slice(0))


def one(points):
    return points.select(slice(1))


def at_one_place(points):
    return points._replace(xy=points.xy[:1].expand_as(points.xy).clone(), score=torch.ones_like(points.score))


@pytest.fixture(scope="module")
def background(tmp_path_factory):
    """Patients whose images are flat but for one voxel, and whose truth is background everywhere."""
    root = tmp_path_factory.mktemp("background")
    for number in range(1, 4):
        folder = write_acdc_patient(root / "acdc", number)
        for frame in (2, 4):
            image = np.zeros((40, 48, 4), np.int16)
            image[0, 0, frame - 1] = number
            save(folder / f"patient00{number}_frame0{frame}.nii.gz", image)
            save(folder / f"patient00{number}_frame0{frame}_gt.nii.gz", np.zeros((40, 48, 4), np.uint8))
    return prepare("acdc", root / "acdc", root / "store", StoreSettings("acdc", 1.25), 1, False)


def goes_on(run):
    """The run is finished, and neither its weights nor anything in its log is other than finite."""
    weights, log = run.weights(), run.history()
    assert all(value.isfinite().all() for value in weights.values())
    assert np.isfinite(log["loss"]).all() and log["step"].max() == 3
    # Without keypoints there is no share of them on background, and without attention no entropy.
    assert not np.isinf(log.select_dtypes("number").to_numpy()).any()


def labels_of(run, experiment, store, method):
    labels = predict(load_network(run, experiment, store, method), store, 0, experiment)
    assert labels.shape == store.volumes[0].native_shape and labels.dtype == np.uint8
    return labels


@pytest.mark.parametrize("mixer", sorted(CHOICES["mixer"]))
@pytest.mark.parametrize("change, slices", [
    (none, (0,)), (none, (0, 1, 2, 3)), (one, (0, 1, 2)), (at_one_place, (0, 1, 2)),
], ids=["none in some slices", "none in all", "one", "all at one place"])
def test_slices_with_few_keypoints(store, tmp_path, monkeypatch, mixer, slices, change):
    def keypoints(self, v, s):
        return change(EVERYTHING(self, v, s)) if s in slices else EVERYTHING(self, v, s)

    monkeypatch.setattr(Store, "keypoints", keypoints)
    layers = replace(PRESETS["paper"] if mixer == "paper" else LAYERS, dim=8, depth=1, hidden=4, mixer=mixer)
    e = tiny_experiment(kaf=layers)
    before = pretrain(e, store, PATIENTS, tmp_path, device="cpu")
    run = finetune(e, store, PATIENTS, tmp_path, "kaf_pretrained", before, device="cpu")
    goes_on(before)
    goes_on(run)
    labels_of(run, e, store, "kaf_pretrained")


@pytest.mark.parametrize("mixer", sorted(CHOICES["mixer"]))
def test_volumes_of_background_for_every_mixer(background, tmp_path, mixer):
    assert not any(sum(v.keypoints) for v in background.volumes)
    layers = replace(PRESETS["paper"] if mixer == "paper" else LAYERS, dim=8, depth=1, hidden=4, mixer=mixer)
    e = tiny_experiment(kaf=layers)
    before = pretrain(e, background, PATIENTS, tmp_path, device="cpu")
    run = finetune(e, background, PATIENTS, tmp_path, "kaf_pretrained", before, device="cpu")
    goes_on(before)
    goes_on(run)
    labels = labels_of(run, e, background, "kaf_pretrained")
    shown = Segmenter.load(run.folder, "cpu")(np.zeros((4, 48, 40), np.float32), (8.0, 1.6, 1.5))
    assert shown.shape == labels.shape


@pytest.mark.parametrize("method", sorted(METHODS))
def test_volumes_of_background_for_every_method(background, tmp_path, method):
    e = tiny_experiment(data__size=64, selftrain__optim__steps=4, selftrain__optim__batch=2, selftrain__unlabelled=2)
    split = Split(PATIENTS, ("patient003",))
    study = Study(e, background, split, 0, tmp_path, "cpu")
    run, rows = study.few_shot(method, 2)
    goes_on(run)
    # Nothing is there to be found: what is predicted nevertheless scores nothing, and no score is infinite.
    assert set(rows["true_voxels"]) == {0} and not np.isinf(rows.select_dtypes("number").to_numpy()).any()
