"""Pretraining without labels: anatomically similar slices and matched keypoints are pulled together (chapter 5)."""

import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kaf.choices import check_choice
from kaf.config import Experiment, PretrainConfig, digest, used_by
from kaf.contrast import gcl, positional_contrast
from kaf.correspondence import local_loss, match_keypoints
from kaf.data.augment import augment
from kaf.data.pairs import EpochSampler, PairDataset, PairSample, Window, flatten_pairs, read_batches
from kaf.data.store import Store
from kaf.heads import BottleneckHead, KeypointHead, MatchHead
from kaf.keypoints import Keypoints
from kaf.loop import Loss, enough_memory, fit, make_fabric, step_generator
from kaf.monitors import (
    COLLAPSED,
    MONITOR_EVERY,
    attention_entropy,
    background_share,
    feature_spread,
    image_entropies,
)
from kaf.networks import Encoder, UNet, build_network
from kaf.processes import gather, rank, share, total, world
from kaf.restoration import RestorationLoss, RestorationModel
from kaf.rotation import RotationLoss, RotationModel
from kaf.runs import Run, load_weights

VIEWS_OF_ONE_SLICE = {"pretrain__weights": (1.0, 0.0, 0.0), "pretrain__neighbour": (0.0, 0)}

#: Kinds of pretraining by name, and what each changes in an experiment. All but ``kaf`` are those of a UNet, with
#: two views of one slice: rotation prediction (Gidaris et al. 2018), restoration of masked cells (Zhou et al. 2021) and
#: the three masks of :mod:`kaf.contrast`.
KINDS = {
    "kaf": {},
    "rotation": {"pretrain__task": "rotation", "pretrain__neighbour": (0.0, 0)},
    "restoration": {"pretrain__task": "restoration", "pretrain__neighbour": (0.0, 0)},
    "simclr": {**VIEWS_OF_ONE_SLICE, "pretrain__threshold": 0.0},
    "gcl": {**VIEWS_OF_ONE_SLICE, "pretrain__parts": 4},
    "pcl": VIEWS_OF_ONE_SLICE,
}


class Pretrainer(nn.Module):
    """An encoder with the heads that its losses need."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        self.encoder, self.weights = encoder, config.weights
        self.idle = bool(encoder.layers) and not all(config.weights)  # whether some weights get no gradient
        self.bottleneck = BottleneckHead(encoder.widths[-1], norm=config.head_norm)
        self.keypoint = self.match = None
        if encoder.layers:
            layer = next(iter(encoder.layers.values()))
            dim, paper = layer.embed.out_features, layer.mixer.name == "paper"
            self.keypoint = KeypointHead(len(encoder.layers), dim)
            self.match = MatchHead(dim, heads=layer.mixer.heads, block="paper" if paper else "transformer",
                                   position_norm="batch" if paper else "layer")
        elif config.weights[1] or config.weights[2]:
            raise ValueError("L_global and L_local need KAF layers; give a UNet the weights (1, 0, 0)")

    def forward(self, image: Tensor, keypoints: Keypoints, assign: bool = False,
                ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Slices ``(N, 1, H, W)`` -> features of bottleneck and keypoints ``(N, 512)``, fused ``(N, K, d)``.

        With ``assign`` the log assignment of the slices, taken as pairs, stands in place of the fused features.
        Features that no loss looks at carry no gradients: several processes would wait for them.
        """
        encoded = self.encoder(image, keypoints)
        pooled, fused = (None, None)
        if self.keypoint is not None:
            pooled, fused = self.keypoint(encoded.points, keypoints.valid)
        if assign:
            fused = self.log_assignment(fused, keypoints, max(image.shape[2:]))
        features = (self.bottleneck(encoded.centre), pooled, fused)
        return tuple(f if w or f is None else f.detach() for f, w in zip(features, self.weights, strict=True))

    def log_assignment(self, fused: Tensor, keypoints: Keypoints, size: int) -> Tensor:
        """Assignment between the two slices of every pair; features and keypoints are ``(2B, K, ...)``."""
        a, b = (slice(i, None, 2) for i in (0, 1))
        return self.match(fused[a], fused[b], keypoints.select(a), keypoints.select(b), size)


def pair_losses(model: Pretrainer, image: Tensor, keypoints: Keypoints, batch: PairSample,
                config: PretrainConfig) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of augmented slices by name, those with weight 0 left out; and the bottleneck features.

    All are those of the whole batch, also where several processes share it.
    """
    centre, pooled, assignment = model(image, keypoints, assign=bool(config.weights[2]))
    centre, position = gather(centre), gather(batch.position)
    contrast = partial(positional_contrast, position=position, threshold=config.threshold,
                       temperature=config.temperature)
    if config.parts:
        contrast = partial(gcl, position=position, parts=config.parts, temperature=config.temperature)
    losses = {}
    if config.weights[0]:
        losses["pcl"] = contrast(centre.unflatten(0, (-1, 2)))
    if config.weights[1]:
        some = gather(keypoints.valid.any(1)).view(-1, 2)  # a slice without keypoints has no keypoint feature
        losses["global"] = contrast(gather(pooled).unflatten(0, (-1, 2)), valid=some)
    if config.weights[2]:
        local = local_loss(assignment, batch.match, keypoints.valid[0::2], keypoints.valid[1::2],
                           config.local_reduction)
        losses["local"] = total(local) / world()
    return losses, centre


class PretrainLoss:
    """The loss of one step, with the monitors: what :func:`kaf.loop.fit` calls."""

    def __init__(self, config: PretrainConfig, seed: int):
        self.config, self.seed, self.warned = config, seed, False

    def __call__(self, model: nn.Module, batch: PairSample, step: int) -> tuple[Tensor, dict]:
        config = self.config
        image, keypoints = flatten_pairs(batch)
        image, keypoints, _ = augment(image, keypoints, None, config.augment, step_generator(self.seed, step),
                                      share=(rank(), world()))
        losses, centre = pair_losses(model, image, keypoints, batch, config)
        weights = dict(zip(("pcl", "global", "local"), config.weights, strict=True))
        total = sum(weights[name] * value for name, value in losses.items())
        logged = {name: value.detach() for name, value in losses.items()}
        if step % MONITOR_EVERY == 0:
            logged |= self.monitor(model, image, keypoints, centre, step)
        return total, logged

    def monitor(self, model: nn.Module, image: Tensor, keypoints: Keypoints, centre: Tensor, step: int) -> dict:
        """Feature spread, attention entropy, share of keypoints on background; warns once of a collapse."""
        spread = feature_spread(centre)
        if spread < COLLAPSED and step > 0 and not self.warned:
            self.warned = True
            warnings.warn(f"step {step}: the features of all slices are nearly the same (spread {spread:.3f}); "
                          "the run has collapsed, lower the learning rate or enlarge the batch", stacklevel=2)
        return {"spread": spread, "entropy": encoder_entropy(model.encoder, image[:2], keypoints.select(slice(2))),
                "background": background_share(image, keypoints)}


def encoder_entropy(encoder: Encoder, image: Tensor, keypoints: Keypoints) -> float:
    """Attention entropy, mean over the blocks of all KAF layers; NaN without one."""
    maps = _attention_maps(encoder, image, keypoints)
    return sum(attention_entropy(m, keypoints.valid) for m in maps) / len(maps) if maps else float("nan")


def slice_entropies(encoder: Encoder, image: Tensor, keypoints: Keypoints) -> Tensor:
    """:func:`encoder_entropy` of each slice by itself, whatever shares its batch: ``(B,)``."""
    maps = _attention_maps(encoder, image, keypoints)
    each = [image_entropies(m, keypoints.valid) for m in maps]
    return torch.stack(each).mean(0) if maps else torch.full((len(image),), torch.nan)


def _attention_maps(encoder: Encoder, image: Tensor, keypoints: Keypoints) -> list[Tensor]:
    """The attention weights of the blocks of all KAF layers."""
    was_training = encoder.training
    encoder.eval()  # statistics of normalisation layers must not see these slices twice
    maps = [m for blocks in encoder.attention_maps(image, keypoints).values() for m in blocks]
    encoder.train(was_training)
    return maps


def pretrain(experiment: Experiment, store: Store, patients: Collection[str], runs: str | Path,
             network: str = "kaf_unet", device: str = "auto", workers: int = 0, devices: int = 1,
             num_nodes: int = 1) -> Run:
    """Pretrain the encoder of ``network`` on all slices of ``patients``; returns the finished run.

    Give training patients only: a test patient seen here makes the evaluation transductive. Frames without
    labels take part, and volumes of a single slice where no neighbours are looked at. The run folder lies in ``runs``
    and is named after its content; calling again resumes it or, where it is finished, returns at once. Weights:
    :func:`load_pretrained`.

    ``devices`` on each of ``num_nodes`` machines share every batch (:func:`kaf.loop.make_fabric`); the weights come
    out the same up to rounding. Raises ``ValueError`` where the batch cannot be shared evenly.
    """
    fabric, config = make_fabric(device, devices, num_nodes, experiment.precision), experiment.pretrain
    window = Window(*config.neighbour)
    volumes = [v for v in store.select(patients=patients, frames=config.frames or None)
               if store.volumes[v].shape[0] > 1 or not window.minimum]
    matching = None
    if config.task == "contrast" and config.weights[2]:  # L_local alone looks at matches, and finding them takes time
        matching = partial(match_keypoints, window=config.match_px, rule=config.match_rule)
    dataset = PairDataset(store, volumes, experiment.data.size, experiment.data.points, window,
                          matching, experiment.seed)
    identity = {"experiment": used_by("pretrain", experiment), "network": network,
                "patients": sorted(patients), "store": fingerprint(store, volumes)}
    name = f"pretrain-{network}-{experiment.data.dataset}-{experiment.scale}-{digest(identity)}"
    torch.manual_seed(experiment.seed)
    make_model, make_loss = get_task(config.task)
    model = make_model(make_encoder(network, experiment), config)
    run = Run(Path(runs) / name, identity)
    steps = config.optim.total(len(dataset))

    def batches(start: int) -> Iterator[PairSample]:
        store.verify(volumes)
        sampler = EpochSampler(len(dataset), config.optim.batch, experiment.seed, start=start, stop=steps,
                               part=share(config.optim.batch))
        return iter(read_batches(dataset, sampler, workers, fabric.device))

    with enough_memory("pretrain", config.optim):
        fit(run, fabric, model, config.optim, steps, batches, make_loss(config, experiment.seed),
            MONITOR_EVERY, f"pretrain {network}")
    return run


def make_encoder(network: str, experiment: Experiment) -> Encoder:
    """The untrained encoder of a network. Raises ``ValueError`` for one that has none."""
    whole = build_network(network, 2, experiment.width, experiment.kaf, experiment.norm, experiment.init)
    if not isinstance(whole, UNet):
        raise ValueError(f"network {network!r} has no encoder to pretrain; choose a kind of UNet")
    return whole.encoder


def get_task(name: str) -> tuple[Callable[..., nn.Module], Callable[..., Loss]]:
    """The model and the loss of a pretext task, both made of a configuration. Raises ``ValueError``."""
    tasks = {"contrast": (Pretrainer, PretrainLoss), "rotation": (RotationModel, RotationLoss),
             "restoration": (RestorationModel, RestorationLoss)}
    check_choice("pretraining task", name, tasks)
    return tasks[name]


def fingerprint(store: Store, volumes: list[int]) -> str:
    """A short hash of what a run reads: other files under the same names give another run."""
    files = [{k: v for k, v in store.volumes[n].checksums.items() if k.endswith(".npy")} for n in volumes]
    return digest(store.settings.digest, files)


def load_pretrained(run: Run, network: UNet) -> UNet:
    """Copy what ``run`` has pretrained into ``network``: the encoder, KAF layers included, and after restoration the
    decoder, but for its head; returns it.

    Raises ``ValueError`` where the run is unfinished or its weights do not fit.
    """
    weights = run.weights()
    for name, part in (("encoder", network.encoder), ("decoder", network.decoder)):
        found = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
        if found:
            own = {"head.weight": part.head.weight} if part is network.decoder else {}
            load_weights(part, found | own, run.checkpoint)
    return network
