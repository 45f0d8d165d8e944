"""Exercises as the chapters print them: the worked solution passes its check, the untouched stub does not."""

import ast
import contextlib
import importlib
import io
import re
from pathlib import Path

import nbformat
import pytest

from kaf.exercises import grade

CHAPTERS = Path(__file__).parents[2] / "book" / "chapters"


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
    done = graded(path, key, name, solution)
    wrong = [] if done.passed else [f"the solution of {key} fails: {done.failed}"]
    return wrong + ([f"the stub of {key} passes"] if graded(path, key, name, stub).passed else [])


@pytest.mark.parametrize(("path", "key", "name", "stub", "solution"), list(exercises()))
def test_the_solution_passes_and_the_stub_does_not(path, key, name, stub, solution):
    assert not (wrong := faults(path, key, name, stub, solution)), wrong


@pytest.mark.parametrize("path", sorted(CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_asks_what_its_module_checks(path):
    keys = [param.values[1] for param in exercises() if param.values[0] == path]
    module = importlib.import_module(f"kaf.exercises.chapter{path.stem[:2]}")
    assert keys == list(module.EXERCISES) and len(keys) >= 4
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    stars = [len(found) for found in re.findall(r":::\{exercise\} .*\((★+)\)", text)]
    assert stars == [exercise.stars for exercise in module.EXERCISES.values()] and {1, 2, 3} == set(stars)
