"""CHD-68: CT of 68 patients with congenital heart disease, fetched from Kaggle, checked and prepared.

    pip install kagglehub
    python data_scripts/chd.py --store stores/chd --accept-licence
    python data_scripts/chd.py --source FOLDER_OR_ZIP --store stores/chd --accept-licence
"""

from pathlib import Path

from multipart import unpack_parts
from shared import agree, finish, parser, unpack

KAGGLE = "xiaoweixumedicalai/chd68-segmentation-dataset-miccai19"
TERMS = f"""
CHD-68 (Xu et al. 2019, doi 10.1007/978-3-030-32245-8_53)
  address  https://www.kaggle.com/datasets/{KAGGLE}
  size     about 5.4 GB, and as much again unpacked
  licence  as stated on that page (Apache 2.0 when this was written; read it there); cite the article
Without --source kagglehub downloads it from there, with your own Kaggle account if it asks for one.
"""


def fetch() -> Path:
    """Download with kagglehub, which continues a broken download and keeps its own cache."""
    try:
        import kagglehub
    except ImportError:
        raise SystemExit("Install kagglehub for the download, or give your own with --source.") from None
    return Path(kagglehub.dataset_download(KAGGLE))


def find_files(folder: Path) -> Path:
    """The folder with the scans, unpacked first if the data set came as a zip in several parts."""
    last = next(iter(sorted(folder.rglob("*.change2zip"))), None)  # the suffix its authors gave the last part
    return unpack_parts(last, last.with_suffix("")) if last else folder


def main() -> None:
    options = parser(__doc__, "stores/chd", None)
    options.add_argument("--source", type=Path, help="a folder or zip; without it: kagglehub")
    options.add_argument("--accept-licence", action="store_true", help="you have read and accept the terms")
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    folder = unpack(arguments.source) if arguments.source else fetch()
    try:
        root = find_files(folder)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    finish("chd", root, arguments)


if __name__ == "__main__":
    main()
