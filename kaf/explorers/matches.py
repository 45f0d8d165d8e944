"""Matches between neighbouring slices against the window of the matching rule (chapter 4)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from IPython.display import HTML
from numpy.typing import ArrayLike

from kaf.canvas import places
from kaf.correspondence import match_keypoints
from kaf.explorers.page import explorer, picture, rounded
from kaf.keypoints import Keypoints

WINDOWS_PX = tuple(range(5, 61))
START_PX = 20


def explore_matches(first: ArrayLike, second: ArrayLike, a: Keypoints, b: Keypoints,
                    windows_px: Sequence[float] = WINDOWS_PX, start_px: float = START_PX) -> HTML:
    """One slider: the window within which keypoints may correspond, a Manhattan distance in pixels.

    ``first`` and ``second`` are slices ``(H, W)`` of one shape, ``a (K,)`` and ``b (K,)`` their keypoints. Every
    window was matched with :func:`kaf.correspondence.match_keypoints`, and the one nearest to ``start_px`` is shown
    first; the keypoint under the mouse shows its window
    in the second slice, the candidates there, and why it has a partner or none. Raises ``ValueError`` for slices of
    different shapes or without keypoints.
    """
    first, second = np.asarray(first), np.asarray(second)
    (xy, valid), (to, to_valid) = places(a), places(b)
    if first.shape != second.shape or not (valid.any() and to_valid.any()):
        raise ValueError(f"two slices of one shape with keypoints are needed, got {first.shape} with {valid.sum()} "
                         f"and {second.shape} with {to_valid.sum()}")
    windows = sorted(windows_px)
    rank = np.where(to_valid, np.cumsum(to_valid) - 1, -1)  # padding is not sent to the page
    match = np.stack([match_keypoints(a, b, window).numpy() for window in windows])[:, valid]
    match = np.where(match >= 0, rank[match], -1)
    data = {
        "height": first.shape[0], "width": first.shape[1], "images": [picture(first), picture(second)],
        "a": rounded(xy[valid].ravel(), 3), "b": rounded(to[to_valid].ravel(), 3), "windows": windows,
        "start": int(np.argmin(np.abs(np.array(windows) - start_px))),
        "partners": [_runs(column) for column in match.T.tolist()],
    }  # fmt: skip
    return explorer("matches", "Choose the window of the matching rule, and see which keypoints of two neighbouring "
                               "slices correspond.", data)


def _runs(partners: list[int]) -> list[int]:
    """Partners of a keypoint over the windows as ``[from window, partner, from window, partner, ...]``."""
    runs = [0, partners[0]]
    for i, (before, partner) in enumerate(pairwise(partners), start=1):
        if partner != before:
            runs += [i, partner]
    return runs
