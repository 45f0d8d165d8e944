"""The setup cell where ``kaf`` is missing, as in Colab: a chapter alone in a folder, and an environment without it.

The environment borrows all packages but ``kaf`` from this one, and pip may not download: what is installed
is ``kaf``, from a repository on this disk, and nothing else.
"""

import os
import shutil
import subprocess
import sysconfig
import time
import venv
from pathlib import Path

import nbformat
import pytest

from book.dress import CHAPTERS, repository, setup

ROOT = Path(__file__).parents[2]
CHAPTER = "04_local_ssl"
OFFLINE = str(ROOT / "tests" / "offline")
PARTS = ("kaf", "book/records", "pyproject.toml", "README.md", "LICENSE", "LICENSE-text")
GIT = ["git", "-c", "user.name=kaf", "-c", "user.email=kaf@example.org", "-c", "init.defaultBranch=main"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A repository with what ``kaf`` needs, as it lies here."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (folder / part).parent.mkdir(exist_ok=True)
        copy(ROOT / part, folder / part)
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "kaf"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture
def bare(tmp_path_factory):
    """The Python of a new environment without ``kaf``."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
    # A folder that is named in a .pth file is searched, but the .pth files in it, such as that of kaf, are not read.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def environment(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", OFFLINE)  # without this checkout
    monkeypatch.chdir(tmp_path)
    return os.environ | {
        "KAF_REPOSITORY": source, "KAF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1",
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",  # 0 switches the isolation off: pip reads it so
    }


def run(python, words, environment):
    done = subprocess.run([python, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_chapter_alone_installs_kaf_and_runs(bare, environment, tmp_path):
    assert "no kaf" in run(bare, ["-c", "try: import kaf\nexcept ImportError: print('no kaf')"], environment)
    torch = run(bare, ["-c", "import torch; print(torch.__version__, torch.__file__)"], environment)
    (tmp_path / "kaf-book.part" / ".git").mkdir(parents=True)  # of a clone that was killed
    shutil.copy(CHAPTERS / f"{CHAPTER}.ipynb", tmp_path / "alone.ipynb")
    run(bare, ["-m", "papermill", "alone.ipynb", "out.ipynb", "--no-progress-bar", "--log-level", "ERROR"], environment)
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "setup" in cell.metadata.tags)
    assert "; scale '" in cell.outputs[0].text and len(cell.outputs) == 1
    assert cell.metadata.papermill.duration < 60
    where = run(bare, ["-c", "import kaf; print(kaf.__file__)"], environment)
    assert Path(where.strip()) == tmp_path / "kaf-book" / "kaf" / "__init__.py"
    assert torch == run(bare, ["-c", "import torch; print(torch.__version__, torch.__file__)"], environment)


def test_a_second_time_nothing_happens(bare, environment, tmp_path):
    (tmp_path / "cell.py").write_text(setup())
    started = time.monotonic()
    with_kaf = {"PYTHONPATH": os.pathsep.join((OFFLINE, str(ROOT))), "KAF_REPOSITORY": "file:///nowhere"}
    run(bare, ["cell.py"], environment | with_kaf)
    assert time.monotonic() - started < 60 and sorted(p.name for p in tmp_path.iterdir()) == ["cell.py"]


def test_torch_is_never_replaced(bare, environment, tmp_path):
    """Where the torch that is there does not suit kaf, pip says so instead of taking another."""
    (tmp_path / "cell.py").write_text("import torch\ntorch.__version__ = '2.0.0'\n" + setup())
    done = subprocess.run([bare, "cell.py"], env=environment, capture_output=True, text=True, check=False)
    assert "kaf does not install beside torch 2.0.0" in done.stderr and "(constraint)" in done.stderr


@pytest.mark.parametrize("before", ["", "import sys\nsys.modules['torch'] = None\n"], ids=["no address", "no torch"])
def test_where_kaf_cannot_be_had_it_says_which_kernel_has_it(before, bare, environment, tmp_path):
    (tmp_path / "cell.py").write_text(before + setup())
    words = environment | {"KAF_REPOSITORY": "file:///nowhere"}
    done = subprocess.run([bare, "cell.py"], env=words, capture_output=True, text=True, check=False)
    assert done.returncode and not any(tmp_path.glob("kaf-book*"))
    assert done.stderr.strip().split("\n")[-1].startswith("RuntimeError: kaf is not in this kernel: start the notebook")
    assert ("/nowhere" if not before else "import of torch halted") in done.stderr, "what it failed at stays visible"


def test_the_address_is_that_of_the_configuration():
    url, branch = repository()
    assert f'repository="{url}", branch="{branch}"' in setup() and "ADDRESS" not in setup()
