"""The scripts as a user runs them, on tiny data sets."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kaf.data.store import Store
from tests.data.layouts import write_acdc_patient, write_chd_case, write_hvsmr, write_sunnybrook


@pytest.fixture
def acdc_zip(tmp_path):
    """One training and one test patient in a zip with the folders of the official one."""
    for part, number in (("training", 1), ("testing", 101)):
        write_acdc_patient(tmp_path / "ACDC" / "database" / part, number, cine=True)
    return packed(tmp_path / "ACDC", tmp_path / "downloaded.zip", tmp_path)


def packed(folder, path, root):
    """A zip of a folder, with names from ``root`` on."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(root))
    return path


def offer(server, module, folder, *names):
    """Files on the server as the items of a script, with the sums they have."""
    items = []
    for name in names:
        server.files[name] = content = (folder / name).read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        items.append(module.Item(server.url(name), name, len(content), digest))
    return items


def test_no_answer_to_the_question_is_no(load, monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})(""))
    with pytest.raises(SystemExit, match="Nothing was done. Read the terms above"):
        load("shared").agree("These are the terms.", accepted=False)


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
    volumes = "volumes     5, ED 1, ES 1, cine 3, labelled 2"
    for fact in ("CC BY-NC-SA 4.0", "GB", "https://", volumes, "files of the full ACDC", "-p dataset acdc"):
        assert fact in printed


def test_a_part_with_patients_of_the_other_is_refused(script, acdc_zip, tmp_path):
    script("acdc", "--source", acdc_zip, "--part", "testing", "--check-only", "--accept-licence")  # unpacks both
    both = tmp_path / "downloaded" / "ACDC" / "database"
    for part, other in (("training", "testing"), ("testing", "training")):
        with pytest.raises(SystemExit, match=f"holds 1 patients of ACDC {other}, such as patient.01; --part {part}"):
            script("acdc", "--source", both / other, "--part", part, "--store", tmp_path / "s", "--accept-licence")
    assert not (tmp_path / "s").exists()


def test_processes_that_end_early_end_the_script_with_one_line(script, load, acdc_zip, tmp_path, monkeypatch):
    def prepare(*_):
        raise RuntimeError("a process ended")

    monkeypatch.setattr(load("shared"), "prepare", prepare)
    with pytest.raises(SystemExit, match="^error: a process ended$"):
        script("acdc", "--source", acdc_zip, "--store", tmp_path / "s", "--accept-licence")


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


# --- what is printed at the end

def as_typed(printed):
    """Where papermill is started by the command that was printed, and with which words, according to a shell."""
    (command,) = (line for line in printed.splitlines() if "papermill" in line)
    shell = subprocess.run(["bash", "-c", f"papermill() {{ printf '%s\\n' \"$PWD\" \"$@\"; }}; {command}"],
                           capture_output=True, text=True, check=True, cwd="/")
    place, *words = shell.stdout.splitlines()
    assert (Path(place) / words[0]).is_file()
    return words[2:]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_the_command_for_a_chapter_works_from_anywhere(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it's my data"
    write_acdc_patient(folder, 1)
    script("acdc", "--source", folder.name, "--store", "s", "--workers", 1, "--accept-licence")
    assert as_typed(capsys.readouterr().out) == ["-p", "dataset", "acdc", "-p", "data_root", str(folder)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_the_phantom_of_a_chapter_needs_no_folder(script, tmp_path, monkeypatch, capsys):
    import kaf.data.phantom as phantom

    monkeypatch.setattr(phantom, "DEFAULTS", {"mr": {"size": 96, "slices": (2, 2)}})
    script("phantom", "--data", tmp_path / "files", "--store", tmp_path / "s", "--workers", 1, "--patients", 1)
    assert as_typed(capsys.readouterr().out) == ["-p", "dataset", "phantom"]


# --- ends before the end

NAMES = ("acdc", "chd", "hvsmr", "phantom", "sunnybrook")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("said", ["", "half of it is kept; run the same again"])
def test_a_stop_by_hand_is_one_line_and_130(load, script, tmp_path, monkeypatch, capsys, name, said):
    def stop(*_, **__):
        raise KeyboardInterrupt(*filter(None, [said]))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load(name), "agree", stop)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stopped:  # the latter would end pytest
        script(name)
    assert isinstance(stopped.value, SystemExit) and stopped.value.code == 130
    line = capsys.readouterr().err.strip()
    assert (said or "Stopped. Run the same again: ") in line and "\n" not in line


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "d"), ValueError("Permission denied")])
def test_an_error_is_one_line(load, script, tmp_path, monkeypatch, name, error):
    def fail(*_, **__):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load(name), "agree", fail)
    with pytest.raises(SystemExit, match="^error: .*Permission denied"):
        script(name)


# --- terms

@pytest.mark.parametrize(("name", "licence"), [
    ("acdc", "CC BY-NC-SA 4.0"), ("chd", "Apache 2.0"), ("hvsmr", "CC BY 4.0"), ("sunnybrook", "CC0 1.0")])
def test_terms_come_first_and_are_asked_for(script, server, tmp_path, monkeypatch, capsys, name, licence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    for answer in ("", "no", "y"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        with pytest.raises(SystemExit, match="Nothing was done"):
            script(name)
    printed = capsys.readouterr().out
    assert all(word in printed for word in (licence, "address", "size", "licence", "https://"))
    assert not list(tmp_path.iterdir()) and not server.requests


def test_yes_is_an_answer(script, acdc_zip, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: " Yes ")
    script("acdc", "--source", acdc_zip, "--check-only")


# --- downloads

@pytest.fixture
def fast(load, monkeypatch):
    """No waiting between tries."""
    module = load("fetch")
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    return module


def test_acdc_is_fetched_from_a_server_that_states_nothing(load, script, fast, server, acdc_zip, tmp_path, monkeypatch):
    module, options = load("acdc"), ("--accept-licence", "--data", tmp_path / "d", "--store", tmp_path / "s")
    server.files["all"], server.ranges, server.behaviours = acdc_zip.read_bytes(), False, ["chunked", "whole"]
    monkeypatch.setattr(module, "ITEM", module.Item(server.url("all"), "ACDC.zip"))
    with pytest.raises(SystemExit, match="error: 198 files of ACDC training are missing.*delete"):
        script("acdc", *options)
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(module, "EXPECTED", {"training": [1], "testing": [101]})
    script("acdc", *options, "--workers", 1)
    assert list(Store.open(tmp_path / "s").patients) == ["patient001"] and len(server.requests) == 2


def test_acdc_misses_a_single_frame(load, script, acdc_zip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(load("acdc"), "EXPECTED", {"training": [1], "testing": [101]})
    script("acdc", "--source", acdc_zip, "--accept-licence", "--check-only")
    assert "All files of ACDC training are there." in capsys.readouterr().out
    (tmp_path / "downloaded/ACDC/database/training/patient001/patient001_4d.nii.gz").unlink()
    script("acdc", "--source", acdc_zip, "--accept-licence", "--check-only")
    assert "note: 1 files of the full ACDC training are missing" in capsys.readouterr().out


def test_chd_is_fetched_with_kagglehub_and_counted(script, chd_root, tmp_path, monkeypatch, capsys):
    kaggle = types.ModuleType("kagglehub")
    kaggle.dataset_download = lambda handle: str(chd_root)
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    with pytest.raises(SystemExit, match="error: 66 files of CHD-68 are missing in the download"):
        script("chd", "--accept-licence", "--store", tmp_path / "s")
    kaggle.dataset_download = lambda handle: 1 / 0
    with pytest.raises(SystemExit, match="kagglehub could not download .*division by zero.*it continues"):
        script("chd", "--accept-licence")
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(SystemExit, match="Install kagglehub"):
        script("chd", "--accept-licence")
    for number in range(1, 69):
        write_chd_case(tmp_path / "all", number, (16, 16, 2))
    (tmp_path / "all" / "ct_7_label.nii.gz").unlink()
    script("chd", "--source", tmp_path / "all", "--accept-licence", "--check-only")
    assert "note: 1 files of the full CHD-68 are missing, the first is" in capsys.readouterr().out


@pytest.fixture
def hvsmr(load, fast, server, tmp_path, monkeypatch):
    """The script before a server with a small data set and figshare's record of it."""
    write_hvsmr(tmp_path / "made", range(60), (16, 16, 2))
    packed(tmp_path / "made" / "cropped_norm", tmp_path / "cropped_norm.zip", tmp_path / "made")
    (tmp_path / "hvsmr_clinical.csv").write_bytes((tmp_path / "made" / "hvsmr_clinical.csv").read_bytes())
    module, listed = load("hvsmr"), []
    for constant, name in (("ZIP", "cropped_norm.zip"), ("TABLE", "hvsmr_clinical.csv")):
        server.files[name] = content = (tmp_path / name).read_bytes()
        md5 = hashlib.md5(content).hexdigest()
        listed.append({"name": name, "size": len(content), "computed_md5": md5, "download_url": server.url(name)})
        monkeypatch.setattr(module, constant, module.Item("", name, len(content), f"md5:{md5}"))
    server.files["record"] = json.dumps(listed).encode()
    monkeypatch.setattr(module, "RECORD", server.url("record"))
    return module


def test_hvsmr_is_fetched_where_its_record_says(hvsmr, script, server, tmp_path, capsys):
    server.behaviours = ["whole", "cut", "whole"]
    script("hvsmr", "--accept-licence", "--data", tmp_path / "d", "--store", tmp_path / "s", "--workers", 1)
    store = Store.open(tmp_path / "s")
    assert len(store.patients) == 60 and store.patients["pat3"] == "severe" and store.structures[8] == "IVC"
    asked = [span for path, span in server.requests if path == "/cropped_norm.zip"]
    assert asked == [None, f"bytes={len(server.files['cropped_norm.zip']) // 2}-"]
    said = capsys.readouterr().out
    assert "All files of HVSMR-2.0 are there." in said and " -p dataset hvsmr -p data_root " in said


@pytest.mark.parametrize(("record", "said"), [
    (b"[]", "does not list cropped_norm.zip with md5:.*the publisher has changed the files"),
    (b"<html>", "cannot be read .*give it as --source"), (b'{"message": "no"}', "cannot be read"),
])
def test_hvsmr_stops_where_the_record_is_another(hvsmr, script, server, tmp_path, record, said):
    server.files["record"] = record
    with pytest.raises(SystemExit, match=said):
        script("hvsmr", "--accept-licence", "--data", tmp_path / "d")
    assert len(server.requests) == 1


@pytest.fixture
def sunnybrook(tmp_path):
    """Two patients as published: two zips and a table."""
    root = tmp_path / "made"
    write_sunnybrook(root, 1, "SC-HF-I-1")
    write_sunnybrook(root, 2, "SC-N-11")
    packed(root / "SCD_IMAGES_01", tmp_path / "SCD_IMAGES_01.zip", root / "SCD_IMAGES_01")
    packed(root / "SCD_ManualContours", tmp_path / "SCD_ManualContours.zip", root)
    shutil.copy(root / "scd_patientdata.csv", tmp_path)
    return tmp_path


def test_sunnybrook_is_fetched_converted_and_prepared(load, script, fast, server, sunnybrook, monkeypatch, capsys):
    module, data = load("sunnybrook"), sunnybrook / "d"
    names = ("SCD_IMAGES_01.zip", "SCD_ManualContours.zip", "scd_patientdata.csv")
    monkeypatch.setattr(module, "ITEMS", offer(server, module, sunnybrook, *names))
    server.behaviours = ["cut", "whole"]
    options = ("--accept-licence", "--data", data, "--store", sunnybrook / "s", "--workers", 1)
    script("sunnybrook", *options)
    store = Store.open(sunnybrook / "s")
    assert store.patients == {"SCD0000001": "HF-I", "SCD0000002": "N"} and store.settings.spacing_mm == 1.25
    assert sum(v.labelled for v in store.volumes) == 2 and len(store.volumes) == 8
    assert "43 of the 45 patients are missing" in capsys.readouterr().out
    before = len(server.requests)
    script("sunnybrook", *options)
    assert len(server.requests) == before, "what is there is not fetched again"


def test_sunnybrook_lists_all_patients_that_are_not_as_expected(script, sunnybrook):
    made = sunnybrook / "made"
    for patient in ("SCD0000001", "SCD0000002"):
        next(made.rglob(f"{patient}/CINESAX_300/IM-0003-0003.dcm")).unlink()
    with pytest.raises(SystemExit, match="(?s)not as published:.*SCD0000001.*SCD0000002"):
        script("sunnybrook", "--source", made, "--data", sunnybrook / "d", "--accept-licence")
    assert not list((sunnybrook / "d" / "nifti").iterdir())


def test_a_zip_in_parts_is_looked_at_before_it_is_unpacked(load, script, tmp_path, monkeypatch):
    source = tmp_path / "kaggle"
    source.mkdir()
    with zipfile.ZipFile(source / "CHD.change2zip", "w") as archive:
        archive.writestr("../ct_1_image.nii.gz", "x")
    with pytest.raises(SystemExit, match="a path outside its folder"):
        script("chd", "--source", source, "--accept-licence")
    assert [path.name for path in tmp_path.rglob("*")] == ["kaggle", "CHD.change2zip"]
