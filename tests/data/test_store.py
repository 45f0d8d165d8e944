import hashlib
import json
import pickle
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaf.data.cases import find_cases, read_volume
from kaf.data.prepare import prepare
from kaf.data.store import VERSION, Store, StoreSettings
from kaf.files import seal
from kaf.keypoints import DETECTORS, deduplicate, detect_sift
from tests.data.layouts import write_acdc_patient


@pytest.fixture
def copy(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_volumes_and_patients_are_listed_in_order(store):
    groups = {"patient001": "DCM", "patient002": "NOR", "patient003": "DCM", "patient005": "NOR"}
    assert store.patients == groups and list(store.patients) == sorted(groups)
    assert [v.id for v in store.volumes] == sorted(v.id for v in store.volumes)
    assert store.structures == {1: "RV", 2: "MYO", 3: "LV"}
    assert repr(store) == "Store(acdc: 4 patients, 11 volumes, 8 labelled, 44 slices)"


def test_select_combines_its_conditions(store):
    names = lambda **conditions: [store.volumes[v].id for v in store.select(**conditions)]  # noqa: E731
    assert len(names()) == 11 and len(names(labelled=True)) == 8
    assert names(patients=["patient002"], labelled=False) == [f"patient002_frame0{f}" for f in (1, 3, 5)]
    systole = names(frames=["ES"], patients={"patient001", "patient003"})
    assert systole == ["patient001_frame04", "patient003_frame04"]
    assert names(patients=[]) == []
    with pytest.raises(ValueError, match="no patient patient004"):
        store.select(patients=["patient004"])


def test_arrays_are_memory_maps_of_the_recorded_shape(store):
    for v in store.select(labelled=True):
        record = store.volumes[v]
        for array, shape in (
            (store.image(v), record.shape),
            (store.label(v), record.shape),
            (store.truth(v), record.native_shape),
        ):
            assert isinstance(array, np.memmap) and array.dtype == np.uint8 and array.shape == shape


def test_truth_is_the_label_file_itself(store, acdc_root):
    case = next(c for c in find_cases("acdc", acdc_root) if c.id == store.volumes[0].id)
    assert np.array_equal(store.truth(0), read_volume(case).label)


def test_keypoints_are_those_of_the_stored_slice(store):
    for s in range(4):
        found, expected = store.keypoints(1, s), deduplicate(detect_sift(np.array(store.image(1)[s])))
        assert len(found.valid) == store.volumes[1].keypoints[s] > 0
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [24, 96])  # smaller and larger than the slice of 61 x 48
def test_sample_shows_the_same_pixels_labels_and_keypoints(store, size):
    sample = store.sample(0, 2, size, k=6)
    assert sample.image.shape == sample.label.shape == (size, size)
    assert sample.image.dtype == torch.uint8 and sample.label.dtype == torch.int64
    row, col = size // 2 - 2, size // 2 + 3
    y, x = row - (size - 61) // 2, col - (size - 48) // 2
    assert sample.image[row, col] == store.image(0)[2, y, x]
    assert sample.label[row, col] == store.label(0)[2, y, x]
    everything = store.keypoints(0, 2)
    place = everything.xy + torch.tensor([(size - 48) // 2, (size - 61) // 2])
    shown = ((place >= -0.5) & (place < size - 0.5)).all(-1)
    count = min(6, int(shown.sum()))
    assert sample.keypoints.valid.tolist() == [True] * count + [False] * (6 - count)
    assert torch.equal(sample.keypoints.xy[:count], place[shown][:count])  # the strongest come first
    assert everything.score.tolist() == everything.score.sort(descending=True)[0].tolist()
    assert (sample.position, sample.volume, sample.slice) == (0.5, 0, 2)


@pytest.mark.parametrize("s", [-1, 4, 99])
def test_a_slice_that_there_is_not_is_named(store, s):
    said = f"volume patient001_frame02 has the slices 0 to 3, not {s}; choose one of these"
    with pytest.raises(IndexError, match=said):
        store.sample(0, s, 24, k=6)
    with pytest.raises(IndexError, match=said):
        store.keypoints(0, s)


def test_the_only_slice_has_no_second(tmp_path):
    write_acdc_patient(tmp_path / "root", 1, shape=(40, 48, 1))
    store = prepare("acdc", tmp_path / "root", tmp_path / "s", StoreSettings("acdc", 1.25, detector="grid"), 1, False)
    assert store.sample(0, 0, 24, k=6).position == 0
    with pytest.raises(IndexError, match="patient001_frame02 has the slices 0 to 0, not 1"):
        store.sample(0, 1, 24, k=6)


def test_statistics_make_the_volume_standard(store):
    for v, record in enumerate(store.volumes):
        image = (np.array(store.image(v), np.float64) - record.mean) / record.std
        assert image.mean() == pytest.approx(0, abs=1e-9) and image.std() == pytest.approx(1, abs=1e-9)


def test_unlabelled_volumes_have_an_empty_label(store):
    v = store.select(labelled=False)[0]
    assert store.sample(v, 0, 16, 4).label.shape == (0, 0)
    for read in (store.label, store.truth):
        with pytest.raises(ValueError, match="no labels"):
            read(v)


def test_store_travels_to_other_processes_without_its_arrays(store):
    store.image(0)
    data = pickle.dumps(store)
    assert len(data) < 500
    assert np.array_equal(pickle.loads(data).image(0), store.image(0))


def test_other_settings_or_version_are_refused(store, copy):
    assert Store.open(copy, store.settings).volumes == store.volumes
    with pytest.raises(ValueError, match=r"other settings \(spacing_mm 1.25, not 1.5\)"):
        Store.open(copy, StoreSettings("acdc", 1.5))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(seal(manifest | {"version": 0})))
    with pytest.raises(ValueError, match="format version 0"):
        Store.open(copy)


def test_unfinished_and_absent_stores_are_refused(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no manifest.json"):
        Store.open(tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(seal(manifest | {"complete": False})))
    with pytest.raises(ValueError, match="unfinished"):
        Store.open(copy)


def test_verify_finds_a_single_changed_byte(copy):
    opened = Store.open(copy)
    opened.verify()
    file = copy / "volumes" / opened.volumes[3].id / "label.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="label.npy is damaged"):
        opened.verify()


@settings(max_examples=60)
@given(which=st.integers(0, 999), place=st.integers(0, 2**31), bit=st.integers(0, 7))
def test_one_altered_bit_anywhere_is_noticed_or_changes_nothing(store, tmp_path_factory, which, place, bit):
    copy = tmp_path_factory.mktemp("bit") / "copy"
    shutil.copytree(store.path, copy)
    files = sorted(file for file in copy.rglob("*") if file.suffix in (".npy", ".json"))
    file = files[which % len(files)]
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 1 << bit
    file.write_bytes(data)
    try:
        opened = Store.open(copy)
        opened.verify()
        found = opened.volumes, opened.settings, opened.structures
    except (ValueError, KeyError) as error:
        found = file.name in str(error)
    # The record of a volume is not read where the manifest is complete.
    assert found is True or found == (store.volumes, store.settings, store.structures)
    shutil.rmtree(copy)


def test_a_remade_store_is_not_read_from_old_memory_maps(acdc_root, tmp_path):
    settings = [StoreSettings("acdc", 1.25, clip=clip) for clip in ((1, 99), (20, 80))]
    first = np.array(prepare("acdc", acdc_root, tmp_path / "s", settings[0], 1, False).image(0))
    shutil.rmtree(tmp_path / "s")
    second = prepare("acdc", acdc_root, tmp_path / "s", settings[1], 1, False).image(0)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "mnist"}, "unknown data set"),
        ({"spacing_mm": 0}, "spacing_mm"),
        ({"spacing_mm": "2"}, "spacing_mm"),
        ({"clip": (99, 1)}, "clip"),
        ({"clip": (1, 50, 99)}, "clip"),
        ({"detector": "surf"}, "unknown detector"),
    ],
)
def test_impossible_settings_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        StoreSettings(**{"dataset": "acdc", **change})


def test_settings_follow_the_data_set_and_every_field_is_in_the_fingerprint():
    assert StoreSettings.usual("acdc").spacing_mm == 1.25 and StoreSettings.usual("chd").spacing_mm is None
    base = StoreSettings("acdc", 1.25)
    others = [
        StoreSettings("phantom", 1.25),
        StoreSettings("acdc", 1.5),
        StoreSettings("acdc", 1.25, (0, 99)),
        StoreSettings("acdc", 1.25, detector="grid"),
    ]
    assert len({s.digest for s in (base, *others)}) == 5
    assert StoreSettings("acdc", 1.25, [1, 99]).digest == base.digest


def test_whole_numbers_make_the_same_store(acdc_root, tmp_path):
    whole, number = StoreSettings("acdc", 2, clip=(1, 99)), StoreSettings("acdc", 2.0)
    assert whole == number and whole.digest == number.digest
    made = prepare("acdc", acdc_root, tmp_path / "s", number, 1, False)
    file = tmp_path / "s" / "manifest.json"
    manifest = json.loads(file.read_text())
    before = {**asdict(number), "spacing_mm": 2}  # as it was written when 2 was not 2.0
    text = json.dumps({"version": VERSION, **before}, sort_keys=True)
    file.write_text(json.dumps(seal({**manifest, "settings": before,
                                     "digest": hashlib.sha256(text.encode()).hexdigest()})))
    for asked in (whole, number):
        assert Store.open(tmp_path / "s", asked).settings.digest == made.settings.digest


def first_digest(settings):
    """The fingerprint as it was before detectors had versions."""
    text = json.dumps({"version": VERSION, **asdict(settings)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def test_only_a_detector_that_changed_changes_the_fingerprint():
    changed = {name for name in DETECTORS
               if (asked := StoreSettings("acdc", 1.25, detector=name)).digest != first_digest(asked)}
    assert changed == {"random"}
    assert StoreSettings("acdc", 1.25).digest.startswith("f483955e8c7862cd"), "that of stores made long ago"


def test_stores_of_an_earlier_detector_are_refused_and_made_anew(acdc_root, tmp_path):
    settings = StoreSettings("acdc", 1.25, detector="random")
    made = prepare("acdc", acdc_root, tmp_path / "s", settings, 1, False)
    assert not torch.equal(made.keypoints(0, 0).xy, made.keypoints(0, 1).xy)  # no pattern common to all slices
    file = tmp_path / "s" / "manifest.json"
    before = json.loads(file.read_text()) | {"digest": first_digest(settings)}
    file.write_text(json.dumps(seal(before)))
    for again in (lambda: Store.open(tmp_path / "s"), lambda: Store.open(tmp_path / "s", settings),
                  lambda: prepare("acdc", acdc_root, tmp_path / "s", settings, 1, False)):
        with pytest.raises(ValueError, match="earlier version of the detector 'random'; delete it and prepare it anew"):
            again()
    shutil.rmtree(tmp_path / "s")
    assert prepare("acdc", acdc_root, tmp_path / "s", settings, 1, False).volumes == made.volumes
