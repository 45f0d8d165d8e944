"""Run committed notebooks again, in place, at their committed parameters: ``make chapters``.

``python book/run_chapters.py 01_keypoints 02_kaf_layer`` runs these, without names all. Times of execution are left
out and widgets are numbered in the order of their creation, so that only a changed result changes a file.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from kaf.files import replacing

BOOK = Path(__file__).parent
FOLDERS = ("chapters", "appendix")
STATE = "application/vnd.jupyter.widget-state+json"


def run(path: Path) -> None:
    """Execute one notebook with its own folder as working directory and write it back."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)  # of the run before
    client = NotebookClient(notebook, timeout=600, record_timing=False, store_widget_state=True,
                            resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    with replacing(path) as draft:
        nbformat.write(tidy(notebook), draft)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep of the metadata what a reader needs, and name the widgets by number instead of at random."""
    kept = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {})
    if widgets.get("state"):
        kept["widgets"] = {STATE: widgets}
    notebook.metadata = nbformat.from_dict(kept)
    text = json.dumps(notebook)
    for number, name in enumerate(widgets.get("state", {}), start=1):
        text = text.replace(name, f"{number:032x}")
    return nbformat.from_dict(json.loads(text))


def chosen(names: list[str]) -> list[Path]:
    """The notebooks named, or all. Raises ``FileNotFoundError`` for a name that is none."""
    known = {path.stem: path for path in sorted(p for f in FOLDERS for p in (BOOK / f).glob("*.ipynb"))}
    if unknown := [name for name in names if name not in known]:
        raise FileNotFoundError(f"no notebook {', '.join(unknown)} in {' or '.join(FOLDERS)}; "
                                f"there are {', '.join(known)}")
    return [known[name] for name in names or known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 02_kaf_layer or cost; none: all")
    paths = chosen(parser.parse_args().names)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"KAF_HOME": home, "TQDM_DISABLE": "1"}
        for path in paths:
            print(path.name, flush=True)
            run(path)


if __name__ == "__main__":
    main()
