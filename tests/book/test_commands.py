"""Every command that README, front page, appendix and chapters print: run as written, or as far as it takes no hour.

Words in capitals stand for what a reader puts there. A program whose work takes long, or needs data or machines that
are not here, is asked for its help, and must know every option with which it is called.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache

import nbformat
import papermill
import pytest
import yaml

from kaf import config
from kaf.train import make_parser
from tests.book import checks
from tests.book.commands import ROOT, commands

FOUND = commands()


def of(*programs):
    """The commands of these programs, as parameters of a test."""
    wanted = [(where, words) for where, words in FOUND if words[0] in programs]
    return [pytest.param(words, id=f"{where}: {' '.join(words)}"[:110]) for where, words in wanted]


def test_commands_were_found_and_each_is_checked_below():
    checked = {"make", "papermill", "python", "pip", "conda", "source", "torchrun", "srun", "jupyter"}
    assert len(FOUND) > 20 and {words[0] for _, words in FOUND} == checked


@pytest.mark.parametrize("words", of("make"))
def test_make_has_the_target(words):
    done = subprocess.run([words[0], "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("words", of("papermill"))
def test_papermill_passes_parameters_that_the_chapter_takes(words, tmp_path, monkeypatch):
    """As written, from book/: the chapter is prepared, and executed until it has looked at its parameters."""
    monkeypatch.setenv("KAF_HOME", str(tmp_path))
    out = tmp_path / "out.ipynb"
    call = [sys.executable, "-m", "papermill", words[1], str(out), *words[3:], "--prepare-only", "--no-progress-bar"]
    subprocess.run(call, cwd=ROOT / "book", check=True, capture_output=True)
    notebook = nbformat.read(out, as_version=4)
    assert any("injected-parameters" in checks.tags(cell) for cell in notebook.cells)
    at = next(i for i, cell in enumerate(notebook.cells) if "refuse_unknown(" in cell.source)
    notebook.cells = notebook.cells[:at + 1]
    nbformat.write(notebook, out)
    papermill.execute_notebook(out, tmp_path / "done.ipynb", progress_bar=False)


@cache
def help_of(*words):
    done = subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAINING = [param for param in of("python", "torchrun", "srun") if "kaf.train" in param.values[0]]
OTHERS = [param for param in of("python") if param not in TRAINING]


@pytest.mark.parametrize("words", TRAINING)
def test_training_takes_these_arguments(words):
    """The first command of the appendix is run by tests/test_processes.py."""
    arguments = words[words.index("kaf.train") + 1:]
    if "--help" in arguments:
        assert help_of("-m", "kaf.train", *arguments[:-1])
    else:
        experiment = make_parser().parse_args(arguments)
        assert config.resolve(experiment.scale, experiment.dataset, experiment.recipe)


@pytest.mark.parametrize("words", OTHERS)
def test_scripts_know_their_options(words):
    """An option stands in the help; a script without options is only looked at, as its work takes long."""
    at = words[1:3] if words[1] == "-m" else words[1:2]
    file = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1].replace("NAME", "[a-z]*")
    options = [word for word in words[1 + len(at):] if word.startswith("--")]
    assert any(has_main(path) for path in ROOT.glob(file))
    shown = help_of(*at) if options else ""
    assert not [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", shown)]


def has_main(path):
    return "main" in {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_segmentation_asks_for_what_is_not_there(tmp_path):
    """As written: the arguments are understood, and only the files are missing."""
    words = next(words for _, words in FOUND if "kaf.segment" in words)
    done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode and "there is no" in done.stderr
    assert not re.search("unrecognized|required|invalid|Traceback", done.stderr), done.stderr


def test_the_phantom_script_runs_as_written(tmp_path):
    words = next(words for _, words in FOUND if "data_scripts/phantom.py" in words)
    smaller = [*words[2:words.index("--patients")], "--patients", "1"]  # the others are made like the first
    subprocess.run([sys.executable, str(ROOT / words[1]), *smaller], cwd=tmp_path, check=True, capture_output=True)
    assert any((tmp_path / "stores").iterdir())


@pytest.mark.parametrize("words", of("torchrun"))
def test_torchrun_takes_its_own_arguments(words):
    from torch.distributed.run import get_args_parser

    known = get_args_parser().parse_args(words[1:])
    assert known.training_script == "kaf.train" and known.module


def test_pip_installs_the_project_as_written(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "kaf", source / "kaf")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, source)
    (words,) = (words for _, words in FOUND if words[0] == "pip")
    offline = ["--no-deps", "--no-build-isolation", "--target", str(tmp_path / "into"), "--quiet"]
    subprocess.run([sys.executable, "-m", *words, *offline], cwd=source, check=True,
                   env=os.environ | {"PIP_NO_INDEX": "1"})
    assert (tmp_path / "into" / "kaf" / "explorers" / "common.js").is_file()


def test_notebooks_for_handing_out_have_no_solutions(tmp_path):
    """As make does it, for one chapter instead of all, and into a folder that is thrown away."""
    make = ["make", "--dry-run", "handout"]
    listed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")
    (command,) = (line for line in listed.split("\n") if "nbconvert" in line)
    words = shlex.split(command)[1:]
    into = words.index("--output-dir") + 1
    assert words[into:] == ["handout", "book/chapters/*.ipynb"]
    call = [*words[:into], str(tmp_path), str(ROOT / "book" / "chapters" / "04_local_ssl.ipynb")]
    subprocess.run([sys.executable, "-m", "jupyter", *call], cwd=ROOT, check=True, capture_output=True)
    tags = [tag for cell in nbformat.read(tmp_path / "04_local_ssl.ipynb", as_version=4).cells
            for tag in checks.tags(cell)]
    assert "exercise" in tags and "exercise-solution" not in tags


@pytest.mark.parametrize("words", of("jupyter"))
def test_jupyter_opens_the_chapters(words):
    assert words[:2] == ["jupyter", "lab"] and list((ROOT / words[2]).glob("*.ipynb"))
    assert subprocess.run([sys.executable, "-m", *words[:2], "--version"], check=False).returncode == 0


def test_conda_is_given_a_file_that_it_can_read():
    create, activate = (words for _, words in FOUND if words[0] == "conda")
    assert create[:4] == ["conda", "env", "create", "-f"] and activate[:2] == ["conda", "activate"]
    environment = yaml.safe_load((ROOT / create[4]).read_text())
    assert environment["dependencies"] and environment["name"] == activate[2]


def test_the_environment_that_is_activated_is_the_one_that_make_builds():
    (words,) = (words for _, words in FOUND if words[0] == "source")
    folder = re.search(r"^VENV := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert words[1] == f"{folder}/bin/activate"


def test_scales_in_commands_are_scales():
    named = {words[i + 2] for _, words in FOUND for i in range(len(words) - 2) if words[i:i + 2] == ["-p", "scale"]}
    assert named and named <= set(config.SCALES)
