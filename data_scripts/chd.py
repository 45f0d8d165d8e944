"""CHD-68: CT of 68 patients with congenital heart disease, fetched from Kaggle, checked and prepared.

    pip install kagglehub
    python data_scripts/chd.py --store stores/chd
    python data_scripts/chd.py --source FOLDER_OR_ZIP --store stores/chd --accept-licence
"""

from pathlib import Path

from multipart import unpack_parts
from shared import add_source, agree, complete, finish, in_one_line, parser
from unpack import unpack

KAGGLE = "xiaoweixumedicalai/chd68-segmentation-dataset-miccai19"
PATIENTS = 68
TERMS = f"""
CHD-68 (Xu et al. 2019, doi 10.1007/978-3-030-32245-8_53)
  address  https://www.kaggle.com/datasets/{KAGGLE}
  size     about 5.4 GB, and as much again unpacked
  licence  as stated on that page (Apache 2.0 when this was written; read it there); cite the article
Without --source kagglehub downloads it from there, with your own Kaggle account if it asks for one.
"""


def fetch() -> Path:
    """Download with kagglehub: it shows progress, continues after a break, compares checksums, has its own cache."""
    try:
        import kagglehub
    except ImportError:
        raise SystemExit("Install kagglehub for the download, or give your own with --source.") from None
    try:
        return Path(kagglehub.dataset_download(KAGGLE))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped. Run the same again: kagglehub continues.") from None
    except Exception as error:  # of the network, the account or the terms: kagglehub has a class for each
        raise SystemExit(f"error: kagglehub could not download {KAGGLE}: {error}. Run the same again: it continues "
                         "where it was; or download it in a browser and give it as --source") from None  # fmt: skip


def find_files(folder: Path) -> Path:
    """The folder with the scans, unpacked first if the data set came as a zip in several parts."""
    last = next(iter(sorted(folder.rglob("*.change2zip"))), None)  # the suffix its authors gave the last part
    return unpack_parts(last, last.with_suffix("")) if last else folder


def missing(root: Path) -> list[Path]:
    """What is not there of 68 images with a label each; their numbers are not published, so they are counted."""
    images = sorted(root.rglob("ct_*_image.nii.gz"))
    labels = [image.with_name(image.name.replace("_image", "_label")) for image in images]
    none = [root / f"image {n} of {PATIENTS}" for n in range(len(images) + 1, PATIENTS + 1)]
    return none + [label for label in labels if not label.is_file()]


@in_one_line
def main() -> None:
    options = parser(__doc__, "stores/chd", None)
    add_source(options)
    arguments = options.parse_args()
    agree(TERMS, arguments.accept_licence)
    folder = unpack(arguments.source) if arguments.source else fetch()
    root = find_files(folder)
    complete(missing(root), None if arguments.source else folder, "CHD-68")
    finish("chd", root, arguments)


if __name__ == "__main__":
    main()
