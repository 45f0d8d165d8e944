import gzip

import nibabel as nib
import numpy as np
import pytest

from kaf.data.cases import Case, find_cases, get_layout, read_acdc, read_chd, read_volume, write_labels
from tests.data.layouts import save, volume, write_acdc_patient, write_chd_case


def case_of(root, name, dataset="acdc"):
    return next(case for case in find_cases(dataset, root) if case.id == name)


def test_acdc_cases_carry_frame_group_and_truth(acdc_root):
    cases = [c for c in read_acdc(acdc_root) if c.patient == "patient001"]
    assert [(c.id, c.frame, c.group, c.frame_index) for c in cases] == [
        ("patient001_frame02", "ED", "DCM", None),
        ("patient001_frame04", "ES", "DCM", None),
    ]
    assert all(c.label.name == f"{c.id}_gt.nii.gz" and c.label.is_file() for c in cases)


def test_cine_frames_join_unlabelled_without_repeating_ed_and_es(acdc_root):
    cases = [c for c in read_acdc(acdc_root) if c.patient == "patient002"]
    assert [c.frame for c in cases] == ["t01", "ED", "t03", "ES", "t05"]
    assert [c.label is None for c in cases] == [True, False, True, False, True]
    assert [c.frame_index for c in cases] == [0, None, 2, None, 4]


@pytest.mark.parametrize("dataset", ["acdc", "chd", "hvsmr", "sunnybrook"])
def test_a_folder_that_there_is_not_is_named_from_the_top(tmp_path, monkeypatch, dataset):
    """Whoever started a notebook elsewhere sees where it was looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path / 'my data'} is no folder; give the folder"):
        find_cases(dataset, "my data")


def test_ids_are_sorted_and_distinct(acdc_root, chd_root):
    for cases in (read_acdc(acdc_root), read_chd(chd_root)):
        ids = [c.id for c in cases]
        assert ids == sorted(set(ids))


def test_volume_has_slices_first_rows_j_columns_i(acdc_root):
    read = read_volume(case_of(acdc_root, "patient001_frame02"))
    image, truth = volume(102)
    assert read.image.dtype == np.float32 and read.label.dtype == np.uint8
    assert read.image.shape == (4, 48, 40)
    for k, j, i in ((0, 0, 0), (3, 47, 5), (1, 20, 39)):
        assert read.image[k, j, i] == image[i, j, k] and read.label[k, j, i] == truth[i, j, k]
    assert read.spacing_mm == pytest.approx((8.0, 1.6, 1.5))
    assert read.orientation == "LPS"


def test_cine_frame_is_read_at_its_index(acdc_root):
    read = read_volume(case_of(acdc_root, "patient002_frame03"))
    assert np.array_equal(read.image, volume(203)[0].transpose(2, 1, 0)) and read.label is None


def test_written_labels_come_back_in_the_grid_of_the_source(acdc_root, tmp_path):
    case = case_of(acdc_root, "patient001_frame02")
    labels = read_volume(case).label
    write_labels(tmp_path / "out.nii.gz", labels, case)
    back = read_volume(Case("x", "x", "", "", case.image, tmp_path / "out.nii.gz"))
    assert np.array_equal(back.label, labels)
    written = nib.load(tmp_path / "out.nii.gz")
    assert np.allclose(written.affine, nib.load(case.image).affine)
    assert np.allclose(written.header.get_zooms(), (1.5, 1.6, 8.0))
    assert b"JANE" not in written.header.binaryblock
    with pytest.raises(ValueError, match="shape"):
        write_labels(tmp_path / "bad.nii.gz", labels[:, :-1], case)


def test_chd_labels_above_seven_become_background(chd_root):
    case = case_of(chd_root, "ct_1001", "chd")
    label = read_volume(case).label
    assert label.max() == 7 and (label[:, 0, :4] == 0).all()
    assert np.array_equal(label[:, 1:], volume(1001, (32, 32, 3), 7)[1].transpose(2, 1, 0)[:, 1:])
    assert (case.patient, case.frame, case.group) == ("ct_1001", "", "")


def test_chd_image_without_label_is_unlabelled_and_hidden_files_are_ignored(tmp_path):
    write_chd_case(tmp_path, 1)
    (tmp_path / "ct_1_label.nii.gz").unlink()
    (tmp_path / "._ct_1_image.nii.gz").write_bytes(b"left by another system")
    assert [c.label for c in read_chd(tmp_path)] == [None]


def test_a_scan_that_lies_there_twice_is_an_error(tmp_path):
    write_chd_case(tmp_path, 1)
    write_chd_case(tmp_path / "copy", 1)
    with pytest.raises(ValueError, match=r"ct_1_image.nii.gz is a second file of ct_1, beside .*copy/ct_1_image"):
        read_chd(tmp_path)


def test_files_that_are_not_compressed_are_found_too(tmp_path):
    write_acdc_patient(tmp_path / "acdc", 1, cine=True)
    write_chd_case(tmp_path / "chd", 1001)
    packed = [reader(tmp_path / name) for name, reader in (("acdc", read_acdc), ("chd", read_chd))]
    before = [read_volume(case).image for cases in packed for case in cases]
    for file in sorted(tmp_path.rglob("*.nii.gz")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    unpacked = [reader(tmp_path / name) for name, reader in (("acdc", read_acdc), ("chd", read_chd))]
    assert [[case.id for case in cases] for cases in unpacked] == [[case.id for case in cases] for cases in packed]
    assert all(case.image.suffix == ".nii" for cases in unpacked for case in cases)
    assert all(case.label is None or case.label.suffix == ".nii" for cases in unpacked for case in cases)
    after = [read_volume(case).image for cases in unpacked for case in cases]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_of_two_files_of_one_frame_the_compressed_one_is_taken_and_of_one_scan_neither(tmp_path):
    folder = write_acdc_patient(tmp_path / "acdc", 1)
    (folder / "patient001_frame02.nii").write_bytes(b"something else")
    assert all(case.image.suffix == ".gz" for case in read_acdc(tmp_path / "acdc"))
    write_chd_case(tmp_path / "chd", 1001)
    (tmp_path / "chd" / "ct_1001_image.nii").write_bytes(b"")
    with pytest.raises(ValueError, match="ct_1001_image.nii.* is a second file of ct_1001"):
        read_chd(tmp_path / "chd")


def test_patient_without_any_truth_is_unlabelled(tmp_path):
    write_acdc_patient(tmp_path, 101, truth=False)
    assert [c.label for c in read_acdc(tmp_path)] == [None, None]


@pytest.mark.parametrize("reader", [read_acdc, read_chd])
def test_missing_and_empty_folders_say_what_is_expected(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        reader(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="layout"):
        reader(tmp_path)


def test_folder_above_the_patients_is_named(tmp_path):
    write_acdc_patient(tmp_path / "database" / "training", 1)
    with pytest.raises(FileNotFoundError, match="subfolder database/training"):
        read_acdc(tmp_path)


@pytest.mark.parametrize("missing", ["_frame02.nii.gz", "_frame04_gt.nii.gz"])
def test_missing_frame_or_single_missing_truth(tmp_path, missing):
    folder = write_acdc_patient(tmp_path, 7)
    (folder / f"patient007{missing}").unlink()
    with pytest.raises(FileNotFoundError, match="patient007"):
        read_acdc(tmp_path)


@pytest.mark.parametrize("text", ["ED: 2\nES: 4\n", "ES: 4\nGroup: NOR\n", "ED: two\nES: 4\nGroup: NOR\n"])
def test_unusable_info_names_the_entry(tmp_path, text):
    folder = write_acdc_patient(tmp_path, 7)
    (folder / "Info.cfg").write_text(text)
    with pytest.raises(ValueError, match="no usable entry"):
        read_acdc(tmp_path)


def test_missing_info(tmp_path):
    (write_acdc_patient(tmp_path, 7) / "Info.cfg").unlink()
    with pytest.raises(FileNotFoundError, match="Info.cfg is missing"):
        read_acdc(tmp_path)


def broken(tmp_path, suffix, change):
    folder = write_acdc_patient(tmp_path, 7)
    image, truth = volume(702)
    array = change((truth if "gt" in suffix else image).astype(np.float32))
    save(folder / f"patient007_frame02{suffix}.nii.gz", array)
    return case_of(tmp_path, "patient007_frame02")


def put(value):
    def change(array):
        array[3, 3, 0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("", put(np.nan), "NaN or infinite"),
        ("", put(np.inf), "NaN or infinite"),
        ("_gt", put(np.nan), "NaN or infinite"),
        ("_gt", put(4), r"labels \[4\]"),
        ("_gt", put(1.5), r"fractions \[1.5\]"),
        ("_gt", lambda a: a[:, :-1], "shape"),
        ("", lambda a: a[..., None], "axes"),
    ],
)
def test_bad_values_name_the_file(tmp_path, suffix, change, message):
    case = broken(tmp_path, suffix, change)
    with pytest.raises(ValueError, match=message) as error:
        read_volume(case)
    assert f"patient007_frame02{suffix}.nii.gz" in str(error.value)


@pytest.mark.parametrize("cut", [0, 40, -100])
def test_a_file_cut_short_is_named(tmp_path, cut):
    file = write_acdc_patient(tmp_path, 7) / "patient007_frame02.nii.gz"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match="patient007_frame02.nii.gz is .*fetch or export it again"):
        read_volume(case_of(tmp_path, "patient007_frame02"))


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="phantom-ct"):
        get_layout("mnist")
