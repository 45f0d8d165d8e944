"""The luck of trainings: between which runs it is measured, and which comparisons it bears on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kaf.noise import Noise, floor_in_words, in_words, luck_in_words, noise_by_place, noise_floor, run_noise
from kaf.verdicts import Comparison, Place

PLACE = Place("acdc", "laptop", 2)
C = Comparison("KAF: level 1", "KAF", PLACE, 16, 1, 0.02, 0.01, 0.04, 0.0004, 400)


def run(setting="", seed=0, dice=0.0, method="KAF", patients=16, **changes):
    """Dice of one training."""
    values = {"dataset": "acdc", "protocol": "patient, no", "scale": "laptop", "m": 2, "draw": 0, "fold": 0,
              "steps": 400, "method": method, "setting": setting, "seed": seed, **changes}
    scores = pd.DataFrame({"patient": [f"p{n}" for n in range(patients)], "dice": dice + 0.01 * np.arange(patients)})
    return scores.assign(**values)


def test_noise_is_the_spread_of_runs_that_differ_in_their_seed_alone():
    tables = [run("", 0, 0.00), run("", 1, 0.02), run("level 1", 0, 0.10), run("level 1", 1, 0.16),
              run("level 1", 2, 0.13),
              run("level 2", 0, 0.5), run("", 0, 0.9, draw=1), run("", 0, 0.7, m=6)]  # alone: they say nothing
    pooled = ((0.01**2 * 2 + 0.03**2 * 2) / (1 + 2)) ** 0.5  # squares of the distances from the means; 1 and 2 free
    assert run_noise(pd.concat(tables)) == pytest.approx(pooled)
    assert np.isnan(run_noise(run()))


def test_seeds_that_were_scored_on_other_patients_are_refused():
    with pytest.raises(ValueError, match="seeds of 'KAF', fold 0, were scored on different patients"):
        run_noise(pd.concat([run(seed=0), run(seed=1, patients=15)]))


def test_noise_has_a_place_a_length_of_training_and_a_method():
    found = noise_by_place(pd.concat([run(seed=0), run(seed=1, dice=0.02), run(seed=0, method="UNet"),
                                      run(seed=1, dice=0.06, method="UNet"), run(seed=0, steps=2000), run(m=6)]))
    assert found == {(PLACE, 400, "KAF"): (pytest.approx(0.0002), 1), (PLACE, 400, "UNet"): (pytest.approx(0.0018), 1)}


def test_the_floor_is_that_of_both_sides_and_of_all_their_trainings():
    noise = {(PLACE, 400, "KAF"): Noise(0.0002, 3), (PLACE, 400, "UNet"): Noise(0.0018, 3)}
    own = stats.t.ppf(0.975, 3) * (2 * 0.0002) ** 0.5
    assert noise_floor(C, noise) == pytest.approx(own)
    assert noise_floor(replace(C, runs=4), noise) == pytest.approx(own / 2)
    welch = 0.002**2 / (0.0002**2 / 3 + 0.0018**2 / 3)  # degrees of freedom: nearly those of the noisier side
    assert 3 < welch < 4
    assert noise_floor(replace(C, reference="UNet"), noise) == pytest.approx(stats.t.ppf(0.975, welch) * 0.002**0.5)
    assert noise_floor(replace(C, reference="SwinUNETR"), noise) == pytest.approx(own)  # the other counts as alike
    elsewhere = replace(C, place=PLACE._replace(m=6))
    for other in (elsewhere, replace(C, steps=2000), replace(C, label="GCL", reference="PCL")):
        assert np.isnan(noise_floor(other, noise))


def test_networks_that_share_their_training_share_its_luck():
    noise = {(PLACE, 400, "KAF"): Noise(0.0002, 3)}
    assert noise_floor(C, noise) > 0 and np.isnan(noise_floor(replace(C, related=True), noise))


@pytest.mark.parametrize("runs, over, told", [(1, (float("nan"),) * 2, "one training, a hint"),
                                              (5, (0.01, 0.1), "holds"), (5, (-0.01, 0.1), "does not hold")])
def test_what_is_known_of_other_trainings_is_said_where_a_difference_is_shown(runs, over, told):
    c = replace(C, runs=runs, over_runs=over)
    assert luck_in_words(c, {}) == told and luck_in_words(replace(c, p=0.5), {}) == ""
    noise = {(PLACE, 400, "KAF"): Noise(0.0002, 3)}
    floor = noise_floor(c, noise)
    assert luck_in_words(replace(c, difference=0.9 * floor), noise) == f"{told}; below the noise floor"


def test_a_difference_below_the_floor_says_so():
    noise = {(PLACE, 400, "KAF"): Noise(0.0002, 3)}
    floor = noise_floor(C, noise)
    assert in_words(replace(C, difference=0.9 * floor), noise) == "better, below the noise floor"
    assert in_words(replace(C, difference=1.1 * floor), noise) == in_words(C, {}) == "better"
    assert in_words(replace(C, p=0.5), noise) == "no difference shown"


def test_a_floor_that_is_not_known_is_told():
    noise = {(PLACE, 400, "KAF"): Noise(0.0004, 6)}
    assert floor_in_words(C, noise) == f"noise floor {noise_floor(C, noise):.3f}"
    assert floor_in_words(C, {}) == "noise floor not known"
    assert floor_in_words(replace(C, related=True), noise) == "trainings related"
