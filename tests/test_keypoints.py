import cv2
import numpy as np
import pytest
import torch

from kaf.correspondence import match_keypoints
from kaf.keypoints import (
    Keypoints,
    collate,
    deduplicate,
    detect_grid,
    detect_orb,
    detect_random,
    detect_sift,
    from_arrays,
    get_detector,
    inside,
    pad,
    prepare,
    read_pixels,
    top_k,
)


def textured(height=80, width=100, seed=0):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (height, width)).astype(np.float32), (0, 0), 2)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


class Watched:
    """In place of a field: how it was asked to move."""

    def to(self, device, non_blocking):
        return device, non_blocking


@pytest.mark.parametrize("device, asked, done", [("cuda", None, True), ("cuda:1", None, True), ("cpu", None, False),
                                                 ("mps", None, False), ("cuda", False, False), ("cpu", True, True)])
def test_only_a_copy_to_an_nvidia_gpu_does_not_wait(device, asked, done):
    words = {} if asked is None else {"non_blocking": asked}
    assert set(Keypoints(*(Watched() for _ in range(5))).to(device, **words)) == {(device, done)}


def test_sift_finds_a_blob_where_it_is():
    y, x = np.mgrid[:64, :90]
    image = (200 * np.exp(-((x - 61.3) ** 2 + (y - 20.7) ** 2) / (2 * 3.0**2))).astype(np.uint8)
    strongest = top_k(detect_sift(image), 1)
    assert torch.dist(strongest.xy[0], torch.tensor([61.3, 20.7])) < 0.2  # (x, y), not (row, col)


def test_sift_sorts_by_score_and_agrees_with_opencv():
    image = textured()
    points = detect_sift(image)
    theirs = cv2.SIFT_create(enable_precise_upscale=True).detect(image, None)
    assert len(points.score) == len(theirs) > 50
    assert (points.score[:-1] >= points.score[1:]).all()
    assert points.descriptor.dtype == torch.uint8 and points.descriptor.shape[1] == 128
    assert sorted(map(tuple, points.xy.tolist())) == sorted(p.pt for p in theirs)


def test_a_flat_image_has_no_keypoints():
    points = prepare(detect_sift(np.full((40, 40), 7, np.uint8)), 5)
    assert points.xy.shape == (5, 2) and points.descriptor.shape == (5, 128) and not points.valid.any()


def test_orb_describes_a_place_by_bits():
    image = textured()
    points, moved = detect_orb(image), detect_orb(np.roll(image, 6, axis=1))
    assert 50 < len(points.score) <= 1000 and (points.score[:-1] >= points.score[1:]).all()
    assert points.descriptor.shape[1] == 256 and set(points.descriptor.unique().tolist()) == {0, 1}
    match = match_keypoints(points, moved, window=200.0)
    shift = (moved.xy[match[match >= 0]] - points.xy[match >= 0])
    assert ((shift - torch.tensor([6.0, 0.0])).abs().max(1).values < 0.5).float().mean() > 0.6
    assert prepare(detect_orb(np.full((40, 40), 7, np.uint8)), 5).descriptor.shape == (5, 256)
    assert len(detect_orb(np.zeros((1, 7), np.uint8)).xy) == 0  # OpenCV's raises an error


def test_deduplicate_keeps_the_strongest_of_a_pixel():
    xy = np.array([[1.0, 1.0], [5.2, 5.0], [1.2, 0.8], [4.9, 5.4], [5.6, 5.0]])
    kept = deduplicate(from_arrays(xy, score=np.array([0.1, 0.5, 0.3, 0.9, 0.2])))
    assert kept.xy[:, 0].tolist() == pytest.approx([1.2, 4.9, 5.6])


def test_deduplicate_before_top_k():
    xy = np.array([[1.0, 1], [1, 1], [1, 1], [9, 9]])
    points = prepare(from_arrays(xy, score=np.array([4.0, 3, 2, 1])), 3)
    assert points.valid.tolist() == [True, True, False] and points.xy[1].tolist() == [9, 9]


def test_pad_fills_with_zeros_and_refuses_too_many():
    points = pad(detect_random(textured(), count=3), 5)
    assert points.valid.tolist() == [True] * 3 + [False] * 2
    assert all(field[3:].float().abs().sum() == 0 for field in points)
    with pytest.raises(ValueError, match="cannot pad 5 keypoints to 4"):
        pad(points, 4)


def test_controls():
    image = textured()
    grid = detect_grid(image, step=10)
    for size, k in (((512, 512), 300), ((224, 160), 40), ((144, 144), 16)):
        some = prepare(detect_grid(np.zeros(size, np.uint8)), k).xy
        quarters = torch.stack([some[:, 1] < size[0] / 2, some[:, 0] < size[1] / 2], 1).long() @ torch.tensor([2, 1])
        assert quarters.bincount(minlength=4).min() >= k // 8, "few points of a grid lie all over the image, too"
    assert len(grid.xy) == 80 and torch.allclose(grid.xy.mean(0), torch.tensor([49.5, 39.5]))
    first, second = detect_random(image, seed=1), detect_random(image, seed=1)
    assert torch.equal(first.xy, second.xy) and not torch.equal(first.xy, detect_random(image, seed=2).xy)
    assert inside(first.xy, *image.shape).all() and inside(grid.xy, *image.shape).all()


def test_the_random_detector_by_name_has_a_pattern_for_each_image():
    find, image = get_detector("random"), textured()
    assert torch.equal(find(image).xy, find(np.asfortranarray(image)).xy) and inside(find(image).xy, *image.shape).all()
    assert not torch.equal(find(image).xy, find(textured(seed=1)).xy)
    with pytest.raises(TypeError, match="8-bit image"):
        find(np.zeros((4, 4), np.float32))


def test_pixels_are_read_where_points_lie_and_at_the_border_beyond():
    maps = torch.arange(2 * 3 * 4).view(2, 3, 4)
    xy = torch.tensor([[1.4, 0.0], [1.5, 2.49], [-9.0, 1.0], [3.0, 9.0]])
    assert read_pixels(maps, xy.expand(2, 4, 2)).tolist() == [[1, 10, 4, 11], [13, 22, 16, 23]]


def test_inside_ends_half_a_pixel_beyond_the_centres():
    xy = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [9.4, 4.4], [9.5, 4.0]])
    assert inside(xy, 5, 10).tolist() == [True, False, True, False]


def test_collate_select_moved():
    batch = collate([prepare(detect_random(textured(), 4, seed=s), 6) for s in range(3)])
    assert batch.xy.shape == (3, 6, 2) and batch.select(1).xy.shape == (6, 2)
    moved = batch.moved(batch.xy + 1, torch.arange(6).expand(3, 6) < 2)
    assert moved.valid.sum() == 6 and moved.xy[:, 2:].abs().sum() == 0 and moved.score[:, 2:].sum() == 0


def test_get_detector():
    assert get_detector("sift") is detect_sift and get_detector(detect_grid) is detect_grid
    with pytest.raises(ValueError, match="unknown detector 'surf'"):
        get_detector("surf")
    with pytest.raises(TypeError, match="8-bit image"):
        detect_sift(np.zeros((4, 4), np.float32))
