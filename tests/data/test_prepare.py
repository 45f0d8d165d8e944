import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import kaf.data.prepare as module
from kaf.data import filling
from kaf.data.cases import read_volume
from kaf.data.prepare import find_keypoints, prepare, prepare_volume, preparers, statistics, to_8bit
from kaf.data.store import Store, StoreSettings
from kaf.files import DRAFT
from tests.data.layouts import write_acdc_patient

SETTINGS = StoreSettings("acdc", 1.25, detector="grid")


def run(root, out, settings=SETTINGS, workers=1):
    return prepare("acdc", root, out, settings, workers=workers, progress=False)


@pytest.fixture
def root(tmp_path):
    for number in (1, 2):
        write_acdc_patient(tmp_path / "root", number)
    return tmp_path / "root"


def test_grid_of_the_store_covers_the_same_field_of_view(store):
    record = store.volumes[0]
    assert record.native_shape == (4, 48, 40) and record.shape == (4, 61, 48)
    assert record.native_spacing_mm == pytest.approx((8.0, 1.6, 1.5))
    assert record.spacing_mm == pytest.approx((8.0, 1.6 * 48 / 61, 1.25))


def test_other_spacings_need_only_other_settings(root, tmp_path):
    store = run(root, tmp_path / "s", StoreSettings("acdc", 1.5, detector="grid"))
    assert store.volumes[0].shape == (4, 51, 40)


def test_clip_percentiles_become_0_and_255():
    image = np.random.default_rng(0).normal(500, 90, (3, 20, 20)).astype(np.float32)
    image[0, 0, 0] = 1e6
    result = to_8bit(image, (1, 99), (20, 20))
    low, high = np.percentile(image, [1, 99])
    assert result.dtype == np.uint8 and result.min() == 0 and result.max() == 255
    inside = (image > low) & (image < high)
    assert np.abs(result[inside] - 255 * (image[inside] - low) / (high - low)).max() <= 0.5 + 1e-3
    assert (result == 255).sum() >= (image >= high).sum()


def test_one_bright_voxel_does_not_bleed():
    image = np.zeros((1, 40, 40), np.float32)
    image[0, ::2] = 100
    bright = image.copy()
    bright[0, 20, 20] = 1e6
    assert np.array_equal(to_8bit(image, (1, 99), (30, 30)), to_8bit(bright, (1, 99), (30, 30)))


def test_flat_volume_gives_zeros_no_keypoints_and_a_safe_divisor():
    image = to_8bit(np.full((4, 48, 40), 7, np.float32), (1, 99), (61, 48))
    assert not image.any() and statistics(image) == (0.0, 1.0)
    assert find_keypoints(image, "sift")[1] == (0, 0, 0, 0)


def test_native_store_keeps_one_label_array(chd_root, tmp_path):
    store = prepare("chd", chd_root, tmp_path / "s", workers=1, progress=False)
    assert [v.id for v in store.volumes] == ["ct_1001", "ct_1002"]
    assert store.volumes[0].source == "more/ct_1001_image.nii.gz"
    assert store.volumes[0].shape == (3, 32, 32) and "truth.npy" not in store.volumes[0].checksums
    assert np.array_equal(store.truth(0), store.label(0)) and store.label(0).max() == 7


def test_manifest_is_complete_and_holds_nothing_personal(store, acdc_root):
    text = (store.path / "manifest.json").read_text()
    records = "".join(p.read_text() for p in store.path.glob("volumes/*/record.json"))
    for secret in ("JANE", "Height", '"180', str(acdc_root), str(store.path), acdc_root.name):
        assert secret not in re.sub(r'"[0-9a-f]{64}"', "", text + records)
    entry = json.loads(text)["volumes"][0]
    assert (entry["id"], entry["frame"], entry["group"]) == ("patient001_frame02", "ED", "DCM")
    assert entry["orientation"] == "LPS" and entry["source"] == "patient001/patient001_frame02.nii.gz"


def test_checksums_are_those_of_the_files(store, acdc_root):
    record = store.volumes[0]
    assert len(record.checksums) == 6  # image, label, truth, keypoints, and the two files read
    for name, checksum in record.checksums.items():
        folder = store.path / "volumes" / record.id if name.endswith(".npy") else acdc_root
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum


def test_a_stopped_run_continues_where_it_stopped(root, tmp_path, monkeypatch):
    whole = run(root, tmp_path / "whole")
    real, calls = module.prepare_volume, []

    def stop_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "prepare_volume", stop_at_third)
    with pytest.raises(KeyboardInterrupt, match="stopped with 2 of 4 volumes prepared; run the same again to go on"):
        run(root, tmp_path / "s")
    with pytest.raises(ValueError, match="unfinished"):
        Store.open(tmp_path / "s")
    (tmp_path / "s" / "volumes" / f"{DRAFT}1-half").mkdir()  # what a kill leaves behind
    store = run(root, tmp_path / "s")
    assert len(calls) == 3 + 2  # the two finished volumes are not made again
    assert store.volumes == whole.volumes
    assert sorted(p.name for p in (tmp_path / "s" / "volumes").iterdir()) == [v.id for v in store.volumes]
    run(root, tmp_path / "s")
    assert len(calls) == 5


def test_processes_make_the_same_store(root, tmp_path):
    one, two = run(root, tmp_path / "one"), run(root, tmp_path / "two", workers=2)
    assert one.volumes == two.volumes  # checksums included
    assert (one.path / "manifest.json").read_bytes() == (two.path / "manifest.json").read_bytes()


UNGUARDED = """
import sys
from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings

prepare("acdc", sys.argv[1], sys.argv[2], StoreSettings("acdc", 1.25, detector="grid"), 2, progress=False)
"""


def test_a_script_without_a_guard_is_told_so_and_does_not_wait_for_ever(root, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    with subprocess.Popen([sys.executable, script, root, tmp_path / "s"], stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as started:
        try:
            _, said = started.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)  # its workers too
            raise
    assert started.returncode == 1 and "has run your script again: put the code of your script under `if" in said
    last = said.splitlines()[-1]
    assert re.fullmatch(r".*\.BrokenProcessPool: a process ended with 0 of 4 volumes prepared: put the .* workers=1; "
                        r".*", last)
    assert len(run(root, tmp_path / "s").volumes) == 4  # what is there is no harm
    subprocess.run([sys.executable, script, root, tmp_path / "s"], check=True, timeout=60)  # nothing to start now


def test_errors_in_a_process_arrive_here(root, tmp_path):
    (root / "patient002" / "patient002_frame04_gt.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(ValueError, match=r"patient002_frame04_gt.nii.gz is no NIfTI"):
        run(root, tmp_path / "s", workers=2)


def test_new_patients_join_and_the_old_are_kept(root, tmp_path):
    before = run(root, tmp_path / "s")
    write_acdc_patient(root, 3)
    after = run(root, tmp_path / "s")
    assert after.volumes[:4] == before.volumes
    assert list(after.patients) == ["patient001", "patient002", "patient003"]


def test_a_finished_store_keeps_the_versions_that_made_it(root, tmp_path, monkeypatch):
    manifest = run(root, tmp_path / "s").path / "manifest.json"
    before = manifest.read_bytes()
    monkeypatch.setattr(filling.cv2, "__version__", "99.0")
    run(root, tmp_path / "s")
    assert manifest.read_bytes() == before
    shutil.rmtree(tmp_path / "s" / "volumes" / "patient001_frame02")
    run(root, tmp_path / "s")
    assert json.loads(manifest.read_text())["made_with"]["opencv"] == "99.0"


def test_a_store_is_never_reused_for_something_else(root, tmp_path):
    out = tmp_path / "s"
    run(root, out)
    with pytest.raises(ValueError, match="other settings"):
        run(root, out, StoreSettings("acdc", 1.5, detector="grid"))
    with pytest.raises(ValueError, match="not for 'acdc'"):
        run(root, out, StoreSettings("phantom", 1.25, detector="grid"))
    (root / "patient001" / "Info.cfg").write_text("ED: 2\nES: 4\nGroup: HCM\n")
    with pytest.raises(ValueError, match="patient001_frame02 in .* changed"):
        run(root, out)
    shutil.rmtree(root / "patient001")
    with pytest.raises(ValueError, match="holds patient001_frame02, but"):
        run(root, out)


def test_a_changed_file_is_noticed(root, tmp_path):
    run(root, tmp_path / "s")
    folder = root / "patient001"
    shutil.copy(folder / "patient001_frame04.nii.gz", folder / "patient001_frame02.nii.gz")
    with pytest.raises(ValueError, match="changed"):
        run(root, tmp_path / "s")


def test_a_changed_file_of_as_many_bytes_is_noticed_and_one_that_was_copied_again_is_none(root, tmp_path):
    run(root, tmp_path / "s")
    label = next((root / "patient001").glob("*frame04_gt.nii.gz"))
    later = (tmp_path / "s" / "manifest.json").stat().st_mtime + 10
    os.utime(label, (later, later))
    run(root, tmp_path / "s")
    data = bytearray(label.read_bytes())
    data[4] ^= 1  # the time in the header of gzip: another file of the same size
    label.write_bytes(data)
    os.utime(label, (later + 1, later + 1))
    with pytest.raises(ValueError, match="patient001_frame04 in .* changed"):
        run(root, tmp_path / "s")


def test_a_folder_that_is_no_store_is_left_alone(root, tmp_path):
    (tmp_path / "mine" / "volumes" / "photos").mkdir(parents=True)
    with pytest.raises(ValueError, match="no store"):
        run(root, tmp_path / "mine")


def test_a_patient_who_was_taken_out_leaves_the_manifest_too(root, tmp_path):
    out = tmp_path / "s"
    run(root, out)
    shutil.rmtree(root / "patient001")
    with pytest.raises(ValueError, match="holds patient001_frame02, but"):
        run(root, out)
    for folder in (out / "volumes").glob("patient001_*"):
        shutil.rmtree(folder)
    store = run(root, out)
    assert list(store.patients) == ["patient002"] and len(store.volumes) == 2
    store.verify()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_a_finished_store_is_used_where_nothing_can_be_written():
    from tests.bad_input import accessible_folder, as_nobody

    with accessible_folder() as folder:
        root, out = folder / "root", folder / "s"
        write_acdc_patient(root, 1)
        before = run(root, out)
        (out / ".lock").unlink()  # a store from elsewhere has none
        for path in (out / "volumes", out):
            path.chmod(0o555)
        with as_nobody():
            assert run(root, out).volumes == before.volumes
            with pytest.raises(ValueError, match="other settings"):
                run(root, out, StoreSettings("acdc", 1.5, detector="grid"))
        write_acdc_patient(root, 2)
        with as_nobody(), pytest.raises(PermissionError, match="cannot write into .*volumes"):
            run(root, out)
        (root / "patient001" / "Info.cfg").write_text("ED: 2\nES: 4\nGroup: HCM\n")
        with as_nobody(), pytest.raises(ValueError, match="patient001_frame02 in .* changed"):
            run(root, out)


def test_volumes_that_were_copied_in_part_are_prepared_anew(root, tmp_path):
    before = run(root, tmp_path / "s")
    volumes = tmp_path / "s" / "volumes"
    (volumes / "patient001_frame02" / "record.json").unlink()
    (volumes / "photos").mkdir()
    (volumes / "photos" / "mine").touch()
    store = run(root, tmp_path / "s")
    assert store.volumes == before.volumes and (volumes / "photos" / "mine").is_file()
    store.verify()


def test_headers_of_volumes_that_were_copied_in_part_are_checked_first(root, tmp_path, monkeypatch):
    run(root, tmp_path / "s")
    (tmp_path / "s" / "volumes" / "patient001_frame02" / "record.json").unlink()
    (tmp_path / "s" / "volumes" / "patient002_frame02" / "record.json").unlink()
    (root / "patient002" / "patient002_frame02.nii.gz").write_bytes(b"no NIfTI")
    monkeypatch.setattr(module, "prepare_volume", lambda *_: pytest.fail("prepared"))
    with pytest.raises(ValueError, match=r"patient002_frame02.nii.gz is no NIfTI"):
        run(root, tmp_path / "s")


def test_what_a_file_manager_leaves_in_a_new_folder_is_no_volume(root, tmp_path):
    (tmp_path / "s" / "volumes").mkdir(parents=True)
    (tmp_path / "s" / "volumes" / ".DS_Store").touch()
    assert len(run(root, tmp_path / "s").volumes) == 4


def test_the_draft_of_a_volume_is_no_volume(root, tmp_path):
    before = run(root, tmp_path / "s")
    volumes = tmp_path / "s" / "volumes"
    shutil.copytree(volumes / "patient001_frame02", draft := volumes / f"{DRAFT}1-patient001_frame02")
    (draft / "record.json").write_text('{"id": ')  # half-written
    assert run(root, tmp_path / "s").volumes == before.volumes


def test_keypoint_table_counts_each_slice():
    image = np.random.default_rng(1).integers(0, 255, (3, 48, 48)).astype(np.uint8)
    image[1] = 0
    table, counts = find_keypoints(image, "sift")
    assert counts[1] == 0 < counts[0] and sum(counts) == len(table) and table["descriptor"].shape[1] == 128


def test_volume_without_label_writes_none(acdc_root):
    from kaf.data.cases import find_cases

    case = next(c for c in find_cases("acdc", acdc_root) if c.label is None)
    arrays, _ = prepare_volume(read_volume(case), SETTINGS)
    assert sorted(arrays) == ["image.npy", "keypoints.npy"]


@pytest.mark.parametrize("cores, gigabytes, processes", [(1, 4, 2), (2, 24, 2), (16, 16, 4), (16, 256, 16)])
def test_a_data_set_is_prepared_on_all_cores_that_have_memory(cores, gigabytes, processes, monkeypatch):
    monkeypatch.setattr(module, "count_cores", lambda: cores)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": gigabytes * 250_000, "SC_PAGE_SIZE": 4000}.get)
    assert preparers() == processes


def test_fewer_processes_prepare_where_fewer_cores_are_allowed(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 64_000_000, "SC_PAGE_SIZE": 4000}.get)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "5")  # a limit as those of a container, which joblib reads, too
    assert preparers() == 5
