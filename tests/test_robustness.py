import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from kaf import robustness
from kaf.data import pairs
from kaf.data.store import Store
from kaf.finetune import make_network, z_score
from kaf.keypoints import collate, from_arrays, pad
from kaf.predict import evaluate
from kaf.pretrain import encoder_entropy
from kaf.robustness import (
    LEVELS,
    beyond_chance,
    bias_field,
    chance,
    corrupt,
    corrupted_slices,
    evaluate_corrupted,
    keypoint_facts,
    repeatability,
)  # fmt: skip
from tests.tiny import tiny_experiment

TEST = ("patient003", "patient005")


def volume(seed=0, shape=(3, 40, 48)):
    y, x = np.indices(shape[1:])
    checks = 90 + 60 * ((y // 5 + x // 5) % 2)
    return np.stack([checks + 10 * s for s in range(shape[0])]).astype(np.uint8)


def test_blur_spreads_a_line_by_its_deviation():
    line = np.zeros((1, 41, 41), np.uint8)
    line[0, :, 20] = 255
    for level in (1.0, 2.0):
        seen = corrupt(line, "blur", level)[0].astype(float)
        variance = (seen.sum(0) * (np.arange(41) - 20) ** 2).sum() / seen.sum()
        assert math.sqrt(variance) == pytest.approx(level, rel=0.05)


def test_noise_has_the_deviation_of_its_level():
    change = corrupt(np.full((2, 64, 64), 128, np.uint8), "noise", 0.1, seed=1).astype(float) - 128
    assert change.std() == pytest.approx(25.5, rel=0.05) and abs(change.mean()) < 1


def test_contrast_keeps_the_mean_and_shrinks_the_differences():
    before, after = volume().astype(float), corrupt(volume(), "contrast", 0.5).astype(float)
    assert after.mean() == pytest.approx(before.mean(), abs=0.5)
    assert after.std() == pytest.approx(before.std() / 2, rel=0.02)


def test_a_bias_field_is_smooth_and_spans_its_range():
    field = bias_field((50, 60), np.random.default_rng(0))
    assert field.shape == (50, 60) and field.min() == pytest.approx(-1) and field.max() == pytest.approx(1)
    assert np.abs(np.diff(field, axis=0)).max() < 0.5 and np.abs(np.diff(field, axis=1)).max() < 0.5
    flat = corrupt(np.full((1, 50, 60), 60, np.uint8), "bias", 1.0)
    assert flat.max() == round(60 * math.e) and flat.min() == round(60 / math.e)


@pytest.mark.parametrize("kind", LEVELS)
def test_the_same_seed_gives_the_same_and_a_higher_level_is_worse(kind):
    before = volume().astype(float)
    levels = LEVELS[kind]
    changed = [np.abs(corrupt(volume(), kind, level, 5) - before).mean() for level in levels]
    assert np.array_equal(corrupt(volume(), kind, levels[0], 5), corrupt(volume(), kind, levels[0], 5))
    assert changed == sorted(changed) and changed[0] > 0


@pytest.mark.parametrize("kind, level, message", [("fog", 1.0, "unknown corruption 'fog'"),
                                                  ("blur", 0.0, "level of a corruption is positive, got 0.0")])
def test_mistakes_are_told(kind, level, message):
    with pytest.raises(ValueError, match=message):
        corrupt(volume(), kind, level)


def test_repeatability_is_the_share_found_again():
    some, nothing = np.array([[10.0, 10], [20, 20], [30, 5], [1, 1]]), np.zeros((0, 2))
    before = collate([pad(from_arrays(some), 5), pad(from_arrays(nothing), 5)])
    after = collate([pad(from_arrays(np.array([[11.0, 10], [20, 23], [0, 0]])), 5),
                     pad(from_arrays(np.array([[0.0, 0]])), 5)])
    found = repeatability(before, after, 2.0)
    assert found[0] == 0.5 and found[1].isnan()  # the padding at (0, 0) finds nothing and is not found


@pytest.mark.parametrize("points", [1, 40, 400])
def test_chance_is_what_random_points_give(points):
    """In the middle of the image, where no circle is cut."""
    rng, distance = np.random.default_rng(0), 4.0
    middle = collate([from_arrays(rng.uniform(20, 80, (400, 2)))])
    found = [repeatability(middle, collate([from_arrays(rng.uniform(-0.5, 99.5, (points, 2)))]), distance).item()
             for _ in range(200)]
    assert np.mean(found) == pytest.approx(chance(points, distance, 100, 100), abs=0.01)


def test_chance_is_certain_where_a_circle_covers_the_image():
    assert chance(3, 100.0, 20, 20) == 1 and chance(0, 3.0, 20, 20) == 0


def test_beyond_chance_is_one_for_all_and_zero_for_chance():
    assert [beyond_chance(share, 0.2) for share in (1.0, 0.2, 0.6)] == pytest.approx([1, 0, 0.5])
    assert beyond_chance(0.0, 0.2) < 0


def test_the_image_as_it_is_scores_as_in_the_evaluation(store):
    experiment = tiny_experiment()
    torch.manual_seed(0)
    network = make_network(experiment, store, "kaf_scratch").eval()
    rows = evaluate_corrupted(network, store, TEST, experiment, {"noise": [0.2], "blur": [1.0, 3.0]})
    assert rows[["corruption", "level"]].drop_duplicates().values.tolist() == [
        ["", 0.0], ["noise", 0.2], ["blur", 1.0], ["blur", 3.0]]
    clean = rows[rows["corruption"] == ""]
    expected = evaluate(network, store, TEST, experiment).groupby(["patient", "frame"])["dice"].mean()
    assert clean.set_index(["patient", "frame"])["dice"].to_dict() == pytest.approx(expected.to_dict(), nan_ok=True)
    assert (clean["repeatability"] == 1).all() and clean["entropy"].between(0, 1).all()
    worse = rows[rows["corruption"] == "noise"]
    assert (worse["repeatability"] < 1).all() and worse["on_background"].between(0, 1).all()


def test_a_damaged_store_is_not_scored(store, tmp_path):
    copy = Store.open(shutil.copytree(store.path, tmp_path / "copy"))
    file = copy.path / "volumes" / copy.volumes[copy.select(patients=TEST[:1])[0]].id / "image.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 255
    file.write_bytes(data)
    experiment = tiny_experiment()
    network = make_network(experiment, copy, "unet")
    with pytest.raises(ValueError, match="image.npy is damaged; delete its folder and run prepare again"):
        evaluate_corrupted(network, copy, TEST[:1], experiment, {})


def test_every_slice_counts_once_in_the_entropy_whatever_shares_its_batch(store, monkeypatch):
    experiment = tiny_experiment()
    torch.manual_seed(0)
    network = make_network(experiment, store, "kaf_scratch").eval()
    v = max(range(len(store.volumes)), key=lambda n: store.volumes[n].shape[0])
    slices = list(corrupted_slices(store, v, 32, 12))
    slices = [s._replace(keypoints=s.keypoints._replace(valid=s.keypoints.valid & (torch.arange(12) < k)))
              for s, k in zip(slices, (12, 1, 3, 6, 9), strict=False)]
    batch = pairs.collate(slices)
    each = [encoder_entropy(network.encoder, z_score(batch)[[n]], batch.keypoints.select(slice(n, n + 1)))
            for n in range(len(slices))]
    assert math.isnan(each[1]) and len(slices) > 2  # a single keypoint looks at itself
    for size in (1, 2, len(slices)):
        monkeypatch.setattr(robustness, "BATCH", size)
        found = keypoint_facts(network, store, v, slices, slices)["entropy"]
        assert found == pytest.approx(np.nanmean(each), abs=1e-5), f"in batches of {size}"


@pytest.mark.parametrize("kind", LEVELS)
def test_the_hardest_level_does_not_depend_on_the_order_of_the_rows(kind):
    rows = pd.DataFrame([{"corruption": name, "level": level} for name in LEVELS for level in LEVELS[name]])
    for order in range(3):
        assert robustness.hardest(rows.sample(frac=1, random_state=order), kind) == LEVELS[kind][-1]
    with pytest.raises(ValueError, match=f"the rows hold no corruption {kind!r}; they hold "):
        robustness.hardest(rows[rows["corruption"] != kind], kind)


def test_a_network_without_attention_has_no_entropy(store):
    experiment = tiny_experiment()
    rows = evaluate_corrupted(make_network(experiment, store, "unet"), store, TEST[:1], experiment, {"blur": [1.0]})
    assert rows["entropy"].isna().all() and len(rows) == 4


def test_keypoints_and_scaling_are_those_of_the_worse_image(store):
    volume = store.select(patients=TEST[:1])[0]
    clean = list(corrupted_slices(store, volume, 32, 12))
    for sample, s in zip(clean, range(store.volumes[volume].shape[0]), strict=True):
        kept = store.sample(volume, s, 32, 12)
        assert torch.equal(sample.image, kept.image) and torch.equal(sample.keypoints.xy, kept.keypoints.xy)
        assert (sample.mean, sample.std) == pytest.approx((kept.mean, kept.std))
    flat = list(corrupted_slices(store, volume, 32, 12, "contrast", 0.1))
    assert flat[0].std < 0.2 * clean[0].std and flat[0].keypoints.valid.sum() < clean[0].keypoints.valid.sum()
