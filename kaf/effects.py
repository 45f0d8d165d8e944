"""What changes of a method do: a figure of paired comparisons (chapters 7 to 9)."""

from collections.abc import Sequence
from itertools import groupby
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kaf.canvas import DPI, WIDTH, looks, styled
from kaf.noise import NoiseByPlace, below_floor, noise_floor
from kaf.verdicts import Comparison

LOOKS = looks(("better", "worse", "no difference shown"))
WRAP = 30  # letters of a label in a line
HALF = {"fillstyle": "left", "markerfacecoloralt": "white"}
LINE, MARGIN = 0.27, 0.75  # inches of a line, and of what each panel has besides
MARGIN_X = 0.12  # on either side of what there is to see, as a part of it


def short(c: Comparison) -> str:
    """The label without the method that it shares with its reference."""
    return c.label.removeprefix(f"{c.reference.split(':')[0]}: ")


@styled
def forest_figure(found: Sequence[Comparison], noise: NoiseByPlace | None = None,
                  versus: bool = False) -> Figure:
    """Differences in Dice with their 95 % intervals: a line for each comparison.

    A panel holds neighbours that share reference, place, patients, number and length of trainings, and says so. With
    ``versus`` it holds all that share data set, scale and protocol, and on its right each line names its reference and
    M, with the numbers of patients and trainings in brackets. Hollow markers are differences that are not shown, half-
    filled ones are shown but below the noise floor; of too few patients to show any there is the interval alone.
    ``noise`` is that of :func:`kaf.noise.noise_by_place`; where it is known, a grey bar behind the line holds 95 % of
    the differences that luck alone makes of as many trainings; it may go on beyond the axis.
    Raises ``ValueError`` without any comparison.
    """
    if not found:
        raise ValueError("there is no comparison to show; are these settings recorded?")
    if versus:
        panels = list(dict.fromkeys(map(_panel, found)))
        found = sorted(found, key=lambda c: panels.index(_panel(c)))
    groups = [(name, list(lines)) for name, lines in groupby(found, key=_panel if versus else _shared)]
    names = [_both_sides(lines) if versus else ([short(c) for c in lines], []) for _, lines in groups]
    heights = [len(lines) * LINE * _depth(left + right) + MARGIN
               for (_, lines), (left, right) in zip(groups, names, strict=True)]
    figure, axes = plt.subplots(len(groups), 1, figsize=(WIDTH, sum(heights) + 0.3), dpi=DPI, layout="constrained",
                                squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
    plt.close(figure)
    for ax, (name, lines), (left, right) in zip(axes.flat, groups, names, strict=True):
        _lines(ax, lines, noise or {})
        ax.set(xlabel=name[0], yticks=range(len(lines)), yticklabels=left)
        ax.tick_params(labelbottom=True)
        if right:
            ax.secondary_yaxis("right").set(yticks=range(len(lines)), yticklabels=right)
    if noise:  # a floor wider than all there is to see must not hide it
        low, high = min(0.0, *(c.low for c in found)), max(0.0, *(c.high for c in found))
        axes.flat[0].set_xlim(low - MARGIN_X * (high - low), high + MARGIN_X * (high - low))
    axes.flat[0].xaxis.set_major_locator(MaxNLocator(6))  # labels of three decimals have no room for more
    handles = [Line2D([], [], ls="", color=colour, marker=marker, mfc=_filling(name, colour), label=name)
               for name, (colour, marker) in LOOKS.items()]
    if any(below_floor(c, noise or {}) for c in found):
        handles.append(Line2D([], [], ls="", color="0.35", marker="o", label="below the noise floor", **HALF))
    if not all(c.testable for c in found):
        handles.append(Line2D([], [], color=LOOKS["no difference shown"][0], lw=1.6, label="too few patients"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _shared(c: Comparison) -> tuple[str, int]:
    """What the lines of a panel share, in words, and their steps, which are not said."""
    return (f"difference in Dice from {c.reference}\n"
            f"{c.place}, {c.patients} patients, {c.runs} training{'s' * (c.runs > 1)} each"), c.steps


def _panel(c: Comparison) -> tuple[str]:
    """What the lines of a panel share whose references differ, in words."""
    return ("difference in Dice from what stands on the right\n" + ", ".join([c.place.setup, *c.place.details]),)


def _both_sides(lines: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    """The names on the left and, with M and the numbers of patients and trainings, those on the right, wrapped."""
    counts = [f"M = {c.place.m} ({c.patients}, {c.runs})".replace(" ", "\N{NO-BREAK SPACE}") for c in lines]
    return ([fill(c.label, WRAP) for c in lines],
            [fill(f"{c.reference}, {count}", WRAP) for c, count in zip(lines, counts, strict=True)])


def _depth(names: Sequence[str]) -> float:
    """How much room a line needs beside such names, 1 being that of a name that is not wrapped."""
    return max(1.0, 0.65 * max(name.count("\n") + 1 for name in names))


def _lines(ax: Axes, lines: Sequence[Comparison], noise: NoiseByPlace) -> None:
    """The comparisons with one reference, first one on top."""
    ax.axvline(0, color="black", lw=1)
    for y, c in enumerate(lines):
        if (floor := noise_floor(c, noise)) == floor:
            ax.barh(y, 2 * floor, 0.9, left=-floor, color="0.9", zorder=0)
        colour, marker = LOOKS[c.verdict]
        look = HALF if below_floor(c, noise) else {}
        ax.errorbar(c.difference, y, xerr=[[c.difference - c.low], [c.high - c.difference]], color=colour,
                    marker=marker if c.testable else "", mfc=_filling(c.verdict, colour), ms=7, capsize=3, lw=1.6,
                    **look)
    ax.set(ylim=(len(lines) - 0.4, -0.6))
    ax.grid(axis="x", lw=0.5, color="0.88")


def _filling(verdict: str, colour: str) -> str:
    return "white" if verdict == "no difference shown" else colour
