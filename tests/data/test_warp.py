"""Keypoints, images and labels under one warp: rendered blobs are found again by their centroid."""

import math

import pytest
import torch

from kaf.data.augment import PRESETS, AugmentConfig, draw_geometry
from kaf.data.warp import Geometry, pose, spline_field, undone, warp
from kaf.keypoints import Keypoints

SIGMA = 1.5  # px of the blobs; the centroid of a bent blob errs with its square: .27 px at 2, .09 px at 1
AFFINE = AugmentConfig(flip=("horizontal", "vertical", "transpose"), affine_p=1.0, rotation_deg=180.0,
                       scale=(0.7, 1.3), shift=0.1)
HARDEST = AugmentConfig(flip=("horizontal",), affine_p=1.0, rotation_deg=30.0, scale=(0.7, 1.3), shift=0.1,
                        elastic_p=1.0, elastic_px=32 / 12)  # the strongest elastic warp that is allowed


def keypoints(xy):
    """Valid keypoints at ``xy`` (B, K, 2), scale 4, without descriptors."""
    batch, k, _ = xy.shape
    return Keypoints(xy.float(), torch.full((batch, k), 4.0), torch.ones(batch, k),
                     torch.zeros(batch, k, 0, dtype=torch.uint8), torch.ones(batch, k, dtype=torch.bool))


def blobs(xy, height, width, sigma=SIGMA):
    """One Gaussian blob per image, centred at ``xy`` (B, 2): (B, 1, H, W)."""
    x = torch.arange(width) - xy[:, 0, None, None]
    y = torch.arange(height)[:, None] - xy[:, 1, None, None]
    return torch.exp(-0.5 * (x**2 + y**2) / sigma**2)[:, None]


def centroids(images):
    """Intensity-weighted mean place (B, 2) and mass (B,)."""
    mass = images.sum((1, 2, 3))
    x = (images * torch.arange(images.shape[3])).sum((1, 2, 3)) / mass
    y = (images * torch.arange(images.shape[2])[:, None]).sum((1, 2, 3)) / mass
    return torch.stack([x, y], 1), mass


def identity(batch, spacing=32.0):
    linear = torch.eye(2).repeat(batch, 1, 1)
    return Geometry(linear, torch.zeros(batch, 2), torch.zeros(batch, 2, 6, 6), spacing)


def blob_errors(config, seed, height, width, batch=24):
    """Distance between moved keypoint and moved blob, for the blobs that stay whole inside."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(batch, 2, generator=generator) * torch.tensor([width - 1, height - 1])
    geometry = draw_geometry(config, batch, height, width, generator)
    images = blobs(places, height, width)
    images, points, _ = warp(images, keypoints(places[:, None]), None, geometry, fill=0.0)
    x, y = points.xy[:, 0].unbind(1)
    border = torch.stack([places[:, 0], places[:, 1], width - 1 - places[:, 0], height - 1 - places[:, 1],
                          x, y, width - 1 - x, height - 1 - y]).amin(0)
    whole = points.valid[:, 0] & (border > 12)
    found, mass = centroids(images)
    return (found - points.xy[:, 0]).norm(dim=1)[whole], points.scale[:, 0][whole], mass[whole]


@pytest.mark.parametrize("height, width", [(112, 112), (96, 130)])
def test_affine_moves_keypoints_to_where_the_content_goes(height, width):
    errors = torch.cat([blob_errors(AFFINE, seed, height, width)[0] for seed in range(12)])
    assert len(errors) > 100
    assert errors.max() < 0.1


@pytest.mark.parametrize("config", [HARDEST, PRESETS["paper"], PRESETS["default"]])
def test_elastic_moves_keypoints_to_where_the_content_goes(config):
    errors = torch.cat([blob_errors(config, seed, 112, 128)[0] for seed in range(12)])
    assert len(errors) > 100
    assert errors.max() < 0.2


def test_scale_follows_the_zoom():
    _, scale, mass = blob_errors(AFFINE, 3, 112, 112, batch=60)
    blob = 2 * math.pi * SIGMA**2  # the mass of a blob grows with the square of the zoom
    torch.testing.assert_close(scale, 4 * (mass / blob).sqrt(), rtol=0.02, atol=0)
    assert scale.min() < 3.4 and scale.max() > 4.6


@pytest.mark.parametrize("linear, expected, place", [
    ([[-1, 0], [0, 1]], lambda a: a.flip(-1), (7, 1)),
    ([[1, 0], [0, -1]], lambda a: a.flip(-2), (2, 8)),
    ([[0, 1], [1, 0]], lambda a: a.transpose(-1, -2), (1, 2)),
])
def test_flips_are_exact(linear, expected, place):
    image, label = torch.rand(1, 1, 10, 10), torch.randint(0, 4, (1, 10, 10))
    geometry = identity(1)._replace(linear=torch.tensor([linear]).float())
    moved, points, labels = warp(image, keypoints(torch.tensor([[[2, 1]]])), label, geometry)
    torch.testing.assert_close(moved, expected(image), atol=1e-5, rtol=0)
    assert torch.equal(labels, expected(label))
    torch.testing.assert_close(points.xy[0, 0], torch.tensor(place).float())


def test_keypoints_that_leave_become_padding_and_padding_stays():
    points = keypoints(torch.tensor([[[2.0, 5.0], [18.4, 5.0], [18.6, 5.0], [9.0, 9.0]]]))
    points = points._replace(valid=torch.tensor([[True, True, True, False]]))
    geometry = identity(1)._replace(shift=torch.tensor([[1.0, 0.0]]))  # the image ends at x = 19.5
    _, moved, _ = warp(torch.zeros(1, 1, 20, 20), points, None, geometry)
    assert moved.valid.tolist() == [[True, True, False, False]]
    torch.testing.assert_close(moved.xy[0, :2], torch.tensor([[3.0, 5.0], [19.4, 5.0]]))
    assert not moved.xy[0, 2:].any() and not moved.scale[0, 2:].any()


def test_outside_is_the_minimum_of_each_image_or_what_is_asked_for():
    image = torch.rand(2, 1, 8, 8) + torch.tensor([1.0, -5.0]).view(2, 1, 1, 1)
    geometry = identity(2)._replace(shift=torch.tensor([[3.0, 0.0]]).repeat(2, 1))
    empty, label = keypoints(torch.zeros(2, 0, 2)), torch.full((2, 8, 8), 3)
    moved, points, labels = warp(image, empty, label, geometry)
    assert points.xy.shape == (2, 0, 2)
    for i in range(2):
        torch.testing.assert_close(moved[i, 0, :, :3], image[i].min().expand(8, 3))
    torch.testing.assert_close(moved[..., 3:], image[..., :5], atol=1e-5, rtol=0)
    assert not labels[..., :3].any() and (labels[..., 3:] == 3).all()
    moved, _, _ = warp(image, empty, None, geometry, fill=7.0)
    torch.testing.assert_close(moved[..., :3], torch.full((2, 1, 8, 3), 7.0))


def test_labels_follow_the_image():
    generator = torch.Generator().manual_seed(4)
    places = 30 + 50 * torch.rand(12, 2, generator=generator)
    label = (blobs(places, 112, 112, sigma=8.0)[:, 0] > 0.5).long() * 3
    geometry = draw_geometry(HARDEST, 12, 112, 112, generator)
    image, _, moved = warp(label[:, None].float(), keypoints(places[:, None]), label, geometry, fill=0.0)
    assert set(moved.unique().tolist()) == {0, 3}
    assert moved.dtype == torch.int64
    agree = (moved == 3) == (image[:, 0] > 1.5)  # nearest and bilinear differ only at corners of the contour
    assert agree.float().mean() > 0.998


def test_an_image_does_not_depend_on_its_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, 40, 48, generator=generator)
    places = 40 * torch.rand(5, 7, 2, generator=generator)
    geometry = draw_geometry(HARDEST, 5, 40, 48, generator)
    together = warp(images, keypoints(places), None, geometry)
    for i in range(5):
        one = Geometry(*(field[i : i + 1] for field in geometry[:3]), geometry.spacing)
        image, points, _ = warp(images[i : i + 1], keypoints(places[i : i + 1]), None, one)
        torch.testing.assert_close(image[0], together[0][i], atol=1e-5, rtol=0)
        torch.testing.assert_close(points.xy[0], together[1].xy[i], atol=1e-4, rtol=0)
        assert torch.equal(points.valid[0], together[1].valid[i])


def test_a_constant_spline_is_constant_and_a_linear_one_linear():
    """Cubic B-splines sum to one and reproduce straight lines (closed form)."""
    knot = (torch.arange(7) - 3) * 10.0
    control = torch.stack([torch.ones(7, 7), knot.expand(7, 7)])[None]
    field = spline_field(control, 10.0, 30, 41)
    torch.testing.assert_close(field[0, 0], torch.ones(30, 41))
    torch.testing.assert_close(field[0, 1], (torch.arange(41) - 20.0).expand(30, 41), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="cover"):
        spline_field(control, 10.0, 30, 42)


def test_elastic_strength_is_what_it_says_and_never_folds():
    config = AugmentConfig(elastic_p=1.0, elastic_px=32 / 12)
    geometry = draw_geometry(config, 200, 96, 96, torch.Generator().manual_seed(0))
    field = spline_field(geometry.control, geometry.spacing, 96, 96)
    assert abs(field.std() - 32 / 12) < 0.1
    ux, uy = torch.diff(field, dim=3)[:, :, 1:], torch.diff(field, dim=2)[:, :, :, 1:]
    jacobian = (1 + ux[:, 0]) * (1 + uy[:, 1]) - ux[:, 1] * uy[:, 0]
    assert jacobian.min() > 0.2
    places = 95 * torch.rand(200, 50, 2, generator=torch.Generator().manual_seed(1))
    inner = identity(200)._replace(control=geometry.control)
    _, points, _ = warp(torch.zeros(200, 1, 96, 96), keypoints(places), None, inner)
    central = ((places - 47.5).abs() < 35).all(-1)
    assert points.valid[central].all()  # no keypoint is lost but across the border


@pytest.mark.parametrize("flips, to", [(("horizontal",), (10.0, 5.0)), (("vertical",), (3.0, 8.0)),
                                       (("horizontal", "vertical"), (10.0, 8.0)), (("transpose",), (5.0, 3.0))])
def test_a_pose_mirrors_then_turns_and_can_be_undone(flips, to):
    images, points = torch.rand(2, 1, 14, 14), keypoints(torch.tensor([[[3.0, 5.0]], [[3.0, 5.0]]]))
    there = pose(0.0, flips, 2, 14, 14)
    moved, there_points, _ = warp(images, points, None, there)
    torch.testing.assert_close(there_points.xy, torch.tensor([to, to])[:, None])
    torch.testing.assert_close(moved[:, 0, int(to[1]), int(to[0])], images[:, 0, 5, 3])
    turned = pose(90.0, flips, 2, 14, 14)
    for move in (there, turned):
        image, point, _ = warp(*warp(images, points, None, move), undone(move))
        torch.testing.assert_close(image, images, atol=1e-4, rtol=0)
        torch.testing.assert_close(point.xy, points.xy)
    torch.testing.assert_close(warp(moved, there_points, None, pose(90.0, (), 2, 14, 14))[0],
                               warp(images, points, None, turned)[0], atol=1e-4, rtol=0)


def test_a_pose_has_memory_of_its_own_for_every_image_as_pinning_needs():
    there = pose(20.0, ("transpose",), 8, 64, 48)
    assert all(part.is_contiguous() for part in (*there[:3], undone(there).linear)) and there.spacing == 64
