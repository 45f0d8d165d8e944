"""The heart of the MR phantom: its shape from volumes in ml, and how a short-axis slice shows it.

Everything is polar about the long axis of the left ventricle (LV): ``rho`` in mm, ``theta`` in
radians from the middle of the septum towards the front. ``z`` runs in mm from the base (0, end diastole)
to the apex. ``phase`` is 0 at end diastole (ED) and 1 at end systole (ES).
"""

from dataclasses import dataclass

import numpy as np

from kaf.data.phantom_paint import Canvas, Frame, ellipse_distance, waves

RV, MYO, LV = 1, 2, 3  # the labels of ACDC
GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")

# Mean and spread over patients: end-diastolic volume in ml and ejection fraction of the LV, volume of
# its myocardium in ml, end-diastolic volume and ejection fraction of the RV. The groups of ACDC.
_TYPICAL = {
    "DCM": ((295, 45), (0.17, 0.05), (172, 22), (176, 50), (0.33, 0.08)),
    "HCM": ((148, 24), (0.69, 0.06), (205, 40), (126, 24), (0.61, 0.06)),
    "MINF": ((160, 34), (0.36, 0.06), (116, 20), (115, 32), (0.55, 0.08)),
    "NOR": ((135, 24), (0.60, 0.05), (108, 18), (163, 32), (0.57, 0.06)),
    "RV": ((105, 30), (0.55, 0.06), (75, 18), (190, 45), (0.32, 0.10)),
}
_FILL = 1 - 1 / 3.6  # mean of the squared profile over the long axis


@dataclass(frozen=True)
class Heart:
    """One patient's heart. Volumes in ml, lengths in mm, angles in radians."""

    group: str
    lv_ml: tuple[float, float]  # ED, ES
    rv_ml: tuple[float, float]
    myo_ml: float
    length: float  # cavity of the LV, base to apex, at ED
    rv_length: float  # relative to it
    rv_base: float  # where the RV begins, mm below the base of the LV
    rv_spread: float  # half the angle over which the RV lies on the LV
    rv_peak: float  # where it is widest, relative to the spread
    septal: float  # extra thickness of the septum, relative to the mean wall
    flat: float  # flattening of the septum by a full right ventricle
    scar: tuple[float, float, float] | None  # thin, still segment: angle, half width, upper end (share of length)
    waves: tuple[float, ...]
    papillary: tuple[tuple[float, float, float], ...]  # angle, radius relative to the cavity's, distance likewise
    trabeculae: float
    fat: tuple[float, float]  # thickness over the heart, angle where it is thickest


def draw_heart(rng: np.random.Generator, group: str) -> Heart:
    """A random heart of one of the five groups of ACDC. Raises ``ValueError`` for another group."""
    if group not in _TYPICAL:
        raise ValueError(f"unknown group {group!r}; choose one of {GROUPS}")
    lv, ef, myo, rv, rv_ef = (m + s * np.clip(rng.normal(), -1.8, 1.8) for m, s in _TYPICAL[group])
    ef, rv_ef = np.clip((ef, rv_ef), 0.06, 0.82)
    scar = (rng.uniform(-2.6, 2.6), rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.45)) if group == "MINF" else None
    round_ = {"DCM": 0.93, "HCM": 1.02}.get(group, 1.0)
    return Heart(
        group, (lv, lv * (1 - ef)), (rv, rv * (1 - rv_ef)), myo,
        length=round_ * rng.uniform(1.52, 1.76) * (1000 * lv) ** (1 / 3),
        rv_length=rng.uniform(0.82, 0.98), rv_base=rng.normal(0, 5),
        rv_spread=rng.uniform(1.15, 1.45) + (0.12 if group == "RV" else 0), rv_peak=rng.uniform(-0.3, 0.35),
        septal=rng.uniform(0.3, 0.75) if group == "HCM" else rng.normal(0.05, 0.05),
        flat=rng.uniform(0.08, 0.2) if group == "RV" else max(0, rng.normal(0.02, 0.02)),
        scar=scar, waves=waves(rng, 0.025),
        papillary=tuple((a + rng.normal(0, 0.25), rng.uniform(0.15, 0.29), rng.uniform(0.55, 0.75))
                        for a in (2.2, -2.2)),
        trabeculae=rng.uniform(1.0, 3.0), fat=(rng.uniform(1, 7), rng.uniform(-np.pi, np.pi)),
    )  # fmt: skip


@dataclass(frozen=True)
class Beat:
    """The heart at one moment: lengths and radii that hold its volumes."""

    heart: Heart
    phase: float
    base: float  # the valve plane, which moves towards the apex in systole
    length: float
    radius: float  # cavity at the base
    outer_length: float
    outer_radius: float
    rv_reach: float  # greatest width of the RV beyond the LV

    def profile(self, z: float, length: float) -> float:
        """Radius at height ``z`` relative to the base; 0 outside base and apex."""
        t = (z - self.base) / length
        return float(np.sqrt(1 - t**2.6)) if 0 <= t < 1 else 0.0


def at_phase(heart: Heart, phase: float) -> Beat:
    """Solve the radii for the volumes at ``phase``, keeping the apex in place.

    A cavity of length L and base radius r holds ``fill * pi * r^2 * L``. The RV lies on the LV as a
    fan of width ``e * g(z) * h(theta)``, so its volume is quadratic in ``e``.
    """
    lv = heart.lv_ml[0] + phase * (heart.lv_ml[1] - heart.lv_ml[0])
    length = heart.length * (1 - 0.22 * (1 - lv / heart.lv_ml[0]))
    radius = np.sqrt(1000 * lv / (np.pi * _FILL * length))
    myo = heart.myo_ml * (1 + 0.1 * phase)
    cap = 0.7 * (np.cbrt(1000 * (lv + myo) / (np.pi * _FILL * length / radius)) - radius)
    outer_length = length + cap
    outer_radius = np.sqrt(1000 * (lv + myo) / (np.pi * _FILL * outer_length))
    base = heart.length - length
    beat = Beat(heart, phase, base, length, radius, outer_length, outer_radius, 0.0)
    z, theta = np.linspace(base - 15, base + outer_length, 40), np.linspace(-np.pi, np.pi, 181)
    h = rv_fan(heart, theta)
    g = np.array([rv_profile(beat, height) for height in z])
    rim = np.stack([epicardium(beat, height, theta) for height in z])
    dz, da = z[1] - z[0], theta[1] - theta[0]
    square, linear = 0.5 * dz * da * (g[:, None] ** 2 * h**2).sum(), dz * da * (g[:, None] * h * rim).sum()
    volume = 1000 * (heart.rv_ml[0] + phase * (heart.rv_ml[1] - heart.rv_ml[0]))
    reach = (np.sqrt(linear**2 + 4 * square * volume) - linear) / (2 * square)
    return Beat(heart, phase, base, length, radius, outer_length, outer_radius, float(reach))


def rv_fan(heart: Heart, theta):
    """Width of the RV over the angle, relative to its greatest, (0..1)."""
    u = np.clip(theta / heart.rv_spread, -1, 1)
    skewed = (u - heart.rv_peak * (1 - u * u)) * (np.pi / 2)
    return np.maximum(np.cos(skewed), 0) ** 0.75


def rv_profile(beat: Beat, z: float) -> float:
    """Width of the RV at height ``z`` relative to its greatest; 0 where it has ended."""
    t = (z - beat.base - beat.heart.rv_base) / (beat.heart.rv_length * beat.length)
    return float((1 - t) ** 0.7 * (0.8 + 0.55 * t)) if 0 <= t < 1 else 0.0


def epicardium(beat: Beat, z: float, theta):
    """Outer radius of the LV in mm at height ``z`` over ``theta``."""
    heart = beat.heart
    shape = 1 - heart.flat * np.maximum(np.cos(theta), 0) ** 2 * (1 if rv_profile(beat, z) > 0 else 0)
    for k, w in enumerate(heart.waves, 2):
        shape = shape + w * np.cos(k * theta + k * k)
    return beat.outer_radius * beat.profile(z, beat.outer_length) * shape


def endocardium(beat: Beat, z: float, theta, rim=None):
    """Inner radius of the LV in mm; 0 where the cavity has ended. ``rim`` is the epicardium if known."""
    rim = epicardium(beat, z, theta) if rim is None else rim
    wall = beat.outer_radius * beat.profile(z, beat.outer_length) - beat.radius * beat.profile(z, beat.length)
    inner = rim - np.maximum(wall, 0) * (1 + beat.heart.septal * (np.cos(theta) + 0.2))
    if beat.heart.scar is not None and beat.profile(z, beat.length) > 0:
        angle, half, upper = beat.heart.scar
        lower = np.clip(((z - beat.base) / beat.length - upper) / 0.1 + 0.5, 0, 1)
        away = np.abs((theta - angle + np.pi) % (2 * np.pi) - np.pi)
        thin = lower * np.clip((half - away) / 0.3 + 0.5, 0, 1)
        inner = inner + thin * np.maximum(rim - np.maximum(3.2, 0.1 * rim) - inner, 0)  # about 3 mm of scar
    return np.maximum(inner, 0) if beat.profile(z, beat.length) > 0 else np.zeros_like(rim)


@dataclass(frozen=True)
class Tissue:
    """Intensities of one patient; fat is about 1."""

    blood: float
    rv_blood: float
    muscle: float
    wall: float  # myocardium
    fat: float


def paint_heart(canvas: Canvas, beat: Beat, z: float, septum: float, tissue: Tissue) -> None:
    """Cover the heart's section at height ``z`` mm; ``septum`` is the in-plane direction of ``theta = 0``."""
    heart = beat.heart
    c, s = np.float32(np.cos(septum)), np.float32(np.sin(septum))
    rho, theta = np.hypot(canvas.x, canvas.y), np.arctan2(c * canvas.y - s * canvas.x, c * canvas.x + s * canvas.y)
    if z < beat.base:
        _paint_atria(canvas, beat, z, septum, tissue)
        return
    across = (canvas.x + 0.6 * canvas.y) / (0.4 * beat.outer_radius)
    flow = 0.14 * np.cos(across + 0.1 * z + 7 * septum)  # inflow is uneven
    rim = epicardium(beat, z, theta)
    fan = beat.rv_reach * rv_profile(beat, z) * rv_fan(heart, theta)
    free = rim + fan + np.where(fan > 0, 2.5, 0)
    fat = heart.fat[0] * (0.4 + np.cos(theta - heart.fat[1]) + 0.25 * canvas.texture)  # uneven, bare where negative
    canvas.cover(np.where(fat > 0.5, rho - free - fat, 9), 0.75 * tissue.fat, 0.1)
    canvas.cover(rho - free, tissue.wall, 0.03)
    if beat.rv_reach * rv_profile(beat, z) > 2:
        rough = heart.trabeculae * (1.6 + beat.phase) * np.maximum(canvas.texture + 0.3, 0)
        rough = rough * np.clip(fan / 6, 0, 1)
        canvas.cover(np.maximum(rho - rim - fan, rim - rho), tissue.wall, 0.05, label=RV)
        canvas.cover(np.maximum(rho - rim - fan + rough, rim - rho), tissue.rv_blood * (1 + flow), 0.08)
    canvas.cover(rho - rim, tissue.wall, 0.05, label=MYO)
    inner = endocardium(beat, z, theta, rim)
    canvas.label[rho < inner] = LV
    rough = heart.trabeculae * (0.8 + beat.phase) * np.maximum(canvas.texture, 0)
    canvas.cover(np.where(inner > 0, rho - inner + rough, 9), tissue.blood * (1 - flow), 0.07)
    _paint_papillary(canvas, beat, z, septum, tissue)


def _paint_papillary(canvas: Canvas, beat: Beat, z: float, septum: float, tissue: Tissue) -> None:
    """The papillary muscles: dark in the cavity, part of the blood pool's label as in ACDC."""
    t = (z - beat.base) / beat.length
    if not 0.22 < t < 0.85:
        return
    for angle, size, distance in beat.heart.papillary:
        inner = endocardium(beat, z, np.array([angle]))[0]
        if inner < 4:
            continue
        a = size * inner * (1 + 0.35 * beat.phase) * np.sin(np.pi * (t - 0.22) / 0.63) ** 0.5
        at = distance * inner * np.array([np.cos(angle + septum), np.sin(angle + septum)])
        distance_mm = ellipse_distance(canvas.x - at[0], canvas.y - at[1], 1.3 * a, 0.9 * a, angle + septum, (0.15,))
        canvas.cover(distance_mm, tissue.wall, 0.03)


def _paint_atria(canvas: Canvas, beat: Beat, z: float, septum: float, tissue: Tissue) -> None:
    """Above the valves: atria, aortic root and outflow tract, as bright as the ventricles but unlabelled."""
    above, r = beat.base - z, beat.outer_radius
    c, s = np.cos(septum), np.sin(septum)
    rooms = (  # along the septal axis, across it, half axes; relative to the LV
        (0.15, 0.25, 0.95, 0.72, tissue.blood), (1.25, 0.3, 0.8, 0.68, tissue.rv_blood),
        (0.75, -0.45, 0.45, 0.45, tissue.blood), (1.25, -0.85, 0.75, 0.42, tissue.rv_blood),
    )  # fmt: skip
    grow = min(1.0, 0.75 + above / 40)
    for pad, paint in ((7, 0.75 * tissue.fat), (2, tissue.wall), (0, None)):
        for u, v, a, b, blood in rooms:
            x, y = canvas.x - r * (u * c - v * s), canvas.y - r * (u * s + v * c)
            d = ellipse_distance(x, y, grow * r * a, grow * r * b, septum, beat.heart.waves)
            canvas.cover(d - pad, blood if paint is None else paint, 0.06)


def heart_frame(frame: Frame, reach: float) -> tuple[Frame, tuple[slice, slice]]:
    """The part of a slice within ``reach`` mm of the heart's axis, as a frame and as a window."""
    window = frame.window(0, 0, reach)
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    origin = (frame.origin[0] - window[0].start, frame.origin[1] - window[1].start)
    return Frame(shape, frame.spacing, origin, frame.turn), window
