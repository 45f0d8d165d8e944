"""ACDC: cine MR of 100 training and 50 test patients, fetched by you, checked and prepared here.

    python data_scripts/acdc.py --source ACDC.zip --store stores/acdc --accept-licence
    python data_scripts/acdc.py --source ACDC.zip --part testing --store stores/acdc-test --accept-licence
"""

from pathlib import Path

from shared import agree, finish, parser, unpack

TERMS = """
ACDC, Automated Cardiac Diagnosis Challenge (Bernard et al. 2018, doi 10.1109/TMI.2018.2837502)
  address  https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html, in a browser
  size     about 2.3 GB as one zip; the server streams it and states no size or checksum
  licence  CC BY-NC-SA 4.0: no commercial use, share alike, cite the article in any use
Download it there, then give the zip, or the folder it was unpacked to, as --source.
"""
EXPECTED = {"training": range(1, 101), "testing": range(101, 151)}


def find_part(folder: Path, part: str) -> Path:
    """The folder with the patients of a part: ``folder``, or one below it as in the official zip."""
    below = [path for pattern in (part, f"*/{part}", f"*/*/{part}") for path in sorted(folder.glob(pattern))]
    for candidate in below:
        if any(candidate.glob("patient*/Info.cfg")):
            return candidate
    return folder


def report_missing(root: Path, part: str) -> None:
    """Say which patients of the full set are missing: the zip has no checksum, its list of files tells."""
    missing = [f"patient{n:03d}" for n in EXPECTED[part] if not (root / f"patient{n:03d}").is_dir()]
    if missing:
        total = len(EXPECTED[part])
        print(f"note: {len(missing)} of the {total} {part} patients are missing, from {missing[0]} on")


def main() -> None:
    options = parser(__doc__, "stores/acdc", 1.25)
    options.add_argument("--source", type=Path, required=True, help="the downloaded zip, or a folder")
    options.add_argument("--part", choices=sorted(EXPECTED), default="training")
    options.add_argument("--accept-licence", action="store_true", help="you have read and accept the terms")
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    root = find_part(unpack(arguments.source), arguments.part)
    report_missing(root, arguments.part)
    finish("acdc", root, arguments)


if __name__ == "__main__":
    main()
