"""Keypoints and predictions of a slice that is made worse, by kind and level of the corruption (chapter 8)."""

from collections.abc import Mapping, Sequence
from itertools import islice

import cv2
import numpy as np
import torch
from IPython.display import HTML
from torch import nn

from kaf.config import Experiment, PredictConfig
from kaf.data.pairs import collate
from kaf.data.store import SliceSample, Store
from kaf.explorers.page import explorer, picture, rounded
from kaf.predict import predict_slices
from kaf.robustness import FOUND_AGAIN_MM, LEVELS, UNITS, corrupted_slices, repeatability

CORNER_PX = 0.4  # contours may be off by so much, which saves half of their points


def explore_corruption(networks: Mapping[str, nn.Module], store: Store, volume: int, s: int, experiment: Experiment,
                       levels: Mapping[str, Sequence[float]] = LEVELS) -> HTML:
    """A corruption, its level and one of the trained ``networks`` by name, for slice ``s`` of a labelled volume.

    Shows the worse slice (:func:`kaf.robustness.corrupt`), which of its keypoints lie where one was before, and the
    prediction beside the truth; numbers are of this slice, Dice the mean over the structures in it. Everything is
    computed here; the page only chooses. Raises ``ValueError`` without a network, for a slice that shows no
    structure, and for kinds with different numbers of levels.
    """
    size, points = experiment.data.size, experiment.data.points
    truth = store.sample(volume, s, size, points).label.numpy()
    if not networks or not truth.any() or len(set(map(len, levels.values()))) != 1:
        raise ValueError("a network, a slice with structures and equally many levels of each corruption are needed, "
                         f"got {len(networks)} networks, labels {np.unique(truth)} and {dict(levels)}")
    radius = FOUND_AGAIN_MM / store.volumes[volume].spacing_mm[1]

    def seen(kind: str = "", level: float = 0.0) -> SliceSample:  # no slice behind it is looked at
        return next(islice(corrupted_slices(store, volume, size, points, kind, level), s, None))

    before = seen()

    def frame(kind: str = "", level: float = 0.0) -> dict:
        after = seen(kind, level)
        labels, how = list(store.structures), experiment.finetune
        return _keypoints(before, after, radius) | {"predicted": [
            _prediction(network, after, truth, labels, how) for network in networks.values()]}

    data = {
        "height": size, "width": size, "structures": list(store.structures.values()), "networks": list(networks),
        "truth": [_contours(truth == label) for label in store.structures],
        "clean": frame(),
        "kinds": [{"name": kind, "unit": UNITS.get(kind, ""), "levels": list(values),
                   "frames": [frame(kind, level) for level in values]} for kind, values in levels.items()],
    }  # fmt: skip
    return explorer("corruption", "Choose a corruption, its level and a network, and see what becomes of the keypoints "
                                  "and of the prediction.", data)


def _keypoints(before: SliceSample, after: SliceSample, radius: float) -> dict:
    """The picture of a slice, its keypoints and which of them are old ones, and the share found again."""
    one, other = collate([before]).keypoints, collate([after]).keypoints
    valid, xy = after.keypoints.valid, after.keypoints.xy
    near = torch.cdist(xy, before.keypoints.xy[before.keypoints.valid]) <= radius
    share = repeatability(one, other, radius).item()
    return {"image": picture(after.image.numpy()), "xy": rounded(xy[valid].flatten(), 1),
            "old": near.any(1)[valid].int().tolist(), "again": None if np.isnan(share) else round(share, 4)}


def _prediction(network: nn.Module, sample: SliceSample, truth: np.ndarray, labels: list[int],
                how: PredictConfig) -> dict:
    """Contours of each structure as a network predicts it, and the Dice of the slice."""
    predicted = predict_slices(network, [sample], truth.shape, truth.shape, how)[0]
    masks = [(predicted == label, truth == label) for label in labels]
    dice = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in masks if a.any() or b.any()])
    return {"contours": [_contours(mask) for mask, _ in masks], "dice": round(float(dice), 4)}


def _contours(mask: np.ndarray) -> list[list[float]]:
    """Closed contours of a mask ``(H, W)``, each ``[x, y, x, y, ...]`` in pixels."""
    finer = np.kron(mask, np.ones((4, 4), bool)).astype(np.uint8)  # so that a contour runs between the pixels
    found, _ = cv2.findContours(finer, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    corners = (cv2.approxPolyDP(line, 4 * CORNER_PX, True)[:, 0] for line in found)
    return [rounded(((line + 0.5) / 4 - 0.5).ravel(), 1) for line in corners]
