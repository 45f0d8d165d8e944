"""What the phantoms paint with: a slice in millimetres, ellipsoids cut by it, noise and coils.

A phantom is painted back to front like a picture: every tissue covers what lies behind it with an
edge one pixel wide. Nothing here knows anatomy.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Frame:
    """Where the anatomy lies in a slice: pixels ``(row, col)`` <-> millimetres ``(x, y)``.

    ``shape`` is ``(H, W)``, ``spacing`` the pixel size in mm, ``origin`` the pixel ``(row, col)`` of
    the anatomy's origin, ``turn`` its rotation in radians.
    """

    shape: tuple[int, int]
    spacing: float
    origin: tuple[float, float]
    turn: float = 0.0

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """The ``x`` and ``y`` of every pixel in mm, float32 ``(H, W)`` each."""
        row = ((np.arange(self.shape[0]) - self.origin[0]) * self.spacing).astype(np.float32)[:, None]
        col = ((np.arange(self.shape[1]) - self.origin[1]) * self.spacing).astype(np.float32)[None, :]
        c, s = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return c * col + s * row, c * row - s * col

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The pixels within ``reach`` mm of a point, cut at the image; empty where it lies outside."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        at = (self.origin[0] + (s * x + c * y) / self.spacing, self.origin[1] + (c * x - s * y) / self.spacing)
        r = reach / self.spacing + 2
        cut = [(int(np.clip(a - r, 0, n)), int(np.clip(a + r + 1, 0, n))) for a, n in zip(at, self.shape, strict=True)]
        return slice(*cut[0]), slice(*cut[1])

    def moved(self, dx: float, dy: float) -> "Frame":
        """The same slice with its anatomy displaced by ``(dx, dy)`` mm."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        row = self.origin[0] + (s * dx + c * dy) / self.spacing
        return replace(self, origin=(row, self.origin[1] + (c * dx - s * dy) / self.spacing))


class Ellipsoid(NamedTuple):
    """A tissue in 3-D: ``centre`` and ``radii`` ``(x, y, z)`` in mm, in-plane ``angle`` in radians.

    ``value`` is its intensity, ``grain`` how much of the texture it shows, ``waves`` the in-plane
    unevenness of its border (relative amplitudes of the angular frequencies 2, 3, ...) and
    ``slant`` how far its centre moves in ``x`` and ``y`` per mm along ``z``.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    value: float
    grain: float = 0.0
    angle: float = 0.0
    waves: tuple[float, ...] = ()
    slant: tuple[float, float] = (0.0, 0.0)


class Canvas:
    """One slice while it is painted: ``image`` float32 and ``label`` uint8, both ``(H, W)``."""

    def __init__(self, frame: Frame, texture: np.ndarray):
        self.frame, self.texture = frame, texture
        self.image = np.zeros(frame.shape, np.float32)
        self.label = np.zeros(frame.shape, np.uint8)
        self.x, self.y = frame.grid()

    def cover(self, distance, value, grain=0.0, window=(slice(None), slice(None)), clip=None, label=None):
        """Cover where the signed ``distance`` in mm is negative.

        ``clip`` ``(H, W)`` in 0..1 limits the tissue to another one, ``label`` is what the covered
        pixels belong to.
        """
        alpha = edge(distance, self.frame.spacing)
        if clip is not None:
            alpha = alpha * clip[window]
        part = self.image[window]
        part += alpha * (value + grain * self.texture[window] - part)
        if label is not None:
            self.label[window][alpha >= 0.5] = label

    def ellipsoid(self, e: Ellipsoid, z: float, clip=None, label=None) -> None:
        """Cover the section of an ellipsoid at height ``z`` mm; nothing where it does not reach."""
        height = (z - e.centre[2]) / e.radii[2]
        if abs(height) >= 1:
            return
        scale = np.sqrt(1 - height**2)
        a, b = e.radii[0] * scale, e.radii[1] * scale
        at = (e.centre[0] + e.slant[0] * (z - e.centre[2]), e.centre[1] + e.slant[1] * (z - e.centre[2]))
        window = self.frame.window(*at, max(a, b) * (1 + sum(np.abs(e.waves))))
        x, y = self.x[window] - np.float32(at[0]), self.y[window] - np.float32(at[1])
        if x.size:
            distance = ellipse_distance(x, y, a, b, e.angle, e.waves)
            self.cover(distance, e.value, e.grain, window, clip, label)


def edge(distance: np.ndarray, width: float) -> np.ndarray:
    """How much of a pixel lies inside: 1 well inside, 0 well outside, linear over ``width`` mm."""
    return np.clip(0.5 - distance * np.float32(1 / width), 0, 1)


def ellipse_distance(x, y, a: float, b: float, angle: float = 0.0, waves=()) -> np.ndarray:
    """Signed distance in mm to an ellipse at the origin, exact for circles, first order otherwise."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (c * x + s * y) / np.float32(a), (c * y - s * x) / np.float32(b)
    rho = np.sqrt(u * u + v * v)
    slope = np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2) / np.maximum(rho, np.float32(1e-6))
    border = 1 + ripple(u, v, rho, waves)
    return (rho - border) / np.maximum(slope, np.float32(1e-6))


def ripple(u, v, rho, waves) -> np.ndarray | float:
    """Sum over k = 2, 3, ... of ``waves[k - 2] * cos(k * theta + k^2)`` at the angle of ``(u, v)``.

    The powers of a unit complex number are several times faster than cosines of multiples.
    """
    if not len(waves):
        return 0.0
    unit = (u + 1j * v) / np.maximum(rho, np.float32(1e-6))
    total = np.zeros_like(unit)
    for k in range(len(waves) + 1, 1, -1):
        total = (total + np.complex64(waves[k - 2] * np.exp(1j * k * k))) * unit
    return (total * unit).real


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> np.ndarray:
    """Gaussian noise smoothed by ``sigma`` pixels per axis, zero mean and unit spread, float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap", truncate=2.5)
    return (noise - noise.mean()) / noise.std()


def coil_field(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> np.ndarray:
    """Sensitivity of a surface coil, ``(H, W)`` with mean 1: smooth, log-quadratic, off centre."""
    row, col = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    terms = np.stack([row, col, row * col, row**2, col**2])
    log = np.tensordot(rng.normal(0, strength, 5) * (1, 1, 0.5, 0.6, 0.6), terms, 1)
    field = np.exp(log)
    return (field / field.mean()).astype(np.float32)


def rician(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of the image with complex Gaussian noise of standard deviation ``sigma`` per part."""
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(sigma)
    return np.hypot(image + noise[0], noise[1])


def waves(rng: np.random.Generator, strength: float, count: int = 4) -> tuple[float, ...]:
    """Random border unevenness, weaker for higher angular frequencies."""
    return tuple(rng.normal(0, strength, count) / np.arange(1, count + 1))
