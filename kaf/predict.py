"""Labels from a trained network, and their scores (chapter 6)."""

from collections.abc import Iterable, Sequence
from itertools import combinations, islice

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from kaf.config import Experiment, PredictConfig
from kaf.data.grid import uncrop
from kaf.data.pairs import collate
from kaf.data.store import SliceSample, Store
from kaf.data.warp import pose, undone, warp
from kaf.evaluate import score_volume
from kaf.finetune import labelled_volumes, z_score
from kaf.keypoints import Keypoints

PREDICT_BATCH = 8
PLAINLY = PredictConfig()
LEAST_SEEN = 1e-3  # share of a pixel that must lie inside a turned image


def predict(network: nn.Module, store: Store, volume: int, experiment: Experiment,
            device: str | torch.device = "cpu") -> np.ndarray:
    """Labels ``(S, H, W)`` uint8 of a volume in the grid of its file.

    The network sees the central ``size`` pixels of the store and the strongest ``points`` keypoints there, as
    ``experiment`` says; probabilities go to the grid of the file before the most probable label is taken, and outside
    the part that was seen everything is background. Every slice is predicted by itself, whatever slices share its
    batch; only ``components="largest"`` looks at the volume.
    """
    record, data = store.volumes[volume], experiment.data
    slices = (store.sample(volume, s, data.size, data.points) for s in range(record.shape[0]))
    return predict_slices(network, slices, record.shape[1:], record.native_shape[1:], experiment.finetune, device)


def predict_slices(network: nn.Module, slices: Iterable[SliceSample], shape: tuple[int, int], native: tuple[int, int],
                   how: PredictConfig = PLAINLY, device: str | torch.device = "cpu") -> np.ndarray:
    """Labels ``(S, H, W)`` uint8 of prepared slices, cut from images of ``shape``, in the ``native`` grid."""
    network, slices, labels = network.to(device).eval(), iter(slices), []  # moved first: it may be trained on
    with torch.inference_mode():
        while some := list(islice(slices, PREDICT_BATCH)):
            batch = collate(some)
            image, keypoints = z_score(batch).to(device), batch.keypoints.to(device)
            probabilities = class_probabilities(network, image, keypoints, how.rotations_deg, how.flips).cpu()
            labels.append(to_native(probabilities, shape, native))
    whole = np.concatenate(labels)
    return largest_components(whole) if how.components == "largest" else whole


def class_probabilities(network: nn.Module, image: Tensor, keypoints: Keypoints,
                        rotations_deg: Sequence[float] = (0.0,), flips: Sequence[str] = ()) -> Tensor:
    """Probabilities ``(B, C, H, W)`` of images ``(B, 1, H, W)``: the mean over images turned by ``rotations_deg``.

    With ``flips`` also over images that were mirrored before, once by each choice of them: two make four images of
    every angle. Keypoints move with their image, and what the network says is moved back. A pixel's mean is over the
    images inside which it stayed; where it stayed in none it is background.
    """
    mirrored = [some for n in range(len(flips) + 1) for some in combinations(flips, n)]
    total = sum(_moved(network, image, keypoints, degrees, some) for some in mirrored for degrees in rotations_deg)
    found, seen = total[:, :-1], total[:, -1:]
    background = (torch.arange(found.shape[1], device=found.device) == 0).float()[:, None, None]
    return torch.where(seen < LEAST_SEEN, background, found / seen.clamp_min(LEAST_SEEN))


def _moved(network: nn.Module, image: Tensor, keypoints: Keypoints, degrees: float, flips: Sequence[str]) -> Tensor:
    """Probabilities of images that are moved for the network, moved back, and how much of each pixel was seen."""
    there = pose(degrees, flips, *image.shape[::2], image.shape[3]) if degrees or flips else None
    if there:
        image, keypoints, _ = warp(image, keypoints, None, there)
    found = network(image, keypoints).float().softmax(1)
    found = torch.cat([found, torch.ones_like(found[:, :1])], 1)
    return warp(found, keypoints, None, undone(there), 0.0)[0] if there else found


def to_native(probabilities: Tensor, shape: tuple[int, int], native: tuple[int, int]) -> np.ndarray:
    """Class probabilities ``(S, C, size, size)`` of the central crop -> labels ``(S, H, W)`` of the file's grid."""
    whole = uncrop(probabilities, shape)
    whole[:, 0] += 1 - whole.sum(1)  # outside the crop: background
    whole = F.interpolate(whole, tuple(native), mode="bilinear", align_corners=False)
    return whole.argmax(1).to(torch.uint8).numpy()


def largest_components(labels: np.ndarray) -> np.ndarray:
    """Labels ``(S, H, W)`` with the largest connected piece of every structure; other pieces become background.

    Voxels are connected that share a face, an edge or a corner, across slices too.
    """
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        pieces, _ = ndimage.label(labels == label, np.ones((3, 3, 3)))
        kept[pieces == np.bincount(pieces.flat)[1:].argmax() + 1] = label
    return kept


def evaluate(network: nn.Module, store: Store, patients: Sequence[str], experiment: Experiment,
             device: str | torch.device = "cpu") -> pd.DataFrame:
    """Scores of every labelled frame of ``patients`` at native spacing: rows of :func:`kaf.evaluate.score_volume`."""
    tables, volumes = [], labelled_volumes(store, patients)
    store.verify(volumes)
    for volume in volumes:
        record = store.volumes[volume]
        labels = predict(network, store, volume, experiment, device)
        rows = score_volume(labels, store.truth(volume), record.native_spacing_mm, store.structures)
        tables.append(rows.assign(patient=record.patient, frame=record.frame, group=record.group))
    return pd.concat(tables, ignore_index=True)
