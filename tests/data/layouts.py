"""Tiny data sets written by hand in the layouts users have: textured images with nested structures."""

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
