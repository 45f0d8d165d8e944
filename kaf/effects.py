"""What changes of a method do: a figure of paired comparisons (chapters 7 to 9)."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kaf.canvas import DPI, WIDTH, looks, styled
from kaf.noise import Noise, noise_floor
from kaf.verdicts import Comparison

LOOKS = looks(("better", "worse", "no difference shown"))
LINE, MARGIN = 0.27, 0.75  # inches of a line, and of what each panel has besides


def short(c: Comparison) -> str:
    """The label without the method that it shares with its reference."""
    return c.label.removeprefix(f"{c.reference.split(':')[0]}: ")


@styled
def forest_figure(found: Sequence[Comparison], noise: Mapping[tuple[str, int, str], Noise] | None = None) -> Figure:
    """Differences in Dice with their 95 % intervals: a line for each comparison.

    A panel holds neighbours that share reference, place, patients, number and length of trainings, and says so.
    Hollow markers are differences that are not shown. ``noise`` is that of :func:`kaf.noise.noise_by_place`; where it
    is known, a grey bar behind the line holds 95 % of the differences that luck alone makes of as many trainings; it
    may go on beyond the axis.
    Raises ``ValueError`` without any comparison.
    """
    if not found:
        raise ValueError("there is no comparison to show; are these settings recorded?")
    groups = [(key, list(lines)) for key, lines in groupby(found, key=_alike)]
    heights = [len(lines) * LINE + MARGIN for _, lines in groups]
    figure, axes = plt.subplots(len(groups), 1, figsize=(WIDTH, sum(heights) + 0.3), dpi=DPI, layout="constrained",
                                squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
    plt.close(figure)
    for ax, ((reference, where, patients, runs, _), lines) in zip(axes.flat, groups, strict=True):
        _lines(ax, lines, noise or {})
        ax.set_xlabel(f"difference in Dice from {reference}\n"
                      f"{where}, {patients} patients, {runs} training{'s' * (runs > 1)} each")
        ax.tick_params(labelbottom=True)
    if noise:  # a floor wider than all there is to see must not hide it
        reach = 1.25 * max(abs(end) for c in found for end in (c.low, c.high))
        axes.flat[0].set_xlim(-reach, reach)
    handles = [Line2D([], [], ls="", color=colour, marker=marker, mfc=_filling(name, colour), label=name)
               for name, (colour, marker) in LOOKS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _alike(c: Comparison) -> tuple[str, str, int, int, int]:
    """What the lines of a panel share."""
    return c.reference, c.where, c.patients, c.runs, c.steps


def _lines(ax: Axes, lines: Sequence[Comparison], noise: Mapping[tuple[str, int, str], Noise]) -> None:
    """The comparisons with one reference, first one on top."""
    ax.axvline(0, color="black", lw=1)
    for y, c in enumerate(lines):
        if (floor := noise_floor(c, noise)) == floor:
            ax.barh(y, 2 * floor, 0.9, left=-floor, color="0.9", zorder=0)
        colour, marker = LOOKS[c.verdict]
        ax.errorbar(c.difference, y, xerr=[[c.difference - c.low], [c.high - c.difference]], color=colour,
                    marker=marker, mfc=_filling(c.verdict, colour), ms=7, capsize=3, lw=1.6)
    ax.set(yticks=range(len(lines)), yticklabels=[short(c) for c in lines], ylim=(len(lines) - 0.4, -0.6))
    ax.grid(axis="x", lw=0.5, color="0.88")


def _filling(verdict: str, colour: str) -> str:
    return "white" if verdict == "no difference shown" else colour
