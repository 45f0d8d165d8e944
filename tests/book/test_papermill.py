"""Every chapter as a program: run with papermill at smoke, within its budget; what it does not know stops it.

nbval compares the words of a chapter, and hides its numbers, since processors differ. Here the same chapter runs in
another folder, with all of its parameters passed from outside, and its numbers are compared with their tolerances.
"""

import ast

import nbformat
import papermill
import pytest

from book.chapter_numbers import compare, read_chapters
from book.dress import CHAPTERS, in_steps
from book.meter import Meter
from kaf.report import read_numbers
from tests.book.checks import unexecuted

NAMES = sorted(path.stem for path in CHAPTERS.glob("*.ipynb"))
SECONDS, GIGABYTES = 150, 3  # of one chapter at smoke, on a quiet machine, as chapters.json has them
SLOWER = 1.5  # times as long a chapter takes where processors are older, or other tests run beside it


@pytest.fixture(autouse=True, scope="module")
def place(tmp_path_factory):
    """A folder that is no part of the checkout, with stores and runs of its own, and one thread."""
    folder = tmp_path_factory.mktemp("papermill")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KAF_HOME", str(folder / "home"))
        for name, value in (("OMP_NUM_THREADS", "1"), ("TQDM_DISABLE", "1")):
            patch.setenv(name, value)
        yield folder


def committed(name):
    """The parameters of a chapter as they are committed."""
    found = papermill.inspect_notebook(CHAPTERS / f"{name}.ipynb")
    return {key: ast.literal_eval(about["default"]) for key, about in found.items()}


@pytest.fixture(scope="module", params=NAMES)
def executed(request, place):
    """A chapter after its execution: name, notebook, what it took."""
    with Meter() as meter:
        papermill.execute_notebook(CHAPTERS / f"{request.param}.ipynb", place / f"{request.param}.ipynb",
                                   committed(request.param), progress_bar=False, execution_timeout=1800)
    return request.param, nbformat.read(place / f"{request.param}.ipynb", as_version=4), meter


def test_shows_the_committed_numbers(executed):
    name, notebook, _ = executed
    assert not (wrong := compare(read_numbers(notebook), read_chapters()[name]["numbers"])), wrong


def test_keeps_its_budget_of_time_and_memory(executed):
    _, _, meter = executed
    assert meter.seconds <= SLOWER * SECONDS and meter.gigabytes <= GIGABYTES


def test_runs_to_its_end_in_any_folder(executed):
    _, notebook, _ = executed
    assert not unexecuted(notebook)


def test_badges_tell_what_the_budget_allows():
    for facts in read_chapters().values():
        assert facts["minutes"] <= in_steps(SECONDS / 60) and facts["gigabytes"] <= GIGABYTES


# --- strict parameters

def refused(name, parameters, message, folder):
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        papermill.execute_notebook(CHAPTERS / f"{name}.ipynb", folder / "refused.ipynb", parameters,
                                   progress_bar=False)


@pytest.mark.parametrize("chapter", ["05_pretrain", "06_fewshot"])
@pytest.mark.parametrize(("parameters", "message"), [
    ({"scael": "smoke"}, "unknown parameter 'scael'; did you mean 'scale'"),
    ({"scale": "tiny"}, "unknown scale 'tiny'; choose one of smoke, laptop, full"),
    ({"dataset": "acdc"}, "needs data_root"),
    ({"changes": "kaf__fusoin=project"}, "no field 'fusoin'; did you mean 'fusion'"),
])
def test_wrong_parameters_stop_the_run(chapter, parameters, message, place):
    refused(chapter, parameters, message, place)


@pytest.mark.parametrize("chapter", NAMES)
def test_every_chapter_refuses_a_mistyped_parameter(chapter, place):
    refused(chapter, {"sede": 1}, "unknown parameter 'sede'; did you mean 'seed'", place)
