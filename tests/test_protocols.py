"""Who trains and who tests, and what a notebook is told of it."""

import pytest

from kaf.protocols import LABELLED, parse_labelled, split_by

GROUPS = {f"patient{n:03d}": "AB"[n % 2] for n in range(1, 21)}


def test_inner_validation_touches_no_test_patient_and_has_as_many():
    outers, inners = (split_by(protocol, GROUPS, 5) for protocol in ("patient", "inner"))
    for outer, inner in zip(outers, inners, strict=True):
        assert set(inner.train) | set(inner.test) == set(outer.train)
        assert len(inner.test) == len(outer.test) and not set(inner.test) & set(outer.test)


def test_the_papers_protocol_has_the_papers_folds():
    with pytest.raises(ValueError, match="the paper has 5 folds, not 10"):
        split_by("paper", GROUPS, 10)
    with pytest.raises(ValueError, match="unknown protocol with folds 'external'; choose one of patient, inner, paper"):
        split_by("external", GROUPS, 5)


def test_numbers_of_labelled_patients_are_read_from_words():
    assert parse_labelled("2, 8", "smoke") == (2, 8)
    assert parse_labelled(6, "smoke") == (6,)
    assert parse_labelled("", "laptop") == LABELLED["laptop"]
    with pytest.raises(ValueError, match="such as '2, 8'"):
        parse_labelled("two", "smoke")
