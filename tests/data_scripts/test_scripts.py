"""The scripts as a user runs them, on tiny data sets."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kaf.data.store import Store
from tests.data.layouts import write_acdc_patient

FOLDER = Path(__file__).parents[2] / "data_scripts"


@pytest.fixture
def script(monkeypatch):
    """Run a script's main with arguments, in this process."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        for module in (name, "shared", "multipart"):
            sys.modules.pop(module, None)
        importlib.import_module(name).main()

    return run


@pytest.fixture
def acdc_zip(tmp_path):
    """One training and one test patient in a zip with the folders of the official one."""
    for part, number in (("training", 1), ("testing", 101)):
        write_acdc_patient(tmp_path / "ACDC" / "database" / part, number)
    path = tmp_path / "downloaded.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tmp_path / "ACDC").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path))
    return path


@pytest.mark.parametrize(("part", "patient"), [("training", "patient001"), ("testing", "patient101")])
def test_acdc_zip_becomes_a_store(script, acdc_zip, tmp_path, capsys, part, patient):
    options = ("--source", acdc_zip, "--part", part, "--store", tmp_path / "s", "--workers", 1)
    with pytest.raises(SystemExit, match="--accept-licence"):
        script("acdc", *options)
    assert not (tmp_path / "s").exists() and not (tmp_path / "downloaded").exists()
    script("acdc", *options, "--accept-licence")
    store = Store.open(tmp_path / "s")
    assert list(store.patients) == [patient] and store.settings.spacing_mm == 1.25
    printed = capsys.readouterr().out
    for fact in ("CC BY-NC-SA 4.0", "GB", "https://", "volumes     2, ED 1, ES 1, labelled 2", "patients are missing"):
        assert fact in printed


def test_check_alone_reads_every_file_and_writes_no_store(script, acdc_zip, tmp_path, capsys):
    script("acdc", "--source", acdc_zip, "--store", tmp_path / "s", "--accept-licence", "--check-only")
    assert not (tmp_path / "s").exists()
    bad = tmp_path / "downloaded/ACDC/database/training/patient001/Info.cfg"
    bad.write_text("ED: 2\n")
    with pytest.raises(SystemExit, match="error: 1 in .*, listed above"):
        script("acdc", "--source", acdc_zip, "--accept-licence", "--check-only")
    assert "error: " in (printed := capsys.readouterr().out) and "no usable entry 'ES'" in printed


def test_broken_download_is_named(script, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"half a file")
    with pytest.raises(SystemExit, match="no complete zip"):
        script("acdc", "--source", tmp_path / "a.zip", "--accept-licence")
    with pytest.raises(SystemExit, match="no folder or zip"):
        script("acdc", "--source", tmp_path / "b.zip", "--accept-licence")


def test_chd_folder_becomes_a_native_store(script, chd_root, tmp_path):
    script("chd", "--source", chd_root, "--store", tmp_path / "s", "--workers", 1, "--accept-licence")
    store = Store.open(tmp_path / "s")
    assert list(store.patients) == ["ct_1001", "ct_1002"] and store.settings.spacing_mm is None


@pytest.mark.skipif(shutil.which("zip") is None, reason="only the program zip writes zips in several parts")
@pytest.mark.parametrize("level", ["-0", "-6"])
def test_chd_in_several_parts_is_unpacked(script, tmp_path, level):
    source, files = tmp_path / "kaggle", {}
    source.mkdir()
    for number in (1, 2, 3):
        file = tmp_path / f"ct_{number}_image.nii.gz"
        files[file.name] = np.random.default_rng(number).bytes(150_000) + bytes(5000)
        file.write_bytes(files[file.name])
    subprocess.run(["zip", "-qj", level, "-s", "64k", source / "CHD.zip", *tmp_path.glob("ct_*")], check=True)
    (source / "CHD.zip").rename(source / "CHD.change2zip")
    assert len(list(source.iterdir())) > 5
    with pytest.raises(SystemExit, match="error: 3 in"):  # unpacked, found, and no NIfTI
        script("chd", "--source", source, "--accept-licence", "--check-only")
    assert {p.name: p.read_bytes() for p in source.rglob("ct_*_image.nii.gz")} == files
    shutil.rmtree(source / "CHD")
    (source / "CHD.z02").write_bytes(bytes(65536))
    with pytest.raises(SystemExit, match="damaged"):
        script("chd", "--source", source, "--accept-licence", "--check-only")
    (source / "CHD.z03").unlink()
    with pytest.raises(SystemExit, match="download all of them"):
        script("chd", "--source", source, "--accept-licence", "--check-only")
    assert not (source / "CHD").exists()


@pytest.mark.parametrize(
    ("kind", "dataset", "spacing"), [("mr", "phantom", 1.25), ("ct", "phantom-ct", None)]
)
def test_phantom_needs_nothing_else(script, tmp_path, monkeypatch, kind, dataset, spacing):
    import kaf.data.phantom as phantom

    small = {"mr": {"size": 96, "slices": (2, 2)}, "ct": {"size": 64, "slices": (2, 2)}}
    monkeypatch.setattr(phantom, "DEFAULTS", small)
    options = ("--kind", kind, "--data", tmp_path / "files", "--store", tmp_path / "s", "--workers", 1)
    script("phantom", *options, "--patients", 2)
    store = Store.open(tmp_path / "s")
    assert (store.settings.dataset, store.settings.spacing_mm) == (dataset, spacing)
    assert len(store.patients) == 2 and all(v.labelled for v in store.volumes)
