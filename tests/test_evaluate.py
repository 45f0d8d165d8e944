"""Scores against shapes whose distances are known, and statistics against hand-computed examples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from kaf.evaluate import (
    COLUMNS,
    METRICS,
    bootstrap_interval,
    compare,
    holm,
    pareto_front,
    per_patient,
    pooled_dice,
    score_volume,
    summarise,
)

SHAPE = (10, 40, 50)


def cube(z, y, x, size=8, depth=4, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[z : z + depth, y : y + size, x : x + size] = 1
    return mask


def ball(radius_mm, spacing, shape=(21, 61, 61)):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    squared = sum(((i - (n - 1) / 2) * s) ** 2 for i, n, s in zip(axes, shape, spacing, strict=True))
    return (squared <= radius_mm**2).astype(np.uint8)


def score(prediction, truth, spacing=(1, 1, 1)):
    return score_volume(prediction, truth, spacing, {1: "LV"}).iloc[0]


def brute_force(prediction, truth, spacing):
    """HD95 and ASSD from all pairs of surface voxels."""
    surfaces = [np.argwhere(m & ~binary_erosion(m)) * spacing for m in (prediction > 0, truth > 0)]
    distances = cdist(*surfaces)
    there, back = distances.min(1), distances.min(0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


# ---- scores


def test_equal_masks_are_perfect():
    row = score(cube(2, 5, 5), cube(2, 5, 5))
    assert row.dice == 1 and row.hd95_mm == 0 and row.assd_mm == 0 and not row.missed and not row.absent
    assert row.overlap_voxels == row.predicted_voxels == row.true_voxels == 256


@pytest.mark.parametrize(("shift", "spacing", "hd95"), [
    ((0, 0, 5), (10, 1.5, 1.25), 5 * 1.25),
    ((0, 5, 0), (10, 1.5, 1.25), 5 * 1.5),
])  # fmt: skip
def test_shifted_cubes(shift, spacing, hd95):
    row = score(cube(2, 5 + shift[1], 5 + shift[2]), cube(2, 5, 5), spacing)
    assert row.hd95_mm == pytest.approx(hd95)  # the far face lies a whole shift away
    assert row.dice == pytest.approx(3 / 8)  # 3 of 8 columns overlap


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1), (10, 1.5, 1.25)])
def test_single_voxels_are_as_far_apart_as_their_centres(spacing):
    a, b = np.zeros((2, *SHAPE), np.uint8)
    a[2, 3, 4] = b[4, 13, 24] = 1
    row, expected = score(a, b, spacing), np.linalg.norm(np.multiply((2, 10, 20), spacing))
    assert row.hd95_mm == pytest.approx(expected) and row.assd_mm == pytest.approx(expected)


def test_concentric_balls_are_apart_by_the_difference_of_their_radii():
    spacing = (1.0, 0.5, 0.5)
    row = score(ball(8, spacing), ball(5, spacing), spacing)
    assert row.assd_mm == pytest.approx(3, abs=0.25) and row.hd95_mm == pytest.approx(3, abs=0.7)
    assert row.dice == pytest.approx(2 * 5**3 / (5**3 + 8**3), abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_all_pairs_of_surface_voxels(seed):
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.8, 10, 3)
    a, b = (cube(*rng.integers(0, (6, 30, 40)), size=rng.integers(3, 10)) for _ in range(2))
    a[0, 0, 0] = 1  # touches the border of the volume and stretches the box
    row = score(a, b, spacing)
    assert (row.hd95_mm, row.assd_mm) == pytest.approx(brute_force(a, b, spacing), rel=1e-5)
    swapped = score(b, a, spacing)
    assert (row.hd95_mm, row.assd_mm) == pytest.approx((swapped.hd95_mm, swapped.assd_mm))


@pytest.mark.parametrize("swap", [False, True])
def test_missed_structure_costs_the_diagonal(swap):
    masks = [cube(2, 5, 5), np.zeros(SHAPE, np.uint8)]
    row = score(*masks[:: -1 if swap else 1], spacing=(10, 1.5, 1.25))
    diagonal = np.sqrt(100**2 + 60**2 + 62.5**2)
    assert row.missed and not row.absent and row.dice == 0
    assert row.hd95_mm == pytest.approx(diagonal) and row.assd_mm == pytest.approx(diagonal)


def test_absent_structure_has_no_value():
    row = score(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8))
    assert row.absent and not row.missed and row[list(METRICS)].isna().all()


def test_structures_are_scored_on_their_own():
    truth = cube(2, 5, 5) + 2 * cube(2, 20, 20)
    prediction = np.where(truth == 2, truth, 0)
    table = score_volume(prediction, truth, (1, 1, 1), {1: "RV", 2: "LV", 3: "LA"})
    assert table.structure.tolist() == ["RV", "LV", "LA"]
    assert table.missed.tolist() == [True, False, False] and table.absent.tolist() == [False, False, True]
    assert set(table) <= set(COLUMNS)


def test_wrong_volumes_are_refused():
    with pytest.raises(ValueError, match="S, H, W"):
        score(cube(2, 5, 5), cube(2, 5, 5)[:5])
    for spacing in ((1, 1), (1, 0, 1), (1, np.nan, 1)):
        with pytest.raises(ValueError, match="spacing_mm"):
            score(cube(2, 5, 5), cube(2, 5, 5), spacing)


# ---- aggregation


def results(patients=12, seed=0, effect=0.05):
    """Two methods on the same patients, frames and structures; KAF is better by ``effect``."""
    rng, rows = np.random.default_rng(seed), []
    for p in range(patients):
        for frame in ("ED", "ES"):
            for structure in ("RV", "LV"):
                base = rng.uniform(0.6, 0.9)
                for method, gain in (("UNet", 0.0), ("KAF", effect + rng.normal(0, 0.01))):
                    rows.append({"method": method, "patient": f"patient{p:03d}", "frame": frame,
                                 "structure": structure, "dice": base + gain, "hd95_mm": 10 - 10 * gain,
                                 "assd_mm": 1.0, "missed": False, "absent": False})  # fmt: skip
    return pd.DataFrame(rows)


def test_pooled_dice_weighs_voxels_not_patients():
    rows = pd.DataFrame({"structure": ["LV", "LV", "RV"], "overlap_voxels": [90, 0, 0],
                         "predicted_voxels": [100, 0, 0], "true_voxels": [100, 10, 0]})  # fmt: skip
    pooled = pooled_dice(rows)
    assert pooled["LV"] == pytest.approx(180 / 210) and np.isnan(pooled["RV"])


def test_every_patient_counts_once():
    rows = pd.DataFrame({"method": "KAF", "patient": ["a", "a", "a", "b"], "dice": [1.0, 1.0, np.nan, 0.5],
                         "hd95_mm": 1.0, "assd_mm": 1.0, "missed": [False, False, False, True],
                         "absent": [False, False, True, False]})  # fmt: skip
    row = summarise(rows).iloc[0]
    assert row.patients == 2 and row.dice == 0.75 and row.missed == 1 and row.absent == 1
    assert row.dice_low == 0.5 and row.dice_high == 1.0


def test_summary_ignores_the_order_of_the_rows_and_follows_its_seed():
    rows = results()
    pd.testing.assert_frame_equal(summarise(rows), summarise(rows.sample(frac=1, random_state=0)))
    assert summarise(rows, seed=1).dice_low[0] != summarise(rows, seed=2).dice_low[0]
    assert summarise(rows, by=["method", "structure"]).shape[0] == 4


def test_bootstrap_interval_agrees_with_theory_and_scipy():
    values = np.random.default_rng(0).normal(10, 2, 200)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    oracle = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, random_state=1)
    assert (low, high) == pytest.approx(tuple(oracle.confidence_interval), abs=0.03)
    assert np.isnan(bootstrap_interval(values[:1])).all()


# ---- comparison


def test_holm_by_hand():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 = .04 .06 .06 .04, made monotone .04 .06 .06 .06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([0.2]) == pytest.approx([0.2])


def test_comparison_is_paired_over_patients():
    rows = results()
    row = compare(rows, ["KAF"], "UNet").iloc[0]
    values = per_patient(rows, ["method"])["dice"].unstack("method")
    assert row.patients == 12
    assert row.p_t == pytest.approx(stats.ttest_rel(values["KAF"], values["UNet"]).pvalue)
    assert row.p_wilcoxon == pytest.approx(2 / 2**12)  # all twelve differences have one sign
    assert row.low < row.difference < row.high and row.difference == pytest.approx(0.05, abs=0.01)


def test_correction_counts_the_methods():
    rows = pd.concat([results(), results(effect=0.004).query("method == 'KAF'").assign(method="other")])
    table = compare(rows, ["KAF", "other", "UNet"], "UNet", metric="hd95_mm").set_index("method")
    assert list(table.index) == ["KAF", "other"] and table.difference["KAF"] < 0
    assert table.p_t_holm["KAF"] == pytest.approx(2 * table.p_t["KAF"])
    assert table.p_t_holm["other"] == pytest.approx(table.p_t["other"])


def test_identical_results_differ_by_nothing():
    rows = results().query("method == 'KAF'")
    row = compare(pd.concat([rows, rows.assign(method="copy")]), ["copy"], "KAF").iloc[0]
    assert row.difference == 0 and row.p_wilcoxon == 1 and row.p_t == 1


def one_structure(**dice):
    """Rows of one structure, a value of Dice a patient for each method; NaN where nothing is, and nothing was drawn."""
    return pd.DataFrame([{"method": name, "patient": f"p{n}", "frame": "ED", "structure": "LV", "dice": value,
                          "missed": False, "absent": bool(np.isnan(value))}
                         for name, values in dice.items() for n, value in enumerate(values)])


def test_what_is_drawn_where_nothing_is_counts_against_who_drew_it():
    rows = one_structure(UNet=[0.8] * 5 + [np.nan] * 3, KAF=[0.85] * 5 + [0.0] * 3)
    row = compare(rows, ["KAF"], "UNet").iloc[0]
    assert row.patients == 8 and row.difference == pytest.approx((5 * 0.05 - 3) / 8)


def test_where_both_rightly_draw_nothing_there_is_nothing_to_compare():
    rows = one_structure(UNet=[0.8, 0.7, 0.6, np.nan], KAF=[0.85, 0.8, 0.7, np.nan])
    assert compare(rows, ["KAF"], "UNet").iloc[0].patients == 3


def test_a_third_method_changes_no_comparison():
    rows = one_structure(UNet=[0.8, 0.7, 0.6, 0.5], KAF=[0.9, 0.8, 0.65, 0.55], PCL=[0.5, np.nan, np.nan, 0.4])
    alone, beside = (compare(rows, names, "UNet").iloc[0] for names in (["KAF"], ["KAF", "PCL"]))
    columns = ["patients", "difference", "low", "high", "p_wilcoxon"]
    assert alone[columns].tolist() == beside[columns].tolist()


@pytest.mark.parametrize("equal, changes", [(11, [1, 2, 3, 4, 5]), (0, [1, 1, 1, 1, 2]), (3, [1, 1, 2, 2, 3])])
def test_no_p_lies_below_what_the_pairs_that_differ_can_reach(equal, changes):
    base = np.full(equal + 5, 0.5)  # so that differences are exactly equal
    rows = one_structure(UNet=base, KAF=base + np.array([0.0] * equal + [c / 1024 for c in changes]))
    assert compare(rows, ["KAF"], "UNet").iloc[0].p_wilcoxon == pytest.approx(2 / 2**5)


def test_patients_without_a_value_are_not_counted():
    assert summarise(one_structure(UNet=[0.8, 0.6, np.nan]), metrics=["dice"]).iloc[0].patients == 2


def test_unequal_comparisons_are_refused():
    rows = results()
    with pytest.raises(ValueError, match="pair over patients"):
        compare(rows, ["KAF"], "UNet", unit="fold")
    with pytest.raises(ValueError, match=r"same patient: only one of them has \['patient003'\]"):
        compare(rows[(rows.method == "UNet") | (rows.patient != "patient003")], ["KAF"], "UNet")
    with pytest.raises(ValueError, match="same patient, frame, structure"):
        compare(rows.drop(rows.index[(rows.method == "KAF") & (rows.frame == "ES")]), ["KAF"], "UNet")
    with pytest.raises(ValueError, match="no rows of 'PCL'"):
        compare(rows, ["PCL"], "UNet")
    with pytest.raises(ValueError, match="'m'"):
        compare(pd.concat([rows.assign(m=2), rows.assign(m=8)]), ["KAF"], "UNet")
    with pytest.raises(ValueError, match=r"several values of 'scale': \['laptop', 'smoke'\]; select one"):
        compare(pd.concat([rows.assign(scale="smoke"), rows.assign(scale="laptop")]), ["KAF"], "UNet")
    with pytest.raises(ValueError, match="'KAF' mix several values of 'pretraining'"):
        both = rows.query("method == 'KAF'")
        compare(pd.concat([rows.assign(pretraining="none"), both.assign(pretraining="pcl")]), ["KAF"], "UNet")
    with pytest.raises(ValueError, match="two patients"):
        compare(rows[rows.patient == "patient000"], ["KAF"], "UNet")


def test_pareto_front_keeps_what_nothing_beats():
    cost, gain = np.array([1.0, 2, 3, 4, 2]), np.array([0.5, 0.7, 0.6, 0.9, 0.7])
    assert pareto_front(cost, gain).tolist() == [True, True, False, True, True]  # twins do not beat each other
    assert pareto_front(cost[::-1], gain[::-1]).tolist() == [True, True, False, True, True]
    assert pareto_front(np.array([1.0, 1.0]), np.array([0.5, 0.6])).tolist() == [False, True]  # equally costly
    with pytest.raises(ValueError, match="not measured"):
        pareto_front(np.array([1.0, np.nan]), np.ones(2))
