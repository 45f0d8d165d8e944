"""Images made worse on purpose: what becomes of keypoints, of attention and of the segmentation (chapter 8).

A corruption changes the prepared 8-bit volume; keypoints are then found anew, and the volume is scaled by its own mean
and deviation, as for any image that comes in. The network stays as it was trained.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kaf.choices import check_choice
from kaf.config import Experiment
from kaf.data.pairs import collate
from kaf.data.prepare import detect, statistics
from kaf.data.store import SliceSample, Store, cut
from kaf.evaluate import score_volume
from kaf.finetune import labelled_volumes, z_score
from kaf.keypoints import Keypoints
from kaf.monitors import background_share
from kaf.predict import predict_slices
from kaf.pretrain import slice_entropies

#: Levels of every corruption, the mildest first; what they mean is said at :func:`corrupt`.
LEVELS = {
    "blur": (0.5, 1.0, 2.0, 3.0),
    "noise": (0.05, 0.1, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.25, 0.1),
    "bias": (0.25, 0.5, 0.75, 1.0),
}
#: What a level of each corruption is counted in.
UNITS = {"blur": "px", "noise": "of the range", "contrast": "factor", "bias": "exponent"}
#: A keypoint is found again if another one lies within this distance, in mm.
FOUND_AGAIN_MM = 3.0
BATCH = 8


def corrupt(images: np.ndarray, kind: str, level: float, seed: int = 0) -> np.ndarray:
    """A volume ``(S, H, W)`` uint8, made worse.

    ``blur``      in plane, by a Gaussian of ``level`` pixels.
    ``noise``     Gaussian noise of ``level`` times the range of the image, 255.
    ``contrast``  differences from the mean of the volume times ``level``; rounding to grey values loses detail.
    ``bias``      times ``exp(level * b)``, with a smooth field b from -1 to 1 that differs between seeds.

    The result is cut to 0..255. Raises ``ValueError`` for another kind or a level that is not positive.
    """
    check_choice("corruption", kind, LEVELS)
    if not level > 0:
        raise ValueError(f"the level of a corruption is positive, got {level}")
    values, rng = images.astype(np.float32), np.random.default_rng(seed)
    if kind == "blur":
        values = np.stack([cv2.GaussianBlur(v, (0, 0), level, borderType=cv2.BORDER_REPLICATE) for v in values])
    elif kind == "noise":
        values = values + 255 * level * rng.standard_normal(values.shape, np.float32)
    elif kind == "contrast":
        values = values.mean() + level * (values - values.mean())
    else:
        values = values * np.exp(level * bias_field(images.shape[1:], rng))
    return np.rint(values).clip(0, 255).astype(np.uint8)


def hardest(rows: pd.DataFrame, kind: str) -> float:
    """The hardest level of a corruption that recorded ``rows`` hold, in whatever order they stand.

    Harder is more, but for contrast less, as in :data:`LEVELS`. Raises ``ValueError`` for rows without this corruption.
    """
    check_choice("corruption", kind, LEVELS)
    levels = rows.loc[rows["corruption"] == kind, "level"]
    if levels.empty:
        held = ", ".join(map(repr, rows["corruption"].unique())) or "none"
        raise ValueError(f"the rows hold no corruption {kind!r}; they hold {held}")
    return float(levels.max() if LEVELS[kind][-1] > LEVELS[kind][0] else levels.min())


def bias_field(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A smooth field ``(H, W)`` from -1 to 1: a random polynomial of the third degree, as coils leave it."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    powers = [(i, j) for i in range(4) for j in range(4 - i) if i + j]
    field = sum(rng.uniform(-1, 1) * np.outer(y**i, x**j) for i, j in powers)
    return (2 * (field - field.min()) / (field.max() - field.min()) - 1).astype(np.float32)


def repeatability(before: Keypoints, after: Keypoints, distance: float) -> Tensor:
    """Which share of the keypoints ``(B, K)`` of each image has one of ``after`` within ``distance`` pixels: ``(B,)``.

    NaN where there was none before. Many points are found again by chance: :func:`chance` and :func:`beyond_chance`.
    """
    apart = torch.cdist(before.xy, after.xy).masked_fill(~after.valid[:, None], torch.inf)
    again = (apart.amin(2) <= distance) & before.valid
    return again.sum(1) / before.valid.sum(1).where(before.valid.any(1), torch.nan)


def chance(points: int, distance: float, height: int, width: int) -> float:
    """The :func:`repeatability` to expect if there are ``points`` random places in an image, ``distance`` in pixels.

    ``1 - (1 - pi distance^2 / area)^points``. Circles that the border cuts count as whole: a little too high.
    """
    return 1 - (1 - min(1.0, math.pi * distance**2 / (height * width))) ** points


def beyond_chance(share: float | Tensor, by_chance: float | Tensor) -> float | Tensor:
    """A repeatability corrected for chance: 1 where all are found again, 0 where as many as :func:`chance` says.

    The correction of Cohen's (1960) kappa.
    """
    return (share - by_chance) / (1 - by_chance)


def corrupted_slices(store: Store, volume: int, size: int, points: int, kind: str = "", level: float = 0.0,
                     ) -> Iterator[SliceSample]:
    """The slices of a volume after a corruption, cut as :meth:`kaf.data.store.Store.sample` does; else as they are."""
    images = np.asarray(store.image(volume))
    if kind:
        images = corrupt(images, kind, level, seed=volume)
    mean, std = statistics(images)
    none = torch.empty((0, 0), dtype=torch.int64)
    for s, image in enumerate(images):
        found = detect(image, store.settings.detector) if kind else store.keypoints(volume, s)
        pixels, kept = cut(image, found, size, points)
        yield SliceSample(pixels, none, kept, mean, std, s / len(images), volume, s)


def evaluate_corrupted(network: nn.Module, store: Store, patients: Sequence[str], experiment: Experiment,
                       levels: Mapping[str, Sequence[float]] = LEVELS, device: str | torch.device = "cpu",
                       ) -> pd.DataFrame:
    """Scores and keypoints of every labelled frame of ``patients``, as it is and under each corruption.

    One row per patient, frame, corruption and level (``""`` and 0 for the image as it is): ``dice`` (mean over
    structures), ``points`` per slice, ``repeatability``, ``on_background``, ``entropy`` of the attention (NaN without).
    Raises ``ValueError`` where a patient has no labels or a file of the store is damaged.
    """
    tables, volumes = [], labelled_volumes(store, patients)
    store.verify(volumes)
    for volume in volumes:
        size, points = experiment.data.size, experiment.data.points
        clean = list(corrupted_slices(store, volume, size, points))
        for kind, level in [("", 0.0), *((kind, level) for kind, values in levels.items() for level in values)]:
            slices = list(corrupted_slices(store, volume, size, points, kind, level)) if kind else clean
            tables.append({"corruption": kind, "level": level, **_facts(store, volume),
                           "dice": _dice(network, store, volume, slices, experiment, device),
                           **keypoint_facts(network, store, volume, clean, slices, device)})
    return pd.DataFrame(tables)


def _facts(store: Store, volume: int) -> dict:
    record = store.volumes[volume]
    return {"patient": record.patient, "frame": record.frame, "group": record.group}


def _dice(network: nn.Module, store: Store, volume: int, slices: list[SliceSample], experiment: Experiment,
          device: str | torch.device) -> float:
    record = store.volumes[volume]
    labels = predict_slices(network, slices, record.shape[1:], record.native_shape[1:], experiment.finetune, device)
    return score_volume(labels, store.truth(volume), record.native_spacing_mm, store.structures)["dice"].mean()


def keypoint_facts(network: nn.Module, store: Store, volume: int, clean: list[SliceSample], slices: list[SliceSample],
                   device: str | torch.device = "cpu") -> dict[str, float]:
    """Number, repeatability, share on background and attention entropy of the keypoints of ``slices``.

    Means over slices; of the share on background over keypoints.
    """
    before, after = collate(clean), collate(slices)
    image = z_score(after)
    pixels = FOUND_AGAIN_MM / store.volumes[volume].spacing_mm[1]
    return {"points": after.keypoints.valid.sum(1).float().mean().item(),
            "repeatability": repeatability(before.keypoints, after.keypoints, pixels).nanmean().item(),
            "on_background": background_share(image, after.keypoints),
            "entropy": _entropy(network, image, after.keypoints, device)}


@torch.inference_mode()
def _entropy(network: nn.Module, image: Tensor, keypoints: Keypoints, device: str | torch.device) -> float:
    if not network.uses_keypoints:
        return float("nan")
    found = []
    for part in (slice(i, i + BATCH) for i in range(0, len(image), BATCH)):
        found.append(slice_entropies(network.encoder, image[part].to(device), keypoints.select(part).to(device)))
    return torch.cat(found).nanmean().item()
