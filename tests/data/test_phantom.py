"""Phantoms: the same seed gives the same files, the layouts read back, the anatomy is what it says."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from kaf.data import phantom
from kaf.data.cases import find_cases, read_volume
from kaf.data.phantom import main, make_patient, write_phantom
from kaf.data.phantom_compare import compare, describe
from kaf.data.phantom_heart import (
    GROUPS,
    LV,
    MYO,
    RV,
    at_phase,
    draw_heart,
    endocardium,
    epicardium,
    rv_fan,
    rv_profile,
)
from kaf.files import LOCK, write_json
from kaf.keypoints import deduplicate, detect_sift

SMALL = {"size": 96, "slices": (5, 7)}


@pytest.fixture(scope="module")
def patients():
    """Two patients of every group at the default size."""
    return [make_patient(index, seed=3) for index in range(10)]


def volume_ml(patient, frame, label):
    return (patient.labels[frame] == label).sum() * np.prod(patient.spacing_mm) / 1000


def bytes_below(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["mr", "ct"])
def test_same_seed_same_bytes_whatever_else_is_written(tmp_path, kind):
    few = bytes_below(write_phantom(tmp_path / "few", 1, 7, kind, **SMALL, progress=False))
    more = bytes_below(write_phantom(tmp_path / "more", 2, 7, kind, **SMALL, progress=False))
    assert few.items() <= more.items() and len(more) > len(few)
    other = make_patient(0, 8, kind, **SMALL)
    assert not np.array_equal(other.images, make_patient(0, 7, kind, **SMALL).images)


def test_acdc_layout_reads_back(tmp_path):
    root = write_phantom(tmp_path, 5, 0, "mr", **SMALL, progress=False)
    cases = find_cases("phantom", root)
    assert [c.group for c in cases if c.frame == "ED"] == list(GROUPS)
    assert len(cases) == 10 and {c.frame for c in cases} == {"ED", "ES"}
    expected = make_patient(2, 0, "mr", **SMALL)
    for frame, name in enumerate(expected.frames):
        case = next(c for c in cases if c.patient == expected.id and c.frame == name)
        volume = read_volume(case)
        assert np.array_equal(volume.image, expected.images[frame])
        assert np.array_equal(volume.label, expected.labels[frame])
        assert volume.spacing_mm == pytest.approx(expected.spacing_mm)
    assert expected.spacing_mm[0] >= 8


def test_chd_layout_reads_back_with_seven_structures(tmp_path):
    root = write_phantom(tmp_path, 2, 0, "ct", size=96, progress=False)
    cases = find_cases("phantom-ct", root)
    assert [c.id for c in cases] == ["ct_0001", "ct_0002"]
    for index, case in enumerate(cases):
        volume, expected = read_volume(case), make_patient(index, 0, "ct", size=96)
        assert np.array_equal(volume.image, expected.images[0])
        assert np.array_equal(np.unique(volume.label), np.arange(8))
        assert volume.orientation == "LPS"
        blood = volume.image[np.isin(volume.label, (1, 2, 3, 4, 6, 7))].mean()
        assert blood > volume.image[volume.label == 5].mean() + 50  # contrast agent, in HU
        assert volume.image.min() < -900


def test_repeated_calls_keep_and_complete(tmp_path):
    write_phantom(tmp_path, 3, 0, **SMALL, progress=False)
    before = bytes_below(tmp_path)
    marker = tmp_path / "patient001" / "Info.cfg"
    time = marker.stat().st_mtime_ns
    (tmp_path / "patient002" / "Info.cfg").unlink()  # what an interrupted copy may leave
    write_phantom(tmp_path, 3, 0, **SMALL, progress=False)
    assert bytes_below(tmp_path) == before and marker.stat().st_mtime_ns == time


def test_an_interrupted_patient_leaves_nothing(tmp_path, monkeypatch):
    def broken(path, array, affine):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "_save", broken)
    with pytest.raises(OSError):
        write_phantom(tmp_path, 1, **SMALL, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, phantom.MANIFEST]


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    write_phantom(tmp_path / "a", 1, 0, **SMALL, progress=False)
    with pytest.raises(ValueError, match="other settings.*seed"):
        write_phantom(tmp_path / "a", 1, 1, **SMALL, progress=False)
    old = json.loads((tmp_path / "a" / phantom.MANIFEST).read_text()) | {"version": 0}
    (tmp_path / "a" / phantom.MANIFEST).write_text(json.dumps(old))
    with pytest.raises(ValueError, match="version"):
        write_phantom(tmp_path / "a", 1, 0, **SMALL, progress=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        write_phantom(tmp_path / "b", 1, progress=False)


def test_two_that_begin_at_once_agree_on_one_phantom(tmp_path, monkeypatch):
    def begin(seed):
        try:
            write_phantom(tmp_path, 1, seed, **SMALL, progress=False)
        except ValueError as error:
            refused.append(str(error))

    def slowly(*args, **options):
        if not other.is_alive():
            other.start()
            other.join(0.5)  # time enough to claim the folder for itself
        write_json(*args, **options)

    refused, other = [], threading.Thread(target=begin, args=[1])
    monkeypatch.setattr(phantom, "write_json", slowly)
    begin(0)
    other.join()
    assert len(refused) == 1 and "other settings (there, asked): {'seed': (0, 1)}" in refused[0]


def test_a_phantom_that_another_process_just_began_is_no_stranger(tmp_path, monkeypatch):
    settings = json.loads((write_phantom(tmp_path / "a", 1, **SMALL, progress=False) / phantom.MANIFEST).read_text())
    (tmp_path / "b").mkdir()
    listing = Path.iterdir

    def begun_meanwhile(folder):
        if folder == tmp_path / "b":
            write_json(folder / phantom.MANIFEST, settings)
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", begun_meanwhile)
    write_phantom(tmp_path / "b", 1, **SMALL, progress=False)


def test_a_finished_phantom_is_not_written_to(tmp_path, monkeypatch):
    write_phantom(tmp_path, 1, **SMALL, progress=False)
    (tmp_path / LOCK).unlink()
    write_phantom(tmp_path, 1, **SMALL, progress=False)  # as on a disk that is read-only
    assert not (tmp_path / LOCK).exists()


def test_the_command_ends_with_one_line_at_a_bad_number(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "phantom"), "--patients", "0"])
    assert "a phantom needs 1 patient or more" in capsys.readouterr().err
    assert not (tmp_path / "phantom").exists()


def test_bad_arguments_say_so():
    with pytest.raises(ValueError, match="kind"):
        make_patient(0, kind="pet")
    with pytest.raises(ValueError, match="slices"):
        make_patient(0, slices=(5, 3))
    with pytest.raises(ValueError, match="starts at 0"):
        make_patient(-1)
    with pytest.raises(ValueError, match="unknown group"):
        draw_heart(np.random.default_rng(0), "no such group")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0])
def test_painted_volumes_are_the_ones_asked_for(group, phase):
    """Polar integrals of the borders, finely sampled, against the volumes the heart was given."""
    for seed in range(3):
        heart = draw_heart(np.random.default_rng(seed), group)
        beat = at_phase(heart, phase)
        z, theta = np.arange(-40, 160, 0.5), np.linspace(-np.pi, np.pi, 721)[:-1]
        rim = np.stack([epicardium(beat, h, theta) for h in z])
        inner = np.stack([endocardium(beat, h, theta) for h in z])
        fan = np.stack([beat.rv_reach * rv_profile(beat, h) * rv_fan(heart, theta) for h in z])
        cell = 0.5 * 0.5 * (theta[1] - theta[0]) / 1000  # half r^2 dtheta dz, in ml
        expected = [ed + phase * (es - ed) for ed, es in (heart.lv_ml, heart.rv_ml)]
        assert cell * ((rim + fan) ** 2 - rim**2).sum() == pytest.approx(expected[1], rel=0.06)
        tolerance = 0.35 if group in ("MINF", "HCM", "RV") else 0.1  # scar, thick and flat septum shift the border
        assert cell * (inner**2).sum() == pytest.approx(expected[0], rel=tolerance)
        assert (inner <= rim + 1e-6).all()


def test_groups_have_their_geometry(patients):
    lv = {g: np.mean([volume_ml(p, 0, LV) for p in patients if p.group == g]) for g in GROUPS}
    rv = {g: np.mean([volume_ml(p, 0, RV) for p in patients if p.group == g]) for g in GROUPS}
    myo = {g: np.mean([volume_ml(p, 0, MYO) for p in patients if p.group == g]) for g in GROUPS}
    left = {}  # ejection fraction of the left ventricle
    for g in GROUPS:
        left[g] = np.mean([1 - volume_ml(p, 1, LV) / volume_ml(p, 0, LV) for p in patients if p.group == g])
    assert lv["DCM"] > 1.4 * lv["NOR"] and left["DCM"] < 0.35
    assert myo["HCM"] > 1.4 * myo["NOR"] and left["HCM"] > 0.5
    assert left["MINF"] < left["NOR"] - 0.1
    assert rv["RV"] / lv["RV"] > 1.3 * rv["NOR"] / lv["NOR"]
    assert 0.45 < left["NOR"] < 0.75


def test_infarction_leaves_a_thin_segment_that_does_not_move():
    heart = draw_heart(np.random.default_rng(1), "MINF")
    angle = np.array([heart.scar[0], heart.scar[0] + np.pi])
    thickness, inner = [], []
    for phase in (0.0, 1.0):
        beat = at_phase(heart, phase)
        z = beat.base + 0.7 * beat.length
        inner.append(endocardium(beat, z, angle))
        thickness.append(epicardium(beat, z, angle) - inner[-1])
    assert thickness[0][0] < 0.6 * thickness[0][1] and thickness[1][0] < 0.5 * thickness[1][1]
    moved = inner[0] - inner[1]
    assert abs(moved[0]) < 0.6 * moved[1]


def test_anatomy_of_the_labels(patients):
    for p in patients:
        for labels in p.labels:
            for s in range(len(labels)):
                around = ndimage.binary_dilation(labels[s] == LV) & (labels[s] != LV)
                assert np.isin(labels[s][around], (MYO, RV)).mean() > 0.95 if around.any() else True
        seen = [(p.labels[0] == k).any((1, 2)) for k in (RV, MYO, LV)]
        assert all(s.any() for s in seen) and seen[1].sum() >= seen[2].sum() >= 3
        assert seen[0].sum() < len(seen[0])  # somewhere the right ventricle has ended
        area = (p.labels[0] == LV).sum((1, 2))
        assert area[-1] < 0.5 * area.max()  # the apex
    assert len({p.images.shape for p in patients}) > 3 and len({p.spacing_mm for p in patients}) == len(patients)


def test_papillary_muscles_are_dark_and_belong_to_the_blood_pool(patients):
    dark = []
    for p in patients:
        core = ndimage.binary_erosion(p.labels[0] == LV, np.ones((1, 5, 5)))
        blood, wall = np.percentile(p.images[0][core], 75), np.median(p.images[0][p.labels[0] == MYO])
        dark.append((p.images[0][core] < (blood + wall) / 2).mean())
    assert np.median(dark) > 0.02


@pytest.mark.parametrize("kind", ["mr", "ct"])
def test_sift_finds_as_much_as_on_real_slices(patients, kind):
    counts = []
    for p in patients[:5] if kind == "mr" else [make_patient(i, 3, "ct") for i in range(2)]:
        low, high = np.percentile(p.images[0], (1, 99))
        image = (np.clip((p.images[0] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        counts += [int(deduplicate(detect_sift(s)).valid.sum()) for s in image[::3]]
    assert 200 <= np.median(counts) <= 400


def test_comparison_tables(tmp_path, capsys):
    root = write_phantom(tmp_path, 2, 0, **SMALL, progress=False)
    rows, volume = describe("phantom", root), make_patient(0, 0, **SMALL)
    assert rows["LV ml"][0] == pytest.approx(volume_ml(volume, 0, LV), rel=1e-5)
    table = compare(root, root, "mr", 2)
    assert np.array_equal(table["phantom"], table["real"], equal_nan=True)
    main([str(root), "--patients", "2", "--size", "96", "--slices", "5", "7", "--compare", str(root)])
    assert "labelled %" in capsys.readouterr().out
