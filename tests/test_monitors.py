import math

import pytest
import torch

from kaf.keypoints import Keypoints
from kaf.monitors import attention_entropy, background_share, feature_spread


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


def test_background_share_counts_points_on_black():
    image = torch.full((1, 1, 20, 30), -1.5)
    image[..., 10:, 15:] = 2.0
    assert background_share(image, points_at((2, 2), (5, 17))) == 1
    assert background_share(image, points_at((20, 15), (29, 19))) == 0
    assert background_share(image, points_at((2, 2), (20, 15), (25, 12), (15, 10))) == 0.25
    # A point beside an edge sits on it; three pixels away it does not.
    assert background_share(image, points_at((13, 15))) == 0 and background_share(image, points_at((12, 15))) == 1
    assert math.isnan(background_share(image, points_at()))
