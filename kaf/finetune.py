"""Supervised training with few labels, and the methods that are compared (chapter 6)."""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from kaf.choices import check_choice
from kaf.config import Experiment, FinetuneConfig, digest, used_by
from kaf.data.augment import augment
from kaf.data.pairs import EpochSampler, SliceDataset, read_batches
from kaf.data.store import SliceSample, Store
from kaf.loop import enough_memory, fit, make_fabric, step_generator
from kaf.networks import build_network
from kaf.pretrain import fingerprint, load_pretrained
from kaf.processes import gather, rank, share, world
from kaf.reuse import my_turn, take_over
from kaf.runs import Run, load_weights
from kaf.teacher import MeanTeacher


@dataclass(frozen=True)
class Method:
    """One line of a results table."""

    name: str
    network: str  # a name in kaf.networks.NETWORKS
    pretraining: str = "none"  # or a name in kaf.pretrain.KINDS: such a run of the same network is what it starts from
    selftrained: str = ""  # the method whose fine-tuned network goes on with a mean teacher (kaf.selftrain)


#: The methods that are compared, by key.
METHODS = {
    "unet": Method("UNet", "unet"),
    "wide_unet": Method("wide UNet", "wide_unet"),
    "swin_unetr": Method("SwinUNETR", "swin_unetr"),
    "kaf_scratch": Method("KAF from scratch", "kaf_unet"),
    "rotation": Method("Rotation", "unet", "rotation"),
    "restoration": Method("Restoration", "unet", "restoration"),
    "simclr": Method("SimCLR", "unet", "simclr"),
    "gcl": Method("GCL", "unet", "gcl"),
    "pcl": Method("PCL", "unet", "pcl"),
    "kaf_pretrained": Method("KAF pretrained", "kaf_unet", "kaf"),
    "unet_selftrained": Method("UNet self-trained", "unet", selftrained="unet"),
    "wide_unet_selftrained": Method("wide UNet self-trained", "wide_unet", selftrained="wide_unet"),
    "kaf_selftrained": Method("KAF self-trained", "kaf_unet", "kaf", selftrained="kaf_pretrained"),
}


def get_method(key: str) -> Method:
    """A method by its key. Raises ``ValueError`` for an unknown one."""
    check_choice("method", key, METHODS)
    return METHODS[key]


def parse_methods(text: str) -> tuple[str, ...]:
    """Keys of :data:`METHODS` from a notebook parameter such as ``"unet, kaf_pretrained"``.

    Raises ``ValueError`` for another.
    """
    keys = tuple(part.strip() for part in text.split(",") if part.strip())
    for key in keys:
        get_method(key)
    return keys


def z_score(batch: SliceSample) -> Tensor:
    """Slices ``(B, size, size)`` of 8 bit as the network sees them: float32 ``(B, 1, size, size)``."""
    return ((batch.image.float() - batch.mean.view(-1, 1, 1)) / batch.std.view(-1, 1, 1)).unsqueeze(1)


class SegmentationLoss:
    """Dice + cross-entropy, or cross-entropy alone, of one augmented batch."""

    def __init__(self, config: FinetuneConfig, seed: int):
        self.config, self.seed = config, seed
        # One Dice for the batch: in a single slice a small structure is often missing altogether.
        self.dice_ce = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, lambda_dice=config.loss == "dice_ce")

    def __call__(self, model: nn.Module, batch: SliceSample, step: int) -> tuple[Tensor, dict]:
        image, keypoints, label = augment(z_score(batch), batch.keypoints, batch.label, self.config.augment,
                                          step_generator(self.seed, step), share=(rank(), world()))
        if self.config.ema and step:
            # After the last step; while the mean is young it forgets faster, or the random start would stay in it.
            model.follow(min(self.config.ema, (1 + step) / (10 + step)))
        logits = gather(model(image, keypoints).float())
        return self.dice_ce(logits, gather(label).unsqueeze(1)), {}


def finetune(experiment: Experiment, store: Store, patients: Collection[str], runs: str | Path, method: str = "unet",
             pretrained: Run | None = None, device: str = "auto", workers: int = 0, devices: int = 1,
             num_nodes: int = 1) -> Run:
    """Train ``method`` on the labelled slices of ``patients``; returns the finished run.

    All weights train, and the last step is the result, or with ``ema`` the mean of the last ones: nothing is chosen on
    other patients. ``pretrained``
    is the run that it starts from. Calling again resumes or returns at once. ``devices`` and ``num_nodes`` as
    in :func:`kaf.pretrain.pretrain`. Raises ``ValueError`` where the method and ``pretrained`` do not agree, or a
    patient has no labels.
    """
    fabric = make_fabric(device, devices, num_nodes, experiment.precision)
    config, chosen = experiment.finetune, get_method(method)
    if (pretrained is None) != (chosen.pretraining == "none"):
        raise ValueError(f"method {method!r} has pretraining {chosen.pretraining!r}, but "
                         f"{'no' if pretrained is None else 'a'} pretraining run was given")
    volumes = labelled_volumes(store, patients)
    dataset = SliceDataset(store, volumes, experiment.data.size, experiment.data.points)
    identity = {"experiment": used_by("finetune", experiment), "method": method,
                "patients": sorted(patients), "pretrained": pretrained and pretrained.folder.name,
                "store": fingerprint(store, volumes)}
    name = f"finetune-{method}-{experiment.data.dataset}-{experiment.scale}-m{len(patients)}-{digest(identity)}"
    torch.manual_seed(experiment.seed)
    network = make_network(experiment, store, method)
    if pretrained is not None:
        load_pretrained(pretrained, network)
    if config.ema:
        network = MeanTeacher(network)
    run = Run(Path(runs) / name, identity, data_facts(store))
    steps = config.optim.total(len(dataset))

    def batches(start: int) -> Iterator[SliceSample]:
        store.verify(volumes)
        sampler = EpochSampler(len(dataset), config.optim.batch, experiment.seed, start=start, stop=steps,
                               part=share(config.optim.batch))
        return iter(read_batches(dataset, sampler, workers, fabric.device))

    with my_turn(run), enough_memory("finetune", config.optim):
        with fabric.rank_zero_first():
            take_over(run)
        fit(run, fabric, network, config.optim, steps, batches, SegmentationLoss(config, experiment.seed),
            title=f"{chosen.name}, {len(patients)} patients")
    return run


def data_facts(store: Store) -> dict[str, Any]:
    """How the images of a run were prepared, and which way they lie: what :mod:`kaf.segment` has to do again."""
    return {"settings": asdict(store.settings), "structures": store.structures,
            "orientations": sorted({volume.orientation for volume in store.volumes})}


def make_network(experiment: Experiment, store: Store, method: str) -> nn.Module:
    """The untrained network of a method, with one class for the background and one for each structure."""
    classes = len(store.structures) + 1
    return build_network(get_method(method).network, classes, experiment.width, experiment.kaf, experiment.norm,
                         experiment.init)


def load_network(run: Run, experiment: Experiment, store: Store, method: str) -> nn.Module:
    """The trained network of a finished run, ready to predict: the mean of its weights where the run kept one.

    Raises ``ValueError`` for an unfinished run or the weights of another network.
    """
    network, weights = make_network(experiment, store, method), run.weights()
    teacher = {name.removeprefix("teacher."): value for name, value in weights.items() if name.startswith("teacher.")}
    load_weights(network, teacher or weights, run.checkpoint)
    return network.eval()


def labelled_volumes(store: Store, patients: Collection[str]) -> list[int]:
    """The labelled volumes of ``patients``. Raises ``ValueError`` where one of them has none."""
    volumes = store.select(patients=patients, labelled=True)
    without = sorted(set(patients) - {store.volumes[v].patient for v in volumes})
    if without or not volumes:
        raise ValueError(f"patients without labels: {', '.join(without) or 'none were given'}; leave them out")
    return volumes
