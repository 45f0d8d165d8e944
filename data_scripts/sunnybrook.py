"""Sunnybrook cardiac data: cine MR of 45 patients, fetched, converted from DICOM to NIfTI, checked and prepared.

    pip install pydicom
    python data_scripts/sunnybrook.py --store stores/sunnybrook
    python data_scripts/sunnybrook.py --source FOLDER --store stores/sunnybrook --accept-licence
"""

from pathlib import Path

from fetch import Item, fetch
from shared import add_data, add_source, agree, finish, in_one_line, parser
from unpack import unpack, whole

from kaf.data.sunnybrook import convert, find_patients
from kaf.progress import progress_bar

PATIENTS = 45
TERMS = """
Sunnybrook cardiac data, the left ventricle challenge of 2009 (Radau et al. 2009, http://hdl.handle.net/10380/3070)
  address  https://www.cardiacatlas.org/sunnybrook-cardiac-data/
  size     five zips of DICOM files (the first 434 MB; the server states the size of each as it comes), one of
           contours and a table; unpacked as much again, and the short-axis images once more as NIfTI
  licence  CC0 1.0, public domain; its authors ask to cite the article
Without --source it is downloaded from there. The publisher states no checksums; those here are recorded by torch-em,
a library that downloads the same files.
"""
SHARE = "https://www.cardiacatlas.org/share/download.php?id={}&token={}&download"
ITEMS = [
    Item(SHARE.format(number, token), name, size, f"sha256:{digest}")
    for number, token, name, size, digest in (
        (98, "kUVtCTMzfjlHwunzFYST7yNGFnlUtV7W", "SCD_IMAGES_01.zip", 433_585_535,
         "708ce04db1ac33948a00b9052d44e9548c6807121a4841f4c35080d6db127b72"),
        (99, "2euh4WH03DynHi9Y5elb2HSWJaJIeWER", "SCD_IMAGES_02.zip", None,
         "ea97bd11dfc1154bdcf02b6466c00637bc7e0dc04b5ddc3d94d68a7cd7a3e6a5"),
        (100, "eT37AbXslu1JQp1GSZy2BmmWzWmXDdfx", "SCD_IMAGES_03.zip", None,
         "5b065fadef1b523bbabfec0d85327f375f743f2dd72810a5927b21b834b45deb"),
        (101, "Qn0dY2lHTyTIBF5qNHRkbHdUSnWnS4Yy", "SCD_IMAGES_04.zip", None,
         "2a8d7054d9b89b5af4c9764b4b04eecee57b61b71b69f5ac69ec12629e9a615c"),
        (102, "nYALJl6kS6cj5jgK9R8CKDpgQwZn1pm3", "SCD_IMAGES_05.zip", None,
         "e65a818fe89c665c344317222a052360e210936c81f89ceb9d36e8e3c6e2d6e9"),
        (61, "gFjv8psvCQu2vDYldUW9TYUIDic11fDt", "SCD_ManualContours.zip", None,
         "93d8e06dfa53fc384e78810aeac86c336b5bdecbff1c9c175ec9254851cc2162"),
        (66, "Y1D66ieUdbXFlqmZ4icHJheJy44MXUPY", "scd_patientdata.csv", None,
         "c39eb11924d021e8ec51bb984daa57d1adadcc8eb7e342640181ce151dae5ded"),
    )
]  # fmt: skip


def download(folder: Path) -> Path:
    """All files, the zips unpacked beside themselves."""
    for item in ITEMS:
        file = fetch(item, folder)
        if file.suffix == ".zip":
            unpack(file)
    return folder


def convert_all(source: Path, target: Path) -> None:
    """Write every patient as NIfTI, or leave with a list of those who are not as expected; finished ones are kept."""
    problems = []
    patients = find_patients(source)
    for patient, (original, images) in progress_bar(patients.items(), desc="convert", unit="patient"):
        if (target / patient).is_dir():
            continue
        try:
            with whole(target / patient) as partial:
                convert(source, patient, original, images, partial)
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{error} (or move {images} away, to go on without {patient})")
    if problems:
        raise SystemExit("error: not as published:\n" + "\n".join(problems))
    if len(patients) < PATIENTS:
        print(f"note: {PATIENTS - len(patients)} of the {PATIENTS} patients are missing in {source}")


@in_one_line
def main() -> None:
    options = parser(__doc__, "stores/sunnybrook", 1.25)
    add_source(options)
    add_data(options, "stores/sunnybrook-files")
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    converted = arguments.data / "nifti"
    convert_all(unpack(arguments.source) if arguments.source else download(arguments.data), converted)
    finish("sunnybrook", converted, arguments)


if __name__ == "__main__":
    main()
