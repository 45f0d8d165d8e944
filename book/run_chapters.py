"""Run the committed chapters again, in place, at their committed parameters: ``make chapters``.

Times of execution and states of widgets are left out, so that only a changed result changes a file.
"""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CHAPTERS = Path(__file__).parent / "chapters"


def run(path: Path) -> None:
    """Execute one notebook with its own folder as working directory and write it back."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, record_timing=False, store_widget_state=False,
                            resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    nbformat.write(notebook, path)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"KAF_HOME": home, "TQDM_DISABLE": "1"}
        for path in sorted(CHAPTERS.glob("*.ipynb")):
            print(path.name, flush=True)
            run(path)


if __name__ == "__main__":
    main()
