import re

import nibabel as nib
import numpy as np
import pytest

from kaf.data.cases import find_cases, read_volume
from kaf.data.check import check_dataset
from kaf.data.sunnybrook import LV, MYO, convert, draw, find_patients, read_sunnybrook
from tests.data.layouts import SUNNYBROOK_ED, SUNNYBROOK_PHASES, circle, volume, write_dicom, write_sunnybrook


@pytest.fixture
def source(tmp_path):
    write_sunnybrook(tmp_path / "source")
    return tmp_path / "source"


def converted(source, number=1):
    """The folder of converted patients, with one more in it."""
    patient, target = f"SCD{number:07d}", source.parent / "nifti"
    original, images = find_patients(source)[patient]
    (target / patient).mkdir(parents=True)
    convert(source, patient, original, images, target / patient)
    return target


def series(source):
    return source / "SCD_IMAGES_01" / "SCD0000001" / "CINESAX_300"


def contours(source):
    return source / "SCD_ManualContours" / "SC-HF-I-01" / "contours-manual" / "IRCCI-expert"


def test_one_frame_is_labelled_and_the_others_join_without(source):
    write_sunnybrook(source, 2, "SC-HYP-12")
    cases = find_cases("sunnybrook", converted(source, 2))
    assert [c.id for c in cases] == [f"SCD0000002_frame{n:02d}" for n in range(1, SUNNYBROOK_PHASES + 1)]
    assert [c.frame for c in cases] == ["t01", "t02", "ED", "t04"] and {c.group for c in cases} == {"HYP"}
    assert [c.label is None for c in cases] == [True, True, False, True]


def test_pixels_labels_and_geometry_arrive(source):
    case = next(c for c in find_cases("sunnybrook", converted(source)) if c.frame == "ED")
    read = read_volume(case)
    assert read.image.shape == read.label.shape == (3, 40, 48) and case.group == "HF-I"
    for s in range(3):
        n = s * SUNNYBROOK_PHASES + SUNNYBROOK_ED
        expected = volume(1000 + n, (48, 40, 1))[0][..., 0].T + 10 * SUNNYBROOK_ED
        assert np.array_equal(read.image[s], expected)
        y, x = np.indices((40, 48))
        away = np.hypot(x - 20 - s, y - 18)
        assert (read.label[s][away < 7.9] == LV).all() and (read.label[s][away > 12.1] == 0).all()
        assert (read.label[s][(away > 8.1) & (away < 11.9)] == MYO).all()
    assert read.spacing_mm == pytest.approx((10, 1.4, 1.3))
    # DICOM says where the centre of the first pixel lies, with axes to the left and to the back of the patient.
    assert read.affine @ [0, 0, 0, 1] == pytest.approx([-5, -6, 7, 1])
    assert read.affine @ [2, 3, 1, 1] == pytest.approx([-5 - 2 * 1.3, -6 - 3 * 1.4, 7 - 10, 1])


def test_slanted_slices_keep_their_place(tmp_path):
    write_sunnybrook(tmp_path / "s", step=(1.0, 0.0, 9.0))
    read = read_volume(find_cases("sunnybrook", converted(tmp_path / "s"))[0])
    assert read.affine @ [0, 0, 2, 1] == pytest.approx([-7, -6, 25, 1])


def test_a_check_has_no_doubts_about_what_was_converted(source):
    findings = check_dataset("sunnybrook", converted(source))
    assert not [str(p) for p in findings.problems] and len(findings.cases) == SUNNYBROOK_PHASES


def test_nothing_of_the_headers_is_taken_over(source):
    for file in converted(source).rglob("*"):
        if file.is_file():
            content = nib.load(file).header.binaryblock if file.suffix == ".gz" else file.read_bytes()
            assert b"DOE" not in content and b"1970" not in content and b"Female" not in content


def test_a_contour_holds_the_pixels_whose_centre_is_inside():
    square = np.array([[1.5, 2.5], [4.5, 2.5], [4.5, 6.5], [1.5, 6.5]])
    labels = draw({"o": square}, (9, 7))
    y, x = np.nonzero(labels)
    assert set(x) == {2, 3, 4} and set(y) == {3, 4, 5, 6} and (labels == MYO).sum() == 12
    area = (draw({"i": circle(30, 31, 20.0)}, (64, 64)) == LV).sum()
    assert area == pytest.approx(np.pi * 400, rel=0.01)


def test_the_series_that_was_contoured_is_found(source):
    (series(source).parent / "CINESAX_400").mkdir()
    assert converted(source)
    series(source).rename(series(source).with_name("CINESAX_999"))
    other = series(source).parent / "CINESAX_400"
    for file in (series(source).parent / "CINESAX_999").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="2 of its 2 series .* hold all 6 contoured images"):
        convert(source, "SCD0000001", "SC-HF-I-1", series(source).parent, source.parent / "x")


def broken(source, change):
    """What convert says after a change."""
    change(source)
    original, images = find_patients(source)["SCD0000001"]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        convert(source, "SCD0000001", original, images, source.parent / "x")
    return str(caught.value)


def rewrite(name, shape=(40, 48), corner=(5, 6, 7), **options):
    return lambda source: write_dicom(series(source) / name, np.zeros(shape, "<i2"), corner, 1, **options)


def shift_outer(source):
    for s, n in ((0, 1), (1, 2), (2, 3)):
        found = contours(source) / f"IM-0001-{s * SUNNYBROOK_PHASES + SUNNYBROOK_ED:04d}-ocontour-manual.txt"
        found.rename(contours(source) / f"IM-0001-{s * SUNNYBROOK_PHASES + n:04d}-ocontour-manual.txt")


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: (series(s) / "IM-0003-0003.dcm").unlink(), "0 of its 1 series"),
    (lambda s: (series(s) / "IM-0003-0002.dcm").unlink(), r"no regular stack: \[3, 4\] images per place"),
    (rewrite("IM-0003-0002.dcm", (40, 40)), "differ in size, spacing or direction"),
    (rewrite("IM-0003-0002.dcm", spacing=(2, 2)), "differ in size, spacing or direction"),
    (rewrite("IM-0003-0002.dcm", direction=(0, 1, 0, 1, 0, 0)), "differ in size, spacing or direction"),
    (lambda s: (series(s) / "IM-0003-0002.dcm").write_bytes(b"not DICOM"), "IM-0003-0002.dcm cannot be read as DICOM"),
    (lambda s: (contours(s) / "IM-0001-0003-icontour-manual.txt").write_text("1 2\n3 4\n"), "holds no polygon"),
    (lambda s: [f.unlink() for f in contours(s).iterdir()], "has no contours SC-HF-I-01"),
    (lambda s: [f.unlink() for f in contours(s).glob("*ocontour*")], "lie in no common phase"),
    (shift_outer, "lie in no common phase"),
])
def test_what_is_not_as_published_is_refused(source, change, said):
    assert re.search(said, broken(source, change))


def test_uneven_distances_are_refused(tmp_path):
    write_sunnybrook(tmp_path / "s", slices=4)
    for phase in range(1, SUNNYBROOK_PHASES + 1):
        file = series(tmp_path / "s") / f"IM-0003-{3 * SUNNYBROOK_PHASES + phase:04d}.dcm"
        write_dicom(file, np.zeros((40, 48), "<i2"), (5, 6, 7 - 45), 1)
    assert "[10. 10. 25.] mm apart" in broken(tmp_path / "s", lambda _: None)


def test_the_table_and_the_folder_are_asked_for(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"converted by data_scripts/sunnybrook\.py"):
        read_sunnybrook(source)
    target = converted(source)
    (target / "SCD0000001" / "SCD0000001_4d.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="_4d.nii.gz is missing; convert the patient again"):
        read_sunnybrook(target)
    (target / "SCD0000001" / "Info.cfg").write_text("ED: x\nNbFrame: 4\nGroup: N\n")
    with pytest.raises(ValueError, match="Info.cfg has no usable entries ED, NbFrame and Group"):
        read_sunnybrook(target)
    (source / "scd_patientdata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no columns PatientID and OriginalID"):
        find_patients(source)
    (source / "scd_patientdata.csv").unlink()
    with pytest.raises(FileNotFoundError, match="has no scd_patientdata.csv"):
        find_patients(source)
