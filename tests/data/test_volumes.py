"""What must simply work: files that look odd but hold the same volume, and what hypothesis makes of them."""

import gzip
import os

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaf.data import nifti
from kaf.data.cases import Case, find_cases, read_volume
from kaf.data.check import check_dataset
from kaf.data.prepare import detect, prepare, to_8bit
from kaf.data.store import StoreSettings
from tests.data.layouts import save, volume, write_acdc_patient

AFFINE = np.diag([-1.5, -1.6, 8.0, 1.0])
PIXELS, TRUTH = volume(1)
EXPECTED = PIXELS.transpose(2, 1, 0).astype(np.float32)
SETTINGS = StoreSettings("acdc", 1.25, detector="grid")


def read(folder, image, truth=None, name="image.nii.gz"):
    """Read what was saved: a volume with the truth, if given, beside it."""
    nib.save(image, folder / name)
    label = None
    if truth is not None:
        label = folder / "truth.nii.gz"
        nib.save(truth, label)
    return read_volume(Case("x", "x", "", "", folder / name, label, structures=(1, 2, 3)))


def big_endian(array):
    return nib.Nifti1Image(array, AFFINE, nib.Nifti1Header(endianness=">"))


def scaled(array):
    image = nib.Nifti1Image(((array - 100) // 2).astype(np.int16), AFFINE)
    image.header.set_slope_inter(2, 100)
    return image


@pytest.mark.parametrize("make", [
    big_endian,
    lambda array: nib.Nifti1Image(array.astype(np.float64), AFFINE),
    lambda array: nib.Nifti1Image(np.asfortranarray(array), AFFINE),
    lambda array: nib.Nifti1Image(array[::-1, ::-1].copy()[::-1, ::-1], AFFINE),  # negative strides in memory
    lambda array: nib.Nifti2Image(array, AFFINE),
], ids=["big-endian", "float64", "column by column", "negative strides", "NIfTI-2"])
@pytest.mark.parametrize("name", ["image.nii.gz", "image.nii"])
def test_the_way_numbers_are_stored_changes_nothing(tmp_path, make, name):
    found = read(tmp_path, make(PIXELS), make(TRUTH.astype(np.int16)), name)
    assert np.array_equal(found.image, EXPECTED) and np.array_equal(found.label, TRUTH.transpose(2, 1, 0))
    assert found.image.dtype == np.float32 and found.image.dtype.isnative
    assert found.spacing_mm == pytest.approx((8.0, 1.6, 1.5)) and found.orientation == "LPS"


def test_scaled_integers_are_scaled(tmp_path):
    even = PIXELS // 2 * 2
    assert np.array_equal(read(tmp_path, scaled(even)).image, even.transpose(2, 1, 0).astype(np.float32))


def test_labels_saved_as_numbers_with_a_point_are_labels(tmp_path):
    found = read(tmp_path, nib.Nifti1Image(PIXELS, AFFINE), nib.Nifti1Image(TRUTH.astype(np.float32), AFFINE))
    assert np.array_equal(found.label, TRUTH.transpose(2, 1, 0)) and found.label.dtype == np.uint8


@pytest.mark.parametrize("turn", [np.diag([1, -1, 1]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]), None],
                         ids=["mirrored", "axes swapped", "oblique"])
def test_a_volume_turned_in_space_is_read_as_stored(tmp_path, turn):
    angle = np.deg2rad(20)
    oblique = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (oblique if turn is None else turn) @ AFFINE[:3, :3]
    found = read(tmp_path, nib.Nifti1Image(PIXELS, affine), nib.Nifti1Image(TRUTH, affine))
    assert np.array_equal(found.image, EXPECTED) and found.spacing_mm == pytest.approx((8.0, 1.6, 1.5))
    assert found.orientation == "".join(nib.aff2axcodes(affine))


def test_images_with_negative_strides_are_prepared_like_their_copies():
    flipped = EXPECTED[:, ::-1, ::-1]
    for one, other in ((flipped, flipped.copy()), (flipped[::-1], flipped[::-1].copy())):
        image = to_8bit(one, (1, 99), (61, 48))
        assert np.array_equal(image, to_8bit(other, (1, 99), (61, 48)))
        assert np.array_equal(detect(image[0][::-1], "sift").xy, detect(image[0][::-1].copy(), "sift").xy)


def test_one_slice_and_unequal_pixels_are_prepared(tmp_path):
    folder = write_acdc_patient(tmp_path / "acdc", 1)
    for frame in (2, 4):
        image, truth = volume(100 + frame, (40, 48, 1))
        save(folder / f"patient001_frame0{frame}.nii.gz", image, spacing=(0.8, 2.4, 8.0))
        save(folder / f"patient001_frame0{frame}_gt.nii.gz", truth, spacing=(0.8, 2.4, 8.0))
    record = prepare("acdc", tmp_path / "acdc", tmp_path / "store", SETTINGS, 1, False).volumes[0]
    assert record.shape == (1, 92, 26) and record.native_shape == (1, 48, 40)
    warnings = [problem.what for problem in check_dataset("acdc", tmp_path / "acdc", progress=False).problems]
    assert len(warnings) == 4 and all("single slice" in what or "unequal in plane" in what for what in warnings)


def test_names_with_spaces_and_other_letters_work(tmp_path):
    plain = write_acdc_patient(tmp_path / "plain", 1)
    root = tmp_path / "Hôpital Süd 心臓"
    folder = root / "patient é 1"
    folder.mkdir(parents=True)
    for file in plain.iterdir():
        (folder / file.name.replace("patient001", folder.name)).write_bytes(file.read_bytes())
    store = prepare("acdc", root, tmp_path / "a store ö", SETTINGS, 2, False)
    assert list(store.patients) == ["patient é 1"]
    assert store.volumes[0].source == "patient é 1/patient é 1_frame02.nii.gz"
    expected = prepare("acdc", tmp_path / "plain", tmp_path / "s", SETTINGS, 1, False)
    assert np.array_equal(store.image(0), expected.image(0))
    assert not check_dataset("acdc", root, progress=False).problems


def test_links_to_files_and_folders_are_followed(tmp_path):
    folder = write_acdc_patient(tmp_path / "real", 1)
    (tmp_path / "acdc").mkdir()
    (tmp_path / "acdc" / "patient001").symlink_to(folder)
    (folder / "again").symlink_to(folder)  # a loop that nothing has to enter
    image = folder / "patient001_frame02.nii.gz"
    image.rename(tmp_path / "elsewhere.nii.gz")
    image.symlink_to(tmp_path / "elsewhere.nii.gz")
    assert [case.frame for case in find_cases("acdc", tmp_path / "acdc")] == ["ED", "ES"]
    assert not check_dataset("acdc", tmp_path / "acdc", progress=False).problems


@pytest.mark.parametrize("data", [
    b"\xef\xbb\xbfED: 2\r\nES: 4\r\nGroup: NOR\r\n",
    b"Nom: H\xf4pital\nED:2\nES :4\nGroup: NOR",
], ids=["Windows", "Latin-1"])
def test_info_from_other_systems_is_read(tmp_path, data):
    (write_acdc_patient(tmp_path, 1) / "Info.cfg").write_bytes(data)
    assert [(case.frame, case.group) for case in find_cases("acdc", tmp_path)] == [("ED", "NOR"), ("ES", "NOR")]


def test_a_huge_volume_is_read_where_it_is_allowed(tmp_path, monkeypatch):
    write_acdc_patient(tmp_path, 1)
    monkeypatch.setattr(nifti, "MAX_VOXELS", PIXELS.size - 1)
    case = find_cases("acdc", tmp_path)[0]
    with pytest.raises(ValueError, match="has 7680 voxels, more than 7679; .*KAF_ALLOW=size"):
        read_volume(case)
    monkeypatch.setenv("KAF_ALLOW", "size")
    assert read_volume(case).image.size == PIXELS.size
    assert all(problem.warning for problem in check_dataset("acdc", tmp_path, progress=False).problems)
    monkeypatch.setenv("KAF_ALLOW", "sise")
    with pytest.raises(ValueError, match="unknown rule 'sise'; it may hold geometry, size, spacing"):
        read_volume(case)


def test_lengths_in_another_unit_are_read_as_mm_where_that_is_allowed(tmp_path, monkeypatch):
    image, truth = nib.Nifti1Image(PIXELS, AFFINE), nib.Nifti1Image(TRUTH, AFFINE)
    image.header.set_xyzt_units("meter", "sec")
    with pytest.raises(ValueError, match=r"has the voxel spacing .* in metres; write it in mm"):
        read(tmp_path, image, truth)
    monkeypatch.setenv("KAF_ALLOW", "spacing")
    found = read(tmp_path, image, truth)
    image.header.set_xyzt_units("mm")
    monkeypatch.delenv("KAF_ALLOW")
    assert found.spacing_mm == read(tmp_path, image, truth).spacing_mm


def test_a_truth_elsewhere_is_read_where_it_is_allowed(tmp_path, monkeypatch):
    images = nib.Nifti1Image(PIXELS, AFFINE), nib.Nifti1Image(TRUTH, np.eye(4))
    with pytest.raises(ValueError, match="voxels away from its image"):
        read(tmp_path, *images)
    monkeypatch.setenv("KAF_ALLOW", "size, geometry")
    assert np.array_equal(read(tmp_path, *images).label, TRUTH.transpose(2, 1, 0))


def test_a_truth_may_lie_half_a_voxel_away(tmp_path):
    for millimetres, fits in ((0.7, True), (0.8, False)):
        affine = AFFINE.copy()
        affine[0, 3] = millimetres
        images = nib.Nifti1Image(PIXELS, AFFINE), nib.Nifti1Image(TRUTH, affine)
        if fits:
            read(tmp_path, *images)
        else:
            with pytest.raises(ValueError, match="0.5 voxels away"):
                read(tmp_path, *images)


SIDES = st.tuples(*[st.integers(1, 6)] * 3)
KINDS = st.sampled_from(["u1", "i2", "<i4", ">i2", ">f4", "f8"])


@given(shape=SIDES, kind=KINDS, signs=st.tuples(*[st.sampled_from((-1, 1))] * 3), seed=st.integers(0, 99),
       spacing=st.tuples(*[st.floats(0.1, 20)] * 3))
def test_any_volume_comes_back_with_its_axes_turned(tmp_path_factory, shape, kind, signs, seed, spacing):
    array = np.random.default_rng(seed).integers(0, 100, shape)
    array.flat[0] = 0 if array.size == 1 else 101  # not everywhere the same
    image = nib.Nifti1Image(array.astype(kind), np.diag([*np.multiply(signs, spacing), 1]))
    folder = tmp_path_factory.mktemp("any")
    if array.size == 1:
        with pytest.raises(ValueError, match="has the value 0 everywhere"):
            read(folder, image)
        return
    found = read(folder, image)
    assert np.array_equal(found.image, array.transpose(2, 1, 0)) and found.image.shape == shape[::-1]
    assert found.spacing_mm == pytest.approx(spacing[::-1], rel=1e-5)
    assert found.orientation == "".join(pair[sign > 0] for pair, sign in zip(("LR", "PA", "IS"), signs))


@given(place=st.integers(0, 2**31), bit=st.integers(0, 7))
def test_a_file_with_one_bit_altered_is_refused_or_read_as_before(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("bit")
    before = read(folder, nib.Nifti1Image(PIXELS, AFFINE))
    data = bytearray((folder / "image.nii.gz").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "image.nii.gz").write_bytes(data)
    try:
        after = read_volume(Case("x", "x", "", "", folder / "image.nii.gz"))
        named = True
    except ValueError as error:
        after, named = before, "image.nii.gz" in str(error)
    assert named and np.array_equal(after.image, before.image) and after.spacing_mm == before.spacing_mm


@given(text=st.text(), cut=st.integers(0, 40))
def test_any_info_gives_two_frames_or_an_error_that_names_it(tmp_path_factory, text, cut):
    folder = write_acdc_patient(tmp_path_factory.mktemp("info"), 1, shape=(4, 4, 1))
    whole = "ED: 2\nES: 4\nGroup: NOR\n"
    (folder / "Info.cfg").write_text(whole[:cut] + text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        frames, message = [case.frame for case in find_cases("acdc", folder.parent)], ""
    except (ValueError, FileNotFoundError) as error:
        frames, message = [], str(error)
    assert frames == ["ED", "ES"] or os.fspath(folder) in message


def test_the_end_of_a_gzip_file_is_read_too(tmp_path):
    nib.save(nib.Nifti1Image(PIXELS, AFFINE), tmp_path / "image.nii.gz")
    more = gzip.decompress((tmp_path / "image.nii.gz").read_bytes()) + bytes(5000)
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(more))
    assert np.array_equal(read_volume(Case("x", "x", "", "", tmp_path / "image.nii.gz")).image, EXPECTED)
