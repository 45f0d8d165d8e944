"""What all figures have in common: closed, white, readable, the same every time, slices never inverted."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from kaf import figures
from kaf.canvas import MARKERS, ON_WHITE, looks
from kaf.keypoints import collate, from_arrays, pad

SIDE = 48


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


@pytest.fixture
def points():
    """Three keypoints padded to four."""
    return pad(from_arrays(np.array([[10, 12], [30, 14], [24, 40]])), 4)


def test_every_figure_is_closed_white_and_readable(image, points):
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[10:20, 12:30] = 1
    log = pd.DataFrame({"step": [0, 10], "loss": [2.0, 1.0], "spread": [0.5, 0.6], "lr": [1e-3, 1e-4]})
    rows = pd.DataFrame({"method": "UNet", "structure": "RV", "patient": ["a", "b"], "dice": [0.5, 0.6]})
    made = [figures.keypoints_figure(image, points), figures.history_figure(log), figures.dice_figure(rows),
            figures.attention_figure(image, points, points.valid / 3, 0),
            figures.pair_figure((image, points), (image, points), np.full(4, -1)),
            figures.contours_figure([image], [label], [label], {1: "RV"}, ["a"])]
    assert plt.get_fignums() == []
    for figure in made:
        figure.savefig(io.BytesIO())  # a closed figure can still be drawn
        assert to_hex(figure.get_facecolor()) == "#ffffff" and figure.get_figwidth() <= 8
        texts = [t for t in figure.findobj(plt.Text) if t.get_text().strip()]
        assert texts and min(t.get_fontsize() for t in texts) >= 9
        assert not any(ax.get_title() for ax in figure.axes)


def test_the_style_of_the_caller_is_left_alone(image, points):
    before = dict(plt.rcParams)
    figures.keypoints_figure(image, points)
    assert dict(plt.rcParams) == before


def test_the_same_input_gives_the_same_picture(image, points):
    def drawn():
        out = io.BytesIO()
        figures.attention_figure(image, points, points.valid / 3, 0).savefig(out)
        return out.getvalue()

    assert drawn() == drawn()


def test_slices_are_black_where_they_are_dark(image, points):
    ax = figures.keypoints_figure(image, points).axes[0]
    shown = ax.images[0]
    assert shown.to_rgba(np.float32(image.min()))[:3] == (0, 0, 0)
    assert shown.to_rgba(np.float32(image.max()))[:3] == (1, 1, 1)
    assert ax.get_ylim() == (SIDE - 0.5, -0.5) and len(ax.get_xticks()) == 0


def test_figures_can_be_panels_of_another(image, points):
    figure, axes = plt.subplots(1, 2)
    assert figures.keypoints_figure(image, points, axes[0]) is figure
    assert figures.attention_figure(image, points, points.valid / 3, 1, axes[1]) is figure
    assert plt.get_fignums() == [figure.number]  # the caller's to close
    plt.close(figure)


def test_wrong_shapes_are_named(image, points):
    with pytest.raises(ValueError, match=r"\(1, 48, 48\)"):
        figures.keypoints_figure(image[None], points)
    with pytest.raises(ValueError, match=r"got \(1, 4\); select one"):
        figures.keypoints_figure(image, collate([points]))


def test_49_names_have_49_looks_and_the_first_ones_differ_in_colour_and_marker():
    found = list(looks(map(str, range(49))).values())
    assert len(set(found)) == 49 and found[:7] == list(zip(ON_WHITE, MARKERS, strict=True))
    for n in range(0, 49, 7):
        assert all(len(set(part)) == 7 for part in zip(*found[n : n + 7], strict=True))


def look(line):
    return to_hex(line.get_color()), line.get_marker()


def shown(axes_or_legend):
    """The looks of what is named in a panel or a legend."""
    return {line.get_label(): look(line) for line in axes_or_legend.get_lines() if line.get_marker() != "None"}


NAMES = [f"name {n}" for n in range(13)]
LOOKS = {name: (colour.lower(), marker) for name, (colour, marker) in looks(NAMES).items()}


def test_many_histories_are_told_apart_in_panels_and_legend():
    log = pd.DataFrame({"step": [0, 10], "loss": [2.0, 1.0]})
    figure = figures.history_figure(dict.fromkeys(NAMES, log))
    figure.savefig(io.BytesIO())
    assert shown(figure.axes[0]) == shown(figure.legends[0]) == LOOKS
    assert not figures.history_figure(log).axes[0].lines[0].get_marker()  # nothing to tell it from


def test_many_methods_are_told_apart_in_panels_and_legend():
    rows = pd.DataFrame([{"method": name, "structure": "RV", "patient": patient, "dice": 0.5}
                         for name in NAMES for patient in "abcd"])
    figure = figures.dice_figure(rows)
    assert shown(figure.legends[0]) == LOOKS
    clouds = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert [look(line) for line in sorted(clouds, key=lambda line: line.get_xdata()[0])] == [*LOOKS.values()]


def test_growth_draws_every_network_and_alike_in_both_panels():
    rows = pd.DataFrame([{"network": name, "unit": unit, "value": 1.0, "size": size} for unit in ("s", "MiB")
                         for name in NAMES[unit == "MiB" :] for size in (64, 128)])
    time, memory = map(shown, figures.growth_figure(rows, "size").axes)
    assert time == LOOKS and memory == {name: time[name] for name in NAMES[1:]}
