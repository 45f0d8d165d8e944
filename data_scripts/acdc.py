"""ACDC: cine MR of 100 training and 50 test patients, fetched, checked and prepared.

    python data_scripts/acdc.py --store stores/acdc
    python data_scripts/acdc.py --part testing --store stores/acdc-test --accept-licence
    python data_scripts/acdc.py --source ZIP_OR_FOLDER --store stores/acdc --accept-licence
"""

from pathlib import Path

from fetch import Item, fetch
from shared import add_data, add_source, agree, complete, finish, in_one_line, missing_files, parser
from unpack import unpack

TERMS = """
ACDC, Automated Cardiac Diagnosis Challenge (Bernard et al. 2018, doi 10.1109/TMI.2018.2837502)
  address  https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html
  size     about 2.3 GB as one zip, and as much again unpacked; the server packs it while it sends, so it states
           no size and no checksum, and cannot continue a broken transfer: what is checked is the list of files
  licence  CC BY-NC-SA 4.0: no commercial use, share alike, cite the article in any use
Without --source it is downloaded from there.
"""
# The folder of both parts in the database of the organisers.
ITEM = Item("https://humanheart-project.creatis.insa-lyon.fr/database/api/v1/folder/637218e573e9f0047faa00fc/download",
            "ACDC.zip")  # fmt: skip
EXPECTED = {"training": range(1, 101), "testing": range(101, 151)}


def find_part(folder: Path, part: str) -> Path:
    """The folder with the patients of a part: ``folder``, or one below it as in the official zip."""
    below = [path for pattern in (part, f"*/{part}", f"*/*/{part}") for path in sorted(folder.glob(pattern))]
    for candidate in below:
        if any(candidate.glob("patient*/Info.cfg")):
            return candidate
    return folder


def refuse_others(root: Path, part: str) -> None:
    """Leave with one line where a folder has patients of the other part: nobody may train on what is tested."""
    names = {f"patient{number:03d}": other for other in EXPECTED if other != part for number in EXPECTED[other]}
    if found := sorted(path.name for path in root.glob("patient*") if path.name in names):
        raise SystemExit(f"error: {root} holds {len(found)} patients of ACDC {names[found[0]]}, such as {found[0]}; "
                         f"--part {part} needs a folder of {part} patients alone")


def files_of(root: Path, number: int) -> list[Path]:
    """The files of one patient in the full set; which frames there are, Info.cfg says."""
    patient = f"patient{number:03d}"
    info = root / patient / "Info.cfg"
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    frames = [int(pairs[key]) for key in ("ED", "ES") if pairs.get(key, "").strip().isdigit()]
    names = [f"{patient}_frame{frame:02d}{end}.nii.gz" for frame in frames for end in ("", "_gt")]
    return [info, *(root / patient / name for name in (f"{patient}_4d.nii.gz", *names))]


@in_one_line
def main() -> None:
    options = parser(__doc__, "stores/acdc", 1.25)
    add_source(options)
    add_data(options, "stores/acdc-files")
    options.add_argument("--part", choices=sorted(EXPECTED), default="training")
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    source = arguments.source or fetch(ITEM, arguments.data)
    root = find_part(unpack(source), arguments.part)
    refuse_others(root, arguments.part)
    missing = missing_files(file for number in EXPECTED[arguments.part] for file in files_of(root, number))
    complete(missing, None if arguments.source else arguments.data, f"ACDC {arguments.part}")
    finish("acdc", root, arguments)


if __name__ == "__main__":
    main()
