
import pytest
import torch

from kaf.data.augment import PRESETS
from kaf.data.pairs import PairDataset, Window, collate, flatten_pairs
from kaf.finetune import finetune
from kaf.networks import build_network
from kaf.pretrain import KINDS, load_pretrained, pretrain
from kaf.restoration import RestorationLoss, RestorationModel, draw_cells
from tests.tiny import LAYERS, same_weights, tiny_experiment

TRAIN = ("patient001", "patient002")


@pytest.fixture
def batch(store):
    dataset = PairDataset(store, store.select(patients=TRAIN), 32, 12, Window(0.0, 0))
    return collate([dataset[3 * i] for i in range(4)])


class Guessing(torch.nn.Module):
    """Keeps what it is shown and answers with what it is given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, image, keypoints):
        self.image, self.keypoints = image, keypoints
        return self.answer


def loss_of(batch, answer, step=3, **changes):
    config = tiny_experiment(pretrain__augment=PRESETS["none"], **changes).pretrain
    model = Guessing(answer)
    return RestorationLoss(config, 0)(model, batch, step)[0].item(), model


def test_only_masked_cells_are_hidden_and_only_they_count(batch):
    image, _ = flatten_pairs(batch)
    loss, model = loss_of(batch, image)
    assert loss == 0
    hidden = model.image != image
    assert 0.3 < hidden.float().mean() < 0.7 and (model.image[hidden] == 0).all()
    wrong = torch.where(hidden, image, image + 7)
    assert loss_of(batch, wrong)[0] == 0, "an answer where nothing was hidden does not count"
    assert loss_of(batch, torch.where(hidden, image + 2, image))[0] == pytest.approx(4, rel=1e-2)


def test_keypoints_in_masked_cells_do_not_tell_what_was_there(batch):
    image, keypoints = flatten_pairs(batch)
    _, model = loss_of(batch, image + 1.0)
    hidden = (model.image != image)[:, 0]
    seen = model.keypoints.valid
    assert 0 < seen.sum() < keypoints.valid.sum() and not (seen & ~keypoints.valid).any()
    for n, k in keypoints.valid.nonzero().tolist():
        x, y = (keypoints.xy[n, k] + 0.5).floor().int().tolist()
        assert seen[n, k] != hidden[n, y, x]


def test_the_cells_follow_the_seed_and_the_step(batch):
    image, _ = flatten_pairs(batch)
    shown = [loss_of(batch, image, step)[1].image for step in (3, 3, 4)]
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])


@pytest.mark.parametrize("cell", [1, 5, 8])
def test_cells_are_square_and_masked_as_often_as_asked(cell):
    mask = draw_cells((40, 32, 48), cell, 0.25, torch.Generator().manual_seed(0))
    assert mask.shape == (40, 32, 48) and mask.dtype == torch.bool
    assert mask.float().mean() == pytest.approx(0.25, abs=0.05)
    corners = mask[:, ::cell, ::cell]
    assert torch.equal(mask, corners.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :32, :48])


def test_nothing_masked_is_no_loss(batch):
    image, _ = flatten_pairs(batch)
    assert loss_of(batch, image + 1.0, pretrain__mask_share=1e-9)[0] == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_is_refused(share):
    with pytest.raises(ValueError, match="mask_share = .*; it must be a share above 0 and below 1"):
        tiny_experiment(pretrain__mask_share=share)


@pytest.mark.parametrize("network", ["unet", "kaf_unet"])
def test_encoder_and_decoder_of_a_restoration_run_start_a_network(store, tmp_path, network):
    experiment = tiny_experiment(pretrain__optim__steps=6).changed(**KINDS["restoration"])
    run = pretrain(experiment, store, TRAIN, tmp_path, network, "cpu")
    assert list(run.history()) == ["step", "lr", "loss", "restoration"]
    weights = run.weights()
    start = build_network(network, 4, 2, LAYERS)
    head = start.decoder.head.weight.clone()
    loaded = load_pretrained(run, start).state_dict()
    assert torch.equal(loaded.pop("decoder.head.weight"), head)
    assert same_weights(loaded, {k: v for k, v in weights.items() if k in loaded})


@pytest.mark.parametrize("changes", [{}, {"norm": "instance"}])
def test_fine_tuning_starts_from_the_restored_decoder(store, tmp_path, changes):
    experiment = tiny_experiment(finetune__optim__steps=1, finetune__optim__lr=1e-12, **changes)
    experiment = experiment.changed(**KINDS["restoration"])
    pretrained = pretrain(experiment, store, TRAIN, tmp_path, "unet", "cpu")
    run = finetune(experiment, store, TRAIN[:1], tmp_path, "restoration", pretrained, "cpu")
    mine, theirs = run.weights(), pretrained.weights()
    for name in ("encoder.centre.0.weight", "decoder.blocks.3.0.weight"):
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("init, variance", [("he", 2.0), ("torch", 1 / 3)])
def test_the_decoder_that_restores_begins_as_that_of_the_network_does(init, variance):
    encoder = build_network("unet", 4, 8, init=init).encoder
    weight = RestorationModel(encoder, tiny_experiment().pretrain).decoder.blocks[0][0].weight
    assert weight.var().item() * weight[0].numel() == pytest.approx(variance, rel=0.05)


def test_it_learns_to_restore(batch):
    torch.manual_seed(0)
    config = tiny_experiment(pretrain__augment=PRESETS["none"]).pretrain
    model = RestorationModel(build_network("kaf_unet", 2, 4, LAYERS).encoder, config)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(60):
        loss, _ = RestorationLoss(config, 0)(model, batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
