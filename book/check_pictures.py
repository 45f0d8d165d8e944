"""Refuse notebooks that hold pictures which may show anything but the phantom.

    python book/check_pictures.py NOTEBOOK.ipynb ...

Licences forbid handing on images of patients; numbers of recorded runs, and plots of them, are fine. A notebook
with pictures passes only where three things agree:

- its code: parameters name a phantom, no call names another data set, no file is opened but that of a case, and
  every module imported is one of :data:`MODULES`, so that there is no other way in for an image;
- its outputs: whatever they say about the data set of the run says phantom, and they do say it where the data set
  is a parameter, so that a parameter that was set back after the run is noticed;
- what papermill wrote down about its run.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from kaf.data.cases import LAYOUTS

PHANTOMS = {"phantom", "phantom-ct"}
REAL = LAYOUTS.keys() - PHANTOMS
MODULES = {*sys.stdlib_module_names, "kaf", "numpy", "torch", "pandas", "scipy", "sklearn", "matplotlib", "cv2",
           "nibabel", "IPython", "ipywidgets", "monai", "ot", "tqdm", "workflow", "book"}  # fmt: skip
OF_A_DATASET = {"find_cases", "check_dataset", "prepare", "resolve", "StoreSettings", "usual", "open_study", "Layout"}
OPENERS = {"load", "imread", "imreadmulti", "imdecode", "fromfile", "memmap", "open_memmap", "read_bytes",
           "from_filename", "VideoCapture", "Segmenter", "segment", "urlopen", "urlretrieve", "run", "Popen", "system"}
ELSEWHERE = re.compile(r"(~|\.\.)(/.*)?|/\w.*|.*/\.\./.*|[A-Za-z]:[\\/].*")  # a path out of the checkout
# The generated setup cell, whatever the address of the repository.
_TEMPLATE = Path(__file__).with_name("setup_cell.py").read_text().rstrip("\n")
SETUP = re.compile(re.escape(_TEMPLATE).replace("ADDRESS", r'[^"\s]+').replace("BRANCH", r'[^"\s]+'))
STATED = re.compile(r"\bStore\(([\w-]+):|\"dataset\": \"([\w-]+)\"|\bthis run +([\w-]+)")


def problems(notebook: NotebookNode) -> list[str]:
    """Why a notebook must not be handed on as it is; empty for one without pictures."""
    if not has_pictures(notebook):
        return []
    return [*_papermill(notebook), *_pasted(notebook), *_code(notebook), *_outputs(notebook)]


def has_pictures(notebook: NotebookNode) -> bool:
    """Whether an output, a widget or a text holds a picture."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    text = json.dumps([outputs, notebook.metadata.get("widgets", {})])
    return (any(kind.startswith(("image/", "video/")) for kind in kinds) or "ImageModel" in text
            or re.search(r"data:image/|<svg|<canvas", text) is not None or bool(list(_pasted(notebook))))  # fmt: skip


def _papermill(notebook: NotebookNode) -> Iterator[str]:
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    if given.get("dataset", "phantom") not in PHANTOMS or given.get("data_root"):
        yield f"papermill ran it with dataset {given.get('dataset')!r} and data_root {given.get('data_root', '')!r}"


def _pasted(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.get("attachments") or (cell.cell_type == "markdown" and "data:image/" in cell.source):
            yield f"a picture of unknown origin was pasted into the text {cell.source[:40]!r}"


def _code(notebook: NotebookNode) -> Iterator[str]:
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code" and not SETUP.fullmatch(cell.source)]
    for source in sources:
        shell = re.findall(r"(?m)^\s*[!%].*", source)
        yield from (f"runs {line.strip()!r}" for line in shell if not re.match(r"\s*%(pip|matplotlib)\b", line))
    nodes = [node for source in sources for node in ast.walk(_tree(source))]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}  # a function of the notebook itself
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            yield from _assignment(node)
        elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in own):
            yield from _call(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ELSEWHERE.fullmatch(node.value):
            yield f"names the path {node.value!r}"
        elif isinstance(node, ast.Attribute) and node.attr == "environ":
            yield "looks into the environment"


def _tree(source: str) -> ast.Module:
    return ast.parse(re.sub(r"(?m)^(\s*)[!%].*", r"\1pass", source))


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    yield from (f"imports {name}, which may read images" for name in names if name.split(".")[0] not in MODULES)


def _assignment(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in (target.id for target in targets if isinstance(target, ast.Name)):
        value = node.value.value
        if (target == "dataset" and value not in PHANTOMS) or (target == "data_root" and value):
            yield f"sets {ast.unparse(node)}"


def _call(node: ast.Call) -> Iterator[str]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    said = [*node.args, *(keyword.value for keyword in node.keywords)]
    constants = {inner.value for one in said for inner in ast.walk(one) if isinstance(inner, ast.Constant)}
    if name in OF_A_DATASET and (found := constants & REAL):
        yield f"calls {name} for {', '.join(sorted(found))}"
    if name in {f"read_{dataset}" for dataset in REAL} | {"home", "expanduser", "getenv", "input"}:
        yield f"calls {name}"
    of_a_case = any(isinstance(one, ast.Attribute) and one.attr in ("image", "label") for one in said)
    if name in OPENERS and not of_a_case:
        yield f"opens something by {ast.unparse(node)[:60]}"
    if name == "open" and isinstance(node.func, ast.Attribute):  # Store.open, Image.open; open() gives text or bytes
        yield f"opens something by {ast.unparse(node)[:60]}"


def _outputs(notebook: NotebookNode) -> Iterator[str]:
    stated = set()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
            for match in STATED.finditer("\n".join("".join(text) for text in texts)):
                stated.add(next(name for name in match.groups() if name))
    if other := stated & REAL:
        yield f"its outputs say that it ran on {', '.join(sorted(other))}"
    names = {node.id for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
             for node in ast.walk(_tree(cell.source)) if isinstance(node, ast.Name)}  # fmt: skip
    if "dataset" in names and not stated & PHANTOMS:
        yield 'no output says which data set it ran on; print the store, or describe(...) with "dataset"'


def main(paths: list[str]) -> None:
    """The command."""
    found = [(path, problem) for path in paths for problem in problems(nbformat.read(path, as_version=4))]
    for path, problem in found:
        print(f"{Path(path).name}: {problem}")
    if found:
        sys.exit("Pictures of patients must not be handed on. Run the notebook again on the phantom.")
    print(f"{len(paths)} notebooks: all pictures are of the phantom.")


if __name__ == "__main__":
    main(sys.argv[1:])
