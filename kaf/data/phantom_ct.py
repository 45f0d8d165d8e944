"""The CT phantom: an axial chest scan of one patient with the seven structures of CHD-68.

The origin is the centre of the heart; x runs to the right of the image (the patient's left), y to
the back, z upwards. Values are in Hounsfield units (HU): blood with contrast agent is bright.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from kaf.data.phantom_paint import Canvas, Ellipsoid, Frame, edge, ellipse_distance, smooth_noise, waves

LV, RV, LA, RA, MYO, AO, PA = range(1, 8)


class Tube(NamedTuple):
    """A vessel: ``points`` ``(N, 3)`` in mm along its middle, ``radius`` ``(N,)``, HU and label."""

    points: np.ndarray
    radius: np.ndarray
    value: float
    label: int | None


def tube(points, radius, value: float, label: int | None, step: float = 1.5) -> Tube:
    """A smooth tube through a few points, sampled about every ``step`` mm."""
    points, radius = np.asarray(points, float), np.asarray(radius, float)
    t = np.linspace(0, 1, len(points))
    count = max(2, int(np.linalg.norm(np.diff(points, axis=0), axis=1).sum() / step))
    fine, degree = np.linspace(0, 1, count), min(3, len(points) - 1)
    curve = np.stack([np.polyval(np.polyfit(t, c, degree), fine) for c in points.T], 1)
    return Tube(curve, np.interp(fine, t, radius), value, label)


def paint_tube(canvas: Canvas, vessel: Tube, z: float, clip=None) -> None:
    """Cover the section of a tube at height ``z``: the union of the balls along its middle."""
    half = vessel.radius**2 - (vessel.points[:, 2] - z) ** 2
    if not (half > 0).any():
        return
    points, radius = vessel.points[half > 0], np.sqrt(half[half > 0])
    middle = (points[:, :2].max(0) + points[:, :2].min(0)) / 2
    reach = (np.linalg.norm(points[:, :2] - middle, axis=1) + radius).max()
    window = canvas.frame.window(*middle, reach)
    x, y = canvas.x[window], canvas.y[window]
    distance = np.full(x.shape, np.inf, np.float32)
    for (px, py, _), r in zip(points.astype(np.float32), radius.astype(np.float32), strict=True):
        np.minimum(distance, np.hypot(x - px, y - py) - r, out=distance)
    if x.size:
        canvas.cover(distance, vessel.value, 8, window, clip, vessel.label)


class Chest(NamedTuple):
    """One patient, lengths in mm."""

    scale: float  # size relative to an adult's
    radii: tuple[float, float]  # of the trunk
    waves: tuple[float, ...]
    fat: float
    dome: float  # height of the diaphragm
    soft: tuple[Ellipsoid, ...]  # behind the heart: liver, spine, ribs
    vessels: tuple[Tube, ...]  # of the lung
    chambers: tuple[tuple[Ellipsoid, int | None], ...]
    trunks: tuple[Tube, ...]


def draw_chest(rng: np.random.Generator) -> Chest:
    """A random patient, from infant to adult, with chambers of uneven size as in heart defects."""
    n, u = rng.normal, rng.uniform
    s = u(0.55, 1.0)
    left, right = u(260, 480), u(200, 460)  # HU of the blood: the contrast agent is not spread evenly
    chambers, trunks = _heart(rng, s, left, right)  # the trunk is small around it: most are children
    radii = (s * u(112, 138), s * u(82, 100))
    return Chest(
        s, radii, waves(rng, 0.02), s * u(4, 13), s * u(-55, -35), _soft(rng, s, radii),
        _branches(rng, s, left, right), chambers, (*trunks, *_confounders(rng, s, n(0, 3), left, right)),
    )  # fmt: skip


def _heart(rng, s: float, left: float, right: float):
    """Chambers and great vessels; each of its own random size, all turned together."""
    turn = rng.normal(0, 0.2)
    c, d = np.cos(turn), np.sin(turn)

    def place(x, y, z):
        return np.array([s * (c * x - d * y), s * (d * x + c * y), s * z])

    def chamber(x, y, z, a, b, h, value, angle=0.0, uneven=0.05, grain=9.0):
        size = s * np.exp(rng.normal(0, 0.12))
        centre = place(*(np.array([x, y, z]) + rng.normal(0, 2.5, 3)))
        slant = tuple(rng.normal(0, 0.15, 2))
        return Ellipsoid(
            tuple(centre), (a * size, b * size, h * size), value, grain, angle + turn, waves(rng, uneven), slant
        )

    lv = chamber(28, 2, -12, 36, 22, 38, left, 0.65)
    wall = s * rng.uniform(6, 12)
    myo = lv._replace(radii=tuple(r + wall for r in lv.radii), value=rng.uniform(80, 150), grain=14.0)
    rv = chamber(-8, -24, -12, 36, 20, 38, right, 0.5, 0.08)
    thin = rv._replace(radii=tuple(r + s * 3 for r in rv.radii), value=myo.value)
    chambers = (
        (thin, None), (rv, RV), (myo, MYO), (lv, LV),
        (chamber(-38, 6, 0, 20, 24, 30, right * rng.uniform(0.7, 1.0), 0.2), RA),
        (chamber(4, 34, 10, 30, 17, 22, left, 0.1), LA),
    )  # fmt: skip
    w, v = s * np.exp(rng.normal(0, 0.12, 2))  # width of the aorta and of the pulmonary artery
    arch = [
        place(*p)
        for p in ((-2, 4, 4), (-12, -10, 36), (-8, -4, 66), (6, 20, 78), (20, 44, 62), (18, 52, 0), (14, 50, -90))
    ]
    aorta = _sampled(arch, np.array([12, 13.5, 12.5, 11.5, 11, 10, 9]) * w, left, AO)
    trunk = tube(
        [place(*p) for p in ((10, -26, 18), (14, -16, 40), (12, 8, 48))], np.array([13, 13, 12]) * v, right, PA
    )
    sides = [
        tube([place(*p) for p in points], np.array([11, 9, 5]) * v, right, PA)
        for points in (((12, 8, 48), (-14, 20, 46), (-50, 26, 40)), ((12, 8, 48), (36, 26, 50), (58, 36, 44)))
    ]
    return chambers, [aorta, trunk, *sides]


def _sampled(points, radius, value: float, label: int) -> Tube:
    """A tube through many points: a chain of straight pieces, rounded."""
    points = np.asarray(points)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    fine = np.arange(0, steps[-1], 1.5)
    curve = np.stack([np.interp(fine, steps, c) for c in points.T], 1)
    curve = ndimage.gaussian_filter1d(curve, 7, axis=0, mode="nearest")
    return Tube(curve, np.interp(fine, steps, radius), value, label)


def _confounders(rng, s: float, x: float, left: float, right: float) -> list[Tube]:
    """Bright vessels without a label: the caval veins, and pulmonary veins into the left atrium."""
    upper = tube([(s * (x - 34), 0, 20 * s), (s * (x - 30), -4 * s, 95 * s)], np.array([9, 8]) * s, right * 1.5, None)
    lower = tube(
        [(s * (x - 36), 14 * s, -20 * s), (s * (x - 34), 24 * s, -90 * s)], np.array([11, 10]) * s, 0.6 * right, None
    )
    veins = [
        tube([(s * side * 14, s * 38, s * h), (s * side * 60, s * rng.uniform(25, 50), s * (h + rng.normal(0, 8)))],
             np.array([7, 3]) * s, left, None)
        for side in (-1, 1) for h in (4, 18)
    ]  # fmt: skip
    return [upper, lower, *veins]


def _soft(rng, s: float, radii) -> tuple[Ellipsoid, ...]:
    """Spine, sternum, ribs, airway and oesophagus."""
    back, bone = radii[1] - 34 * s, rng.uniform(250, 420)
    tissues = [
        Ellipsoid((0, back, 0), (17 * s, 14 * s, 400), bone, 60, 0, waves(rng, 0.05)),
        Ellipsoid((0, back + 17 * s, 0), (9 * s, 7 * s, 400), 40, 5),
        Ellipsoid((0, back + 28 * s, 0), (5 * s, 9 * s, 400), bone, 60),
        Ellipsoid((0, -radii[1] + 18 * s, 20), (16 * s, 6 * s, 120), 0.7 * bone, 60),
        Ellipsoid((-6 * s, back - 26 * s, 70 * s), (8 * s, 7 * s, 45 * s), -950, 5),
        Ellipsoid((4 * s, back - 16 * s, 0), (6 * s, 4 * s, 300), 30, 15),
    ]
    for angle in np.linspace(0, 2 * np.pi, 18, endpoint=False) + rng.uniform(0, 0.3):
        at = ((radii[0] - 15 * s) * np.cos(angle), (radii[1] - 13 * s) * np.sin(angle), rng.uniform(-70, 70) * s)
        slant = tuple(rng.normal(0, 0.1, 2))
        tissues.append(Ellipsoid(at, (13 * s, 4 * s, 60 * s), bone * 1.2, 80, angle + np.pi / 2, (), slant))
    return tuple(tissues)


def _branches(rng, s: float, left: float, right: float) -> tuple[Tube, ...]:
    """The vessels of both lungs, from the hilum outwards."""
    tubes = []
    for _ in range(rng.integers(110, 170)):
        side, value = rng.choice([-1, 1]), rng.choice([left, right]) * rng.uniform(0.5, 1)
        start = np.array([side * 50, 28, 20]) * s + rng.normal(0, 12 * s, 3)
        end = start + np.array([side * rng.uniform(-5, 45), rng.normal(0, 32), rng.normal(0, 45)]) * s
        tubes.append(
            tube(
                [start, (start + end) / 2 + rng.normal(0, 6 * s, 3), end],
                np.array([3.6, 2.4, 1.4]) * s,
                value,
                None,
                2.5,
            )
        )
    return tuple(tubes)


def paint_chest(canvas: Canvas, chest: Chest, z: float) -> None:
    """Cover one axial slice, from the skin inwards."""
    s, (a, b) = chest.scale, chest.radii
    canvas.image[:] = -1000
    depth = ellipse_distance(canvas.x, canvas.y - 8 * s, a, b, 0, chest.waves)
    canvas.cover(depth, -95, 10)
    canvas.cover(depth + chest.fat, 55, 12)
    layer = np.abs(depth + chest.fat + 6 * s + 2 * s * canvas.texture) - 1.2 * s
    canvas.cover(layer, -70, 10)  # fat between the muscles of the wall
    inside = depth + chest.fat + 14 * s
    middle = np.abs(canvas.x + 2 * s) - s * (14 + 16 * np.exp(-((canvas.y / (60 * s)) ** 2)))  # the mediastinum
    air = edge(np.maximum(inside, -middle), canvas.frame.spacing)
    bulge = 20 * s * (1 - (canvas.x / a) ** 2 - (canvas.y / b) ** 2)
    canvas.cover(np.maximum(np.maximum(inside, -middle), 0.6 * (chest.dome + bulge - z)), -860, 25)
    air = air * edge(0.6 * (chest.dome + bulge - z), canvas.frame.spacing)
    canvas.cover(np.maximum(inside, 0.6 * (z - chest.dome - bulge)), 110, 14)  # liver and spleen
    for e in chest.soft:
        canvas.ellipsoid(e, z)
    for vessel in chest.vessels:
        paint_tube(canvas, vessel, z, clip=air)
    sac = ellipse_distance(canvas.x, canvas.y - 2 * s, 70 * s, 52 * s)
    height = np.clip(1 - (z / (75 * s)) ** 2, 0, 1)
    canvas.cover(sac + 70 * s * (1 - np.sqrt(height)), -40, 25)  # fat around the heart
    for vessel in chest.trunks:
        paint_tube(canvas, vessel, z)
    for chamber, label in chest.chambers:
        canvas.ellipsoid(chamber, z, label=0 if label is None else label)


def ct_volume(rng: np.random.Generator, size: int, slices: tuple[int, int]):
    """One patient: ``(image, label, spacing)``, image int16 and label uint8 ``(S, size, size)``.

    ``spacing`` is ``(slice, row, col)`` in mm. Slices run from caudal to cranial.
    """
    chest = draw_chest(rng)
    count = int(rng.integers(slices[0], slices[1] + 1))
    low, high = -62 * chest.scale, rng.uniform(78, 95) * chest.scale
    spacing = float((2 * chest.radii[0] * rng.uniform(0.86, 1.1)) / size)
    origin = (size * rng.normal(0.47, 0.02), size * rng.normal(0.5, 0.03))
    frame = Frame((size, size), spacing, origin, rng.normal(0, 0.08))
    grain = smooth_noise(rng, (count, size, size), (0.6, 1.5, 1.5))
    image, label = np.zeros((count, size, size), np.float32), np.zeros((count, size, size), np.uint8)
    for k, z in enumerate(np.linspace(low, high, count)):
        canvas = Canvas(frame, grain[k])
        paint_chest(canvas, chest, float(z))
        image[k], label[k] = canvas.image, canvas.label
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6), truncate=3)
    image += smooth_noise(rng, image.shape, (0, 0.6, 0.6)) * rng.uniform(14, 32)
    step = float((high - low) / max(count - 1, 1))
    return np.clip(image, -1024, 3071).astype(np.int16), label, (step, spacing, spacing)
