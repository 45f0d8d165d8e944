"""The files around the library: what is installed, what the README promises, what must stay out."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import kaf

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = [Requirement(r) for r in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]]
LIBRARY = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["data"]]


def pins(lock):
    """The lines of a lock, and the version of each name."""
    lines = [line for line in (ROOT / lock).read_text().split("\n") if line and line[0] != "#"]
    return lines, {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


LOCK, PINS = pins("requirements.lock")
OLDEST_LOCK, OLDEST = pins("requirements.oldest.lock")
OWNERS = packages_distributions()  # import name -> distributions
README = (ROOT / "README.md").read_text()


def tracked(*suffixes):
    """Tracked files with these suffixes, or all of them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [f for f in files if f.is_file() and (not suffixes or f.suffix in suffixes)]


# --- what is installed

def test_version_comes_from_the_package():
    assert "version" in PROJECT["dynamic"] and Version(kaf.__version__)


@pytest.mark.parametrize(("lines", "versions"), [(LOCK, PINS), (OLDEST_LOCK, OLDEST)], ids=["lock", "oldest"])
def test_locks_pin_exact_public_versions(lines, versions):
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), f"{line!r} names more than a version"
    assert len(versions) == len(lines), "each name once"


def test_the_lock_holds_the_torch_that_the_pages_were_made_with():
    assert PINS["torch"] == "2.13.0"


@pytest.mark.parametrize("requirement", LIBRARY, ids=lambda r: r.name)
def test_the_oldest_lock_holds_the_lower_bounds(requirement):
    bound = next(s.version for s in requirement.specifier if s.operator == ">=")
    pinned = OLDEST[canonicalize_name(requirement.name)]
    assert pinned in requirement.specifier and pinned in SpecifierSet(f"=={bound}.*"), f"{pinned}, the bound is {bound}"


def test_the_oldest_lock_differs_in_nothing_else():
    lower = {canonicalize_name(r.name) for r in LIBRARY}
    assert {name for name in OLDEST if name not in lower and PINS.get(name) != OLDEST[name]} == {"pytz"}


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda r: r.name)
def test_lock_fulfils_pyproject(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda r: r.name)
def test_pyproject_asks_for_lower_bounds_only(requirement):
    operators = sorted(s.operator for s in requirement.specifier)
    assert operators in ([">="], ["<", ">="]), f"{requirement}: a lower bound, an upper one with a reason"


@pytest.mark.parametrize("name", PINS)
def test_the_lock_has_all_that_its_packages_ask_for(name):
    asked = [Requirement(words) for words in requires(name) or []]
    needed = {canonicalize_name(r.name) for r in asked if not r.marker or r.marker.evaluate({"extra": ""})}
    assert not (unpinned := needed - PINS.keys()), f"{name} brings {unpinned} in any version"


def test_malware_releases_stay_out():
    fabric = next(r for r in INSTALLED if r.name == "lightning-fabric")
    assert not any(version in fabric.specifier for version in ("2.6.2", "2.6.3"))


def test_environment_for_conda_takes_the_same_list():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e .[book,data,test,sweep,superpoint]"], "one list of versions, not two"
    conda = [Requirement(entry) for entry in listed if isinstance(entry, str)]
    assert {r.name for r in conda} == {"python", "pip", "make"}
    assert next(r.specifier for r in conda if r.name == "python") == SpecifierSet(PROJECT["requires-python"])


def is_guarded(node):
    """``try: import x`` with ``except ImportError`` says itself what to install."""
    return isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type)


def imported(nodes, inside=True):
    """Top-level names that statements import; ``inside``: within functions too."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif not is_guarded(node) and (inside or not isinstance(node, ast.FunctionDef)):
            yield from imported(ast.iter_child_nodes(node), inside)


def undeclared(path, extras, inside):
    """Names that a file imports and pyproject.toml does not ask for."""
    asked = PROJECT["dependencies"] + [r for extra in extras for r in EXTRAS[extra]]
    asked = {canonicalize_name(Requirement(r).name) for r in asked}
    beside = {p.stem for p in path.parent.glob("*.py")}
    own = {"kaf", "book", "tests", "benchmarks", "workflow", *beside, *sys.stdlib_module_names}
    names = set(imported([ast.parse(path.read_text())], inside)) - own
    return {name for name in names if not asked & {canonicalize_name(d) for d in OWNERS.get(name, [name])}}


def test_library_imports_what_it_depends_on():
    for path in (ROOT / "kaf").rglob("*.py"):
        notebooks = path.stem == "widgets" or "explorers" in path.parts  # nothing else imports these
        assert not undeclared(path, ("book",) if notebooks else (), inside=False), path.name
        assert not undeclared(path, ("book",), inside=True), f"{path.name}: for notebooks only"


@pytest.mark.parametrize("folder", ["data_scripts", "book", "benchmarks", "workflow", "tests"])
def test_scripts_import_what_is_declared(folder):
    for path in (ROOT / folder).rglob("*.py"):
        extras = {"data_scripts": ("data",), "workflow": ("book", "sweep")}.get(folder, EXTRAS)
        assert not undeclared(path, extras, inside=True), path.name


# --- what the README and the build promise

def test_readme_names_real_commands():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = re.findall(r"```.*?```|`[^`]*`", README, re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(quoted)))
    assert {"book", "test"} <= named <= targets


def run_make(folder, *words):
    """make in a folder, with what it says."""
    done = subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("words", "folder"), [([], "book/chapters"), (["FOLDER=handout"], "handout")])
def test_the_lab_opens_a_folder_and_shows_progress(words, folder, tmp_path):
    """With a program that says how it was called, in the place of JupyterLab."""
    (tmp_path / "bin").mkdir()
    jupyter = tmp_path / "bin" / "jupyter"
    jupyter.write_text('#!/bin/sh\necho "${TQDM_DISABLE-bars} $OMP_NUM_THREADS: $*"\n')
    jupyter.chmod(0o755)
    for done in ("lock.done", "kaf.done"):
        (tmp_path / done).touch()
    code, said, _ = run_make(ROOT, "--silent", "lab", f"VENV={tmp_path}", "OMP_NUM_THREADS=3", *words)
    assert code == 0 and said == f"bars 3: lab {folder}\n"


def test_notebooks_to_hand_out_do_not_replace_those_that_are_there(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "lock.done", "kaf.done"):
        (tmp_path / name).write_text((ROOT / name).read_text() if (ROOT / name).exists() else "")
    (tmp_path / "handout").mkdir()
    code, _, said = run_make(tmp_path, "handout", "VENV=.")
    assert code and "handout/ is there already" in said


@pytest.mark.parametrize(("name", "works"), [("folder", True), ("my folder", False)])
def test_a_folder_with_a_space_is_refused(name, works, tmp_path):
    (tmp_path / name).mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path / name)
    code, said, complaint = run_make(tmp_path / name, "help")
    assert (code == 0) is works and ("make lab" in said) is works
    assert works or "has a space in it" in complaint


def test_readme_names_real_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    chapters = re.findall(r"chapters/\w+\.ipynb", README)
    for name in links + [f"book/{chapter}" for chapter in chapters]:
        assert (ROOT / name).exists(), f"README.md mentions {name}"


def test_readme_and_index_give_the_same_commands():
    commands = [line for line in README.split("\n") if line.startswith("papermill ")]
    index = (ROOT / "book" / "index.md").read_text().split("\n")
    assert len(commands) == 2 and commands == [line for line in index if line.startswith("papermill ")]


def test_readme_is_read_in_four_minutes():
    assert len(README.split()) <= 950


def test_chapters_of_the_contents_exist():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [contents["root"], *(c["file"] for part in contents["parts"] for c in part["chapters"])]
    for name in files:
        assert any((ROOT / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")), name
    chapters = {f"book/chapters/{p.stem}" for p in (ROOT / "book" / "chapters").glob("*.ipynb")}
    assert chapters <= set(files), "a chapter that is not in the contents"


def test_checks_are_the_ones_contributors_run():
    lines = (ROOT / ".ci" / "run").read_text().split("\n")
    assert "set -euo pipefail" in lines and lines[-2] == "make test"


# --- what must not be in the repository

def test_licences_are_there():
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "Creative Commons Attribution 4.0" in (ROOT / "LICENSE-text").read_text()
    assert PROJECT["license"] == "MIT" and set(PROJECT["license-files"]) == {"LICENSE", "LICENSE-text"}
    for licence in ("LICENSE", "LICENSE-text"):
        assert f"({licence})" in README


TEXT = (".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".cfg", ".lock", ".sh", ".json", ".csv", ".bib", "")
PLACES = re.compile(
    r"(?<![\w.:/<])/(?:home|root|tmp|Users|work|mnt)/[\w.-]+"          # folders of one machine
    r"|\bhttps?://(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|npmjs\.org|anaconda\.org|download\.pytorch\.org)"
    r"|\blocalhost:\d+|\b(?:\d{1,3}\.){3}\d{1,3}:\d+"
)


def test_no_addresses_of_one_machine_or_registry():
    for path in tracked(*TEXT):
        found = PLACES.search(path.read_text())
        if path != Path(__file__):
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_address_of_the_repository_stands_once():
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    holders = [path.name for path in tracked(*TEXT) if address in path.read_text()]
    generated = {path.name for path in (ROOT / "book" / "chapters").glob("*.ipynb")}  # tests/book/test_dress.py
    assert [name for name in holders if name not in generated] == ["_config.yml"]


def test_no_images_of_patients_and_nothing_large():
    for path in tracked():
        assert not path.name.endswith((".nii", ".nii.gz", ".dcm")), path
        # MathJax with its fonts is one file of 2.1 MB; a record has a row for each structure of each patient.
        limit = 2.2 if "_vendor" in path.parts else 4 if path.suffix == ".csv" and "records" in path.parts else 2
        assert path.stat().st_size <= limit * 1e6, f"{path.relative_to(ROOT)} is {path.stat().st_size / 1e6:.1f} MB"


def test_no_folder_named_static():
    # Jupyter Book puts every script of a folder with this name on every page.
    assert not [path for path in tracked() if "_static" in path.parts]


def test_every_module_has_a_page():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "kaf").rglob("*.py")
               if p.stem != "__init__" and "exercises" not in p.parts}
    pages = {p.stem for p in (ROOT / "book" / "api").glob("kaf.*.md")}
    in_contents = set(re.findall(r"book/api/(kaf\.[\w.]+)", (ROOT / "_toc.yml").read_text()))
    listed = re.findall(r"^   (kaf\.[\w.]+)$", (ROOT / "book" / "api" / "index.md").read_text(), re.MULTILINE)
    assert modules == pages == in_contents == set(listed) and len(listed) == len(modules)
    for page in pages:
        assert f"automodule:: {page}\n" in (ROOT / "book" / "api" / f"{page}.md").read_text()
