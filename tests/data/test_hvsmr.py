import numpy as np
import pytest

from kaf.data.cases import find_cases, get_layout, read_volume
from kaf.data.check import check_dataset
from kaf.data.hvsmr import read_hvsmr
from tests.data.layouts import save, volume, write_hvsmr


@pytest.fixture
def root(tmp_path):
    write_hvsmr(tmp_path)
    return tmp_path


def test_patients_come_in_the_order_of_their_numbers_with_their_severity(root):
    cases = find_cases("hvsmr", root)
    assert [(c.id, c.patient, c.frame, c.group) for c in cases] == [
        ("pat0", "pat0", "", "severe"), ("pat2", "pat2", "", "severe"), ("pat10", "pat10", "", "")]  # fmt: skip
    read = read_volume(cases[1])
    image, truth = volume(2, (24, 28, 20), labels=8)
    assert np.array_equal(read.image, image.transpose(2, 1, 0)) and np.array_equal(read.label, truth.transpose(2, 1, 0))
    assert set(np.unique(read.label)) == {0, *get_layout("hvsmr").structures}
    assert read.spacing_mm == pytest.approx((0.8, 0.7, 0.7))


def test_groups_are_not_needed(root):
    (root / "hvsmr_clinical.csv").unlink()
    assert {case.group for case in read_hvsmr(root)} == {""}


def test_what_is_missing_is_named(root, tmp_path_factory):
    (root / "cropped_norm" / "pat2_cropped_seg.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="pat2_cropped_seg.nii.gz is missing beside pat2_cropped_norm"):
        read_hvsmr(root)
    with pytest.raises(FileNotFoundError, match="not in the layout of HVSMR-2.0.*cropped_norm"):
        read_hvsmr(tmp_path_factory.mktemp("empty"))
    with pytest.raises(FileNotFoundError, match="none is no folder; give the folder"):
        find_cases("hvsmr", root / "none")


def test_what_is_there_twice_or_in_another_form_is_named(root):
    (root / "more").mkdir()
    for name in ("norm", "seg"):
        save(root / "more" / f"pat2_cropped_{name}.nii.gz", volume(2)[0])
    with pytest.raises(ValueError, match="is a second file of pat2, beside .*; keep one"):
        read_hvsmr(root)
    (root / "hvsmr_clinical.csv").write_text("Patient,Severity\n1,mild\n")
    with pytest.raises(ValueError, match="no columns Pat and Category"):
        read_hvsmr(root)


def test_a_check_lists_all_and_has_no_doubts_about_the_files_as_published(root):
    findings = check_dataset("hvsmr", root)
    assert not [str(p) for p in findings.problems] and len(findings.cases) == 3
    (root / "cropped_norm" / "pat2_cropped_seg.nii.gz").unlink()
    save(root / "cropped_norm" / "patX_cropped_norm.nii.gz", volume(3)[0])
    (root / "hvsmr_clinical.csv").write_text("")
    assert len(check_dataset("hvsmr", root).errors) == 3
