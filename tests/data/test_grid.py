import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kaf.data.grid import crop, crop_keypoints, resample, resample_labels, resampled_shape, uncrop
from kaf.keypoints import from_arrays


@pytest.mark.parametrize("target", [(20, 55), (100, 31), (40, 44)])
def test_resampling_keeps_the_field_of_view(target):
    """A ramp over the field of view stays that ramp, away from the border."""
    shape = (40, 44)
    rows, cols = np.indices(shape) + 0.5
    ramp = np.stack([rows, cols])
    new_rows, new_cols = np.indices(target) + 0.5
    expected = np.stack([new_rows / target[0] * shape[0], new_cols / target[1] * shape[1]])
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert np.abs(resample(ramp, target) - expected)[inner].max() < 0.05  # pixels of the source


def test_resampling_shrinks_without_aliasing():
    stripes = np.tile(np.arange(60) % 2, (1, 60, 1)).astype(np.float32)
    assert np.abs(resample(stripes, (20, 20))[:, 2:-2, 2:-2] - 0.5).max() < 0.1


@pytest.mark.parametrize("target", [(30, 30), (75, 90)])
def test_labels_keep_area_and_values(target):
    rows, cols = np.indices((60, 60)) - 29.5
    radius = np.hypot(rows, cols)
    disc = ((radius < 22) * 1 + (radius < 12) * 4).astype(np.uint8)[None]  # labels 1 and 5
    result = resample_labels(disc, target)
    scale = target[0] * target[1] / 3600
    assert result.dtype == np.uint8 and set(np.unique(result)) == {0, 1, 5}
    for value in (1, 5):
        assert (result == value).sum() == pytest.approx((disc == value).sum() * scale, rel=0.03)


def test_labels_and_images_of_the_same_shape_are_untouched():
    labels = np.random.default_rng(0).integers(0, 4, (2, 9, 7)).astype(np.uint8)
    assert np.array_equal(resample_labels(labels, (9, 7)), labels)
    assert np.array_equal(resample(labels, (9, 7)), labels)


def test_shape_comes_closest_to_the_spacing():
    assert resampled_shape((256, 216), (1.5625, 1.5625), 1.25) == (320, 270)
    assert resampled_shape((10, 10), (1.0, 2.0), 3.0) == (3, 7)
    assert resampled_shape((1, 1), (0.1, 0.1), 5.0) == (1, 1)


@given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 14))
def test_crop_and_uncrop_invert_each_other_where_they_overlap(height, width, size):
    image = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    cut = crop(image, size)
    assert cut.shape == (size, size)
    assert np.count_nonzero(cut) == min(height, size) * min(width, size)
    back = uncrop(cut, image.shape)
    assert np.array_equal(back[back > 0], image[back > 0]) and (back > 0).sum() == (cut > 0).sum()
    stack = uncrop(torch.from_numpy(np.stack([cut, cut])), image.shape)
    assert torch.equal(stack[1], torch.from_numpy(back))


@given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 14))
def test_keypoints_follow_their_pixels_into_the_crop(height, width, size):
    image = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    y, x = np.indices(image.shape)
    points = from_arrays(np.stack([x.ravel(), y.ravel()], 1), score=image.ravel().astype(np.float32))
    moved = crop_keypoints(points, image.shape, size)
    cut = crop(image, size)
    assert len(moved.valid) == np.count_nonzero(cut)
    col, row = moved.xy.long().T.numpy()
    assert np.array_equal(cut[row, col], moved.score.numpy())
