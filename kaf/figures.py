"""The figures of the chapters: keypoints, attention, matches and contours on slices; logs and scores.

Every function takes arrays, :class:`Keypoints` or tables and returns a closed ``matplotlib`` figure, which a
notebook shows as the last expression of a cell. What it means stands in the caption beside it, so there are no
titles. Pages are white, slices on black and never inverted, colours those that any colour vision tells apart.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from kaf.canvas import ON_BLACK, circles, looks, one_panel, panels, places, show_slice, square, styled
from kaf.evaluate import bootstrap_interval, per_patient
from kaf.keypoints import Keypoints
from kaf.monitors import COLLAPSED

POINT, PARTNER, QUERY, UNMATCHED = ON_BLACK[0], ON_BLACK[1], "#D55E00", "#999999"
DASHED = (0, (2.5, 1.5))
LOGGED = {  # column of a log: label of its panel
    "loss": "loss", "pcl": r"loss $\mathcal{L}_\mathrm{pcl}$",
    "global": r"loss $\mathcal{L}_\mathrm{global}$", "local": r"loss $\mathcal{L}_\mathrm{local}$",
    "rotation": "loss of rotations", "right": "rotations told right\n(share)", "restoration": "loss of restoration",
    "supervised": "loss on labels", "teacher": "loss against\nthe teacher",
    "sure": "pixels with a sure\nteacher (share)",
    "spread": "feature spread\n(0 collapsed, 1 random)", "entropy": "attention entropy\n(share of its maximum)",
    "background": "keypoints on\nbackground (share)", "lr": "learning rate",
}  # fmt: skip
SHARES = ("right", "sure", "spread", "entropy", "background")


@styled
def keypoints_figure(image: ArrayLike, keypoints: Keypoints, ax: Axes | None = None) -> Figure:
    """A slice ``(H, W)`` with the valid ones of its ``keypoints (K,)`` as circles, and their number.

    A circle is as large as what was found; SIFT describes a square six times as wide.
    """
    xy, valid = places(keypoints)
    ax = one_panel(ax)
    show_slice(ax, image)
    circles(ax, xy[valid], keypoints.scale.cpu().numpy()[valid], POINT)
    ax.set_xlabel(f"{valid.sum()} keypoints")
    return ax.figure


@styled
def attention_figure(image: ArrayLike, keypoints: Keypoints, weights: ArrayLike, query: int,
                     ax: Axes | None = None, largest: float | None = None) -> Figure:
    """Where keypoint ``query`` looks: its attention ``weights (K,)``, shares of 1, on a slice ``(H, W)``.

    Colour and size of the dots and of the lines to them follow the weights, up to ``largest``, by default the
    largest weight. Raises ``ValueError`` for a query that is padding, and for weights that are not K shares.
    """
    xy, valid = places(keypoints)
    weights = np.asarray(weights, float)
    if weights.shape != valid.shape or not np.all((weights >= 0) & (weights < 1.001)):
        raise ValueError(f"weights must be {len(valid)} shares of 1, one per keypoint, got shape {weights.shape}")
    if not 0 <= query < len(valid) or not valid[query]:
        raise ValueError(f"keypoint {query} is no valid query; {valid.sum()} of {len(valid)} are valid")
    ax = one_panel(ax, 0.9, 6.0)
    show_slice(ax, image)
    order = np.flatnonzero(valid)[np.argsort(weights[valid], kind="stable")]  # the strongest lie on top
    largest = largest or weights[order[-1]] or 1.0
    share = np.clip(weights[order] / largest, 0, 1)
    lines = np.stack([np.broadcast_to(xy[query], (len(order), 2)), xy[order]], 1)
    ax.add_collection(LineCollection(lines, array=100 * weights[order], cmap="plasma",
                                     clim=(0, 100 * largest), alpha=0.1 + 0.7 * share,
                                     linewidths=0.2 + 1.8 * share))
    dots = ax.scatter(*xy[order].T, s=8 + 40 * share, c=100 * weights[order], cmap="plasma", vmin=0,
                      vmax=100 * largest, linewidths=0, zorder=3)
    ax.plot(*xy[query], "*", color="white", mec=QUERY, mew=1.3, ms=14, zorder=4, label="query keypoint", ls="")
    ax.legend(loc="upper right", bbox_to_anchor=(1.02, 0), handletextpad=0, borderpad=0)
    bar = ax.figure.colorbar(dots, ax=ax, shrink=0.85, pad=0.02)
    bar.set_label(f"attention weight (%)\nuniform: {100 / valid.sum():.2g} %")
    return ax.figure


@styled
def pair_figure(first, second, match: ArrayLike, lines: int = 40) -> Figure:
    """Two slices side by side, their keypoints, and lines between the ``lines`` strongest matches.

    ``first`` and ``second`` are each a :class:`kaf.data.store.SliceSample` or a tuple ``(image (H, W),
    Keypoints)``; ``match (K,)`` is the index of the partner in ``second``, -1 unmatched, -2 padding.
    """
    slices = [(s.image, s.keypoints) if hasattr(s, "keypoints") else s for s in (first, second)]
    (a, points), (b, others) = ((np.asarray(image, np.float32), keypoints) for image, keypoints in slices)
    match, (xy, valid), (to, to_valid) = np.asarray(match), places(points), places(others)
    matched = np.flatnonzero(valid & (match >= 0)) if match.shape == valid.shape else None
    if matched is None or a.shape != b.shape or not to_valid[match[matched]].all():
        raise ValueError(f"two slices of one shape and {len(valid)} indices of valid keypoints are needed, got "
                         f"{a.shape}, {b.shape} and match of shape {match.shape}")
    gap = max(2, a.shape[1] // 40)
    both = np.concatenate([a, np.full((a.shape[0], gap), np.nan, np.float32), b], 1)
    to = to + np.array([a.shape[1] + gap, 0])
    ax = one_panel(None, both.shape[0] / both.shape[1] + 0.04, 8.0)
    show_slice(ax, both)
    ax.set_facecolor("white")  # the gap
    ax.plot(*np.concatenate([xy[valid], to[to_valid]]).T, "o", color=UNMATCHED, ms=2.5, mew=0)
    ax.plot(*np.concatenate([xy[matched], to[match[matched]]]).T, "o", color=POINT, ms=4, mew=0)
    strongest = matched[np.argsort(-points.score.cpu().numpy()[matched], kind="stable")[:lines]]
    ax.add_collection(LineCollection(np.stack([xy[strongest], to[match[strongest]]], 1), colors=PARTNER,
                                     linewidths=0.9, alpha=0.8))
    drawn = f"; lines for the {lines} strongest of them" if len(matched) > lines else ""
    ax.set_xlabel(f"{len(matched)} of {valid.sum()} keypoints matched{drawn}")
    return ax.figure


@styled
def contours_figure(images: Sequence[ArrayLike], truths: Sequence[ArrayLike], predictions: Sequence[ArrayLike],
                    structures: Mapping[int, str], names: Sequence[str], margin: int | None = 8) -> Figure:
    """Slices ``(H, W)`` with true (solid) and predicted (dashed) contours, one colour per structure.

    One panel for each image with its labels ``(H, W)`` and name; for several methods on one slice repeat the
    slice: its panels show the same part of it. Panels are equal squares around what is labelled, ``margin``
    pixels wider; None shows whole slices. Raises ``ValueError`` unless there are equally many of everything.
    """
    counts = [len(part) for part in (images, truths, predictions, names)]
    if len(set(counts)) > 1:
        raise ValueError(f"images, truths, predictions and names must be equally many, got {counts}")
    truths, predictions = ([np.asarray(labels) for labels in part] for part in (truths, predictions))
    figure, axes = panels(len(images), 4 if len(images) > 3 else 3, 1.15, min(8.0, 4.8 + len(images)))
    for ax, image, truth, prediction, name in zip(axes, images, truths, predictions, names, strict=True):
        show_slice(ax, image)
        draw_contours(ax, truth, prediction, structures)
        ax.set_xlabel(name)
    if margin is not None:
        shown = [(truth > 0) | (prediction > 0) for truth, prediction in zip(truths, predictions, strict=True)]
        masks = [np.any([mask for mask, of in zip(shown, images, strict=True) if of is image], 0) for image in images]
        for ax, (left, right, bottom, top) in zip(axes, square(masks, margin), strict=True):
            ax.set(xlim=(left, right), ylim=(bottom, top))
    figure.legend(handles=contour_handles(structures), loc="outside lower center", ncols=5)
    return figure


def draw_contours(ax: Axes, truth: np.ndarray, prediction: np.ndarray, structures: Mapping[int, str]) -> None:
    """Contours of labels ``(H, W)`` on a panel that shows their slice; :func:`contour_handles` explains them."""
    for labels, line, width in ((truth, "solid", 1.0), (prediction, DASHED, 1.7)):
        for label, colour in zip(structures, cycle(ON_BLACK), strict=False):
            if np.any(labels == label):
                ax.contour(labels == label, [0.5], colors=colour, linestyles=[line], linewidths=width)


def contour_handles(structures: Mapping[int, str]) -> list[Line2D]:
    """Entries of the legend of contours."""
    colours = [Line2D([], [], color=c, lw=4, label=name)
               for name, c in zip(structures.values(), cycle(ON_BLACK), strict=False)]
    return [*colours, Line2D([], [], color="black", lw=1, label="truth"),
            Line2D([], [], color="black", lw=1.7, ls=DASHED, label="prediction")]


@styled
def history_figure(history: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """What runs logged against the step, every quantity in its own panel.

    ``history`` is the table of :meth:`kaf.runs.Run.history`, or several by name, one line each. Below the dotted
    line a feature spread counts as collapsed. Raises ``ValueError`` where there is nothing to show.
    """
    runs = dict(history) if isinstance(history, Mapping) else {"": history}
    columns = [c for c in LOGGED if any(c in run and run[c].notna().any() for run in runs.values())]
    if not columns or not all("step" in run for run in runs.values()):
        raise ValueError(f"a history has the column step and some of {', '.join(LOGGED)}")
    marked = {name: {"color": colour, "marker": marker if len(runs) > 1 else "", "ms": 4}
              for name, (colour, marker) in looks(runs).items()}
    figure, axes = panels(len(columns), 3, 0.8)
    for ax, column in zip(axes, columns, strict=True):
        for name, run in runs.items():
            if column in run:
                shown = run[["step", column]].dropna()
                # A marker now and then: one on every step would hide the line.
                ax.plot(shown["step"], shown[column], lw=1.5, label=name, markevery=0.1, **marked[name])
        ax.set(xlabel="step", ylabel=LOGGED[column])
        if column in SHARES:
            ax.set_ylim(0, 1.05)
        if column == "spread":
            ax.axhline(COLLAPSED, color="black", lw=1, ls="dotted")
        if column == "lr":
            ax.ticklabel_format(axis="y", scilimits=(-2, 2))
    if len(runs) > 1:
        handles = [Line2D([], [], label=name, **mark) for name, mark in marked.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@styled
def dice_figure(rows: pd.DataFrame) -> Figure:
    """Dice per structure and method: a point per patient, the mean, and its 95 % bootstrap interval.

    ``rows`` have the columns of :data:`kaf.evaluate.COLUMNS`; every number ``m`` of labelled patients has its
    panel. Frames, draws and seeds of a patient are averaged. Raises ``ValueError`` for missing columns.
    """
    if missing := {"method", "structure", "patient", "dice"} - set(rows):
        raise ValueError(f"rows lack the columns {', '.join(sorted(missing))}")
    groups = list(rows.groupby("m")) if "m" in rows and rows["m"].notna().any() else [(None, rows)]
    methods, structures = list(rows["method"].unique()), list(rows["structure"].unique())
    marked, step = looks(methods), 0.84 / len(methods)
    figure, axes = panels(len(groups), 1, 0.42)
    for ax, (m, group) in zip(axes, groups, strict=True):
        means = per_patient(group, ["method", "structure"], ["dice"])["dice"].dropna()
        patients = np.unique(group["patient"])  # scored or not, so that each has its place beside every mean
        offsets = pd.Series(np.linspace(-0.32, 0.32, len(patients)) * step * (len(patients) > 1), patients)
        for (method, structure), values in means.groupby(level=[0, 1]):
            x = structures.index(structure) + (methods.index(method) - (len(methods) - 1) / 2) * step
            _patients(ax, values.droplevel([0, 1]), x, offsets, step, *marked[method])
        ax.grid(axis="y", lw=0.5, color="0.88")
        ax.set(xticks=range(len(structures)), xticklabels=structures, ylabel="Dice", ylim=(-0.03, 1.03),
               xlabel="structure" if m is None else f"structure; {m:g} labelled patients")
    handles = [Line2D([], [], ls="", color=colour, marker=marker, label=method)
               for method, (colour, marker) in marked.items()]
    handles.append(Line2D([], [], color="black", lw=1.8, label="mean, 95 % interval"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _patients(ax: Axes, dice: pd.Series, x: float, offsets: pd.Series, width: float, colour: str, marker: str) -> None:
    """One method and structure: Dice by patient, beside its mean at ``x`` where ``offsets`` has the patient."""
    ax.plot(x + offsets[dice.index], dice, marker, color=colour, ms=4, alpha=0.6, mew=0)
    mean, (low, high) = dice.mean(), bootstrap_interval(dice)
    ax.plot([x - 0.4 * width, x + 0.4 * width], [mean, mean], color="black", lw=1.8)
    if np.isfinite(low):
        ax.errorbar(x, mean, [[mean - low], [high - mean]], color="black", lw=1.2, capsize=3)


@styled
def growth_figure(rows: pd.DataFrame, along: str) -> Figure:
    """Time and peak memory of a training step, a line for each network, on logarithmic axes.

    ``rows`` are those of a benchmark (:func:`kaf.cost.read_costs`) with the columns ``network``, ``value``, ``unit``
    (s or MiB) and ``along``: ``points`` (keypoints of an image) or ``size`` (its side, pixels).
    Raises ``ValueError`` for another ``along``.
    """
    labels = {"points": "keypoints K", "size": "side of the image (px)"}
    if along not in labels:
        raise ValueError(f"along is points or size, got {along!r}")
    marked = looks(rows["network"].unique())  # alike in both panels
    figure, axes = panels(2, 2, 0.8)
    for ax, (unit, label) in zip(axes, (("s", "training step (s)"), ("MiB", "peak memory (MiB)")), strict=True):
        for name, part in rows[rows["unit"] == unit].groupby("network", sort=False):
            colour, marker = marked[name]
            ax.plot(part[along], part["value"], color=colour, marker=marker, ms=5, label=name)
        ax.set(xscale="log", yscale="log", xlabel=labels[along], ylabel=label)
        ax.set_xticks(values := sorted(rows[along].unique()), [f"{value:g}" for value in values])
        ax.xaxis.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.minorticks_off()
    figure.legend(handles=axes[0].get_lines(), loc="outside lower center", ncols=3)
    return figure
