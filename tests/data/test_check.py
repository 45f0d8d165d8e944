import numpy as np
import pytest

from kaf.data import check
from kaf.data.cases import find_cases, read_volume
from kaf.data.check import check_dataset, main
from tests.data.layouts import save, volume, write_acdc_patient, write_chd_case


@pytest.fixture
def broken(tmp_path):
    """Three patients; six files of two of them are wrong in six ways."""
    for number in (1, 2, 3):
        write_acdc_patient(tmp_path, number, group="NOR" if number < 3 else "DCM")
    one, two = tmp_path / "patient001", tmp_path / "patient002"
    image, truth = volume(102)
    image = image.astype(np.float32)
    image[0, 0, 0] = np.nan
    save(one / "patient001_frame02.nii.gz", image)
    truth[0, 0, 0] = 7
    save(one / "patient001_frame02_gt.nii.gz", truth)
    (one / "patient001_frame04.nii.gz").write_bytes(b"")
    save(one / "patient001_frame04_gt.nii.gz", truth[:, :-1])
    (two / "Info.cfg").write_text("ED: 2\nES: 4\n")
    (tmp_path / "patient004").symlink_to(tmp_path / "patient004")
    return tmp_path


def words(findings):
    return [(problem.file.name, problem.what) for problem in findings.errors]


def test_a_sound_folder_has_no_problems_and_says_what_would_be_used(acdc_root, capsys):
    with pytest.raises(SystemExit) as done:
        main(["acdc", str(acdc_root)])
    printed = capsys.readouterr().out
    assert done.value.code == 0
    for line in ("patients    4, DCM 2, NOR 2", "volumes     11, ED 4, ES 4, cine 3, labelled 8",
                 "shape       4 slices of 48 x 40 voxels", "spacing     8 mm between slices, 1.6 x 1.5 mm in plane",
                 "orientation LPS 11", "labels      0 background in 8, 1 RV in 8, 2 MYO in 8, 3 LV in 8 volumes",
                 "0 errors", "0 warnings"):
        assert line in printed


def test_all_errors_are_found_at_once(broken, capsys):
    with pytest.raises(SystemExit) as done:
        main(["acdc", str(broken)])
    printed = capsys.readouterr().out
    assert done.value.code == 1 and "6 errors" in printed
    for name in ("patient001_frame02.nii.gz holds NaN", "patient001_frame02_gt.nii.gz holds the labels [7]",
                 "patient001_frame04.nii.gz is no NIfTI file", "patient002/Info.cfg has no usable entry 'Group'",
                 "patient001_frame04_gt.nii.gz holds the labels [7]", "patient004 cannot be read"):
        assert name in printed
    assert "patients    1, DCM 1" in printed and "volumes     2," in printed  # what is left


def test_without_voxels_only_what_headers_tell_is_found(broken):
    quick = words(check_dataset("acdc", broken, voxels=False, progress=False))
    assert set(quick) < set(words(check_dataset("acdc", broken, progress=False)))
    assert [name for name, _ in quick] == ["Info.cfg", "patient004", "patient001_frame04.nii.gz"]


def test_reading_raises_the_error_that_the_report_lists(broken):
    listed = [str(problem) for problem in check_dataset("acdc", broken, progress=False).errors]
    with pytest.raises(ValueError) as raised:
        find_cases("acdc", broken)
    assert str(raised.value) in listed
    for case in find_cases("acdc", broken, lambda problem: None):
        if case.patient == "patient001":
            with pytest.raises(ValueError) as raised:
                read_volume(case)
            assert str(raised.value) in listed


@pytest.mark.parametrize("root", ["nowhere", "empty"])
def test_a_folder_without_data_is_one_error(tmp_path, root):
    (tmp_path / "empty").mkdir()
    for dataset in ("acdc", "chd"):
        findings = check_dataset(dataset, tmp_path / root, progress=False)
        assert len(findings.errors) == 1 and not findings.cases and "patients    0" in str(findings)


def test_warnings_do_not_fail_the_command(tmp_path, capsys):
    for number in (1, 2):
        write_chd_case(tmp_path, number)
    (tmp_path / "ct_2_image.nii.gz").write_bytes((tmp_path / "ct_1_image.nii.gz").read_bytes())
    image, truth = volume(3, (32, 32, 1))
    save(tmp_path / "ct_3_image.nii.gz", image, spacing=(0.5, 2.0, 8.0), axes=(1, 1, 1))
    save(tmp_path / "ct_3_label.nii.gz", 0 * truth, spacing=(0.5, 2.0, 8.0), axes=(1, 1, 1))
    save(tmp_path / "ct_4_lable.nii.gz", truth)
    with pytest.raises(SystemExit) as done:
        main(["chd", str(tmp_path)])
    printed = capsys.readouterr().out
    assert done.value.code == 0 and "0 errors\n6 warnings" in printed
    for text in ("ct_2_image.nii.gz is the same scan as", "ct_3_image.nii.gz is a single slice", "unequal in plane",
                 "ct_3_label.nii.gz is background everywhere",
                 "no use for: ct_4_lable.nii.gz;", "mixes the orientations LPS (2), RAS (1)"):
        assert text in printed


def test_structures_that_nobody_has_are_a_warning(tmp_path):
    write_acdc_patient(tmp_path, 1)
    for frame in (2, 4):
        truth = volume(100 + frame)[1]
        save(tmp_path / "patient001" / f"patient001_frame0{frame}_gt.nii.gz", np.minimum(truth, 2))
    (problem,) = check_dataset("acdc", tmp_path, progress=False).problems
    assert problem.warning and "has no voxel of 3 LV; check the label values" in str(problem)


def test_a_damaged_cine_file_is_one_problem(tmp_path):
    write_acdc_patient(tmp_path, 2, cine=True)
    cine = tmp_path / "patient002" / "patient002_4d.nii.gz"
    cine.write_bytes(cine.read_bytes()[:-2000])
    findings = check_dataset("acdc", tmp_path, progress=False)
    assert words(findings)[0][1].startswith("is damaged") and len(findings.errors) == 1
    assert [case.frame for case in findings.cases] == ["ED", "ES"]


def test_the_command_refuses_an_unknown_data_set(capsys):
    with pytest.raises(SystemExit) as done:
        check.main(["mnist", "somewhere"])
    assert done.value.code == 2 and "invalid choice: 'mnist'" in capsys.readouterr().err


def test_a_patient_without_labels_is_named(tmp_path):
    for number in (1, 2):
        write_acdc_patient(tmp_path, number)
    for file in (tmp_path / "patient002").glob("*_gt.nii.gz"):
        file.unlink()
    (problem,) = check_dataset("acdc", tmp_path, progress=False).problems
    assert problem.warning and "has no labels of patient002; they can be pretrained with" in str(problem)
