"""Training on an NVIDIA GPU, where there is one: it goes on where it was interrupted, as on the processor."""

import math
from dataclasses import replace

import pytest
import torch

import kaf.finetune as finetuning
import kaf.pretrain as pretraining
import kaf.selftrain as selftraining
from kaf import loop
from kaf.config import OptimConfig
from kaf.data.augment import PRESETS
from kaf.data.pairs import EpochSampler, SliceDataset, read_batches
from kaf.data.warp import send
from kaf.loop import fit, make_fabric
from kaf.networks import build_network
from kaf.runs import Run
from tests.tiny import LAYERS, interrupting, tiny_experiment

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")

LABELLED, TRAIN = ("patient001", "patient002"), ("patient001", "patient002", "patient003")
STEPS = {"pretrain__optim__steps": 2, "finetune__optim__steps": 2, "selftrain__optim__steps": 2,
         "selftrain__optim__batch": 2, "selftrain__unlabelled": 3}
#: Module and name of the loss of each training.
LOSSES = {"contrast": (pretraining, "PretrainLoss"), "rotation": (pretraining, "RotationLoss"),
          "restoration": (pretraining, "RestorationLoss"), "fine-tuning": (finetuning, "SegmentationLoss"),
          "self-training": (selftraining, "SelftrainLoss")}


@pytest.fixture(scope="module")
def source(store, tmp_path_factory):
    """What self-training goes on from."""
    folder = tmp_path_factory.mktemp("source")
    return finetuning.finetune(tiny_experiment(**STEPS), store, LABELLED, folder, "kaf_scratch", device="cpu")


def train(kind, store, source, folder, device, precision):
    """Two steps of a kind of training into ``folder``, or what is left of them."""
    quiet = replace(PRESETS["default"], noise_p=0.0)  # the noise is another one on another kind of device
    experiment = tiny_experiment(precision=precision, pretrain__augment=quiet, finetune__augment=quiet, **STEPS)
    if kind == "self-training":
        return selftraining.selftrain(experiment, store, LABELLED, TRAIN, folder, source, "kaf_scratch", device)
    if kind == "fine-tuning":
        return finetuning.finetune(experiment, store, LABELLED, folder, "kaf_scratch", device=device)
    experiment = experiment.changed(**pretraining.KINDS["kaf" if kind == "contrast" else kind])
    network = "kaf_unet" if kind == "contrast" else "unet"
    return pretraining.pretrain(experiment, store, TRAIN, folder, network, device)


@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", LOSSES)
def test_an_interrupted_training_goes_on_and_begins_as_on_the_processor(store, source, tmp_path, monkeypatch, kind,
                                                                        precision):
    where, name = LOSSES[kind]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(where, name, interrupting(getattr(where, name), 0, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt, match="stopped after step 1 of 2"):
            train(kind, store, source, tmp_path / "gpu", "cuda", precision)
    run = train(kind, store, source, tmp_path / "gpu", "cuda", precision)
    expected = train(kind, store, source, tmp_path / "cpu", "cpu", "32")
    assert "optimiser" not in run.load() and all(value.isfinite().all() for value in run.weights().values())
    losses = run.history()["loss"].tolist()
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    close = 1e-3 if precision == "32" else 0.1
    assert losses[0] == pytest.approx(expected.history()["loss"].iloc[0], rel=close)


def test_values_are_sent_by_way_of_pinned_memory():
    values = torch.arange(12.0).view(3, 4)
    there = send(values, torch.device("cuda"))
    assert there.is_cuda and not values.is_pinned() and torch.equal(there.cpu(), values)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_for_a_gpu_are_pinned_and_keep_their_containers(store, workers):
    dataset = SliceDataset(store, store.select(patients=LABELLED, labelled=True), 32, 12)
    (plain,), (pinned,) = (list(read_batches(dataset, EpochSampler(len(dataset), 2, stop=1), workers, device))
                           for device in ("cpu", "cuda"))
    assert type(pinned) is type(plain) and type(pinned.keypoints) is type(plain.keypoints)
    for one, other in zip((*plain[:2], *plain.keypoints), (*pinned[:2], *pinned.keypoints), strict=True):
        assert other.is_pinned() and torch.equal(one, other)


@pytest.mark.parametrize("precision", ["32", "bf16"])  # a scaled loss asks in every step whether it overflowed
def test_between_logging_and_saving_no_step_waits(store, tmp_path, monkeypatch, precision):
    class Strict(finetuning.SegmentationLoss):
        """From the second step on whatever waits is an error, until the last one begins, which is logged."""

        def __call__(self, model, batch, step):
            torch.cuda.set_sync_debug_mode("error" if 2 <= step < 5 else "default")
            return super().__call__(model, batch, step)

    config, model = tiny_experiment().finetune, build_network("kaf_unet", 4, 2, LAYERS)
    dataset = SliceDataset(store, store.select(patients=LABELLED, labelled=True), 32, 12)
    fabric, run = make_fabric("cuda", precision=precision), Run(tmp_path, {})

    def batches(start):
        return read_batches(dataset, EpochSampler(len(dataset), 2, start=start, stop=6), device=fabric.device)

    try:
        fit(run, fabric, model, OptimConfig(6, 2), 6, batches, Strict(config, 0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.load()["step"] == 6
