"""Random parameters and intensity changes: reproducible, composable, each as its formula says."""

import math

import pytest
import torch

from kaf.data.augment import (
    NEUTRAL,
    PRESETS,
    AugmentConfig,
    Intensity,
    adjust,
    augment,
    draw_geometry,
    draw_intensity,
)
from kaf.keypoints import Keypoints


def batch(size=4, k=9, side=64, seed=0):
    """Smooth random images, keypoints, labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.nn.functional.avg_pool2d(torch.randn(size, 1, side, side, generator=generator), 5, 1, 2)
    xy = torch.rand(size, k, 2, generator=generator) * (side - 1)
    points = Keypoints(xy, torch.ones(size, k), torch.rand(size, k, generator=generator),
                       torch.randint(0, 255, (size, k, 128), generator=generator, dtype=torch.uint8),
                       torch.rand(size, k, generator=generator) < 0.8)
    return images, points, torch.randint(0, 4, (size, side, side), generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flatten(result):
    images, points, labels = result
    return [images, *points, labels]


def change(size=1, **amounts):
    """An Intensity that does nothing but ``amounts``."""
    values = {**NEUTRAL, **amounts}
    fields = {name: torch.full((size,), float(values[name])) for name in NEUTRAL}
    return Intensity(**fields, seed=torch.arange(size))


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_same_result(name):
    one, two, other = (flatten(augment(*batch(), PRESETS[name], seeded(s))) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one[0], other[0]) == (name == "none")


def test_none_changes_nothing_and_inputs_are_left_alone():
    data = batch()
    before = [f.clone() for f in flatten(data)]
    result = flatten(augment(*data, PRESETS["none"], seeded()))
    assert all(torch.equal(a, b) for a, b in zip(before, result, strict=True))
    for name in ("default", "paper"):
        augment(*data, PRESETS[name], seeded())
        assert all(torch.equal(a, b) for a, b in zip(before, flatten(data), strict=True))


def test_geometry_then_intensity_is_the_whole():
    config, data = PRESETS["default"], batch(8)
    whole = flatten(augment(*data, config, seeded(3)))
    geometry = augment(*data, config.geometry_only(), seeded(3))
    parts = flatten(augment(*geometry, config.intensity_only(), seeded(3)))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert not torch.equal(geometry[0], whole[0])


def test_autocast_changes_nothing():
    plain = flatten(augment(*batch(8), PRESETS["default"], seeded()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = flatten(augment(*batch(8), PRESETS["default"], seeded()))
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def test_intensity_only_leaves_places_alone():
    images, points, labels = batch(8)
    result = augment(images, points, labels, PRESETS["default"].intensity_only(), seeded())
    assert all(torch.equal(a, b) for a, b in zip((*points, labels), (*result[1], result[2]), strict=True))
    assert not torch.equal(result[0], images)


def test_padding_stays_zero_in_every_field():
    _, points, _ = augment(*batch(8, 40), PRESETS["paper"], seeded())
    assert 0 < points.valid.float().mean() < 0.8
    assert all(not field[~points.valid].any() for field in points)


def test_an_image_does_not_depend_on_its_batch():
    images = batch(6)[0]
    intensity = draw_intensity(AugmentConfig(
        gamma_p=1, gamma=(0.5, 2), contrast_p=1, contrast=(0.5, 2), brightness_p=1, brightness=1.0,
        noise_p=1, noise=1.0, blur_p=1, blur=(0.3, 3.0)), 6, seeded())
    together = adjust(images, intensity)
    for i in range(6):
        alone = adjust(images[i : i + 1], Intensity(*(field[i : i + 1] for field in intensity)))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_parameters_stay_in_their_ranges_and_happen_as_often_as_asked():
    config = AugmentConfig(
        flip=("horizontal", "vertical", "transpose"), affine_p=0.6, rotation_deg=20.0, scale=(0.8, 1.5),
        shift=0.1, elastic_p=0.3, elastic_px=2.0, gamma_p=0.4, gamma=(0.7, 1.5), noise_p=0.2, noise=0.5)
    n = 4000
    geometry, intensity = draw_geometry(config, n, 50, 80, seeded()), draw_intensity(config, n, seeded())
    zoom = torch.linalg.det(geometry.linear).abs().sqrt()
    moved = (zoom - 1).abs() > 1e-4
    assert 0.8 <= zoom.min() < 0.81 and 1.49 < zoom.max() <= 1.5 + 1e-5
    assert (geometry.shift.abs() <= torch.tensor([8.0, 5.0])).all()
    elastic = geometry.control.flatten(1).any(1)
    shares = [moved, elastic, intensity.gamma != 1, intensity.noise != 0, intensity.blur != 0]
    for share, p in zip(shares, (0.6, 0.3, 0.4, 0.2, 0.0), strict=True):
        assert abs(share.float().mean() - p) < 4 * math.sqrt(p * (1 - p) / n) + 1e-3
    assert intensity.gamma.min() >= 0.7 and intensity.gamma.max() <= 1.5
    still = geometry.linear[~moved].round().int().flatten(1)
    assert len(still.unique(dim=0)) == 8  # all flips and quarter turns of the square, equally often
    assert still.unique(dim=0, return_counts=True)[1].min() > len(still) / 8 * 0.7


def test_rotations_stay_within_the_angle():
    config = AugmentConfig(affine_p=1.0, rotation_deg=20.0)
    linear = draw_geometry(config, 1000, 64, 64, seeded()).linear
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert angle.min() < -19 and angle.max() > 19 and angle.abs().max() <= 20 + 1e-3


def test_a_new_noise_probability_leaves_the_warps_as_they_are():
    a = draw_geometry(PRESETS["default"], 4, 64, 64, seeded())
    b = draw_geometry(PRESETS["default"].geometry_only(), 4, 64, 64, seeded())
    assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def test_contrast_brightness_and_gamma_as_their_formulas():
    image = batch(1)[0]
    mean, low, high = image.mean(), image.min(), image.max()
    torch.testing.assert_close(adjust(image, change(contrast=1.4)), mean + 1.4 * (image - mean))
    torch.testing.assert_close(adjust(image, change(brightness=-0.3)), image - 0.3)
    bent = adjust(image, change(gamma=2.0))
    torch.testing.assert_close(bent, low + (image - low) ** 2 / (high - low))
    flat = torch.full((1, 1, 8, 8), 3.0)
    torch.testing.assert_close(adjust(flat, change(gamma=0.5)), flat)


def test_noise_has_its_standard_deviation_and_is_its_own_in_each_image():
    noise = adjust(torch.zeros(2, 1, 200, 200), change(2, noise=0.5))
    assert (noise.std((1, 2, 3)) - 0.5).abs().max() < 0.01 and noise.mean().abs() < 0.01
    assert not torch.equal(noise[0], noise[1])


def test_blur_of_a_point_is_a_gaussian_and_of_a_constant_nothing():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1.0
    blurred = adjust(point, change(blur=1.5))[0, 0]
    offset = torch.arange(41) - 20.0
    gaussian = torch.exp(-0.5 * (offset / 1.5) ** 2) / (1.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(blurred, gaussian[:, None] * gaussian, atol=1e-3, rtol=0)
    assert abs(blurred.sum() - 1) < 1e-5
    flat = torch.full((1, 1, 6, 7), 3.0)  # also smaller than the kernel
    torch.testing.assert_close(adjust(flat, change(blur=4.0)), flat)


@pytest.mark.parametrize("wrong, message", [
    ({"flip": ("sideways",)}, "sideways"),
    ({"scale": (1.3, 0.7)}, "scale"),
    ({"gamma": (0.0, 1.0)}, "gamma"),
    ({"noise_p": 1.5}, "noise_p"),
    ({"elastic_px": 5.0}, "fold"),
])
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**wrong)


def test_wrong_images_are_refused():
    images, points, labels = batch()
    for wrong in (images.repeat(1, 2, 1, 1), images.to(torch.uint8), images[:3]):
        with pytest.raises(ValueError, match="float32 images"):
            augment(wrong, points, labels, PRESETS["default"], seeded())


@pytest.mark.parametrize("name", PRESETS)
def test_parts_of_a_batch_are_augmented_as_in_the_whole(name):
    images, points, labels = batch(size=6)
    whole = flatten(augment(images, points, labels, PRESETS[name], seeded()))
    for r in range(3):
        part = slice(2 * r, 2 * r + 2)
        own = augment(images[part], points.select(part), labels[part], PRESETS[name], seeded(), share=(r, 3))
        for ours, theirs in zip(flatten(own), whole, strict=True):
            torch.testing.assert_close(ours, theirs[part])
