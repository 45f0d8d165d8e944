from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kaf.verdicts import Comparison, Place, comparisons, corrected, labelled, lost_dice, overall


def rows(method="UNet", setting="", shift=0.0, m=2, folds=(0,), patients=16, spread=0.01, seed=0):
    """Dice of patients that differ among each other, moved by ``shift`` with some noise of its own."""
    rng, own = np.random.default_rng(1), np.random.default_rng(seed)
    base = 0.7 + 0.1 * rng.standard_normal((5, patients))
    return pd.DataFrame([
        {"dataset": "acdc", "protocol": "patient, no", "scale": "laptop", "m": m, "draw": 0, "fold": fold, "seed": 0,
         "method": method, "setting": setting, "pretraining": "none", "patient": f"p{fold}-{p}", "frame": "ED",
         "structure": "LV", "dice": base[fold, p] + shift + spread * own.standard_normal()}
        for fold in folds for p in range(patients)])


def compared(*tables, labels=("KAF",), reference="UNet"):
    return comparisons(pd.concat(tables, ignore_index=True), labels, reference)


def line(difference=0.02, low=0.01, high=0.03, p=0.001):
    return Comparison("KAF", "UNet", Place("acdc", "laptop", 2), 16, 1, difference, low, high, p)


@pytest.mark.parametrize("shift, verdict", [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference shown")])
def test_a_difference_is_found_where_there_is_one(shift, verdict):
    found, = compared(rows(), rows("KAF", shift=shift, seed=5))
    assert found.verdict == verdict and found.difference == pytest.approx(shift, abs=0.01)
    assert (found.patients, found.runs, found.place) == (16, 1, Place("acdc", "laptop", 2))


@pytest.mark.parametrize("low, high, p, verdict", [
    (0.01, 0.03, 0.049, "better"), (0.01, 0.03, 0.05, "no difference shown"),
    (-0.01, 0.03, 0.001, "no difference shown"), (-0.03, -0.01, 0.01, "worse")])
def test_test_and_interval_must_agree(low, high, p, verdict):
    assert line(low=low, high=high, p=p).verdict == verdict


def test_from_the_other_side_only_the_signs_change():
    tables = rows(folds=(0, 1, 2)), rows("KAF", folds=(0, 1, 2), shift=0.05, seed=3)
    (one,), (other,) = compared(*tables), compared(*tables, labels=("UNet",), reference="KAF")
    flipped = one.flipped
    assert (flipped.label, flipped.reference, flipped.verdict) == (other.label, other.reference, "worse")
    for name in ("difference", "p", "over_runs"):
        assert getattr(flipped, name) == pytest.approx(getattr(other, name))
    assert (flipped.low, flipped.high) == pytest.approx((other.low, other.high), abs=1e-3)  # resampled


def test_only_runs_with_a_partner_are_compared():
    found, = compared(rows(folds=(0, 1, 2)), rows("KAF", folds=(1, 2), shift=0.05, seed=3), rows("KAF", folds=(3,)))
    assert found.patients == 32 and found.runs == 2
    assert compared(rows(folds=(0,)), rows("KAF", folds=(1,))) == []


def test_settings_are_their_own_labels_and_numbers_of_labels_their_own_lines():
    tables = [rows("KAF", m=m, seed=m) for m in (2, 6)] + [rows("KAF", "level 1", m=m, seed=9 - m) for m in (2, 6)]
    found = compared(*tables, labels=("KAF: level 1",), reference="KAF")
    assert [str(c.place) for c in found] == ["acdc, scale laptop, M = 2", "acdc, scale laptop, M = 6"]
    assert set(labelled(pd.concat(tables))["label"]) == {"KAF", "KAF: level 1"}


def test_the_more_is_asked_the_more_is_needed():
    alone, = corrected([line(p=0.02)])
    together = corrected([line(p=0.02), line(p=0.02), line(p=0.9)])
    assert alone.verdict == "better"
    assert [c.p for c in together] == pytest.approx([0.06, 0.06, 0.9]) and together[0].verdict == "no difference shown"


def test_few_patients_show_nothing_and_take_nothing_from_others():
    few = replace(line(p=0.04), patients=5)  # of ties; without them the smallest is 2^-4
    assert replace(few, patients=6).verdict == "better" and few.verdict == "no difference shown"
    one, other = corrected([line(p=0.03), few])
    assert (one.p, other.p) == (0.03, 0.04) and one.verdict == overall([one, other]) == "better"


def test_networks_are_related_where_every_pair_of_runs_shares_its_training():
    tables = [rows(folds=(0, 1)).assign(network="a"), rows("KAF", folds=(0, 1), seed=5).assign(network="a")]
    assert compared(*tables)[0].related
    tables[1].loc[tables[1]["fold"] == 1, "network"] = "b"
    assert not compared(*tables)[0].related and not compared(rows(), rows("KAF", seed=5))[0].related


def test_one_verdict_of_several():
    better, worse, nothing = line(), line(-0.02, -0.03, -0.01), line(p=1.0)
    assert overall([]) == "open" and overall([better, better]) == "better"
    assert overall([better, nothing]) == "better in some" and overall([worse, nothing]) == "worse in some"
    assert overall([better, worse, nothing]) == "mixed" and overall([nothing]) == "no difference shown"


def test_what_a_corruption_costs_is_compared_at_its_hardest():
    def state(method, clean, blurred, seed):
        levels = (("", 0.0, clean), ("blur", 1.0, clean), ("blur", 3.0, blurred))
        return pd.concat([rows(method, shift=shift, seed=seed + n).assign(corruption=kind, level=level)
                          for n, (kind, level, shift) in enumerate(levels)], ignore_index=True)

    both = pd.concat([state("UNet", 0.0, -0.2, 1), state("KAF", 0.1, -0.05, 7)])
    found, = lost_dice(both, "KAF", "UNet")
    assert found.difference == pytest.approx(0.05, abs=0.01)  # it loses .15, the UNet .2
    assert str(found.place) == "acdc, scale laptop, M = 2, blur 3"


@pytest.mark.parametrize("kind, mild, hard", [("blur", 1.0, 3.0), ("contrast", 0.75, 0.1)])
def test_the_hardest_level_is_found_in_any_order_of_the_rows(kind, mild, hard):
    def state(method, lost, seed):
        levels = ((kind, hard, -lost), ("", 0.0, 0.0), (kind, mild, 0.0))
        return pd.concat([rows(method, shift=shift, seed=seed + n).assign(corruption=name, level=level)
                          for n, (name, level, shift) in enumerate(levels)], ignore_index=True)

    found, = lost_dice(pd.concat([state("UNet", 0.2, 1), state("KAF", 0.05, 7)]), "KAF", "UNet")
    assert found.difference == pytest.approx(0.15, abs=0.01) and found.place.about == f"{kind} {hard:g}"


def test_the_interval_over_trainings_takes_each_pair_once():
    shifts = (0.02, 0.03, 0.05)
    theirs = [rows("KAF", shift=shift, folds=(fold,), seed=fold) for fold, shift in enumerate(shifts)]
    found, = compared(rows(folds=(0, 1, 2), spread=0.0), *theirs)
    means = [pd.concat([mine]).groupby("patient")["dice"].mean().sub(
        rows(folds=(fold,), spread=0.0).groupby("patient")["dice"].mean()).mean() for fold, mine in enumerate(theirs)]
    assert found.over_runs == pytest.approx(stats.t.interval(0.95, 2, np.mean(means), stats.sem(means)))
    assert found.trainings_agree == (found.over_runs[0] > 0)
    above, below = (replace(found, over_runs=ends) for ends in ((0.01, 0.02), (-0.02, -0.01)))
    assert above.trainings_agree and above.flipped.trainings_agree
    assert not below.trainings_agree  # on the other side of 0 than the difference over patients
    single, = compared(rows(), rows("KAF", shift=0.1, seed=5))
    assert np.isnan(single.over_runs).all() and not single.trainings_agree


def test_steps_are_those_of_both_sides_or_unknown():
    short = [rows().assign(steps=400), rows("KAF", seed=5).assign(steps=400)]
    both = [*short, rows("KAF", "long", seed=6).assign(steps=2000)]
    assert [c.steps for c in compared(*both, labels=("KAF", "KAF: long"))] == [400, 0]
    assert compared(rows(), rows("KAF", seed=5))[0].steps == 0
