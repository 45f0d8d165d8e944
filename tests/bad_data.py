"""Bad input, first half: the files of a data set."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.bad_input import Action, Bad, World, as_nobody, preparing
from tests.data.layouts import save, volume, write_acdc_patient, write_chd_case

IMAGE, TRUTH = "patient007_frame02.nii.gz", "patient007_frame02_gt.nii.gz"
AGAIN = "fetch or export it again"
Change = Callable[[Path], object]


def acdc(change: Change, user=None) -> Callable[[Path, World], Action]:
    """Two patients; ``change`` breaks something in the folder of the second."""

    def make(folder: Path, _: World) -> Action:
        root = folder / "acdc"
        write_acdc_patient(root, 1)
        change(write_acdc_patient(root, 7))
        return preparing(folder, root, **({"user": user} if user else {}))

    return make


def chd(change: Change) -> Callable[[Path, World], Action]:
    """Two scans; ``change`` breaks something in their folder."""

    def make(folder: Path, _: World) -> Action:
        for number in (1, 2):
            write_chd_case(folder / "chd", number)
        change(folder / "chd")
        return preparing(folder, folder / "chd", "chd")

    return make


def root(change: Change, dataset: str = "acdc") -> Callable[[Path, World], Action]:
    """``change`` makes what is given as the folder of the data set."""

    def make(folder: Path, _: World) -> Action:
        change(folder / "data")
        return preparing(folder, folder / "data", dataset)

    return make


def content(edit: Callable[[bytes], bytes], name: str = IMAGE) -> Change:
    """Edit a file as it lies on disk."""
    return lambda patient: (patient / name).write_bytes(edit((patient / name).read_bytes()))


def unpacked(edit: Callable[[bytes], bytes]) -> Change:
    """Edit what is in the gzip file of the image."""
    return content(lambda data: gzip.compress(edit(gzip.decompress(data))))


def header(**fields) -> Change:
    """Set header fields of the image, whatever they are."""

    def edit(data: bytes) -> bytes:
        found = nib.Nifti1Header(data[:348], check=False)
        for name, value in fields.items():
            found[name] = value
        return found.binaryblock + data[348:]

    return unpacked(edit)


def image(edit: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda patient: save(patient / IMAGE, edit(volume(702)[0].astype(np.float32)))


def truth(edit: Callable[[np.ndarray], np.ndarray], **how) -> Change:
    return lambda patient: save(patient / TRUTH, edit(volume(702)[1].astype(np.float32)), **how)


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array[3, 3, 0] = value
        return array

    return edit


def shift(patient: Path) -> None:
    moved = nib.load(patient / TRUTH)
    affine = moved.affine.copy()
    affine[0, 3] += 6
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj), affine), patient / TRUTH)


def colours(patient: Path) -> None:
    array = np.zeros((40, 48, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(array, np.eye(4)), patient / IMAGE)


def flat(patient: Path) -> None:
    nib.save(nib.Nifti1Image(volume(702)[0][..., 0], np.eye(4)), patient / IMAGE)


def info(text: str) -> Change:
    return lambda patient: (patient / "Info.cfg").write_text(text)


def away(name: str) -> Change:
    return lambda patient: (patient / name).unlink()


def loop(file: Path) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
    file.symlink_to(file)


def dangling(patient: Path) -> None:
    (patient / IMAGE).unlink()
    (patient / IMAGE).symlink_to("nowhere.nii.gz")


def closed(name: str) -> Change:
    return lambda patient: os.chmod(patient / name, 0)


def cine_of_three_axes(patient: Path) -> None:
    shutil.copy(patient / IMAGE, patient / "patient007_4d.nii.gz")


def same(array: np.ndarray) -> np.ndarray:
    return array


SPACING = r"has the voxel spacing \(.*\) mm in its header"
PLACE = r"lies up to \d+\.\d voxels away from its image"

DATA = (
    Bad("gzip file cut short", acdc(content(lambda d: d[:-500])), IMAGE, "is damaged .*ended before", AGAIN),
    Bad("gzip file cut within the header", acdc(content(lambda d: d[:20])), IMAGE, "is no NIfTI file", AGAIN),
    Bad("NIfTI without gzip, named .gz", acdc(content(gzip.decompress)), IMAGE, "is no NIfTI file .*not a gzip", AGAIN),
    Bad("error page saved as image", acdc(content(lambda d: b"<html>404")), IMAGE, "is no NIfTI file", AGAIN),
    Bad("file of zero bytes", acdc(content(lambda d: b"")), IMAGE, "is no NIfTI file .*Empty", AGAIN),
    Bad("fewer voxels than the header says", acdc(unpacked(lambda d: d[:2000])), IMAGE, "is damaged .*Expected", AGAIN),
    Bad("one byte of the checksum altered", acdc(content(lambda d: d[:-8] + bytes([d[-8] ^ 1]) + d[-7:])), IMAGE,
        "is damaged .*CRC", AGAIN),
    Bad("no NIfTI header in a gzip file", acdc(content(lambda d: gzip.compress(b"hello" * 200))), IMAGE,
        "is no NIfTI file", AGAIN),
    Bad("unknown data type", acdc(header(datatype=999)), IMAGE, "is no NIfTI file .*data code 999", AGAIN),
    Bad("impossible rotation", acdc(header(sform_code=0, qform_code=1, quatern_b=5)), IMAGE, "is no NIfTI file", AGAIN),
    Bad("truth cut short", acdc(content(lambda d: d[:-20], TRUTH)), TRUTH, "is damaged", AGAIN),
    Bad("4-D image where 3-D is expected", acdc(image(lambda a: a[..., None])), IMAGE, "has 4 axes, expected 3",
        "one frame must be chosen"),
    Bad("2-D image", acdc(flat), IMAGE, "has 2 axes, expected 3", "frame"),
    Bad("3-D file in place of the cine file", acdc(cine_of_three_axes), "patient007_4d.nii.gz",
        "has 3 axes, expected 4",
        "of a 4-D file only"),
    Bad("an axis without voxels", acdc(header(dim=[3, 0, 48, 4, 1, 1, 1, 1])), IMAGE, r"has the shape \(0, 48, 4\)",
        "export it anew"),
    Bad("truth of another shape", acdc(truth(lambda a: a[:, :-1])), TRUTH, "has shape .*, its image", "in one grid"),
    Bad("truth mirrored in space", acdc(truth(same, axes=(1, -1, 1))), TRUTH, f"{PLACE}.*RPS.*LPS",
        "KAF_ALLOW=geometry"),
    Bad("truth of another spacing", acdc(truth(same, spacing=(1.0, 1.6, 8.0))), TRUTH, PLACE, "in one grid"),
    Bad("truth moved by four voxels", acdc(shift), TRUTH, "lies up to 4.0 voxels away", "in one grid"),
    Bad("NaN in the image", acdc(image(put(np.nan))), IMAGE, "holds NaN or infinite", "repair or remove"),
    Bad("infinity in the image", acdc(image(put(-np.inf))), IMAGE, "holds NaN or infinite", "repair or remove"),
    Bad("NaN in the truth", acdc(truth(put(np.nan))), TRUTH, "holds NaN or infinite", "repair or remove"),
    Bad("constant volume", acdc(image(lambda a: 0 * a + 7)), IMAGE, "has the value 7 everywhere", "export it anew"),
    Bad("unknown label value", acdc(truth(put(4))), TRUTH, r"holds the labels \[4\]", "allowed are 0 and 1, 2, 3"),
    Bad("negative label", acdc(truth(put(-1))), TRUTH, r"holds the labels \[-1\]", "allowed are"),
    Bad("fraction as label", acdc(truth(put(1.5))), TRUTH, r"holds the fractions \[1.5\]", "nearest neighbour"),
    Bad("fraction where other labels are dropped",
        chd(lambda r: save(r / "ct_2_label.nii.gz", put(2.5)(volume(2, (32, 32, 3))[1].astype(np.float32)),
                           spacing=(0.5, 0.4, 1.0))),
        "ct_2_label.nii.gz", r"holds the fractions \[2.5\]", "nearest neighbour"),
    Bad("missing frame", acdc(away(IMAGE)), IMAGE, "is missing, which Info.cfg .* names as the ED frame",
        "add the file",
        FileNotFoundError),
    Bad("truth of one frame only", acdc(away(TRUTH)), "patient007", "for only one of ED and ES", "add the other",
        FileNotFoundError),
    Bad("missing Info.cfg", acdc(away("Info.cfg")), "Info.cfg", "is missing", AGAIN, FileNotFoundError),
    Bad("Info.cfg without ES", acdc(info("ED: 2\nGroup: NOR\n")), "Info.cfg", "no usable entry 'ES'",
        "such as 'ES: 12'"),
    Bad("Info.cfg without Group", acdc(info("ED: 2\nES: 4\n")), "Info.cfg", "no usable entry 'Group'", "'Group: NOR'"),
    Bad("Info.cfg with a word for a number", acdc(info("ED: two\nES: 4\nGroup: NOR\n")), "Info.cfg",
        "no usable entry 'ED', found 'two'", "such as 'ED: 1'"),
    Bad("one frame as both ED and ES", acdc(info("ED: 2\nES: 02\nGroup: NOR\n")), "Info.cfg",
        "names frame 2 as both ED and ES", "correct one"),
    Bad("scan that lies there twice", chd(lambda r: write_chd_case(r / "copy", 1)), "ct_1_image.nii.gz",
        "is a second file of ct_1", "keep one"),
    Bad("spacing of zero", acdc(header(pixdim=[1, 1.5, 0, 8, 0, 0, 0, 0])), IMAGE, SPACING, "must be positive"),
    Bad("negative spacing", acdc(header(pixdim=[1, -1.5, 1.6, 8, 0, 0, 0, 0])), IMAGE, SPACING, "must be positive"),
    Bad("spacing that is no number", acdc(header(pixdim=[1, np.nan, 1.6, 8, 0, 0, 0, 0])), IMAGE, SPACING, "positive"),
    Bad("lengths in metres", acdc(header(xyzt_units=1 + 8)), IMAGE, r"spacing \(1.5, 1.6, 8.0\) in metres",
        "write it in mm, with their code, or set KAF_ALLOW=spacing"),
    Bad("lengths in micrometres", acdc(header(xyzt_units=3)), IMAGE, "in micrometres", "KAF_ALLOW=spacing"),
    Bad("a unit that is none", acdc(header(xyzt_units=5)), IMAGE, "unit with the unknown code 5", "KAF_ALLOW=spacing"),
    Bad("lengths in metres that are called mm", acdc(header(pixdim=[1, 0.0015, 0.0016, 0.008, 0, 0, 0, 0])), IMAGE,
        r"has the voxel spacing \(0.0015, 0.0016, 0.008\) mm", "write it in mm"),
    Bad("affine without a space", acdc(header(srow_x=[0, 0, 0, 0])), IMAGE, "affine that maps to no space", "repair"),
    Bad("affine that is no number", acdc(header(srow_x=[np.nan, 0, 0, 0])), IMAGE, "affine that maps", "repair"),
    Bad("RGB image", acdc(colours), IMAGE, "holds colours", "one grey value"),
    Bad("complex image", acdc(lambda p: save(p / IMAGE, volume(702)[0].astype(np.complex64))), IMAGE,
        "holds complex64 numbers", "one grey value"),
    Bad("huge volume", acdc(header(dim=[3, 4000, 4000, 400, 1, 1, 1, 1])), IMAGE, "has 6400000000 voxels, more than",
        "crop it, or set KAF_ALLOW=size"),
    Bad("file that may not be read", acdc(closed(IMAGE), as_nobody), IMAGE, "cannot be read .*Permission", "chmod",
        PermissionError),
    Bad("folder that may not be entered", acdc(closed("."), as_nobody), "patient007", "cannot be read .*Permission",
        "chmod", PermissionError),
    Bad("no such folder", root(lambda r: None), "data", "is no folder", "give the folder", FileNotFoundError),
    Bad("file given as folder", root(lambda r: r.write_text("x")), "data", "is no folder", "give the folder",
        NotADirectoryError),
    Bad("empty folder", root(Path.mkdir), "data", "is not in the ACDC layout", "give the folder that holds them",
        FileNotFoundError),
    Bad("empty folder for CHD", root(Path.mkdir, "chd"), "data", "is not in the CHD-68 layout", "give the folder",
        FileNotFoundError),
    Bad("folder of another layout", root(lambda r: write_chd_case(r, 1)), "data", "has no folder patientNNN",
        "give the folder", FileNotFoundError),
    Bad("folder above the patients", root(lambda r: write_acdc_patient(r / "ACDC" / "training", 1)), "data",
        "is not in the ACDC layout", "subfolder ACDC/training, give that one", FileNotFoundError),
    Bad("patient folder that links to itself", acdc(loop), "patient007", "Too many levels of symbolic links",
        "replace it by the file itself", OSError),
    Bad("image that links to itself", acdc(lambda p: loop(p / IMAGE)), IMAGE, "Too many levels of symbolic links",
        "replace it", OSError),
    Bad("link to a file that is gone", acdc(dangling), IMAGE, "is a link to a file that is not there", "put the file",
        FileNotFoundError),
)
