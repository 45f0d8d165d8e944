"""Attention of the keypoint under the mouse, or chosen with the arrow keys (chapter 2)."""

import base64
from collections.abc import Mapping

import numpy as np
import torch
from IPython.display import HTML
from numpy.typing import ArrayLike
from torch import Tensor

from kaf.canvas import places
from kaf.explorers.page import explorer, picture, rounded
from kaf.keypoints import Keypoints

BUDGET = 120_000  # characters for the links
LINKS = 40  # of a keypoint, at most
FEWEST = 5


def explore_attention(image: ArrayLike, keypoints: Keypoints, maps: Mapping[str, Tensor]) -> HTML:
    """Where a keypoint looks: its strongest links on a slice ``(H, W)``, for one of several attention maps.

    ``keypoints (K,)`` are those of the slice, strongest first; ``maps`` holds attention weights ``(K, K)`` by the
    name to choose them by, such as ``"level 2, head 1"``. Row q is where keypoint q looks and sums to 1. Entropy and
    distances are of all links; the page holds the :data:`LINKS` strongest of each keypoint, fewer where there are
    many maps. Raises ``ValueError`` for maps that are none, and where too few links would fit.
    """
    xy, valid = places(keypoints)
    kept = np.flatnonzero(valid)
    if len(kept) < 2 or not maps:
        raise ValueError(f"attention needs two keypoints and a map, got {len(kept)} and {len(maps)}")
    links = min(len(kept), LINKS, BUDGET // (4 * len(kept) * len(maps)))
    if links < min(FEWEST, len(kept)):
        raise ValueError(f"{len(maps)} maps of {len(kept)} keypoints are too many for one page; pass fewer maps")
    image = np.asarray(image)
    data = {
        "height": image.shape[0], "width": image.shape[1], "image": picture(image),
        "xy": rounded(xy[kept].ravel(), 1), "links": links,
        "maps": [_map(name, weights, kept, xy, links) for name, weights in maps.items()],
    }  # fmt: skip
    return explorer("attention", "Choose a level and a keypoint, and see which keypoints it attends to.", data)


def _map(name: str, weights: Tensor, kept: np.ndarray, xy: np.ndarray, links: int) -> dict:
    """Per query: its strongest partners and their weights, entropy over its maximum, mean distance in pixels."""
    weights = torch.as_tensor(weights).detach().cpu().double()  # a device may have no double
    k = len(xy)
    if weights.shape != (k, k):
        raise ValueError(f"the map {name!r} must be ({k}, {k}) for {k} keypoints, got {tuple(weights.shape)}")
    weights = weights[kept][:, kept]
    if not (torch.all(weights >= 0) and torch.allclose(weights.sum(1), torch.ones(len(kept)).double(), atol=0.01)):
        raise ValueError(f"every row of the map {name!r} must hold shares that sum to 1 over the valid keypoints")
    apart = np.linalg.norm(xy[kept][:, None] - xy[kept][None], axis=2)
    top, partner = weights.sort(dim=1, descending=True, stable=True)
    top, partner = top[:, :links], partner[:, :links].numpy()
    share = np.round(255 * (top / top[:, :1]).numpy())
    coded = np.stack([partner % 256, partner // 256, share], 2).astype(np.uint8)
    return {
        "name": name, "links": base64.b64encode(coded.tobytes()).decode(), "top": rounded(top[:, 0], 5),
        "sum": rounded(top.sum(1), 4),
        "entropy": rounded(torch.special.entr(weights).sum(1) / np.log(len(kept)), 4),
        "distance": rounded((weights.numpy() * apart).sum(1), 1),
    }  # fmt: skip
