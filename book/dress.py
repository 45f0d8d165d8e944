"""The cells of a chapter that are generated: the badges under its title and its setup cell.

The address of the repository comes from ``_config.yml``, minutes and memory from ``book/chapters.json``.
``python -m book.dress`` writes both cells again, without running anything.
"""

import math
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import yaml

from book.chapter_numbers import read_chapters
from kaf.files import replacing

BOOK = Path(__file__).parent
CHAPTERS = BOOK / "chapters"
HARDWARE = "one processor core, no GPU"
NOBODY = "/OWNER/"  # in the address, until the repository has one
METADATA = {
    "badges": {"tags": ["badges"]},
    "setup": {"cellView": "form", "jupyter": {"source_hidden": True},
              "tags": ["setup", "hide-input", "nbval-ignore-output"]},
}  # fmt: skip


def repository() -> tuple[str, str]:
    """Address and branch."""
    found = yaml.safe_load((BOOK.parent / "_config.yml").read_text())["repository"]
    return found["url"], found["branch"]


def badges(name: str) -> str:
    """One line: open in Colab, where the repository has an address, minutes, memory, hardware."""
    (url, branch), facts = repository(), read_chapters()[name]
    where = f"{urlsplit(url).path}/blob/{branch}/book/chapters/{name}.ipynb"
    colab = "" if NOBODY in where else f"[Open in Colab](https://colab.research.google.com/github{where}) · "
    minutes = f"{facts['minutes']:g} minute{'' if facts['minutes'] == 1 else 's'}"
    return f"{colab}{minutes} · {facts['gigabytes']:g} GB of memory · {HARDWARE}"


def setup() -> str:
    """The setup cell, with the address in it."""
    url, branch = repository()
    text = (BOOK / "setup_cell.py").read_text().rstrip("\n")
    return text.replace("ADDRESS", url).replace("BRANCH", branch)


def in_steps(value: float, step: float = 0.5) -> float:
    """Rounded up, so that a chapter executed again keeps its badges."""
    return max(step, math.ceil(value / step - 0.1) * step)


def dress(notebook: nbformat.NotebookNode, name: str) -> None:
    """Write the generated cells into a chapter. Raises ``ValueError`` where it has no place for one."""
    for tag, source in (("badges", badges(name)), ("setup", setup())):
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ValueError(f"{name} needs one cell with the tag {tag!r}, it has {len(cells)}")
        cells[0].source, cells[0].metadata = source, nbformat.from_dict(METADATA[tag])


def main() -> None:
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        dress(notebook, path.stem)
        with replacing(path) as draft:
            nbformat.write(notebook, draft)


if __name__ == "__main__":
    main()
