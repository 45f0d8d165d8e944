from dataclasses import replace

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from kaf import loop
from kaf import selftrain as module
from kaf.config import plain
from kaf.data.pairs import SliceDataset, collate
from kaf.finetune import finetune, load_network
from kaf.keypoints import Keypoints
from kaf.selftrain import (
    BOX_AREA,
    SelftrainLoss,
    cutmix,
    draw_boxes,
    masked_dice_ce,
    mix_keypoints,
    selftrain,
)
from kaf.teacher import MeanTeacher
from tests.tiny import interrupting, must_not_train, same_weights, tiny_experiment

LABELLED, TRAIN = ("patient001", "patient002"), ("patient001", "patient002", "patient003")
SHORT = {"selftrain__optim__steps": 3, "selftrain__optim__batch": 2, "selftrain__unlabelled": 3}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def source(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return finetune(tiny_experiment(), store, LABELLED, folder, "kaf_scratch", device="cpu")


def run_it(store, folder, source, method="kaf_scratch", **changes):
    experiment = tiny_experiment(**SHORT).changed(**changes)
    return selftrain(experiment, store, LABELLED, TRAIN, folder, source, method, device="cpu")


@pytest.fixture(scope="module")
def finished(store, source, tmp_path_factory):
    return run_it(store, tmp_path_factory.mktemp("whole"), source)


def test_the_teacher_is_the_running_mean_of_the_student_and_never_trains():
    model = MeanTeacher(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))).train()
    assert model.student.training and not model.teacher.training
    assert not any(p.requires_grad for p in model.teacher.parameters())
    expected = model.teacher[0].weight.clone()
    for value in (1.0, 5.0):
        nn.init.constant_(model.student[0].weight, value)
        model.student[1].running_mean.fill_(value)
        model.follow(0.9)
        expected = 0.9 * expected + 0.1 * value
    torch.testing.assert_close(model.teacher[0].weight, expected)
    torch.testing.assert_close(model.teacher[1].running_mean, torch.full((2,), 0.9 * 0.1 + 0.5))


def test_the_masked_loss_is_soft_dice_and_cross_entropy_where_the_mask_is():
    logits = torch.randn(2, 3, 4, 6, generator=generator())
    target = torch.randint(0, 3, (2, 4, 6), generator=generator())
    everywhere = torch.ones_like(target, dtype=torch.bool)
    expected = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)(logits, target[:, None])
    torch.testing.assert_close(masked_dice_ce(logits, target, everywhere), expected)
    left = everywhere.clone()
    left[..., 3:] = False
    cut = masked_dice_ce(logits[..., :3], target[..., :3], everywhere[..., :3])
    torch.testing.assert_close(masked_dice_ce(logits, target, left), cut)
    assert masked_dice_ce(logits, target, ~everywhere) == 0


def test_boxes_have_the_wanted_size_and_half_of_them_are_empty():
    boxes = draw_boxes(400, 40, 60, generator())
    area = boxes.flatten(1).float().mean(1)
    filled = area[area > 0]
    assert 160 < len(filled) < 240
    assert BOX_AREA[0] * 0.6 < filled.min() and filled.max() < BOX_AREA[1] * 1.2  # whole pixels
    rows, columns = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert torch.equal(rows * columns, boxes.flatten(1).sum(1))  # each is one rectangle


def test_image_target_probability_and_keypoints_are_pasted_alike():
    """Every slice, with its target and the scores of its keypoints, is one number: what lies where must agree."""
    batch, size, k = 6, 32, 40
    number = torch.arange(1.0, batch + 1)
    image = number.view(-1, 1, 1, 1).expand(batch, 1, size, size).contiguous()
    xy = torch.rand(batch, k, 2, generator=generator()) * (size - 1)
    points = Keypoints(xy, torch.ones(batch, k), number[:, None].expand(batch, k), torch.zeros(batch, k, 0),
                       torch.rand(batch, k, generator=generator()) < 0.8)
    mixed, moved, target, probability = cutmix(image, points, image[:, 0].long(), image[:, 0] / 10, generator(3))
    pasted = mixed[:, 0] != number.view(-1, 1, 1)
    assert 0 < pasted.sum() < pasted.numel() / 2
    assert set((number.roll(1).view(-1, 1, 1) == mixed[:, 0])[pasted].tolist()) == {True}
    assert torch.equal(target.float(), mixed[:, 0]) and torch.equal(probability, mixed[:, 0] / 10)
    x, y = (moved.xy + 0.5).floor().long().unbind(-1)
    below = mixed[:, 0].flatten(1).gather(1, y * size + x)
    assert torch.equal(moved.score[moved.valid], below[moved.valid]) and moved.valid.shape == (batch, k)


def test_the_strongest_of_the_visible_keypoints_are_kept():
    box = torch.zeros(2, 4, 4, dtype=torch.bool)
    box[0, :, :2] = True  # the left half of the first slice is the second's
    xy = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[1.0, 1.0], [0.0, 2.0]]])
    score = torch.tensor([[9.0, 2.0], [3.0, 1.0]])
    points = Keypoints(xy, torch.ones(2, 2), score, torch.zeros(2, 2, 0), torch.ones(2, 2, dtype=torch.bool))
    mixed = mix_keypoints(points, box)
    assert mixed.score.tolist() == [[3.0, 2.0], [3.0, 1.0]] and mixed.valid.all()
    assert mixed.xy[0].tolist() == [[1.0, 1.0], [3.0, 0.0]]
    none = mix_keypoints(points, torch.ones_like(box))
    assert none.score.tolist() == [[3.0, 1.0], [9.0, 2.0]]


@pytest.mark.parametrize("how, at", [("ctrl-c", 1), ("error", 1)])
def test_an_interrupted_run_ends_with_the_same_weights(store, source, tmp_path, monkeypatch, finished, how, at):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(module, "SelftrainLoss", interrupting(SelftrainLoss, at, how))
        with pytest.raises(KeyboardInterrupt):
            run_it(store, tmp_path, source)
    resumed = run_it(store, tmp_path, source)
    assert resumed.folder.name == finished.folder.name
    assert same_weights(resumed.weights(), finished.weights()) and resumed.history().equals(finished.history())


def test_a_finished_run_returns_at_once(store, source, finished, monkeypatch):
    monkeypatch.setattr(module, "SelftrainLoss", lambda *_: must_not_train)
    assert run_it(store, finished.folder.parent, source).folder == finished.folder
    assert finished.config["source"] == source.folder.name and finished.config["unlabelled"] == list(TRAIN)
    assert finished.config["experiment"]["selftrain"] == plain(tiny_experiment(**SHORT).selftrain)


def test_the_teacher_predicts_and_the_fine_tuned_network_is_where_it_begins(store, source, finished, tmp_path):
    experiment = tiny_experiment(**SHORT)
    before, after = (load_network(run, experiment, store, "kaf_scratch").state_dict() for run in (source, finished))
    assert before.keys() == after.keys() and not same_weights(before, after)
    still = run_it(store, tmp_path, source, selftrain__decay=1.0)  # a teacher that never follows
    for name, value in load_network(still, experiment, store, "kaf_scratch").state_dict().items():
        assert "num_batches" in name or torch.equal(value, before[name]), name


def test_labels_of_the_other_patients_are_never_read(store, source, tmp_path, monkeypatch):
    seen = []

    class Watching(SelftrainLoss):
        def __call__(self, model, batch, step):
            seen.append(batch)
            return super().__call__(model, batch, step)

    monkeypatch.setattr(module, "SelftrainLoss", Watching)
    run_it(store, tmp_path, source)
    assert len(seen) == 3 and all(known.label.shape[1:] == (32, 32) for known, _ in seen)
    assert all(new.label.numel() == 0 and len(new.image) == 3 for _, new in seen)


def test_self_training_changes_the_name_of_no_other_run(store, source, tmp_path):
    run = finetune(tiny_experiment(selftrain__weight=0.3), store, LABELLED, tmp_path, "kaf_scratch", device="cpu")
    assert run.folder.name == source.folder.name


def test_the_loss_grows_with_the_ramp_and_counts_only_where_the_teacher_is_sure(store, source):
    experiment = tiny_experiment(**SHORT)
    data = SliceDataset(store, store.select(patients=LABELLED, labelled=True), 32, 12)
    batch = collate([data[0], data[3]])
    model = MeanTeacher(load_network(source, experiment, store, "kaf_scratch"))
    values, cases = {}, {"whole": {}, "none": {"weight": 0.0}, "unsure": {"threshold": 1.1}, "ramp": {"ramp": 1.0}}
    for name, changes in cases.items():
        loss = SelftrainLoss(replace(experiment.selftrain, **changes), experiment.finetune, 0,
                             experiment.selftrain.optim.steps)
        values[name], logged = loss(model.eval(), (batch, batch), 0)
        assert logged["sure"] == 0 if name == "unsure" else logged["sure"] > 0
    assert values["none"] == values["unsure"] < values["ramp"] < values["whole"]
    torch.testing.assert_close(values["ramp"] - values["none"], (values["whole"] - values["none"]) / 3)


def test_passes_over_the_data_are_counted_where_they_are_asked_for(store, source, tmp_path):
    run = run_it(store, tmp_path, source, selftrain__optim__epochs=1)
    slices = sum(store.volumes[v].shape[0] for v in store.select(patients=LABELLED, labelled=True))
    assert run.load()["step"] == slices // SHORT["selftrain__optim__batch"] != SHORT["selftrain__optim__steps"]
