
import pytest
import torch

from kaf.data.augment import PRESETS
from kaf.data.pairs import PairDataset, Window, collate, flatten_pairs
from kaf.monitors import MONITOR_EVERY
from kaf.networks import build_network
from kaf.pretrain import KINDS, load_pretrained, pretrain
from kaf.rotation import RotationLoss, RotationModel
from tests.tiny import LAYERS, tiny_experiment

TRAIN = ("patient001", "patient002")


def pairs(store, count):
    dataset = PairDataset(store, store.select(patients=TRAIN), 32, 12, Window(0.0, 0))
    return collate([dataset[3 * i] for i in range(count)])


class Watching(torch.nn.Module):
    """Keeps what it is given, and calls every slice turned by the number of turns that undoes it."""

    def __init__(self, upright):
        super().__init__()
        self.upright = upright

    def forward(self, image):
        logits = torch.stack([
            torch.tensor([float(torch.equal(slice_, before.rot90(k, (1, 2)))) for k in range(4)])
            for slice_, before in zip(image, self.upright, strict=True)])
        assert (logits.sum(1) == 1).all()  # each is one of the four turns of what it was
        self.turns = logits.argmax(1)
        return 100 * logits, image.flatten(1)


def test_every_slice_is_turned_and_the_turn_is_the_class(store):
    batch, config = pairs(store, 8), tiny_experiment(pretrain__augment=PRESETS["none"]).pretrain
    model = Watching(flatten_pairs(batch)[0])
    loss, logged = RotationLoss(config, 0)(model, batch, 3)
    assert loss.item() == pytest.approx(0, abs=1e-6) and logged["right"] == 1
    assert set(model.turns.tolist()) == {0, 1, 2, 3}
    first = model.turns
    RotationLoss(config, 0)(model, batch, 3)
    assert torch.equal(first, model.turns)
    RotationLoss(config, 0)(model, batch, 4)
    assert not torch.equal(first, model.turns)


def test_the_spread_of_the_features_is_looked_at_now_and_then(store):
    config = tiny_experiment(pretrain__augment=PRESETS["none"]).pretrain
    batch = pairs(store, 2)
    model, loss = Watching(flatten_pairs(batch)[0]), RotationLoss(config, 0)
    assert [step for step in range(2 * MONITOR_EVERY) if "spread" in loss(model, batch, step)[1]] == [0, MONITOR_EVERY]


def test_the_encoder_of_a_rotation_run_starts_a_unet(store, tmp_path):
    experiment = tiny_experiment(pretrain__optim__lr=1e-2, pretrain__optim__steps=6).changed(**KINDS["rotation"])
    run = pretrain(experiment, store, TRAIN, tmp_path, "unet", "cpu")
    assert list(run.history()) == ["step", "lr", "loss", "rotation", "right", "spread"]
    network = load_pretrained(run, build_network("unet", 4, 2))
    assert torch.equal(network.encoder.centre[0].weight, run.weights()["encoder.centre.0.weight"])


def test_keypoints_would_stay_behind():
    with pytest.raises(ValueError, match="turns images without their keypoints"):
        RotationModel(build_network("kaf_unet", 2, 2, LAYERS).encoder, tiny_experiment().pretrain)
