"""Exercises as the chapters print them: the worked solution passes its check, the untouched stub does not.

A solution has a name of its own: it may not take the place of what a student wrote, whose check would pass with it.
"""

import ast
import contextlib
import importlib
import io
import re
import symtable
from pathlib import Path

import nbformat
import pytest

from kaf.exercises import grade

CHAPTERS = Path(__file__).parents[2] / "book" / "chapters"
SOLUTION = "solution"  # the name of every solution


def cells_of(path, tag):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if tag in cell.metadata.get("tags", [])]


def exercises():
    """(chapter, key, name of what is graded, stub, solution) of all chapters."""
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        parts = [cells_of(path, tag) for tag in ("exercise", "exercise-check", "exercise-solution")]
        for stub, check, solution in zip(*parts, strict=True):
            key, name = re.fullmatch(r'grade\("(\S+)", (\w+)\)', check).groups()
            yield pytest.param(path, key, name, stub, solution, id=key)


def imports(path):
    """What the chapter imports, as a namespace; its other cells are not run."""
    space = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and not re.search(r"^\s*[%!]", cell.source, re.M):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    exec(compile(ast.Module([node], []), path.name, "exec"), space)
    return space


def graded(path, key, name, source):
    """The grade of what ``source`` defines as ``name``."""
    space = imports(path)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, f"{key} of {path.name}", "exec"), space)
        return grade(key, space[name])


def faults(path, key, name, stub, solution):
    """What is wrong with an exercise; empty: the solution passes and the stub does not."""
    done = graded(path, key, SOLUTION, solution)
    wrong = [] if done.passed else [f"the solution of {key} fails: {done.failed}"]
    return wrong + ([f"the stub of {key} passes"] if graded(path, key, name, stub).passed else [])


@pytest.mark.parametrize(("path", "key", "name", "stub", "solution"), list(exercises()))
def test_the_solution_passes_and_the_stub_does_not(path, key, name, stub, solution):
    assert not (wrong := faults(path, key, name, stub, solution)), wrong


def bound(source):
    """The names that a cell gives a value to."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def overwritten(stub, solution):
    """The names of a student's that a solution would give another value to."""
    return bound(stub) & bound(solution)


@pytest.mark.parametrize(("path", "key", "name", "stub", "solution"), list(exercises()))
def test_a_solution_leaves_what_the_student_wrote(path, key, name, stub, solution):
    assert name in bound(stub) and SOLUTION in bound(solution)
    assert not overwritten(stub, solution)


@pytest.mark.parametrize("solution", ["def twice(x):\n    return 2 * x", "twice = lambda x: 2 * x",
                                      "class twice: ...", "if True:\n    (a, twice) = 1, 2", "import math as twice"])
def test_a_solution_in_the_place_of_the_stub_is_seen(solution):
    stub = "def twice(x):\n    ..."
    assert overwritten(stub, solution) == {"twice"} and not overwritten(stub, solution.replace("twice", SOLUTION))


@pytest.mark.parametrize("path", sorted(CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_asks_what_its_module_checks(path):
    keys = [param.values[1] for param in exercises() if param.values[0] == path]
    module = importlib.import_module(f"kaf.exercises.chapter{path.stem[:2]}")
    assert keys == list(module.EXERCISES) and len(keys) >= 4
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    stars = [len(found) for found in re.findall(r":::\{exercise\} .*\((★+)\)", text)]
    assert stars == [exercise.stars for exercise in module.EXERCISES.values()] and {1, 2, 3} == set(stars)
