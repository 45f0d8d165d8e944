import math

import pytest
import torch

from kaf.keypoints import Keypoints
from kaf.monitors import FLAT, alarm_limit, attention_entropy, background_share, feature_spread, image_entropies


def points_at(*places, k=4):
    xy = torch.zeros(1, k, 2)
    xy[0, : len(places)] = torch.tensor(places, dtype=torch.float32).view(-1, 2)
    valid = torch.arange(k)[None] < len(places)
    return Keypoints(xy, torch.ones(1, k), torch.ones(1, k), torch.zeros(1, k, 0, dtype=torch.uint8), valid)


def test_feature_spread_in_closed_form():
    assert feature_spread(torch.ones(6, 3) * torch.rand(6, 1)) == pytest.approx(0, abs=1e-3)  # length does not count
    assert feature_spread(torch.eye(5)) == pytest.approx(1)
    assert feature_spread(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(math.sqrt(2))
    half = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])  # 60 degrees apart: 1 - cos 60
    assert feature_spread(half) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(feature_spread(torch.ones(1, 3)))


def test_feature_spread_does_not_depend_on_the_number_of_slices():
    features = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0)) + 0.1
    whole = feature_spread(features)
    parts = [feature_spread(part) for part in features.split(16)]
    assert sum(parts) / len(parts) == pytest.approx(whole, abs=0.01)


def test_attention_entropy_in_closed_form():
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert attention_entropy(torch.full((1, 2, 4, 4), 0.25), valid) == pytest.approx(1)
    assert attention_entropy(torch.eye(4).expand(1, 2, 4, 4), valid) == 0
    two = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(1, 2, 4, 4)
    assert attention_entropy(two, valid) == pytest.approx(0.5)


def test_attention_entropy_leaves_padding_out():
    valid = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])
    weights = torch.zeros(3, 1, 4, 4)
    weights[0, 0, :3, :3] = 1 / 3
    weights[0, 0, 3, :3] = torch.tensor([1.0, 0.0, 0.0])  # the row of a padded point
    weights[1, 0, :, 0] = 1.0
    assert attention_entropy(weights, valid) == pytest.approx(1)
    assert math.isnan(attention_entropy(weights[1:], valid[1:]))
    assert image_entropies(weights, valid).tolist() == pytest.approx([1, math.nan, math.nan], nan_ok=True)


def test_the_entropy_of_all_counts_keypoints_and_that_of_each_image_counts_images():
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    weights = torch.stack([torch.full((1, 4, 4), 0.25), torch.eye(4)[None]])
    assert attention_entropy(weights, valid) == pytest.approx(4 / 6)
    assert image_entropies(weights, valid).tolist() == pytest.approx([1, 0])


def test_background_share_counts_points_on_black():
    image = torch.full((1, 1, 20, 30), -1.5)
    image[..., 10:, 15:] = 2.0
    assert background_share(image, points_at((2, 2), (5, 17))) == 1
    assert background_share(image, points_at((20, 15), (29, 19))) == 0
    assert background_share(image, points_at((2, 2), (20, 15), (25, 12), (15, 10))) == 0.25
    # A point beside an edge sits on it; three pixels away it does not.
    assert background_share(image, points_at((13, 15))) == 0 and background_share(image, points_at((12, 15))) == 1
    assert math.isnan(background_share(image, points_at()))


def test_uniform_attention_is_flat_and_attention_to_half_of_the_points_is_not():
    valid = torch.ones(1, 100, dtype=torch.bool)
    half = torch.zeros(1, 1, 100, 100)
    half[..., :50] = 1 / 50
    assert attention_entropy(half, valid) < FLAT < attention_entropy(torch.full((1, 1, 100, 100), 0.01), valid)


def test_an_alarm_limit_is_one_of_the_largest_values():
    values = torch.arange(19.0)[torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    assert [alarm_limit(values, share) for share in (0.05, 0.1, 0.149, 0.5)] == [18.0, 17.0, 17.0, 9.0]
    assert alarm_limit(torch.arange(9.0), 0.1) == 8.0  # .1 * 10 is 1, whatever it is in binary


def test_new_clean_patients_sound_as_many_alarms_as_promised():
    drawn = torch.randn(4000, 20, generator=torch.Generator().manual_seed(1)).exp()  # far from normal
    above = [new > alarm_limit(clean, 0.1) for *_, new, clean in ((row[-1], row[:-1]) for row in drawn)]
    assert torch.stack(above).float().mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("values", "alarms", "message"), [
    (torch.arange(9.0), 0.05, "9 patients allow a share of false alarms from 0.100 to 0.900, not 0.05"),
    (torch.arange(9.0), 1.0, "not 1.0"), (torch.tensor([1.0, float("nan")]), 0.5, "finite values")])
def test_too_few_patients_for_a_limit(values, alarms, message):
    with pytest.raises(ValueError, match=message):
        alarm_limit(values, alarms)


def test_features_that_are_no_numbers_have_no_spread():
    assert math.isnan(feature_spread(torch.full((4, 3), math.nan)))
