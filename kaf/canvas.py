"""What all figures share: style and colours, closed figures, and a slice on black with its keypoints."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kaf.keypoints import Keypoints

WIDTH = 8.0  # inches, the width of a page of the book
DPI = 110
# Okabe and Ito (2008), the bright ones first on images, the dark ones first on paper.
ON_BLACK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")  # so that colour is never the only difference
STYLE = {
    "font.size": 10, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip

# A decorator: what a function draws has this style, and the style of the caller is left alone.
styled = plt.rc_context(STYLE)


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name on paper; up to 49 differ, as every round of colours has its markers shifted."""
    return {name: (ON_WHITE[n % len(ON_WHITE)], MARKERS[(n + n // len(ON_WHITE)) % len(MARKERS)])
            for n, name in enumerate(names)}


def panels(count: int, columns: int, aspect: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A closed figure with ``count`` panels in at most ``columns`` columns, each ``aspect`` times as high as wide.

    Closed, because a notebook would show an open one twice, and a loop would fill the memory; it can
    still be shown and saved.
    """
    if count < 1:
        raise ValueError("there is nothing to show")
    columns = min(count, columns)
    rows = -(-count // columns)
    size = (width, width / columns * aspect * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    plt.close(figure)
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def one_panel(ax: Axes | None, aspect: float = 1.0, width: float = 5.0) -> Axes:
    """``ax``, or the only panel of a new figure."""
    return panels(1, 1, aspect, width)[1][0] if ax is None else ax


def show_slice(ax: Axes, image: ArrayLike) -> None:
    """A slice ``(H, W)`` in grey, smallest value black, without ticks; pixel centres at integers."""
    image = np.asarray(image, np.float32)
    if image.ndim != 2:
        raise ValueError(f"a slice is an array (H, W), got {image.shape}")
    ax.imshow(image, cmap="gray", interpolation="bilinear")
    ax.set(xticks=[], yticks=[], facecolor="black", xlim=(-0.5, image.shape[1] - 0.5),
           ylim=(image.shape[0] - 0.5, -0.5), autoscale_on=False)
    ax.spines[:].set_visible(False)


def places(keypoints: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """``xy (K, 2)`` and ``valid (K,)`` of one slice. Raises ``ValueError`` for the keypoints of a batch."""
    if keypoints.valid.dim() != 1:
        raise ValueError(f"the keypoints of one slice are (K,), got {tuple(keypoints.valid.shape)}; select one")
    return keypoints.xy.cpu().numpy(), keypoints.valid.cpu().numpy()


def circles(ax: Axes, xy: np.ndarray, diameter: np.ndarray, colour: str) -> EllipseCollection:
    """Add circles with a ``diameter (N,)`` in pixels of the image."""
    shape = EllipseCollection(diameter, diameter, np.zeros(len(xy)), units="xy", offsets=xy,
                              offset_transform=ax.transData, facecolors="none", edgecolors=colour, linewidths=0.9)
    return ax.add_collection(shape)


def square(labels: list[np.ndarray], margin: int) -> list[tuple[float, float, float, float]]:
    """``(left, right, bottom, top)`` of equal squares around what is labelled in each ``(H, W)``.

    Where nothing is labelled, the square lies in the centre of the slice.
    """
    boxes = []
    for mask in labels:
        y, x = np.nonzero(mask) if np.any(mask) else (np.array([i // 2]) for i in mask.shape)
        boxes.append((x.min(), x.max(), y.min(), y.max()))
    half = max(max(b[1] - b[0], b[3] - b[2]) for b in boxes) / 2 + margin
    centres = [((b[0] + b[1]) / 2, (b[2] + b[3]) / 2) for b in boxes]
    return [(x - half, x + half, y + half, y - half) for x, y in centres]
