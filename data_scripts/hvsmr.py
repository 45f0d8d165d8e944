"""HVSMR-2.0: MR of 60 patients with congenital heart disease, fetched from figshare, checked and prepared.

    python data_scripts/hvsmr.py --store stores/hvsmr
    python data_scripts/hvsmr.py --source FOLDER_OR_ZIP --store stores/hvsmr --accept-licence
"""

import json
import urllib.request
from pathlib import Path

from fetch import TIMEOUT_S, Item, fetch
from shared import add_data, add_source, agree, complete, finish, in_one_line, missing_files, parser
from unpack import unpack

from kaf.files import replacing

TERMS = """
HVSMR-2.0, whole-heart segmentation in congenital heart disease (Pace et al. 2024, doi 10.1038/s41597-024-03469-9)
  address  https://doi.org/10.6084/m9.figshare.25226363, the variant cropped_norm: cut to the heart, normalised
  size     1.2 GB as one zip, and as much again unpacked
  licence  CC BY 4.0: cite the article, say what you changed
Without --source it is downloaded from there.
"""
RECORD = "https://api.figshare.com/v2/articles/25226363/files"  # figshare's own list of the files, with their addresses
ZIP = Item("", "cropped_norm.zip", 1_214_309_305, "md5:6027791717a1ecf51b03e0d84f1acee7")
TABLE = Item("", "hvsmr_clinical.csv", None, "md5:b280b832e209f37e20b611449bb6a789")  # Category: mild, moderate, severe


def locate(*items: Item) -> list[Item]:
    """The items with the addresses that figshare's record gives them, which must know them as published."""
    try:
        with urllib.request.urlopen(RECORD, timeout=TIMEOUT_S) as response:
            listed = {entry["name"]: entry for entry in json.load(response)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SystemExit(f"error: {RECORD} cannot be read ({error}); try again later, or download the data set in a "
                         "browser and give it as --source") from None  # fmt: skip
    for item in items:
        found = listed.get(item.name, {})
        if f"md5:{found.get('computed_md5')}" != item.digest:
            raise SystemExit(f"error: {RECORD} does not list {item.name} with {item.digest}: the publisher has "
                             "changed the files; download them in a browser and give them as --source")  # fmt: skip
    return [item._replace(url=listed[item.name]["download_url"]) for item in items]


def download(folder: Path) -> Path:
    """The unpacked zip, with the table of severity in it."""
    zipped, table = (fetch(item, folder) for item in locate(ZIP, TABLE))
    unpacked = unpack(zipped)
    with replacing(unpacked / table.name) as draft:
        draft.write_bytes(table.read_bytes())
    return unpacked


@in_one_line
def main() -> None:
    options = parser(__doc__, "stores/hvsmr", None)
    add_source(options)
    add_data(options, "stores/hvsmr-files")
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    folder = unpack(arguments.source) if arguments.source else download(arguments.data)
    first = next(iter(sorted(folder.rglob("pat*_cropped_norm.nii.gz"))), folder / "none")  # the zip has a folder inside
    names = [f"pat{n}_cropped_{end}.nii.gz" for n in range(60) for end in ("norm", "seg", "seg_endpoints")]
    missing = missing_files(first.parent / name for name in names)
    complete(missing, None if arguments.source else arguments.data, "HVSMR-2.0")
    finish("hvsmr", folder, arguments)


if __name__ == "__main__":
    main()
