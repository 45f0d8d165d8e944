"""The committed notebooks: executed once from top to bottom, free of what should not be on a page."""

import copy
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

from book.chapter_numbers import compare, read_chapters
from book.dress import CHAPTERS, badges, dress
from kaf.report import read_numbers
from tests.book import checks

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for folder in ("chapters", "appendix") for path in (ROOT / "book" / folder).glob("*.ipynb"))
IN_CHAPTERS = [path for path in NOTEBOOKS if path.parent == CHAPTERS]
SANITIZE = ROOT / "tests" / "book" / "sanitize.cfg"
LARGEST_MB = 2


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def by_name(path):
    return path.stem


def test_there_are_chapters():
    assert len(IN_CHAPTERS) >= 7 and set(read_chapters()) == {path.stem for path in IN_CHAPTERS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_is_valid_and_opens_quickly(path):
    nbformat.validate(read(path))
    assert path.stat().st_size <= LARGEST_MB * 1e6


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_has_no(path, check):
    assert not (wrong := check(read(path))), wrong


@pytest.mark.parametrize("path", IN_CHAPTERS, ids=by_name)
def test_shows_the_numbers_that_are_recorded(path):
    assert not (wrong := compare(read_numbers(read(path)), read_chapters()[path.stem]["numbers"])), wrong


@pytest.mark.parametrize("path", IN_CHAPTERS, ids=by_name)
def test_generated_cells_are_up_to_date(path):
    dressed = copy.deepcopy(read(path))
    dress(dressed, path.stem)
    assert dressed == read(path), "run `make badges`"


def test_the_link_to_colab_waits_for_an_address(monkeypatch):
    for owner, linked in (("OWNER", False), ("somebody", True)):
        monkeypatch.setattr("book.dress.repository", lambda owner=owner: (f"https://github.com/{owner}/kaf", "main"))
        line = badges("05_pretrain")
        assert (f"github/{owner}/kaf/blob/main/book/chapters/05_pretrain.ipynb" in line) == linked
        assert ("Colab" in line) == linked and "GB of memory" in line


@pytest.mark.parametrize("name", ["05_pretrain", "06_fewshot"])
def test_entry_points_take_what_the_readme_passes(name):
    notebook = read(CHAPTERS / f"{name}.ipynb")
    cell = checks.code(notebook)[checks.parameters_cell(notebook)]
    assert {"dataset", "data_root", "scale", "output"} <= checks.names(checks.python(cell), checks.ast.Store)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_nbval_compares_what_does_not_hang_on_the_last_bits_of_a_training(path):
    """Counts and words that follow from one may differ between processors; their numbers have tolerances."""
    allowed = ("def setup(", "spread_table(", 'table.set_index(["method", "m"])[distances]',
               "to see a difference of .02")
    ignored = [cell.source for cell in checks.code(read(path)) if "nbval-ignore-output" in checks.tags(cell)]
    assert not [source for source in ignored if not any(words in source for words in allowed)]


# --- widgets and explorers

@pytest.mark.parametrize(("chapter", "call"), [
    ("01_keypoints", "widgets.keypoint_widget"), ("01_keypoints", "widgets.points_widget"),
    ("02_kaf_layer", "widgets.attention_widget"), ("04_local_ssl", "widgets.match_widget"),
    ("05_pretrain", "widgets.loss_weight_widget"),
    ("01_keypoints", "explorers.explore_keypoints"), ("02_kaf_layer", "explorers.explore_attention"),
    ("04_local_ssl", "explorers.explore_matches"), ("06_fewshot", "explorers.explore_labels"),
    ("08_robustness", "explorers.explore_corruption")])
def test_what_can_be_touched_is_there(chapter, call):
    shown = [output for cell in checks.code(read(CHAPTERS / f"{chapter}.ipynb")) if f"{call}(" in cell.source
             for output in cell.outputs]
    kind = "text/html" if "explore" in call else checks.WIDGET
    assert any(kind in output.get("data", {}) for output in shown)


# --- the rules of nbval

def test_every_sanitize_rule_is_understood():
    assert not (wrong := checks.rules_not_understood(SANITIZE.read_text())), wrong


@pytest.mark.parametrize(("one", "other", "same"), [
    ("loss 0.1234 in 3.2 s", "loss -12.5 in 41 s", True),
    ("LV    0.91\nRV   10.20", "LV  0.9\nRV   9.8", True),
    ("3 patients", "4 patients", False),
    ("Dice of LV 0.9", "Dice of RV 0.9", False),
    ("3.200000e-04", "1.000000e-05", True),
    ("commit 3f2a9b1e5cd on cuda:0", "commit 77ad012e on cpu", True),
    ("best 1e-05", "best 3.2e-04", True),
    ("run-1a: kaf 0.1.0 (commit 1234567), x86_64, threads: 2", "run-1a: kaf 0.1.1, arm64, threads: 8", True),
    ("run-1a: kaf 0.1.0, x86_64", "run-1b: kaf 0.1.0, x86_64", False),
    ('<script type="application/json">{"a":[1]}</script>', '<script type="application/json">{}</script>', True),
    ('<div data-kind="labels">', '<div data-kind="matches">', False),
    ("pretrain-kaf_unet-phantom-smoke-492d44ff", "pretrain-kaf_unet-phantom-smoke-fa965280", True),
    ("pretrain-kaf_unet-phantom-smoke-492d44ff", "pretrain-unet-phantom-smoke-492d44ff", False),
    ("decade and facade", "facade and decade", False),
])
def test_sanitizing_hides_numbers_and_nothing_else(one, other, same):
    def clean(text):
        for regex, replacement in get_sanitize_patterns(SANITIZE.read_text()):
            text = re.sub(regex, replacement, text)
        return text

    assert (clean(one) == clean(other)) is same
