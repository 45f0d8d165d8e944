"""What figures show, read back from their artists: numbers, places, colours, labels."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import EllipseCollection, LineCollection, PathCollection
from matplotlib.colors import to_hex

from kaf import figures
from kaf.canvas import ON_BLACK, ON_WHITE
from kaf.keypoints import from_arrays, pad

SIDE = 48
STRUCTURES = {1: "RV", 2: "MYO", 3: "LV"}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


@pytest.fixture
def points():
    """Five keypoints, strongest first, padded to eight."""
    xy = np.array([[10, 12], [30, 14], [24, 40], [5, 5], [44, 20]])
    return pad(from_arrays(xy, scale=np.arange(2, 7), score=np.arange(5, 0, -1)), 8)


@pytest.fixture
def rows():
    """Two methods, three structures, four patients, two frames; the second method is better by .1."""
    return pd.DataFrame([
        {"method": method, "m": m, "patient": f"patient{p:03d}", "frame": frame, "structure": structure,
         "dice": 0.5 + 0.1 * i + 0.02 * p + (0.01 if frame == "ES" else -0.01)}
        for i, method in enumerate(("UNet", "KAF")) for m in (2, 8) for p in range(4)
        for frame in ("ED", "ES") for structure in ("RV", "MYO", "LV")])


def artists(figure, kind, panel=0):
    return [a for a in figure.axes[panel].collections if type(a) is kind]


def labels(legend):
    return [text.get_text() for text in legend.get_texts()]


def disc(x, y, radius, label):
    columns, lines = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    return (label * ((columns - x) ** 2 + (lines - y) ** 2 <= radius**2)).astype(np.uint8)


def history(steps=5):
    step = np.arange(steps) * 10
    return pd.DataFrame({"step": step, "lr": 1e-3 / (step + 1), "loss": 3.0 - step / 50, "pcl": 1.0 + step,
                         "spread": [0.5] * (steps - 1) + [np.nan], "entropy": np.nan})


def test_keypoints_are_circles_of_their_scale_without_padding(image, points):
    figure = figures.keypoints_figure(image, points)
    (circles,) = artists(figure, EllipseCollection)
    np.testing.assert_allclose(circles.get_offsets(), points.xy[:5])
    np.testing.assert_allclose(circles.get_widths(), points.scale[:5])  # diameters
    assert figure.axes[0].get_xlabel() == "5 keypoints"


def test_a_slice_without_keypoints(image):
    figure = figures.keypoints_figure(image, pad(from_arrays(np.zeros((0, 2))), 4))
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_xlabel() == "0 keypoints"


def test_attention_leads_from_the_query_to_every_keypoint(image, points):
    weights = np.array([0.1, 0.4, 0.2, 0.25, 0.05, 0, 0, 0])
    figure = figures.attention_figure(image, points, torch.from_numpy(weights), 2)
    (dots,) = artists(figure, PathCollection)
    (lines,) = artists(figure, LineCollection)
    order = np.argsort(weights[:5])
    np.testing.assert_allclose(dots.get_offsets(), points.xy[:5][order])
    np.testing.assert_allclose(dots.get_array(), 100 * weights[:5][order])
    np.testing.assert_allclose([s[0] for s in lines.get_segments()], np.tile(points.xy[2], (5, 1)))
    np.testing.assert_allclose([s[1] for s in lines.get_segments()], points.xy[:5][order])
    assert np.all(np.diff(dots.get_sizes()) > 0) and np.all(np.diff(lines.get_linewidths()) > 0)
    (star,) = figure.axes[0].lines
    np.testing.assert_allclose(star.get_xydata(), points.xy[2:3])
    assert labels(figure.axes[0].get_legend()) == ["query keypoint"]
    assert figure.axes[1].get_ylabel() == "attention weight (%)\nuniform: 20 %"
    assert dots.get_clim() == pytest.approx((0, 40))


@pytest.mark.parametrize(("weights", "query", "message"), [
    (np.full(7, 0.1), 0, "8 shares"), (np.full(8, -0.1), 0, "8 shares"), (np.full(8, 12.0), 0, "8 shares"),
    (np.full(8, 0.1), 5, "5 of 8 are valid"), (np.full(8, 0.1), -1, "no valid query"),
])
def test_attention_refuses_what_it_cannot_mean(image, points, weights, query, message):
    with pytest.raises(ValueError, match=message):
        figures.attention_figure(image, points, weights, query)


def test_lines_join_matched_keypoints(image, points):
    match = np.array([3, -1, 0, 4, -1, -2, -2, -2])
    figure = figures.pair_figure((image, points), (image, points), match)
    (lines,) = artists(figure, LineCollection)
    to = points.xy.numpy() + np.array([SIDE + 2, 0])  # the gap between the slices is two pixels
    np.testing.assert_allclose(lines.get_segments(), np.stack([points.xy[[0, 2, 3]], to[[3, 0, 4]]], 1))
    assert figure.axes[0].get_xlabel() == "3 of 5 keypoints matched"
    assert figure.axes[0].images[0].get_array().shape == (SIDE, 2 * SIDE + 2)


def test_only_the_strongest_matches_get_lines(image, points):
    figure = figures.pair_figure((image, points), (image, points), np.array([3, -1, 0, 4, -1, -2, -2, -2]), lines=2)
    (lines,) = artists(figure, LineCollection)
    np.testing.assert_allclose([s[0] for s in lines.get_segments()], points.xy[[0, 2]])
    assert figure.axes[0].get_xlabel() == "3 of 5 keypoints matched; lines for the 2 strongest of them"


def test_pairs_may_be_samples_of_a_store(store):
    first, second = store.sample(0, 0, 48, 16), store.sample(0, 1, 48, 16)
    figure = figures.pair_figure(first, second, np.where(first.keypoints.valid, -1, -2))
    assert figure.axes[0].get_xlabel() == f"0 of {int(first.keypoints.valid.sum())} keypoints matched"


@pytest.mark.parametrize("match", [np.array([0, 1]), np.array([5, -1, -1, -1, -1, -2, -2, -2])])
def test_a_match_with_padding_or_of_another_length_is_refused(image, points, match):
    with pytest.raises(ValueError, match="indices of valid keypoints"):
        figures.pair_figure((image, points), (image, points), match)


def test_contours_truth_solid_prediction_dashed(image):
    truths = [disc(20, 20, 9, 1), disc(26, 30, 6, 3)]
    predictions = [disc(22, 20, 9, 1), np.zeros((SIDE, SIDE), np.uint8)]
    figure = figures.contours_figure([image, image], truths, predictions, STRUCTURES, ["UNet", "KAF"])
    first, second = ([c for c in ax.collections if c.get_paths()] for ax in figure.axes)
    solid, dashed = first
    assert solid.get_linestyle()[0][1] is None and dashed.get_linestyle()[0][1] is not None
    outline = dashed.get_paths()[0].vertices
    np.testing.assert_allclose(np.hypot(*(outline - [22, 20]).T), 9, atol=0.8)
    assert [to_hex(c.get_edgecolor()).upper() for c in first] == [ON_BLACK[0]] * 2
    assert [to_hex(c.get_edgecolor()).upper() for c in second] == [ON_BLACK[2]]  # nothing predicted
    assert labels(figure.legends[0]) == ["RV", "MYO", "LV", "truth", "prediction"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["UNet", "KAF"]


def test_contour_panels_are_equal_squares_around_what_is_labelled(image):
    empty = np.zeros((SIDE, SIDE), np.uint8)
    figure = figures.contours_figure([image, image.copy()], [disc(20, 30, 9, 1), empty], [disc(22, 30, 9, 1), empty],
                                     STRUCTURES, "ab", margin=4)
    first, second = figure.axes
    half = (31 - 11) / 2 + 4
    assert first.get_xlim() == (21 - half, 21 + half) and first.get_ylim() == (30 + half, 30 - half)
    assert second.get_xlim() == (SIDE / 2 - half, SIDE / 2 + half)
    whole = figures.contours_figure([image], [empty], [empty], STRUCTURES, "a", margin=None)
    assert whole.axes[0].get_xlim() == (-0.5, SIDE - 0.5)


def test_contour_panels_of_one_slice_show_the_same_part_of_it(image):
    truth = disc(20, 30, 9, 1)
    figure = figures.contours_figure([image] * 2, [truth] * 2, [truth, disc(40, 30, 5, 1)], STRUCTURES, "ab")
    first, second = ((ax.get_xlim(), ax.get_ylim()) for ax in figure.axes)
    assert first == second and first[0][1] >= 45 and first[0][0] <= 11


def test_contours_need_equally_many_of_everything(image):
    with pytest.raises(ValueError, match=r"\[2, 1, 1, 1\]"):
        figures.contours_figure([image, image], [disc(9, 9, 5, 1)], [disc(9, 9, 5, 1)], STRUCTURES, ["a"])
    with pytest.raises(ValueError, match="nothing to show"):
        figures.contours_figure([], [], [], STRUCTURES, [])


def test_history_has_a_panel_for_everything_that_was_logged():
    table = history()
    figure = figures.history_figure(table)
    names = [ax.get_ylabel().split("\n")[0] for ax in figure.axes]  # without entropy, which was never a number
    assert names == ["loss", r"loss $\mathcal{L}_\mathrm{pcl}$", "feature spread", "learning rate"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"step"}
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), table[["step", "pcl"]])
    spread, threshold = figure.axes[2].lines
    assert len(spread.get_xdata()) == 4 and set(threshold.get_ydata()) == {0.1}
    assert not figure.legends


def test_histories_by_name_share_their_panels():
    short = history(3)[["step", "loss"]]
    figure = figures.history_figure({"KAF": history(), "UNet": short})
    assert [len(ax.lines) for ax in figure.axes] == [2, 1, 2, 1]
    assert [line.get_color() for line in figure.axes[0].lines] == list(ON_WHITE[:2])
    assert labels(figure.legends[0]) == ["KAF", "UNet"]


def test_every_quantity_of_a_log_has_a_panel():
    logged = ["rotation", "right", "restoration", "supervised", "teacher", "sure"]
    figure = figures.history_figure(pd.DataFrame({"step": [0, 10], **dict.fromkeys(logged, 0.5)}))
    named = [ax.get_ylabel() for ax in figure.axes]
    assert len(set(named)) == 6 and not set(named) & set(logged)
    assert [label for label, ax in zip(named, figure.axes, strict=True) if ax.get_ylim() == (0, 1.05)] == [
        "rotations told right\n(share)", "pixels with a sure\nteacher (share)"]


@pytest.mark.parametrize("table", [pd.DataFrame({"step": [0], "loss": [np.nan]}), pd.DataFrame({"loss": [1.0]})])
def test_a_history_without_content_is_refused(table):
    with pytest.raises(ValueError, match="column step"):
        figures.history_figure(table)


def test_dice_shows_every_patient_their_mean_and_its_interval(rows):
    figure = figures.dice_figure(rows)
    assert [ax.get_xlabel() for ax in figure.axes] == ["structure; 2 labelled patients",
                                                       "structure; 8 labelled patients"]
    assert labels(figure.legends[0]) == ["UNet", "KAF", "mean, 95 % interval"]
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["RV", "MYO", "LV"]
    clouds = [line for line in ax.lines if line.get_marker() in "os"]
    assert len(clouds) == 6  # two methods, three structures
    kaf = [line for line in clouds if line.get_color() == ON_WHITE[1]]
    for j, cloud in enumerate(sorted(kaf, key=lambda line: line.get_xdata().mean())):
        np.testing.assert_allclose(cloud.get_ydata(), 0.6 + 0.02 * np.arange(4))  # frames are averaged
        assert j < cloud.get_xdata().min() < cloud.get_xdata().max() < j + 0.42
    bars = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert sorted(bar.get_ydata()[0] for bar in bars) == pytest.approx([0.53] * 3 + [0.63] * 3)
    intervals = [c.get_segments()[0][:, 1] for c in ax.collections if type(c) is LineCollection]
    assert len(intervals) == 6
    for low, high in intervals:
        assert 0.5 <= low < 0.53 < high or 0.6 <= low < 0.63 < high <= 0.66


def test_dice_of_one_patient_has_no_interval(rows):
    figure = figures.dice_figure(rows[rows["patient"] == "patient001"].drop(columns="m"))
    assert len(figure.axes) == 1 and figure.axes[0].get_xlabel() == "structure"
    assert not [c for c in figure.axes[0].collections if type(c) is LineCollection]


def test_dice_leaves_out_what_cannot_be_scored(rows):
    rows.loc[rows["structure"] == "RV", "dice"] = np.nan
    clouds = [line for line in figures.dice_figure(rows).axes[0].lines if line.get_marker() in "os"]
    assert len(clouds) == 4


def test_a_patient_has_one_place_in_all_groups(rows):
    rows.loc[(rows["structure"] == "RV") & (rows["patient"] == "patient001"), "dice"] = np.nan
    clouds = {round(line.get_xdata().mean()): line for line in figures.dice_figure(rows).axes[0].lines
              if line.get_marker() == "o"}
    rv, myo = (clouds[j].get_xdata() - j for j in (0, 1))
    np.testing.assert_allclose(rv, np.delete(myo, 1))
    assert myo[1] - myo[0] > 0.05


def test_dice_names_missing_columns(rows):
    with pytest.raises(ValueError, match="lack the columns patient"):
        figures.dice_figure(rows.drop(columns="patient"))


def test_growth_has_a_line_for_each_network_and_unit():
    rows = pd.DataFrame([{"network": name, "unit": unit, "value": value * size, "size": size}
                         for name in ("UNet", "KAF") for unit, value in (("s", 1), ("MiB", 5)) for size in (64, 128)])
    figure = figures.growth_figure(rows, "size")
    for ax, value in zip(figure.axes, (1, 5), strict=True):
        assert [line.get_label() for line in ax.get_lines()] == ["UNet", "KAF"]
        assert ax.get_lines()[0].get_ydata().tolist() == [64 * value, 128 * value]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["64", "128"]
    with pytest.raises(ValueError, match="points or size"):
        figures.growth_figure(rows, "width")
