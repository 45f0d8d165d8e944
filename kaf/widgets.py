"""Widgets: controls that compute anew with ``kaf`` at every change, where a kernel runs (chapters 1 to 5).

Each function returns controls above a picture and a line of numbers. In a saved notebook the picture of the last
values stays, as part of the state of the widget; without a kernel the controls do not change it.
``kaf.explorers`` shows the same without a kernel, from results computed beforehand.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from kaf import figures
from kaf.canvas import ON_WHITE, one_panel, places, styled
from kaf.correspondence import RULES, match_keypoints
from kaf.keypoints import Keypoints, deduplicate, detect_sift, top_k
from kaf.monitors import attention_entropy, background_share

try:
    import ipywidgets
except ImportError as error:
    raise ImportError("kaf.widgets needs ipywidgets, which comes with `pip install 'kaf[book]'`; the figures and "
                      "explorers of the chapters show the same without it") from error  # fmt: skip

DPI = 80
COLOURS = 96  # of a picture: nobody sees the difference, and the state is a third as large
NOTE = "The controls need a running kernel; without one, the picture stays as it was saved."
LOSSES = {name: (rf"$\mathcal{{L}}_\mathrm{{{name}}}$", weight)
          for name, weight in (("pcl", 1.0), ("global", 1.0), ("local", 0.1))}


class Live(ipywidgets.VBox):
    """Controls, the ``picture`` that they decide, and what it says in numbers (``text``).

    ``draw(**values)`` takes the values of the ``controls`` by name and returns a figure and a sentence.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.Widget], draw: Callable[..., tuple[Figure, str]]):
        self.controls, self._draw = dict(controls), draw
        self.picture, self.text = ipywidgets.HTML(), ipywidgets.HTML()  # an Image has no alternative text
        self._update()
        for control in self.controls.values():
            control.observe(self._update, names="value")
        super().__init__([*self.controls.values(), self.picture, self.text, ipywidgets.HTML(f"<small>{NOTE}</small>")])

    def _update(self, _change=None) -> None:
        figure, sentence = self._draw(**{name: control.value for name, control in self.controls.items()})
        words = self.text.value = html.escape(sentence)
        png = base64.b64encode(to_png(figure)).decode()
        self.picture.value = f'<img src="data:image/png;base64,{png}" alt="{words}" style="max-width: 100%">'


def to_png(figure: Figure) -> bytes:
    """A figure as a small PNG with few colours."""
    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def keypoint_widget(image: np.ndarray) -> Live:
    """SIFT on an 8-bit slice ``(H, W)`` with both of its thresholds and a blur in pixels."""
    def draw(contrast: float, edge: float, blur: float) -> tuple[Figure, str]:
        blurred = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
        found = detect_sift(blurred, contrast, edge)
        points = deduplicate(found)
        return figures.keypoints_figure(blurred, points), (
            f"{len(found.valid)} keypoints at {len(points.valid)} places, {_on_background(image, points)} on background.")  # noqa: E501

    return Live({
        "contrast": _slider("contrast threshold", 0.04, 0.005, 0.15, 0.005, ".3f"),
        "edge": _slider("edge threshold", 10.0, 2.0, 30.0, 1.0, ".0f"),
        "blur": _slider("blur (px)", 0.0, 0.0, 4.0, 0.5, ".1f"),
    }, draw)  # fmt: skip


def points_widget(image: np.ndarray) -> Live:
    """The K strongest SIFT keypoints of an 8-bit slice ``(H, W)``, one per pixel."""
    found = deduplicate(detect_sift(image))
    count = len(found.valid)

    def draw(k: int) -> tuple[Figure, str]:
        points = top_k(found, k)
        shown = len(points.valid)
        share = points.score.sum() / found.score.sum() if count else 0.0
        return figures.keypoints_figure(image, points), (
            f"{shown} of {count} keypoints, {_on_background(image, points)} on background; they hold {share:.0%} of "
            f"the sum of all scores.")

    return Live({"k": ipywidgets.IntSlider(min(100, max(1, count)), 1, max(1, count), **_look("number of points K"))}, draw)  # noqa: E501


def attention_widget(image: ArrayLike, keypoints: Keypoints, maps: Mapping[str, Tensor]) -> Live:
    """Where a keypoint looks: ``keypoints (K,)`` on a slice ``(H, W)``, attention ``maps (K, K)`` by name.

    Row q of a map is where keypoint q looks. Raises ``ValueError`` without a map or a valid keypoint, and for maps
    of another size.
    """
    _, valid = places(keypoints)
    kept = np.flatnonzero(valid).tolist()
    wrong = [name for name, weights in maps.items() if tuple(weights.shape) != (len(valid), len(valid))]
    if not kept or not maps or wrong:
        raise ValueError(f"a valid keypoint and maps of shape ({len(valid)}, {len(valid)}) are needed, got {len(kept)} "
                         f"keypoints and {len(maps)} maps, {wrong or 'none'} of another shape")  # fmt: skip

    def draw(map: str, query: int) -> tuple[Figure, str]:
        q, weights = kept[query - 1], maps[map].detach().float().cpu()
        row = weights[q]
        alone = keypoints.valid[None]
        entropy = attention_entropy(row.expand(1, 1, len(row), len(row)), alone)
        return figures.attention_figure(image, keypoints, row, q), (
            f"Keypoint {query} of {len(kept)}, {map}: {entropy:.0%} of the largest entropy, as if it looked at "
            f"{len(kept) ** entropy:.0f} points equally.")

    names = list(maps)
    return Live({
        "map": ipywidgets.Dropdown(options=names, value=names[0], **_look("attention map", slider=False)),
        "query": ipywidgets.IntSlider(1, 1, len(kept), **_look("keypoint (1: strongest)")),
    }, draw)  # fmt: skip


def match_widget(first: ArrayLike, second: ArrayLike, a: Keypoints, b: Keypoints, window: int = 30) -> Live:
    """Matches between ``a (K,)`` of slice ``first (H, W)`` and ``b (K,)`` of ``second`` against window and rule.

    It begins with a ``window`` of so many pixels, from 5 to 60.
    """
    def draw(window: int, rule: str, lines: int) -> tuple[Figure, str]:
        match = match_keypoints(a, b, window, rule)
        matched = match >= 0
        apart = (a.xy[matched] - b.xy[match[matched]]).abs().sum(1)
        shift = f"; their median shift is {apart.median():.1f} px" if matched.any() else ""
        return figures.pair_figure((first, a), (second, b), match, lines), (
            f"{int(matched.sum())} of {int(a.valid.sum())} keypoints matched, {int((match == -1).sum())} not{shift}.")

    return Live({
        "window": ipywidgets.IntSlider(window, 5, 60, **_look("window (px)")),
        "rule": ipywidgets.Dropdown(options=RULES, value=RULES[0], **_look("rule", slider=False)),
        "lines": ipywidgets.IntSlider(40, 0, 300, **_look("lines drawn at most")),
    }, draw)  # fmt: skip


def loss_weight_widget(history: pd.DataFrame) -> Live:
    """How the weights of the three losses decide what the total is made of.

    ``history`` has the columns ``step`` and, of ``pcl``, ``global`` and ``local``, those that the run had a weight for,
    as :meth:`kaf.runs.Run.history` gives them. Only the sum is computed anew: with other weights the run would have
    learned something else. Raises ``ValueError`` without steps, or without a step that has all of these losses.
    """
    names = [name for name in LOSSES if name in history]
    if not names or "step" not in history:
        raise ValueError(f"the history has no step, or none of {', '.join(LOSSES)}; a contrastive pretraining has")
    terms = history[["step", *names]].dropna()
    if terms.empty:
        raise ValueError(f"no step of the history has all of {', '.join(names)}")

    def draw(**weights: float) -> tuple[Figure, str]:
        weighted = terms[names] * pd.Series(weights)
        total = weighted.iloc[-1].sum()
        shares = ", ".join(f"{name} {value / total:.0%}" for name, value in weighted.iloc[-1].items()) if total else "nothing"  # noqa: E501
        return _loss_figure(terms["step"], weighted), (
            f"Total at the last step: {total:.3f}, made of {shares}. The run itself had its own weights.")

    return Live({name: _slider(f"weight of L {name}", LOSSES[name][1], 0.0, 2.0, 0.05, ".2f") for name in names}, draw)


@styled
def _loss_figure(step: pd.Series, weighted: pd.DataFrame) -> Figure:
    """The weighted terms of a loss, stacked, against the step."""
    ax = one_panel(None, 0.55, 6.5)
    colours = dict(zip(LOSSES, ON_WHITE, strict=False))  # of a loss the same, whichever others there are
    ax.stackplot(step, weighted.T, colors=[colours[name] for name in weighted], alpha=0.75,
                 labels=[LOSSES[name][0] for name in weighted])
    ax.plot(step, weighted.sum(axis=1), color="black", lw=1.5, label="total")
    ax.set(xlabel="step", ylabel="weighted loss", xlim=(step.min(), max(step.max(), step.min() + 1)))
    ax.set_ylim(bottom=min(0.0, float(weighted.min().min())))
    ax.figure.legend(loc="outside lower center", ncols=4)
    return ax.figure


def _on_background(image: np.ndarray, points: Keypoints) -> str:
    if not len(points.valid):
        return "none"
    batch = Keypoints(*(field[None] for field in points))
    return f"{background_share(torch.from_numpy(image).float()[None, None], batch):.1%}"


def _slider(name: str, value: float, low: float, high: float, step: float, form: str) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(value, min=low, max=high, step=step, readout_format=form, **_look(name))


def _look(name: str, slider: bool = True) -> dict:
    """Wide enough for the whole name; a slider computes when it is let go."""
    look = {"description": name, "style": {"description_width": "160px"}, "layout": {"width": "460px", "max_width": "100%"}}  # noqa: E501
    return look | ({"continuous_update": False} if slider else {})
