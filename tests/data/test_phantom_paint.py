"""What the phantoms are painted with, against closed forms."""

import numpy as np
import pytest

from kaf.data.phantom_ct import paint_tube, tube
from kaf.data.phantom_paint import Canvas, Ellipsoid, Frame, coil_field, ellipse_distance, rician, ripple, smooth_noise


def test_ripple_is_a_sum_of_cosines():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 50)).astype(np.float32)
    theta, weights = np.arctan2(v, u), (0.1, -0.2, 0.05)
    expected = sum(w * np.cos(k * theta + k * k) for k, w in enumerate(weights, 2))
    assert np.allclose(ripple(u, v, np.hypot(u, v), weights), expected, atol=1e-5)


def test_section_of_a_sphere_is_the_circle_of_pythagoras():
    frame = Frame((80, 90), 0.5, (40, 45), 0.4)
    canvas = Canvas(frame, np.zeros((80, 90), np.float32))
    canvas.ellipsoid(Ellipsoid((3, -2, 0), (10, 10, 10), 1.0), z=6.0, label=5)
    assert canvas.image.sum() * 0.25 == pytest.approx(np.pi * 8**2, rel=0.01)
    x, y = (grid[canvas.label == 5].mean() for grid in frame.grid())
    assert (x, y) == pytest.approx((3, -2), abs=0.05)
    canvas.ellipsoid(Ellipsoid((3, -2, 0), (10, 10, 10), 7.0), z=10.5)
    assert canvas.image.max() <= 1.0
    moved = frame.moved(4, 1).grid()
    assert moved[0][20, 30] == pytest.approx(frame.grid()[0][20, 30] - 4, abs=1e-4)
    assert moved[1][20, 30] == pytest.approx(frame.grid()[1][20, 30] - 1, abs=1e-4)


def test_straight_tube_has_a_round_section():
    canvas = Canvas(Frame((60, 60), 0.5, (30, 30)), np.zeros((60, 60), np.float32))
    paint_tube(canvas, tube([(2, 1, -30), (2, 1, 30)], [6, 6], 1.0, 3, step=0.5), 0.0)
    assert canvas.image.clip(0, 1).sum() * 0.25 == pytest.approx(np.pi * 36, rel=0.03)
    distance = ellipse_distance(canvas.x - 2, canvas.y - 1, 6, 6)
    assert (distance[canvas.label == 3] < 0.5).all()


def test_noise_and_coil_have_their_moments():
    rng = np.random.default_rng(0)
    background = rician(rng, np.zeros((200, 200), np.float32), 0.5)
    assert background.mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
    assert coil_field(rng, (40, 50), 0.3).mean() == pytest.approx(1, abs=1e-5)
    grain = smooth_noise(rng, (3, 40, 40), (0, 1, 1))
    assert (grain.mean(), grain.std()) == pytest.approx((0, 1), abs=1e-4)
