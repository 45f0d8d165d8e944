"""Tiny data sets written by hand in the layouts users have: textured images with nested structures."""

import re

import nibabel as nib
import numpy as np

ED, ES, FRAMES = 2, 4, 5


def volume(seed: int, shape=(40, 48, 4), labels=3):
    """Image int16 and truth uint8 with the axes (i, j, k) of NIfTI."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(shape)
    radius = np.hypot(i - shape[0] * 0.45, j - shape[1] * 0.55) + 0.5 * k
    truth = sum((radius < r) * 1 for r in np.linspace(14, 5, labels)).astype(np.uint8)
    blobs = np.kron(rng.integers(0, 200, (shape[0] // 4, shape[1] // 4, shape[2])), np.ones((4, 4, 1)))
    return (100 * truth + blobs + rng.normal(0, 5, shape)).astype(np.int16), truth


def save(path, array, spacing=(1.5, 1.6, 8.0), axes=(-1, -1, 1)):
    """Write NIfTI with the spacing (i, j, k) in mm and the direction of each axis."""
    steps = np.array(spacing[: array.ndim][:3]) * axes
    image = nib.Nifti1Image(array, np.diag([*steps, 1.0]))
    image.header["descrip"] = b"JANE DOE 1970"  # what must not reach a store
    nib.save(image, path)


def write_acdc_patient(root, number: int, group="NOR", cine=False, truth=True, shape=(40, 48, 4)):
    """One patient folder of the ACDC layout; ``cine`` adds the 4-D file. Returns the folder."""
    patient = f"patient{number:03d}"
    folder = root / patient
    folder.mkdir(parents=True)
    info = {"ED": ED, "ES": ES, "Group": group, "Height": "180.0", "NbFrame": FRAMES}
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in info.items()))
    frames = [volume(100 * number + f, shape) for f in range(1, FRAMES + 1)]
    for frame in (ED, ES):
        save(folder / f"{patient}_frame{frame:02d}.nii.gz", frames[frame - 1][0])
        if truth:
            save(folder / f"{patient}_frame{frame:02d}_gt.nii.gz", frames[frame - 1][1])
    if cine:
        save(folder / f"{patient}_4d.nii.gz", np.stack([image for image, _ in frames], -1))
    return folder


def write_chd_case(root, number: int, shape=(32, 32, 3)):
    """One case of the CHD-68 layout whose truth also holds the values 9 and 250."""
    image, truth = volume(number, shape, labels=7)
    truth[:2, 0], truth[2:4, 0] = 9, 250
    root.mkdir(parents=True, exist_ok=True)
    save(root / f"ct_{number}_image.nii.gz", image - 1000, spacing=(0.5, 0.4, 1.0))
    save(root / f"ct_{number}_label.nii.gz", truth, spacing=(0.5, 0.4, 1.0))


def write_hvsmr(root, numbers=(0, 2, 10), shape=(24, 28, 20)):
    """Patients of HVSMR-2.0, variant cropped_norm, and the table of their severity, with an empty last row."""
    folder = root / "cropped_norm"
    folder.mkdir(parents=True)
    for number in numbers:
        image, truth = volume(number, shape, labels=8)
        for name, array in (("norm", image), ("seg", truth), ("seg_endpoints", (truth == 5).astype(np.uint8))):
            save(folder / f"pat{number}_cropped_{name}.nii.gz", array, spacing=(0.7, 0.7, 0.8))
    rows = "".join(f"{number},x,severe\n" for number in numbers[:-1])
    (root / "hvsmr_clinical.csv").write_text(f"Pat,Normal,Category\n{rows},,\n", encoding="utf-8-sig")


SUNNYBROOK_ED, SUNNYBROOK_ES, SUNNYBROOK_PHASES = 3, 1, 4  # counted from 1


def circle(x, y, radius, points=60):
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)


def write_dicom(path, pixels, corner, number, direction=(1, 0, 0, 0, 1, 0), spacing=(1.4, 1.3), series="CINESAX"):
    """One image as a scanner writes it, with a name and a birthday."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    image.PatientName, image.PatientID, image.PatientBirthDate = "DOE^JANE", "JANE DOE 1970", "19700101"
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.SeriesDescription, image.InstanceNumber = "MR", series, number
    image.Rows, image.Columns = pixels.shape
    image.ImagePositionPatient, image.ImageOrientationPatient = [float(c) for c in corner], list(direction)
    image.PixelSpacing = list(spacing)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 1
    image.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
    image.save_as(path, enforce_file_format=True)


def write_sunnybrook(root, number=1, original="SC-HF-I-1", slices=3, shape=(40, 48), step=(0.0, 0.0, -10.0)):
    """A patient of the Sunnybrook data as published; slice ``s`` has circles around (20 + s, 18). Returns its id."""
    patient = f"SCD{number:07d}"
    series = root / "SCD_IMAGES_01" / patient / "CINESAX_300"
    padded = re.sub(r"\d+$", lambda m: m[0].zfill(2), original)
    drawn = root / "SCD_ManualContours" / padded / "contours-manual" / "IRCCI-expert"
    for folder in (series, drawn):
        folder.mkdir(parents=True)
    for s in range(slices):
        for phase in range(1, SUNNYBROOK_PHASES + 1):
            n = s * SUNNYBROOK_PHASES + phase
            pixels = volume(1000 * number + n, (shape[1], shape[0], 1))[0][..., 0].T + 10 * phase
            write_dicom(series / f"IM-0003-{n:04d}.dcm", pixels, np.array([5, 6, 7]) + s * np.array(step), n)
            kinds = {SUNNYBROOK_ED: {"i": 8, "o": 12}, SUNNYBROOK_ES: {"i": 5, "p1": 2}}.get(phase, {})
            for kind, radius in kinds.items():
                name = f"IM-0001-{n:04d}-{kind}contour-manual.txt"
                np.savetxt(drawn / name, circle(20 + s, 18, radius), fmt="%.2f")
    table = root / "scd_patientdata.csv"
    if not table.is_file():
        table.write_text("PatientID,OriginalID,Gender,Age,Pathology\n", encoding="utf-8-sig")
    with table.open("a") as file:
        file.write(f"{patient},{original},Female,55,Heart failure with infarct\n")
    return patient
