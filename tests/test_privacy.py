"""What identifies a patient in a file's header stays there: every byte that is written is searched."""

import gzip

import nibabel as nib
import pytest

from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings
from kaf.finetune import finetune
from kaf.pretrain import pretrain
from kaf.segment import Segmenter, segment
from tests.data.layouts import write_acdc_patient
from tests.tiny import tiny_experiment

SECRET = b"QXJANE"
FIELDS = {"descrip": 80, "aux_file": 24, "intent_name": 16, "db_name": 18}  # and their lengths


def sign(path):
    """Write the secret into every field of a header that takes text, and into extensions."""
    image = nib.load(path)
    voxels = image.get_fdata().astype(image.get_data_dtype())
    copy = nib.Nifti1Image(voxels, image.affine, image.header)
    for field in FIELDS:
        copy.header[field] = SECRET + field.encode()[:6]
    copy.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET + b" born 1970"))
    copy.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<xml>" + SECRET + b"</xml>"))
    nib.save(copy, path)


def searched(folder, word=SECRET):
    """Files below a folder that hold a word in any of their bytes, packed or not, or in their name."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        unpacked = gzip.decompress(content) if path.suffix == ".gz" else b""
        if word in content + unpacked or word.decode() in path.name:
            found.append(path.relative_to(folder).as_posix())
    return sorted(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set with signed headers, its store, its runs, and a segmentation of one of its files."""
    root = tmp_path_factory.mktemp("private")
    for number, group in ((1, "DCM"), (2, "NOR"), (3, "NOR")):
        write_acdc_patient(root / "data", number, group, cine=number == 1)
    for file in (root / "data").rglob("*.nii.gz"):
        sign(file)
    for info in (root / "data").rglob("Info.cfg"):
        info.write_text(info.read_text() + f"Name: {SECRET.decode()}\n")
    store = prepare("acdc", root / "data", root / "store", StoreSettings("acdc", 1.25), workers=1, progress=False)
    patients, experiment = ("patient001", "patient002"), tiny_experiment()
    pretrain(experiment, store, patients, root / "runs", device="cpu")
    run = finetune(experiment, store, patients, root / "runs", "unet", device="cpu")
    (root / "segmented").mkdir()
    image = root / "data" / "patient003" / "patient003_frame02.nii.gz"
    segment(Segmenter.load(run.folder, "cpu"), image, root / "segmented" / "labels.nii.gz", progress=False)
    return root


def test_the_search_finds_what_is_there(made):
    assert len(searched(made / "data")) == 3 * 5 + 1, "every file of the data set is signed"
    signed = nib.load(made / "data" / "patient001" / "patient001_frame02.nii.gz").header
    assert all(SECRET in bytes(signed[field]) for field in FIELDS) and len(signed.extensions) == 2


@pytest.mark.parametrize("folder", ["store", "runs", "segmented"])
def test_no_byte_of_a_header_is_taken_over(made, folder):
    assert any((made / folder).rglob("*.*")) and searched(made / folder) == []


@pytest.mark.parametrize("folder", ["store", "runs", "segmented"])
def test_no_folder_of_the_owner_is_named(made, folder):
    assert searched(made / folder, made.as_posix().encode()) == []


def test_names_of_patient_folders_are_kept_as_ids(made):
    # Said in kaf.data.prepare: who must hide them renames the folders before.
    assert "manifest.json" in searched(made / "store", b"patient001")


def test_a_segmentation_has_an_empty_header(made):
    header = nib.load(made / "segmented" / "labels.nii.gz").header
    assert all(not bytes(header[field]).strip(b"\0") for field in FIELDS) and not header.extensions
