"""Self-training: a fine-tuned network learns on from its own answers on slices without labels (chapter 6).

A mean teacher (Tarvainen and Valpola 2017) looks at a slice. The student must give the same answer where the teacher
is sure, although it sees the slice with other intensities (FixMatch, Sohn et al. 2020) and with a piece of another
slice pasted in (CutMix, Yun et al. 2019). The labelled slices go on teaching it. Yang et al. (2023, UniMatch) found
these to be strong together on the slices of the heart, too.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kaf.config import Experiment, FinetuneConfig, SelftrainConfig, digest, used_by
from kaf.data.augment import augment
from kaf.data.pairs import EpochSampler, SliceDataset, read_batches
from kaf.data.store import SliceSample, Store
from kaf.data.warp import send
from kaf.finetune import SegmentationLoss, data_facts, get_method, labelled_volumes, load_network, z_score
from kaf.keypoints import Keypoints, read_pixels
from kaf.loop import enough_memory, fit, make_fabric, step_generator
from kaf.pretrain import fingerprint
from kaf.reuse import my_turn, take_over
from kaf.runs import Run
from kaf.teacher import MeanTeacher

BOX_AREA, BOX_ASPECT = (0.02, 0.4), (0.3, 3.3)  # of a pasted piece: fraction of the slice, height to width


class SelftrainLoss:
    """The loss on labelled slices plus that of disagreeing with the teacher: what :func:`kaf.loop.fit` calls."""

    def __init__(self, config: SelftrainConfig, finetuning: FinetuneConfig, seed: int, steps: int):
        self.config, self.augment, self.seed, self.steps = config, finetuning.augment, seed, steps
        self.supervised = SegmentationLoss(finetuning, seed).dice_ce

    def __call__(self, model: MeanTeacher, batch: tuple[SliceSample, SliceSample], step: int) -> tuple[Tensor, dict]:
        (known, new), config, generator = batch, self.config, step_generator(self.seed + 1, step)
        if step:
            model.follow(config.decay)  # after the last step
        image, keypoints, label = augment(z_score(known), known.keypoints, known.label, self.augment, generator)
        seen, points, _ = augment(z_score(new), new.keypoints, None, self.augment.geometry_only(), generator)
        probability, target = model(seen, points, teach=True).float().softmax(1).max(1)
        changed, points, _ = augment(seen, points, None, self.augment.intensity_only(), generator)
        changed, points, target, probability = cutmix(changed, points, target, probability, generator)
        both = Keypoints(*(torch.cat(pair) for pair in zip(keypoints, points, strict=True)))
        logits = model(torch.cat([image, changed]), both).float()
        sure = probability >= config.threshold
        supervised = self.supervised(logits[: len(image)], label.unsqueeze(1))
        agreement = masked_dice_ce(logits[len(image) :], target, sure)
        weight = config.weight * min(1.0, (step + 1) / max(1, config.ramp * self.steps))
        logged = {"supervised": supervised.detach(), "teacher": agreement.detach(), "sure": sure.float().mean()}
        return supervised + weight * agreement, logged


def masked_dice_ce(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice + cross-entropy over the pixels of ``mask``, one Dice per class for the whole batch.

    ``logits`` (B, C, H, W), ``target`` (B, H, W) int64, ``mask`` (B, H, W) bool. With an empty mask it is 0.
    """
    mask = mask.to(logits.dtype)
    entropy = (F.cross_entropy(logits, target, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
    probability = logits.softmax(1) * mask[:, None]
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1) * mask[:, None]
    overlap, size = (probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3))
    return entropy + 1 - ((2 * overlap + 1e-5) / (size + 1e-5)).mean()


def cutmix(image: Tensor, keypoints: Keypoints, target: Tensor, probability: Tensor, generator: Generator,
           ) -> tuple[Tensor, Keypoints, Tensor, Tensor]:
    """Paste into half of the slices a rectangle of the slice before: image, keypoints, target and probability alike.

    ``image`` (B, 1, H, W), ``keypoints`` (B, K), ``target`` and ``probability`` (B, H, W). Of the keypoints of both
    slices that remain visible the K strongest are kept.
    """
    box = send(draw_boxes(len(image), *image.shape[2:], generator), image.device)
    image, target, probability = (torch.where(box.view(-1, *[1] * (x.dim() - 3), *box.shape[1:]), x.roll(1, 0), x)
                                  for x in (image, target, probability))
    return image, mix_keypoints(keypoints, box), target, probability


def draw_boxes(batch: int, height: int, width: int, generator: Generator) -> Tensor:
    """Random rectangles as masks ``(B, H, W)`` on the CPU; half of the masks are empty."""
    happens, area, aspect, x, y = torch.rand(5, batch, generator=generator)
    area = height * width * (BOX_AREA[0] + (BOX_AREA[1] - BOX_AREA[0]) * area)
    aspect = BOX_ASPECT[0] + (BOX_ASPECT[1] - BOX_ASPECT[0]) * aspect
    rows, columns = (area * aspect).sqrt().clamp(max=height), (area / aspect).sqrt().clamp(max=width)
    top, left = y * (height - rows), x * (width - columns)
    row, column = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    in_row = (row >= top[:, None]) & (row < (top + rows)[:, None])
    in_column = (column >= left[:, None]) & (column < (left + columns)[:, None])
    return in_row[:, :, None] & in_column[:, None] & (happens < 0.5)[:, None, None]


def mix_keypoints(keypoints: Keypoints, box: Tensor) -> Keypoints:
    """The K strongest of each slice's keypoints outside its ``box`` (B, H, W) and the slice before's inside it."""
    other = Keypoints(*(field.roll(1, 0) for field in keypoints))
    own, pasted = (read_pixels(box, some.xy) for some in (keypoints, other))
    valid = torch.cat([keypoints.valid & ~own, other.valid & pasted], 1)
    score = torch.cat([keypoints.score, other.score], 1).masked_fill(~valid, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)[:, : keypoints.valid.shape[1]]
    both = Keypoints(*(torch.cat(pair, 1) for pair in zip(keypoints, other, strict=True)))
    both = both.moved(both.xy, valid)
    return Keypoints(*(field.take_along_dim(order.view(*order.shape, *[1] * (field.dim() - 2)), 1) for field in both))


def selftrain(experiment: Experiment, store: Store, patients: Collection[str], unlabelled: Collection[str],
              runs: str | Path, source: Run, method: str, device: str = "auto", workers: int = 0) -> Run:
    """Go on from the fine-tuning run ``source`` of the same ``patients``; returns the finished run.

    The slices of ``unlabelled`` are looked at without their labels, all frames of them. Give training patients only:
    a test patient seen here makes the evaluation transductive. The result is the teacher, which
    :func:`kaf.finetune.load_network` loads. Calling again resumes or returns at once. It runs on one device.
    """
    config, network = experiment.selftrain, load_network(source, experiment, store, method)
    size, points, seed = experiment.data.size, experiment.data.points, experiment.seed
    volumes, others = labelled_volumes(store, patients), store.select(patients=unlabelled)
    data = SliceDataset(store, volumes, size, points), SliceDataset(store, others, size, points, labelled=False)
    steps = config.optim.total(len(data[0]))
    identity = {"experiment": used_by("selftrain", experiment), "method": method,
                "patients": sorted(patients), "unlabelled": sorted(unlabelled), "source": source.folder.name,
                "store": fingerprint(store, others)}
    name = f"selftrain-{method}-{experiment.data.dataset}-{experiment.scale}-m{len(patients)}-{digest(identity)}"
    run = Run(Path(runs) / name, identity, data_facts(store))
    fabric = make_fabric(device, precision=experiment.precision)

    def batches(start: int) -> Iterator[tuple[SliceSample, SliceSample]]:
        store.verify({*volumes, *others})
        counts = (config.optim.batch, config.unlabelled)
        samplers = (EpochSampler(len(part), count, seed + 1, start=start, stop=steps)
                    for part, count in zip(data, counts, strict=True))
        return zip(*(read_batches(part, sampler, workers, fabric.device)
                     for part, sampler in zip(data, samplers, strict=True)), strict=True)

    with my_turn(run), enough_memory("selftrain", config.optim):
        take_over(run)
        fit(run, fabric, MeanTeacher(network), config.optim, steps, batches,
            SelftrainLoss(config, experiment.finetune, seed, steps),
            title=f"{get_method(method).name}, self-training")
    return run
