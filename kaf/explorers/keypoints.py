"""Keypoints of a slice against the contrast threshold and the blur (chapter 1)."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from IPython.display import HTML

from kaf.explorers.page import explorer, picture, rounded
from kaf.keypoints import deduplicate, detect_sift
from kaf.monitors import on_background

THRESHOLDS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12)
BLURS_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def explore_keypoints(image: np.ndarray, thresholds: Sequence[float] = THRESHOLDS,
                      blurs_px: Sequence[float] = BLURS_PX) -> HTML:
    """Two sliders: SIFT's contrast threshold, and the standard deviation of a Gaussian blur in pixels.

    Shows the keypoints of the blurred 8-bit ``image (H, W)``, one per pixel
    (:func:`kaf.keypoints.deduplicate`), how many there are, and which lie on background in the image without
    blur. Everything is detected here; the page only chooses. Raises ``TypeError`` for an image that is not 2-D
    uint8.
    """
    thresholds, blurs_px = sorted(thresholds), sorted(blurs_px)
    data = {
        "height": image.shape[0], "width": image.shape[1], "image": picture(image),
        "thresholds": thresholds, "blurs": blurs_px,
        "layers": [_layer(image, sigma, thresholds) for sigma in blurs_px],
    }  # fmt: skip
    return explorer("keypoints", "Choose the contrast threshold of SIFT and the blur of the image, "
                                 "and see which keypoints are found.", data)


def _layer(image: np.ndarray, sigma: float, thresholds: Sequence[float]) -> dict:
    """All keypoints of one blur: places, diameters, on background or not, and at which thresholds (as bits)."""
    blurred = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image
    plain = torch.from_numpy(image).float()[None, None]
    found: dict[tuple[float, ...], list] = {}
    for bit, threshold in enumerate(thresholds):
        points = deduplicate(detect_sift(blurred, contrast=threshold))
        dark = on_background(plain, points.__class__(*(field[None] for field in points)))[0]
        for x, y, diameter, on in zip(*points.xy.T.tolist(), points.scale.tolist(), dark.tolist()):
            found.setdefault((x, y, diameter), [on, 0])[1] |= 1 << bit
    places = np.array(list(found), float).reshape(-1, 3)
    return {
        "xy": rounded(places[:, :2].ravel(), 1), "size": rounded(places[:, 2], 1),
        "dark": [int(on) for on, _ in found.values()], "at": [bits for _, bits in found.values()],
    }  # fmt: skip
