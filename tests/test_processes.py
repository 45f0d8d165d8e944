"""Two processes that share every batch against one with the whole batch, over gloo on the CPU."""

import json
import os
import socket
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kaf import loop, processes
from kaf import pretrain as pretrain_module
from kaf.correspondence import match_keypoints
from kaf.data.augment import PRESETS as AUGMENT
from kaf.data.pairs import PairDataset, Window, collate
from kaf.data.store import Store
from kaf.finetune import finetune, make_network
from kaf.networks import PRESETS, build_network
from kaf.pretrain import Pretrainer, PretrainLoss, pretrain
from kaf.processes import JointBatchNorm, joint_statistics, share
from kaf.runs import Run
from tests.tiny import interrupting, tiny_experiment

PATIENTS, BATCH, STEPS = ("patient001", "patient002"), 4, 3
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
ROUNDING = 0.01  # of the way that the weights went, in single precision


def experiment(**changes):
    """Plain gradient descent: Adam would make whole steps of gradients that are nothing but rounding."""
    same = {f"{part}__optim__{name}": value for part in ("pretrain", "finetune") for name, value in
            (("name", "sgd"), ("lr", 0.01), ("batch", BATCH), ("steps", STEPS), ("warmup", 0.0), ("clip", 1.0))}
    return tiny_experiment(**same, **changes)


PAPER = experiment(kaf=replace(PRESETS["paper"], dim=8, depth=1, hidden=4), pretrain__head_norm=False)
CASES = {"default": experiment(), "paper": PAPER, "bottleneck only": experiment(pretrain__weights=(1.0, 0.0, 0.0))}


class Double(PretrainLoss):
    """The loss of a model in double precision, from the same augmented slices."""

    def __call__(self, model, batch, step):
        def double(image, keypoints, **options):
            return model(image.double(), keypoints._replace(xy=keypoints.xy.double()), **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "monitor", lambda *_: {})
            return super().__call__(double, batch, step)


def train(e, store, part=slice(None)):
    """Losses and gradients of the first step and the weights after three; this process computes ``part`` of the pairs.

    In double precision and without warps, which have only single: where a norm enlarges small differences,
    single precision agrees to three digits.
    """
    e = e.changed(pretrain__augment=AUGMENT["none"])
    volumes = store.select(patients=PATIENTS)
    pairs = PairDataset(store, volumes, 32, 12, Window(0.18, 2), partial(match_keypoints, window=30.0))
    torch.manual_seed(0)
    model = Pretrainer(build_network("kaf_unet", 2, 2, e.kaf).encoder, e.pretrain)
    model = joint_statistics(model.double(), torch.device("cpu"))
    shared = DistributedDataParallel(model, find_unused_parameters=model.idle) if processes.world() > 1 else model
    optimiser, result = torch.optim.SGD(model.parameters(), 0.01), {}
    for step in range(STEPS):
        batch = collate([pairs[3 * i + step] for i in range(BATCH)[part]])
        loss, logged = Double(e.pretrain, 0)(shared, batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses = {"loss": loss.detach()} | {n: logged[n] for n in ("pcl", "global", "local") if n in logged}
        result |= {f"{name} {step}": value for name, value in losses.items()}
        if step == 0:
            result |= {f"gradient {n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return result | {f"weight {name}": value for name, value in model.state_dict().items()}


def work(rank, port, store_path, folder):
    """What each of the two processes does; the first one leaves its results in ``folder``."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TQDM_DISABLE": "1"}
    torch.set_num_threads(1)
    store = Store.open(store_path)
    fabric = loop.make_fabric("cpu", devices=2)
    assert (processes.world(), processes.rank()) == (2, rank) and loop.make_fabric("cpu", 2) is fabric
    results = {name: train(e, store, share(BATCH)) for name, e in CASES.items()}
    if rank == 0:
        torch.save(results, folder / "double.pt")
    for e in CASES.values():
        pretrain(e, store, PATIENTS, folder / "two", device="cpu", devices=2)
    finetune(PAPER, store, PATIENTS, folder / "two", "kaf_scratch", device="cpu", devices=2)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:  # one of them is asked to stop, both stop after the same step
            patch.setattr(pretrain_module, "PretrainLoss", interrupting(PretrainLoss, 1, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step 2 of {STEPS}"):
            pretrain(CASES["default"], store, PATIENTS, folder / "asked", device="cpu", devices=2)
    with pytest.raises(ValueError, match="a batch of 3 cannot be shared evenly by 2 processes"):
        finetune(PAPER.changed(finetune__optim__batch=3), store, PATIENTS, folder / "odd", device="cpu", devices=2)


def free_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


@pytest.fixture(scope="module")
def both(store, tmp_path_factory):
    """The folder with the results of two processes; one run in it was begun by a single process."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(pretrain_module, "PretrainLoss", interrupting(PretrainLoss, 1, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt):
            pretrain(CASES["default"], store, PATIENTS, folder / "two", device="cpu")
    mp.spawn(work, (free_port(), store.path, folder), nprocs=2)
    return folder


def compare(start, one: Run, folder):
    """Whether two processes went the same way from ``start`` as one, and logged the same."""
    two = Run(folder / "two" / one.folder.name, one.config)
    (ours, theirs), moved, apart = (run.weights() for run in (two, one)), 0.0, 0.0
    for name, before in start.state_dict().items():
        if before.is_floating_point():
            moved += (theirs[name] - before).square().sum().item()
            apart += (ours[name] - theirs[name]).square().sum().item()
    assert moved > 0 and (apart / moved) ** 0.5 < ROUNDING
    assert two.history()["step"].tolist() == one.history()["step"].tolist()
    for name in set(one.history()) & {"loss", "pcl", "global", "local"}:
        assert two.history()[name][0] == pytest.approx(one.history()[name][0], rel=1e-3), name


@pytest.mark.parametrize("name", CASES)
def test_losses_gradients_and_weights_are_those_of_the_joint_batch(store, both, name):
    one = train(CASES[name], store)
    two = torch.load(both / "double.pt", weights_only=True)[name]
    assert one["loss 0"] > 0.1 and sum(v.abs().max() > 1e-4 for k, v in one.items() if k.startswith("gradient")) > 20
    torch.testing.assert_close({k: two[k] for k in one}, one, **CLOSE)
    assert all(not two[k].any() for k in two.keys() - one.keys())


@pytest.mark.parametrize("name", CASES)
def test_pretraining_ends_with_the_same_weights(store, both, tmp_path, name):
    e = CASES[name]
    torch.manual_seed(e.seed)
    start = Pretrainer(build_network("kaf_unet", 2, e.width, e.kaf).encoder, e.pretrain)
    compare(start, pretrain(e, store, PATIENTS, tmp_path, device="cpu"), both)


def test_finetuning_ends_with_the_same_weights(store, both, tmp_path):
    torch.manual_seed(PAPER.seed)
    start = make_network(PAPER, store, "kaf_scratch")
    compare(start, finetune(PAPER, store, PATIENTS, tmp_path, "kaf_scratch", device="cpu"), both)


def test_all_processes_stop_where_one_is_asked_to(both):
    (folder,) = (both / "asked").iterdir()
    assert Run(folder, json.loads((folder / "config.json").read_text())).load()["step"] == 2


def test_one_process_exchanges_nothing():
    x = torch.arange(3.0)
    assert processes.any_of(True) and not processes.any_of(False)
    assert processes.gather(x) is x and processes.total(x) is x and share(5) == slice(0, 5)
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert joint_statistics(model, torch.device("cpu")) is model and type(model[0]) is nn.BatchNorm2d


def test_joint_batch_norm_is_batch_norm():
    torch.manual_seed(0)
    x, norm, joint = 5 + 2 * torch.randn(4, 3, 6, 5), nn.BatchNorm2d(3), JointBatchNorm(3)
    for mode in (True, False):
        torch.testing.assert_close(joint.train(mode)(x), norm.train(mode)(x))
    torch.testing.assert_close(joint.state_dict(), norm.state_dict())
