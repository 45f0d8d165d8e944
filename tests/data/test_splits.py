from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaf.data.prepare import prepare
from kaf.data.splits import (
    Split,
    external_test,
    fixed_test,
    inner_split,
    kfold,
    labelled_draw,
    paper_draw,
    paper_folds,
    without_twins,
)
from tests.data.layouts import write_acdc_patient

ACDC = [f"patient{number:03d}" for number in range(1, 101)]
GROUPS = dict(zip(ACDC, ["DCM", "HCM", "MINF", "NOR", "RV"] * 20, strict=True))


def test_paper_draws_are_the_published_patients():
    drawn = [paper_draw(fold.train, 2) for fold in paper_folds(ACDC)]
    numbers = [tuple(int(patient[-3:]) for patient in pair) for pair in drawn]
    assert numbers == [(73, 18), (74, 20), (70, 16), (70, 18), (69, 20)]


def test_paper_folds_are_a_seeded_shuffle_cut_in_five():
    shuffled = np.arange(100)
    np.random.RandomState(12345).shuffle(shuffled)
    for fold, part in zip(paper_folds(reversed(ACDC)), np.split(shuffled, 5), strict=True):
        assert fold.test == tuple(ACDC[i] for i in sorted(part))
        assert set(fold.train) == set(ACDC) - set(fold.test)


def test_paper_draw_leaves_the_global_random_state_alone():
    import random

    random.seed(0)
    expected = random.random()
    random.seed(0)
    paper_draw(ACDC, 6)
    assert random.random() == expected


@given(
    members=st.lists(st.sampled_from("abc"), min_size=2, max_size=40),
    folds=st.integers(2, 6),
    seed=st.integers(0, 9),
)
def test_folds_test_everyone_once_and_are_level_in_size_and_group(members, folds, seed):
    groups = {f"p{i:02d}": group for i, group in enumerate(members)}
    if folds > len(groups):
        with pytest.raises(ValueError, match="folds"):
            kfold(groups, folds, seed)
        return
    splits = kfold(groups, folds, seed)
    assert Counter(p for s in splits for p in s.test) == Counter(list(groups))
    assert all(set(s.train) == set(groups) - set(s.test) for s in splits)
    for group in (None, *set(members)):
        sizes = [sum(group in (None, groups[p]) for p in s.test) for s in splits]
        assert max(sizes) - min(sizes) <= 1


def test_folds_depend_on_the_seed_and_on_nothing_else():
    shuffled = dict(reversed(GROUPS.items()))
    assert kfold(GROUPS, seed=1) == kfold(shuffled, seed=1) != kfold(GROUPS, seed=2)


def test_a_patient_on_both_sides_is_an_error():
    with pytest.raises(ValueError, match="both sides.*: b"):
        Split(("a", "b"), ("b", "c"))
    with pytest.raises(ValueError, match="twice"):
        Split(("a", "a"), ("b",))


def test_fixed_test_takes_the_listed_patients_away():
    assert fixed_test(["c", "a", "b"], ["b"]) == Split(("a", "c"), ("b",))
    with pytest.raises(ValueError, match="not in the data set: z"):
        fixed_test(["a", "b"], ["z"])


@given(m=st.integers(1, 80), seed=st.integers(0, 99))
def test_draws_are_level_over_groups_nested_and_independent_of_order(m, seed):
    train = ACDC[:80]
    drawn = labelled_draw(train, m, seed, GROUPS)
    counts = Counter(GROUPS[p] for p in drawn)
    assert len(set(drawn)) == m and max(counts.values()) - min(counts.get(g, 0) for g in GROUPS.values()) <= 1
    assert set(drawn) <= set(labelled_draw(train[::-1], 80, seed, GROUPS))
    assert drawn == labelled_draw(train[::-1], m, seed, GROUPS)
    assert m == 1 or set(labelled_draw(train, m - 1, seed, GROUPS)) < set(drawn)


def test_every_patient_can_be_drawn_and_folds_draw_independently():
    seen = Counter(p for seed in range(300) for p in labelled_draw(ACDC[:20], 2, seed))
    assert set(seen) == set(ACDC[:20]) and max(seen.values()) < 60  # 30 expected for each
    draws = [labelled_draw(fold.train, 2, 0) for fold in kfold(GROUPS)]
    positions = {tuple(fold.train.index(p) for p in d) for fold, d in zip(kfold(GROUPS), draws, strict=True)}
    assert len(positions) == 5  # one seed must not mean one place in the list, as in the paper's draws


@pytest.mark.parametrize("m", [0, 5, -1])
def test_drawing_more_than_there_are_is_an_error(m):
    for draw in (lambda: labelled_draw(["a", "b"], m, 0), lambda: paper_draw(["a", "b"], m)):
        with pytest.raises(ValueError, match="cannot draw"):
            draw()


def test_inner_split_takes_validation_patients_from_train():
    split = inner_split(ACDC[:10], 3, seed=4, groups=GROUPS)
    assert len(split.test) == 3 and sorted(split.train + split.test) == ACDC[:10]


@given(patients=st.sets(st.text("abc", max_size=3), min_size=2, max_size=20), seed=st.integers(0, 99), data=st.data())
def test_sides_of_any_split_share_nobody_and_lose_nobody(patients, seed, data):
    count = data.draw(st.integers(1, len(patients)))
    chosen = data.draw(st.lists(st.sampled_from(sorted(patients)), unique=True))
    for split in (inner_split(patients, count, seed), fixed_test(patients, chosen)):
        assert not set(split.train) & set(split.test) and set(split.train) | set(split.test) == patients
        assert list(split.train) == sorted(split.train) and list(split.test) == sorted(split.test)
    assert len(inner_split(patients, count, seed).test) == count


@given(count=st.integers(5, 60))
def test_folds_of_the_paper_test_everyone_once(count):
    patients = [f"p{n:02d}" for n in range(count)]
    assert sorted(p for fold in paper_folds(patients) for p in fold.test) == patients
    draws = [paper_draw(fold.train, 3) for fold in paper_folds(patients)]
    assert all(set(draw) <= set(fold.train) for draw, fold in zip(draws, paper_folds(patients)))


def test_external_test_takes_both_stores_whole(store, tmp_path):
    write_acdc_patient(tmp_path / "testing", 101)
    other = prepare("acdc", tmp_path / "testing", tmp_path / "store", store.settings, 1, progress=False)
    assert external_test(store, other) == Split(tuple(store.patients), ("patient101",))
    with pytest.raises(ValueError, match="both sides"):
        external_test(store, store)
    with pytest.raises(ValueError, match="prepare both stores alike"):
        external_test(store, SimpleNamespace(settings=replace(store.settings, spacing_mm=2.0)))


def test_a_patient_renamed_is_still_on_both_sides(store):
    renamed = replace(store.volumes[0], patient="patient900", id="patient900_frame02")
    other = SimpleNamespace(
        settings=store.settings, patients={"patient900": ""}, volumes=(renamed,), path="other"
    )
    with pytest.raises(ValueError, match="same scan on both sides"):
        external_test(store, other)


def two_with_one_scan(store, one, other):
    """The volumes of ``store``, of which ``other`` holds the scans of ``one``."""
    first = next(v for v in store.volumes if v.patient == one)
    volumes = [replace(v, checksums=first.checksums) if v.patient == other else v for v in store.volumes]
    return SimpleNamespace(volumes=tuple(volumes))


def test_who_has_the_scan_of_a_tested_patient_is_neither_trained_with_nor_drawn(store):
    a, b, c, d = store.patients
    split = Split((a, b, c), (d,))
    assert without_twins(split, store) == split  # no two patients hold the same scan
    assert without_twins(split, two_with_one_scan(store, a, b)) == split  # both are trained with
    found = without_twins(split, two_with_one_scan(store, d, b))
    assert found == Split((a, c), (d,), (b,))
    assert labelled_draw(found.train, 2, 0, twins=found.twins) == (a, c)
    with pytest.raises(ValueError, match="M is 1 to 2"):
        labelled_draw(found.train, 3, 0, twins=found.twins)
    inner = Split((a, b), (c,))  # d is the patient of the fold, of whom nothing may be known
    assert without_twins(inner, two_with_one_scan(store, d, b)) == Split((a,), (c,), (b,))


@given(twin=st.sampled_from(ACDC[:80]), m=st.integers(1, 79), seed=st.integers(0, 9))
def test_a_twin_changes_the_draw_only_where_it_would_be_drawn(twin, m, seed):
    train = [p for p in ACDC[:80] if p != twin]
    drawn, before = labelled_draw(train, m, seed, GROUPS, [twin]), labelled_draw(ACDC[:80], m, seed, GROUPS)
    assert twin not in drawn and len(drawn) == m
    if twin not in before:
        assert drawn == before
