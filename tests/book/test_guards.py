"""Every guard of the notebooks can fail: a broken copy of a chapter goes to the very check that passes the real one."""

import contextlib
import copy
import io
import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book.chapter_numbers import compare, read_chapters
from book.dress import CHAPTERS, dress
from kaf.expected import as_written
from kaf.report import NUMBERS, read_numbers
from tests.book import checks
from tests.book.test_notebooks import SANITIZE
from tests.exercises.test_solutions import exercises, faults

CHAPTER = "05_pretrain"
REAL = nbformat.read(CHAPTERS / f"{CHAPTER}.ipynb", as_version=4)


def cell_with(notebook, text):
    return next(cell for cell in checks.code(notebook) if text in cell.source)


def picture(notebook):
    return next(cell for cell in checks.code(notebook)
                if any("image/png" in output.get("data", {}) for output in cell.outputs))


def numbers(notebook):
    return next(output for _, output in checks.outputs(notebook) if NUMBERS in output.get("metadata", {}))


# What is done to a chapter, by the check that must see it.

def unexecuted(notebook):
    checks.code(notebook)[4].execution_count = None


def errors_and_warnings(notebook):
    checks.code(notebook)[2].outputs.append(new_output("stream", name="stderr", text="UserWarning: deprecated"))


def outdated_text(notebook):
    with contextlib.redirect_stdout(io.StringIO()) as printed, as_written():
        raise AssertionError
    checks.code(notebook)[2].outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))


def absolute_paths(notebook):
    checks.code(notebook)[2].outputs.append(new_output("stream", name="stdout", text="saved in /" + "home/reader/runs"))


def traces_of_papermill(notebook):
    notebook.cells[0].metadata["tags"] = []


def semicolons(notebook):
    checks.code(notebook)[-1].source += ";"


def links_without_words(notebook):
    notebook.cells[0].source += "\n\nSee [](06_fewshot)."


def formulas_as_roles(notebook):
    notebook.cells[0].source += "\n\nThe width {math}`d`."


def prints_in_pieces(notebook):
    checks.code(notebook)[2].outputs += [new_output("stream", name="stdout", text=text) for text in ("on", "e\n")]


def numbers_unlike_their_text(notebook):
    shown = numbers(notebook)
    shown.data["text/plain"] = shown.data["text/plain"].replace("3", "4")


def pictures_without_words(notebook):
    del picture(notebook).metadata["mystnb"]["image"]


def pictures_of_another_width(notebook):
    output = next(o for o in picture(notebook).outputs if "image/png" in o.data)
    output.data["text/plain"] = "<Figure size 1320x400 with 1 Axes>"


def small_letters(notebook):
    picture(notebook).source += "\naxes[0].set_xlabel('step', fontsize=6)"


def colours_hard_to_tell_apart(notebook):
    picture(notebook).source += "\naxes[0].plot(x, y, color='red')\naxes[0].plot(x, y, c='green')"


def widgets_without_state(notebook):
    del notebook.metadata["widgets"]


def parameters_hidden_from_papermill(notebook):
    cell_with(notebook, 'scale = "smoke"').source += "\nsteps: int = 3"


def parameters_never_read(notebook):
    cell_with(notebook, 'scale = "smoke"').source += "\nforgotten = 3"


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_check_sees_it(check):
    broken = copy.deepcopy(REAL)
    assert not check(broken)
    globals()[check.__name__](broken)
    assert check(broken)


def test_a_changed_number_is_seen():
    broken = copy.deepcopy(REAL)
    expected = read_chapters()[CHAPTER]["numbers"]
    assert not compare(read_numbers(broken), expected)
    for name, number in expected.items():
        moved = number["value"] + max(1.01 * number["tolerance"], 1e-9)
        changed = read_numbers(broken) | {name: moved}
        assert [fault for fault in compare(changed, expected) if fault.startswith(f"{name} is ")]
    del broken.cells[broken.cells.index(cell_with(broken, "show_numbers("))]
    assert compare(read_numbers(broken), expected)


def test_an_edited_address_is_seen():
    broken = copy.deepcopy(REAL)
    setup = cell_with(broken, "def setup(")
    setup.source = setup.source.replace("github.com", "example.org")
    dressed = copy.deepcopy(broken)
    dress(dressed, CHAPTER)
    assert dressed != broken


@pytest.mark.parametrize("rule", ["regex: \\d+\nreplace:\n", "regex: \\d+\n\nreplace: N\n", "regex: (\nreplace: N\n",
                                  "regex: \\d+\n"])
def test_a_broken_rule_is_seen(rule):
    assert not checks.rules_not_understood(SANITIZE.read_text())
    assert checks.rules_not_understood(SANITIZE.read_text() + "\n" + rule)


def test_a_stub_that_passes_is_seen():
    path, key, name, stub, solution = next(exercises()).values
    assert not faults(path, key, name, stub, solution)
    done, undone = re.sub(r"\bsolution\b", name, solution), stub.replace(f"def {name}(", "def solution(")
    assert faults(path, key, name, done, solution) == [f"the stub of {key} passes"]
    assert faults(path, key, name, stub, undone)[0].startswith(f"the solution of {key} fails")


def test_nbval_sees_other_words_and_counts_but_not_decimals(tmp_path):
    committed = ("4 folds, Dice 0.71\n", "4 folds, Dice 0.93\n", "5 folds, Dice 0.71\n", "4 folds, HD95 0.71\n")
    cells = [new_code_cell('print("4 folds, Dice 0.71")', execution_count=n,
                           outputs=[new_output("stream", name="stdout", text=text)])
             for n, text in enumerate(committed, start=1)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "one.ipynb")
    words = [sys.executable, "-m", "pytest", "--nbval", "--nbval-sanitize-with", str(SANITIZE), "one.ipynb", "-v",
             "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert re.findall(r"::Cell (\d) (PASSED|FAILED)", done.stdout) == [
        ("0", "PASSED"), ("1", "PASSED"), ("2", "FAILED"), ("3", "FAILED")], done.stdout
