"""The MR phantom: a short-axis cine stack of one patient, with the body around the heart.

The heart's axis is the origin, x runs to the right of the image, y downwards, z from base to apex.
The lungs lie above and to the right of the heart, the abdomen below the diaphragm.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kaf.data.phantom_heart import Beat, Tissue, at_phase, draw_heart, heart_frame, paint_heart
from kaf.data.phantom_paint import Canvas, Ellipsoid, Frame, coil_field, edge, rician, smooth_noise, waves

SCALE = 700.0  # stored value of a tissue of intensity 1


@dataclass(frozen=True)
class Body:
    """What surrounds one patient's heart. Lengths in mm."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    lean: tuple[float, float]  # movement of the centre per mm of z
    waves: tuple[float, ...]
    fat: tuple[float, float]  # thickness under the skin, angle where it is thickest
    muscle: float
    ribs: tuple[float, float]  # how many around the body, phase
    dome: tuple[float, float, float]  # diaphragm: height below the heart, rise per mm of z, tilt
    organs: tuple[Ellipsoid, ...]
    vessels: tuple[Ellipsoid, ...]  # of the lung, and the fat about the heart
    lung: float  # intensity of the lung
    tissue: Tissue


def draw_body(rng: np.random.Generator, heart: Beat) -> Body:
    """A random body around a heart that fits into it."""
    u, n = rng.uniform, rng.normal
    blood = u(0.65, 1.0)
    tissue = Tissue(blood, blood * u(0.68, 1.05), u(0.2, 0.34), blood * u(0.28, 0.5), u(0.85, 1.2))
    dome = (heart.outer_radius + u(-4, 8), u(0.2, 0.48), u(-0.25, 0.2))
    radii, fat, muscle = (u(108, 140), u(160, 205)), u(6, 17), u(10, 18)
    room = radii[0] - fat - muscle - heart.outer_radius - 0.9 * heart.rv_reach  # the heart touches the wall at most
    behind = (*_pads(rng, heart, tissue), *_lung_vessels(rng, heart, tissue))
    return Body(
        (min(u(-5, 30), room), u(5, 40)), radii, (n(-0.25, 0.2), n(0, 0.15)), waves(rng, 0.045),
        (fat, u(-np.pi, np.pi)), muscle, (rng.integers(11, 22), u(0, 6)), dome,
        (*_organs(rng, dome[0], tissue), *_bowels(rng, dome[0], tissue)), behind, u(0.07, 0.2), tissue,
    )  # fmt: skip


def _organs(rng, top: float, tissue: Tissue) -> list[Ellipsoid]:
    """Liver, stomach, spleen, kidneys, spine and the great vessels below the diaphragm."""
    u, n = rng.uniform, rng.normal

    def organ(x, y, a, b, c, value, grain=0.05, uneven=0.06):
        centre, size = (x + n(0, 8), y + n(0, 8), 40 + n(0, 20)), np.exp(n(0, 0.12))
        radii = (a * size, b * size, c * np.exp(n(0, 0.2)))
        return Ellipsoid(centre, radii, value, grain, u(-0.5, 0.5), waves(rng, uneven), (n(0, 0.12), n(0, 0.12)))

    m, blood = tissue.muscle, tissue.blood
    stomach = organ(30, top + 32, 28, 20, 60, u(0.2, 0.75), u(0.04, 0.12))
    liver = organ(-52, top + 38, 62, 40, 150, m * u(0.9, 1.4), 0.04)
    x, y = liver.centre[:2]
    branches = [organ(x + n(0, 22), y + n(0, 13), u(2, 6), u(2, 4), 25, blood * u(0.5, 0.8), 0) for _ in range(16)]
    return [
        liver, *branches,
        stomach, organ(stomach.centre[0], stomach.centre[1], 14, 9, 40, u(0.3, 0.9), 0.2, 0.2),
        organ(75, top + 48, 18, 34, 70, m * u(0.9, 2.0), 0.03), organ(50, top + 85, 17, 27, 45, m * u(1.2, 2), 0.1),
        organ(48, top + 85, 8, 13, 30, tissue.fat * 0.7, 0.2), organ(-55, top + 105, 17, 27, 45, m * 1.6, 0.1),
        organ(-10, top + 98, 22, 17, 200, m * u(1.1, 1.9), 0.08, 0.03), organ(-10, top + 124, 8, 6, 200, blood * 1.1),
        organ(-38, top + 120, 22, 15, 200, m, 0.06), organ(22, top + 122, 22, 15, 200, m, 0.06),
        organ(14, top + 62, 10, 10, 300, blood * u(0.85, 1.1), 0.04, 0.02),  # descending aorta: round and bright
        organ(-18, top + 26, 12, 9, 90, blood * u(0.6, 1.0), 0.06, 0.04),  # inferior vena cava
    ]  # fmt: skip


def _bowels(rng, top: float, tissue: Tissue) -> list[Ellipsoid]:
    """Loops of bowel in fat: small, uneven, of any brightness."""
    loops = []
    for _ in range(rng.integers(14, 26)):
        centre = (rng.uniform(-90, 90), top + rng.uniform(55, 150), rng.uniform(0, 100))
        radii = (*rng.uniform(5, 14, 2), rng.uniform(12, 40))
        value = rng.choice([tissue.muscle, 0.5, tissue.blood]) * rng.uniform(0.6, 1.3)
        loops.append(
            Ellipsoid(centre, radii, value, 0.07, rng.uniform(0, 3), waves(rng, 0.12), tuple(rng.normal(0, 0.3, 2)))
        )
    return loops


def _pads(rng, heart: Beat, tissue: Tissue) -> list[Ellipsoid]:
    """Fat between heart, sternum and diaphragm, which hides parts of the heart's border."""
    pads = []
    for _ in range(rng.integers(3, 7)):
        angle = rng.uniform(0.9, 4.3)
        away = heart.outer_radius + rng.uniform(0.1, 0.9) * heart.rv_reach
        centre = (away * np.cos(angle), away * np.sin(angle), rng.uniform(-10, 90))
        radii = (*rng.uniform(9, 26, 2), rng.uniform(20, 60))
        value = tissue.fat * rng.uniform(0.35, 0.9)
        pads.append(Ellipsoid(centre, radii, value, 0.15, rng.uniform(0, 3), waves(rng, 0.12)))
    return pads


def _lung_vessels(rng, heart: Beat, tissue: Tissue) -> tuple[Ellipsoid, ...]:
    """Bright dots and short branches, denser and larger near the heart."""
    vessels = []
    for _ in range(rng.integers(150, 260)):
        angle, away = rng.uniform(-3.3, 0.9), heart.outer_radius + rng.gamma(2.0, 18) + 6
        centre = (away * np.cos(angle), away * np.sin(angle), rng.uniform(-25, 100))
        size = rng.uniform(1.1, 3.2) * np.exp(-away / 250)
        radii = (size * rng.choice([1, 1, 3.5]), size, rng.uniform(6, 22))
        value = tissue.blood * rng.uniform(0.35, 1.0)
        vessels.append(Ellipsoid(centre, radii, value, 0, rng.uniform(0, 3), (), tuple(rng.normal(0, 0.5, 2))))
    return tuple(vessels)


def paint_body(canvas: Canvas, body: Body, z: float) -> None:
    """Cover a slice with everything but the heart, from the skin inwards."""
    x = canvas.x - np.float32(body.centre[0] + body.lean[0] * z)
    y = canvas.y - np.float32(body.centre[1] + body.lean[1] * z)
    theta, rho = np.arctan2(y, x), np.hypot(x, y)
    a, b = np.float32(body.radii[0]), np.float32(body.radii[1])
    rim = a * b / np.sqrt((b * np.cos(theta)) ** 2 + (a * np.sin(theta)) ** 2)
    rim = rim * (1 + sum(w * np.cos(k * theta + k) for k, w in enumerate(body.waves, 2)))
    fat = body.fat[0] * (1 + 0.6 * np.cos(theta - body.fat[1])) + 2
    tissue, depth = body.tissue, rho - rim
    canvas.cover(depth, tissue.fat, 0.05)
    canvas.cover(depth + fat, tissue.muscle, 0.06)
    count, phase = body.ribs
    wave = np.sin(count * theta + phase + 0.08 * z + np.sin(5 * theta + phase) * 2) + 0.5 * canvas.texture
    middle = np.abs(depth + fat + 0.6 * body.muscle) - 0.22 * body.muscle
    canvas.cover(np.maximum(middle, 6 * (0.15 - wave)), 0.7 * tissue.fat, 0.15)  # fat between the ribs
    canvas.cover(np.maximum(middle + 1, 6 * (wave + 0.55)), 0.35 * tissue.fat, 0.15)  # their marrow
    inside = edge(depth + fat + body.muscle, canvas.frame.spacing)
    canvas.cover(depth + fat + body.muscle, body.lung, 0.012)  # the lungs
    height, rise, tilt = body.dome
    top = height - rise * z + tilt * canvas.x + (canvas.x - 15) ** 2 / 260
    for vessel in body.vessels:
        canvas.ellipsoid(vessel, z, clip=inside)
    canvas.cover(top - canvas.y, tissue.muscle, 0.05, clip=inside)
    canvas.cover(top + 4 - canvas.y, 0.6 * tissue.fat, 0.06, clip=inside)
    below = inside * edge(top + 3 - canvas.y, canvas.frame.spacing)
    for organ in body.organs:
        canvas.ellipsoid(organ, z, clip=below)


def mr_stack(rng: np.random.Generator, group: str, size: int, slices: tuple[int, int], phases=(0.0, 1.0)):
    """One patient: ``(images, labels, spacing)``.

    ``images`` and ``labels`` are ``(P, S, H, W)``, one stack per phase of the heart beat, ``spacing``
    ``(slice, row, col)`` in mm. The larger of H and W is ``size``. Body, coil and position are those
    of the patient; noise and blur differ between the stacks only by their random numbers.
    """
    heart = draw_heart(rng, group)
    beats = [at_phase(heart, phase) for phase in phases]
    body, septum = draw_body(rng, at_phase(heart, 0.0)), np.pi + rng.normal(0, 0.3)
    frame = _field_of_view(rng, size)
    extent, start = heart.length * rng.uniform(0.92, 1.04), rng.uniform(-6, 4)
    step = rng.uniform(8.5, 10)
    count = int(np.clip(np.ceil((extent - start) / step), *slices))
    step = max(step, (extent - start) / count) if count == slices[1] else step
    z = start + step * (np.arange(count) + 0.25)
    shift = rng.normal(0, 1.6, (count, 2))  # breath holds differ from slice to slice
    grain = smooth_noise(rng, (count, *frame.shape), (0.7, 1.3, 1.3))
    images = np.zeros((len(beats), count, *frame.shape), np.float32)
    labels = np.zeros(images.shape, np.uint8)
    for s in range(count):
        moved = frame.moved(*shift[s])
        behind = Canvas(moved, grain[s])
        paint_body(behind, body, z[s])
        for p, beat in enumerate(beats):
            images[p, s] = behind.image
            _add_heart(images[p, s], labels[p, s], moved, grain[s], beat, z[s], step, septum, body.tissue)
    spacing = (float(step), frame.spacing, frame.spacing)
    return _acquire(rng, images, body), labels, spacing


def _field_of_view(rng, size: int) -> Frame:
    """Shape, pixel size, and where the heart lies in it: somewhat left of the middle."""
    other = 2 * round(size * rng.choice([0.75, 0.84, 0.94, 1.0]) / 2)
    spacing, lying = rng.uniform(300, 375) / size, rng.random() < 0.15
    shape = (other, size) if lying else (size, other)
    origin = (shape[0] * rng.normal(0.5, 0.05), shape[1] * rng.normal(0.45, 0.04))
    return Frame(shape, float(spacing), origin, rng.normal(0, 0.22) + (np.pi / 2 if lying else 0))


def _add_heart(image, label, frame: Frame, grain, beat: Beat, z, step, septum, tissue) -> None:
    """Cover the heart: a thick slice is the mean of three thin ones, its label that of the middle."""
    local, window = heart_frame(frame, 2.6 * beat.outer_radius + beat.rv_reach)
    layers = []
    for offset in (-0.3, 0.3, 0.0):
        canvas = Canvas(local, grain[window])
        canvas.image[:] = image[window]
        paint_heart(canvas, beat, z + offset * step, septum, tissue)
        layers.append(canvas.image)
    image[window] = np.mean(layers, axis=0)
    label[window] = canvas.label


def _acquire(rng, images: np.ndarray, body: Body) -> np.ndarray:
    """What the scanner adds: coil, dark bands of steady-state imaging, blur and Rician noise; int16."""
    shape = images.shape[-2:]
    row, col = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    field = coil_field(rng, shape, 0.3)
    away = np.hypot(row, col) - rng.uniform(0.75, 1.0)
    bands = np.cos(rng.uniform(25, 60) * away**2 + rng.uniform(0, 6)) * np.clip(2 * away, 0, 0.6)
    field = field * (1 - np.maximum(bands, 0))
    images = ndimage.gaussian_filter(images * field, (0, 0, *[rng.uniform(0.35, 0.6)] * 2), truncate=3)
    images = rician(rng, images, rng.uniform(0.012, 0.03))
    return np.clip(images * SCALE * rng.uniform(0.5, 1.0), 0, 4095).astype(np.int16)
