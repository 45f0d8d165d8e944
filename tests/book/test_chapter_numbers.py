"""Numbers of the chapters against the committed ones: what counts as moved, and how tolerances come about."""

import json

import pytest

from book.chapter_numbers import compare, distance, read_chapters, update, widen, write_chapters

EXPECTED = {"dice": {"value": 0.8, "tolerance": 0.01}, "patients": {"value": 12, "tolerance": 0.0},
            "each": {"value": [0.5, None], "tolerance": 0.1}}


def test_values_within_their_tolerance_pass():
    assert compare({"dice": 0.809, "patients": 12, "each": [0.41, None]}, EXPECTED) == []


@pytest.mark.parametrize(("shown", "fault"), [
    ({"dice": 0.82}, "dice is 0.82, expected 0.8 ± 0.01"),
    ({"dice": None}, "dice is None"),
    ({"patients": 13}, "patients is 13, expected 12 ± 0.0"),
    ({"each": [0.5, 0.5]}, "each is"),
    ({"each": [0.5]}, "each is"),
    ({"each": 0.5}, "each is"),
    ({"hd95": 3.0}, "hd95 is new"),
])
def test_what_has_moved_is_named(shown, fault):
    found = compare({"dice": 0.8, "patients": 12, "each": [0.5, None]} | shown, EXPECTED)
    assert len(found) == 1 and found[0].startswith(fault)


def test_what_is_gone_is_named():
    assert compare({"dice": 0.8, "patients": 12}, EXPECTED) == ["each is shown no more"]


def test_nan_is_only_near_itself():
    assert distance(None, None) == 0 and distance(None, 1e9) == distance(0.0, None) == float("inf")


def test_new_values_keep_the_tolerances_and_new_counts_have_none():
    found = update(EXPECTED, {"dice": 0.79, "folds": 5, "loss": 2.0, "counts": [1, 2]})
    assert found == {"dice": {"value": 0.79, "tolerance": 0.01}, "folds": {"value": 5, "tolerance": 0.0},
                     "loss": {"value": 2.0, "tolerance": 3e-5}, "counts": {"value": [1, 2], "tolerance": 0.0}}


def test_tolerances_grow_to_a_multiple_of_what_was_seen_and_never_shrink():
    runs = [{"dice": 0.809, "patients": 12, "each": [0.5, None]}, {"dice": 0.798, "patients": 14, "each": [0.5, None]}]
    found = {name: number["tolerance"] for name, number in widen(EXPECTED, runs).items()}
    assert found == {"dice": 0.03, "patients": 6.0, "each": 0.1}


def test_the_file_has_one_number_a_line(tmp_path):
    chapters = {"05_pretrain": {"minutes": 1.0, "gigabytes": 1.5, "numbers": EXPECTED}}
    write_chapters(chapters, tmp_path / "c.json")
    assert read_chapters(tmp_path / "c.json") == json.loads(json.dumps(chapters))
    assert len((tmp_path / "c.json").read_text().splitlines()) == 11
    assert read_chapters(tmp_path / "missing.json") == {}
