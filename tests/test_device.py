"""A training step never waits for the device: it is watched on tensors that play one."""

import pytest
import torch
import torch.nn.functional as F

from kaf.config import resolve
from kaf.data.augment import PRESETS as AUGMENT
from kaf.data.pairs import PairSample
from kaf.data.store import SliceSample
from kaf.finetune import SegmentationLoss
from kaf.loop import make_optimiser
from kaf.networks import PRESETS, KAFConfig, build_network
from kaf.pretrain import Pretrainer, PretrainLoss, get_task
from kaf.restoration import draw_cells
from kaf.selftrain import SelftrainLoss, draw_boxes
from kaf.teacher import MeanTeacher
from tests.device_watch import DeviceWatch, Waited
from tests.points import random_keypoints

SIZE, POINTS = 32, 12
SMALL = {name: KAFConfig(**{**vars(PRESETS[name]), "dim": 8, "depth": 2, "hidden": 4}) for name in PRESETS}


def slices(batch):
    labels = torch.randint(0, 3, (batch, SIZE, SIZE))
    image = torch.randint(0, 255, (batch, SIZE, SIZE)).byte()
    ones = torch.ones(batch)
    return SliceSample(image, labels, random_keypoints(batch, POINTS, SIZE), ones, ones, ones / 2, ones, ones)


def pairs(batch):
    sample = slices(2 * batch)
    two = lambda field: field.unflatten(0, (batch, 2))  # noqa: E731
    match = torch.randint(-1, POINTS, (batch, POINTS))
    return PairSample(two(sample.image), type(sample.keypoints)(*map(two, sample.keypoints)), match,
                      torch.rand(batch, 2), two(sample.mean), two(sample.std))


def one_step(model, batch, loss, optim):
    """Forward, backward, clipping and update under the watch."""
    optimiser = make_optimiser(model, optim)
    with DeviceWatch(batch, list(model.parameters()), list(model.buffers())) as watch:
        value, _ = loss(model, batch, 1)  # a step without monitors
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        assert watch.has(value)
    assert value.isfinite()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("augmentation", ["default", "paper"])
def test_a_step_of_pretraining_does_not_wait(preset, augmentation):
    torch.manual_seed(0)
    config = resolve("smoke").changed(pretrain__augment=AUGMENT[augmentation]).pretrain
    model = Pretrainer(build_network("kaf_unet", 2, 4, SMALL[preset]).encoder, config)
    one_step(model, pairs(2), PretrainLoss(config, 0), config.optim)


@pytest.mark.parametrize("network", ["unet", "kaf_unet"])
@pytest.mark.parametrize("loss", ["dice_ce", "ce"])
def test_a_step_of_fine_tuning_does_not_wait(network, loss):
    torch.manual_seed(0)
    config = resolve("smoke").changed(finetune__loss=loss).finetune
    one_step(build_network(network, 3, 4, SMALL["default"]), slices(2), SegmentationLoss(config, 0), config.optim)


@pytest.mark.parametrize("task", ["rotation", "restoration"])
def test_a_step_of_another_pretraining_does_not_wait(task):
    torch.manual_seed(0)
    model_class, loss_class = get_task(task)
    config = resolve("smoke").pretrain
    one_step(model_class(build_network("unet", 2, 4).encoder, config), pairs(2), loss_class(config, 0), config.optim)


@pytest.mark.parametrize("network", ["unet", "kaf_unet"])
def test_a_step_of_self_training_does_not_wait(network, monkeypatch):
    # On the CPU it looks whether the classes are in range; on a GPU it does not.
    monkeypatch.setattr(F, "one_hot", lambda target, classes: torch.eye(classes, dtype=torch.int64)[target])
    torch.manual_seed(0)
    experiment = resolve("smoke")
    config = experiment.selftrain
    model = MeanTeacher(build_network(network, 3, 4, SMALL["default"])).train()
    one_step(model, (slices(2), slices(3)), SelftrainLoss(config, experiment.finetune, 0, 10), config.optim)


@pytest.mark.parametrize("draw", [
    lambda g: draw_boxes(3, 8, 9, g), lambda g: draw_cells((3, 20, 21), 8, 0.5, g)], ids=["boxes", "cells"])
def test_what_is_sent_has_memory_of_its_own_for_every_number(draw):
    drawn = draw(torch.Generator().manual_seed(0))
    assert drawn.untyped_storage().nbytes() == drawn.numel() and drawn.is_contiguous()


@pytest.mark.parametrize("wait", [
    lambda x: float(x.sum()), lambda x: bool((x > 0).any()), lambda x: x[x > 0], lambda x: x.nonzero(),
    lambda x: (x + 1).tolist(), lambda x: F.relu(x).numpy(), lambda x: x.view(-1)[0].item(), lambda x: (2 * x).cpu(),
], ids=["float", "bool", "mask", "nonzero", "tolist", "numpy", "item of a view", "cpu"])
def test_the_watch_finds_what_waits(wait):
    x = torch.randn(3, 4)
    with pytest.raises(Waited), DeviceWatch(x):
        wait(x)
    with DeviceWatch(torch.zeros(1)):
        wait(x)  # on the CPU nothing waits
