"""Run committed notebooks again, in place, at their committed parameters: ``make chapters``.

``python -m book.run_chapters 01_keypoints cost`` runs these, without names all. Times of execution are left out and
widgets are numbered in the order of their creation, so that only a changed result changes a file. What a chapter
takes and the numbers that it shows go to ``book/chapters.json``, and from there into its badges.

``--tolerances`` measures how far every number moves with the instructions of other processors.
"""

import argparse
import base64
import io
import json
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops

from book.chapter_numbers import compare, read_chapters, update, widen, write_chapters
from book.dress import BOOK, CHAPTERS, dress, in_steps
from book.meter import Meter
from kaf.files import replacing
from kaf.report import read_numbers

FOLDERS = (CHAPTERS, BOOK / "appendix")
UNSEEN = 16  # levels of 255 by which a colour may be off
STATE = "application/vnd.jupyter.widget-state+json"
PROCESSORS = (
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
     "OPENCV_CPU_DISABLE": "AVX512-SKX"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "SSE4_2",
     "OPENBLAS_CORETYPE": "Nehalem", "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16", "OPENCV_IPP": "disabled"},
)  # fmt: skip


def execute(path: Path, home: str, **environment: str) -> tuple[nbformat.NotebookNode, Meter]:
    """A notebook after its execution in its own folder, with stores and runs in ``home``, and what that took."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)  # of the run before
    with Meter() as meter:
        client = NotebookClient(notebook, timeout=None, record_timing=False, store_widget_state=True,
                                resources={"metadata": {"path": str(path.parent)}})
        client.execute(env=os.environ | {"KAF_HOME": home, "TQDM_DISABLE": "1"} | environment)
    return notebook, meter


def run(path: Path, home: str) -> None:
    """Execute one notebook and write it back, with what it took and showed."""
    print(path.name, flush=True)
    notebook, meter = execute(path, home)
    if path.parent == CHAPTERS:
        chapters, name, shown = read_chapters(), path.stem, read_numbers(notebook)
        before = chapters.get(name, {"numbers": {}})["numbers"]
        for fault in compare(shown, before) if before else []:
            print(f"  {fault}")
        chapters[name] = {"minutes": in_steps(meter.seconds / 60), "gigabytes": in_steps(meter.gigabytes),
                          "numbers": update(before, shown)}
        write_chapters(chapters)
        dress(notebook, name)
    with replacing(path) as draft:
        nbformat.write(tidy(notebook), draft)
    print(f"  {meter.seconds:.0f} s of processor time, {meter.gigabytes:.2f} GB", flush=True)


def measure_tolerances(paths: list[Path]) -> None:
    """Execute chapters as on other processors, and let each number move as far as it was seen to, with a margin."""
    shown = {path.stem: [] for path in paths}
    for processor in PROCESSORS:
        with tempfile.TemporaryDirectory() as home:
            for path in paths:
                shown[path.stem].append(read_numbers(execute(path, home, **processor)[0]))
    chapters = read_chapters()
    for name, runs in shown.items():
        chapters[name]["numbers"] = widen(chapters[name]["numbers"], runs)
    write_chapters(chapters)


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed without a pause in one piece: a busy machine cuts it anywhere."""
    whole: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = whole[-1] if whole else {}
        if output["output_type"] == "stream" == before.get("output_type") and output["name"] == before["name"]:
            before["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def compact(png: str) -> str:
    """A picture, as notebooks hold it, with a palette of 256 colours where no eye sees that: a third of the size."""
    whole = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    few = whole.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    changed = ImageChops.difference(whole, few.convert("RGB"))
    seen = max(high for _, high in changed.getextrema()) > UNSEEN
    stream = io.BytesIO()
    (whole if seen else few).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Join what was printed, make pictures small, keep of the metadata what a reader needs.

    Widgets are named by number instead of at random.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                if png := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = compact(png)
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
    known = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.ipynb"))}
    if unknown := [name for name in names if name not in known]:
        raise FileNotFoundError(f"no notebook {', '.join(unknown)} in {' or '.join(f.name for f in FOLDERS)}; "
                                f"there are {', '.join(known)}")
    return [known[name] for name in names or known]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.run_chapters", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 02_kaf_layer or cost; none: all")
    parser.add_argument("--tolerances", action="store_true", help="measure how far the numbers of chapters move")
    options = parser.parse_args()
    paths = chosen(options.names)
    if options.tolerances:
        measure_tolerances([path for path in paths if path.parent == CHAPTERS])
    else:
        with tempfile.TemporaryDirectory() as home:  # for all: chapter 6 begins with what chapter 5 has trained
            for path in paths:
                run(path, home)


if __name__ == "__main__":
    main()
