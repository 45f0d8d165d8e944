"""Pictures of patients are found in notebooks; pictures of the phantom and plots of records pass."""

import importlib.util
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book.dress import setup
from kaf.data.phantom import write_phantom

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for folder in ("chapters", "appendix") for path in (ROOT / "book" / folder).glob("*.ipynb"))


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_pictures", ROOT / "book" / "check_pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_picture(*sources, said="", parameters="", **metadata):
    """A notebook whose last cell shows a picture; ``said`` is printed before."""
    cells = [new_code_cell(source) for source in (*sources, "figure")]
    cells[-1].outputs = [new_output("stream", name="stdout", text=said),
                         new_output("display_data", {"image/png": "iVBORw0KGgo="})]  # fmt: skip
    if parameters:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    return new_notebook(cells=cells, metadata=metadata)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_pass(check, path):
    notebook = nbformat.read(path, as_version=4)
    assert check.problems(notebook) == []
    assert check.has_pictures(notebook), "a chapter without pictures would prove nothing here"


def test_a_chapter_run_on_acdc_is_refused_even_when_its_traces_are_wiped(check, tmp_path):
    """The beginning of chapter 5, really run, on made-up files that stand in for those of ACDC."""
    committed = nbformat.read(ROOT / "book" / "chapters" / "05_pretrain.ipynb", as_version=4)
    first = next(i for i, cell in enumerate(committed.cells)
                 if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])))  # fmt: skip
    committed.cells = committed.cells[: first + 1]
    nbformat.write(committed, tmp_path / "in.ipynb")
    data = write_phantom(tmp_path / "acdc", 6, 0, size=96, progress=False)
    given = {"dataset": "acdc", "data_root": str(data), "output": str(tmp_path / "out"), "device": "cpu"}
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", given, progress_bar=False,
                               kernel_name="python3", execution_timeout=300)  # fmt: skip
    run = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert check.has_pictures(run)
    found = "\n".join(check.problems(run))
    for reason in ("papermill ran it with dataset 'acdc'", "sets dataset = 'acdc'", "sets data_root = ", "on acdc"):
        assert reason in found
    run.cells = [cell for cell in run.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    del run.metadata["papermill"]
    assert [cell.source for cell in run.cells] == [cell.source for cell in committed.cells]
    assert "its outputs say that it ran on acdc" in check.problems(run)[0]
    with pytest.raises(SystemExit, match="must not be handed on"):
        check.main([str(tmp_path / "out.ipynb")])


@pytest.mark.parametrize("notebook", [
    with_picture("from kaf.data.phantom import draw_mr", "rows = records.read('fewshot')", "plot(rows)"),
    with_picture("plot(rows)", said="Store(phantom: 20 patients)", parameters="dataset = 'phantom'"),
    with_picture("for dataset in sorted(rows['dataset']):\n    plot(rows, dataset)", "name = 'acdc'"),
    with_picture("voxels = nib.load(case.image)", "def load(n):\n    return n", "load(3)", "a = open('x.csv').read()"),
    with_picture("%matplotlib inline\nx = 1", "get_layout('acdc').structures"),
    new_notebook(cells=[new_code_cell("case = find_cases('acdc', folder)[0]")]),
], ids=["records", "phantom", "names", "files", "magic", "no picture"])
def test_what_may_be_shown_passes(check, notebook):
    assert check.problems(notebook) == []


@pytest.mark.parametrize(("notebook", "reason"), [
    (with_picture("find_cases('acdc', folder)"), "calls find_cases for acdc"),
    (with_picture("kaf.config.resolve(scale, dataset='chd')"), "calls resolve for chd"),
    (with_picture("prepare('hvsmr', a, b, StoreSettings('hvsmr'))"), "calls StoreSettings for hvsmr"),
    (with_picture("layouts.read_sunnybrook(folder)"), "calls read_sunnybrook"),
    (with_picture("dataset = 'acdc'"), "sets dataset = 'acdc'"),
    (with_picture("store", parameters="dataset = 'phantom'\ndata_root = 'd'", said="Store(phantom:"), "sets data_root"),
    (with_picture("store", parameters="dataset = 'phantom'"), "no output says which data set"),
    (with_picture("print(store)", said="Store(acdc: 80 patients, 160 volumes)"), "ran on acdc"),
    (with_picture("print(text)", said='{"data": {"dataset": "chd"}}'), "ran on chd"),
    (with_picture("scores", said="source   dataset\nthis run acdc  0.3"), "ran on acdc"),
    (with_picture("np.load('slices.npz')"), "opens something by np.load('slices.npz')"),
    (with_picture("nib.load(folder / name)"), "opens something by nib.load"),
    (with_picture("cv2.imread(name)"), "opens something by cv2.imread"),
    (with_picture("Store.open(folder)"), "opens something by Store.open"),
    (with_picture("folder = Path('~/hospital')"), "names the path '~/hospital'"),
    (with_picture("folder = Path('../hospital')"), "names the path '../hospital'"),
    (with_picture("folder = Path.home()"), "calls home"),
    (with_picture("folder = os.environ['DATA']"), "looks into the environment"),
    (with_picture("import pydicom"), "imports pydicom"),
    (with_picture("from skimage import io"), "imports skimage"),
    (with_picture("!cp scan.png here"), "runs '!cp scan.png here'"),
    (with_picture("x = 1", papermill={"parameters": {"dataset": "acdc"}}), "papermill ran it"),
    (new_notebook(cells=[new_markdown_cell("![](attachment:a.png)", attachments={"a.png": {"image/png": "iVBO"}})]),
     "pasted"),
    (new_notebook(cells=[new_markdown_cell("![](data:image/png;base64,iVBO)")]), "pasted"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_each_way_in_is_known(check, notebook, reason):
    assert reason in "\n".join(check.problems(notebook))


def test_pictures_of_explorers_and_widgets_count(check):
    page = new_output("display_data", {"text/html": "<script>{\"src\":\"data:image/png;base64,iVBO\"}</script>"})
    explorer = new_notebook(cells=[new_code_cell("find_cases('acdc', d)", outputs=[page])])
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {"model_name": "ImageModel"}}}}
    widget = new_notebook(cells=[new_code_cell("find_cases('acdc', d)")], metadata={"widgets": state})
    assert check.problems(explorer) and check.problems(widget)


def test_the_setup_cell_passes_as_it_is_generated_and_not_otherwise(check):
    assert check.problems(with_picture(setup())) == []
    assert check.problems(with_picture(setup().replace('"clone"', '"archive"')))
