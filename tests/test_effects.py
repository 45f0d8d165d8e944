"""What the figure of comparisons says, read back."""

from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from kaf.effects import LOOKS, forest_figure, short
from kaf.noise import Noise, noise_floor
from kaf.verdicts import Comparison, Place

BETTER = Comparison("KAF: level 1", "KAF", Place("acdc", "smoke", 6), 16, 1, 0.02, 0.01, 0.04, 0.0004)
NOTHING = replace(BETTER, label="KAF: level 2", difference=-0.01, low=-0.03, high=0.02, p=0.5)
OTHER = replace(NOTHING, reference="UNet")


def lines_of(ax):
    return [container.lines[0] for container in ax.containers if isinstance(container, ErrorbarContainer)]


def test_a_label_keeps_its_method_beside_another_one():
    assert short(BETTER) == "level 1" and short(OTHER) == "KAF: level 2"
    assert short(replace(BETTER, reference="KAF: level 3")) == "level 1"


def test_each_reference_has_its_panel_and_each_comparison_its_line():
    figure = forest_figure([BETTER, NOTHING, OTHER])
    assert [ax.get_xlabel().split("\n")[0] for ax in figure.axes] == [
        f"difference in Dice from {reference}" for reference in ("KAF", "UNet")]
    assert [[label.get_text() for label in ax.get_yticklabels()] for ax in figure.axes] == [
        ["level 1", "level 2"], ["KAF: level 2"]]
    first, second = lines_of(figure.axes[0])
    assert (first.get_xdata()[0], first.get_ydata()[0]) == (0.02, 0) and second.get_ydata()[0] == 1
    ends = figure.axes[0].containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.01, 0.04])


def test_comparisons_over_other_patients_or_trainings_have_a_panel_of_their_own():
    figure = forest_figure([BETTER, replace(NOTHING, patients=80, runs=5), replace(NOTHING, runs=2)])
    assert [ax.get_xlabel().split(", ", 3)[-1] for ax in figure.axes] == [
        "16 patients, 1 training each", "80 patients, 5 trainings each", "16 patients, 2 trainings each"]


def test_lines_with_references_of_their_own_name_them_on_the_right():
    few = replace(OTHER, place=Place("acdc", "smoke", 2), patients=80, runs=5)
    inner = replace(BETTER, place=Place("acdc", "smoke", 6, "inner"))
    figure = forest_figure([BETTER, few, inner], versus=True)
    panels = [ax for ax in figure.axes if ax.get_xlabel()]
    assert [ax.get_xlabel().split("\n")[1] for ax in panels] == ["acdc, scale smoke",
                                                                 "acdc, scale smoke, protocol: inner"]
    assert [[label.get_text() for label in ax.get_yticklabels()] for ax in panels] == [
        ["KAF: level 1", "KAF: level 2"], ["KAF: level 1"]]
    right = [[" ".join(label.get_text().split()) for label in ax.child_axes[0].get_yticklabels()] for ax in panels]
    assert right == [["KAF, M = 6 (16, 1)", "UNet, M = 2 (80, 5)"], ["KAF, M = 6 (16, 1)"]]


def test_names_that_are_wrapped_do_not_meet():
    long = replace(BETTER, label="KAF from scratch: a change with a name of three lines beside its short one, and more")
    figure = forest_figure([long] * 4, versus=True)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 4 and all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    right = forest_figure([replace(BETTER, reference=long.label)] * 4, versus=True)
    assert right.get_size_inches()[1] >= figure.get_size_inches()[1] > 3


def test_only_what_is_shown_is_filled():
    first, second = lines_of(forest_figure([BETTER, NOTHING]).axes[0])
    assert to_hex(first.get_markerfacecolor()) == to_hex(LOOKS["better"][0])
    assert second.get_markerfacecolor() == "white"


def test_what_is_shown_but_may_be_luck_is_half_filled():
    line = replace(BETTER, steps=400)
    for spread, style in ((1.0, "left"), (1e-6, "full")):
        figure = forest_figure([line], {(BETTER.place, 400, "KAF"): Noise(spread, 3)})
        assert lines_of(figure.axes[0])[0].get_fillstyle() == style
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("below the noise floor" in words) == (style == "left")


def test_the_bar_is_what_luck_makes_of_as_many_runs():
    assert not forest_figure([BETTER]).axes[0].patches
    noise = {(BETTER.place, 400, "KAF"): Noise(0.0001, 3)}
    assert not forest_figure([BETTER], noise).axes[0].patches  # how long it was trained is not known
    lines = [replace(c, steps=400) for c in (BETTER, NOTHING)]
    single, five = forest_figure([*lines, replace(lines[0], runs=5)], noise).axes
    floor = noise_floor(lines[0], noise)
    assert [(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.45)) for bar in single.patches] == [
        (pytest.approx(-floor), pytest.approx(2 * floor), y) for y in (0, 1)]
    assert five.patches[0].get_width() == pytest.approx(2 * floor / 5**0.5)
    low, high = min(c.low for c in lines), max(c.high for c in lines)
    left, right = five.get_xlim()
    assert left < low < 0 < high < right < 1.2 * (high - low)
    wide = forest_figure(lines, {(BETTER.place, 400, "KAF"): Noise(1.0, 3)}).axes[0]
    assert wide.get_xlim() == (left, right) and wide.patches[0].get_width() > 1  # it goes on beyond the axis


def test_the_axis_reaches_to_what_there_is_and_to_zero():
    line = replace(BETTER, steps=400)
    left, right = forest_figure([line], {(BETTER.place, 400, "KAF"): Noise(1.0, 3)}).axes[0].get_xlim()
    assert -0.2 * line.high < left < 0 and line.high < right < 1.2 * line.high


def test_nothing_to_show_is_told():
    with pytest.raises(ValueError, match="are these settings recorded"):
        forest_figure([])


def test_of_too_few_patients_there_is_the_interval_alone():
    few = replace(NOTHING, patients=4)
    figure = forest_figure([BETTER, few])
    assert [line.get_marker() for ax in figure.axes for line in lines_of(ax)] == [LOOKS["better"][1], ""]
    assert "too few patients" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "too few" not in str([text.get_text() for text in forest_figure([BETTER]).legends[0].get_texts()])
