"""Who trains and who tests, always by patient (chapter 6)."""

import random
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold

from kaf.data.store import Store, VolumeRecord


@dataclass(frozen=True)
class Split:
    """Patients to train with, patients to test with, and ``twins``, who are left out; see :func:`without_twins`.

    Raises ``ValueError`` if one is in two of them.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    twins: tuple[str, ...] = ()

    def __post_init__(self):
        for side in ("train", "test", "twins"):
            object.__setattr__(self, side, _distinct(getattr(self, side)))
        both = sorted(set(self.train) & set(self.test) | set(self.twins) & {*self.train, *self.test})
        if both:
            raise ValueError(f"patients on both sides of the split: {', '.join(both)}")


def kfold(groups: Mapping[str, str], folds: int = 5, seed: int = 0) -> list[Split]:
    """Cross-validation by patient; ``groups`` maps a patient to its pathology group.

    Groups are dealt out one after the other like cards, so that the folds differ by at most one
    patient in their size and in each group. Every patient is tested once.
    """
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} patients with labels cannot be split into those who train and those who test; "
                         "`python -m kaf.data.check DATASET ROOT` says what was found and what lies unused beside it")
    if not 2 <= folds <= len(groups):
        raise ValueError(f"{len(groups)} patients cannot be split into {folds} folds; choose 2 to {len(groups)} folds")
    rng = np.random.default_rng(seed)
    pools = _by_group(groups, groups).values()
    dealt = [patient for pool in pools for patient in rng.permutation(pool).tolist()]
    return [fixed_test(groups, dealt[fold::folds]) for fold in range(folds)]


def paper_folds(patients: Collection[str]) -> list[Split]:
    """The five folds of the paper: scikit-learn's KFold with seed 12345 on the sorted ids."""
    ids = np.array(sorted(_distinct(patients)))
    folds = KFold(5, shuffle=True, random_state=12345).split(ids)
    return [Split(tuple(ids[train].tolist()), tuple(ids[test].tolist())) for train, test in folds]


def paper_draw(train: Collection[str], m: int) -> tuple[str, ...]:
    """The paper's ``m`` labelled patients of a fold: Python's ``random.sample`` with seed 1234.

    It draws positions in the sorted list, hence nearly the same patients in every fold.
    """
    return tuple(random.Random(1234).sample(sorted(_enough(train, m)), m))


def fixed_test(patients: Collection[str], test: Collection[str]) -> Split:
    """Test on the listed patients, train on all others; both sides sorted.

    Raises ``ValueError`` if a listed patient is not among ``patients``.
    """
    unknown = sorted(set(test) - set(patients))
    if unknown:
        raise ValueError(f"test patients that are not in the data set: {', '.join(unknown)}")
    return Split(tuple(sorted(set(_distinct(patients)) - set(test))), tuple(sorted(_distinct(test))))


def external_test(store: Store, test: Store) -> Split:
    """Train on one store, test on another, as with the 50 official test patients of ACDC.

    Raises ``ValueError`` if they share a patient, by name or by the same scan under another name, or
    if they were prepared with other settings.
    """
    if store.settings != test.settings:
        raise ValueError(f"prepare both stores alike: {store.settings} is not {test.settings}")
    split = Split(tuple(store.patients), tuple(test.patients))
    scans = {_scan(v): v.id for v in store.volumes}
    for v in test.volumes:
        twin = scans.get(_scan(v))
        if twin:
            raise ValueError(f"the same scan on both sides: {twin} in {store.path}, {v.id} in {test.path}")
    return split


def without_twins(split: Split, store: Store) -> Split:
    """Leave out who has a scan, under another name, of a patient of the store that is not trained with.

    In ACDC, patients 074 and 076 hold the same images with other labels: where one is tested, training on the other
    would be training on a test image.
    """
    others = {_scan(v) for v in store.volumes if v.patient not in split.train}
    twins = {v.patient for v in store.volumes if v.patient in split.train and _scan(v) in others}
    return Split(tuple(p for p in split.train if p not in twins), split.test, tuple(sorted(twins)))


def _scan(volume: VolumeRecord) -> str:
    return volume.checksums["image.npy"]


def labelled_draw(
    train: Collection[str], m: int, seed: int, groups: Mapping[str, str] | None = None, twins: Collection[str] = ()
) -> tuple[str, ...]:
    """``m`` random patients of ``train``, sorted; with ``groups`` as evenly from each group as possible.

    The same seed gives nested draws: the 2 are among the 6, so that a curve over ``m`` grows one set.
    Other training patients (another fold) give an unrelated draw. ``twins`` of :class:`Split` are passed over; all
    others are drawn as if these could be.
    """
    everyone = sorted({*_enough(train, m), *twins})
    names = "\n".join(everyone)
    rng = np.random.default_rng((seed, zlib.crc32(names.encode())))
    pools = list(_by_group(everyone, groups or {}).values())
    pools = [[p for p in rng.permutation(pool).tolist() if p not in twins] for pool in pools]
    order = rng.permutation(len(pools))
    rounds = max(map(len, pools), default=0)
    drawn = [pools[g][turn] for turn in range(rounds) for g in order if turn < len(pools[g])]
    return tuple(sorted(drawn[:m]))


def inner_split(
    train: Collection[str], count: int, seed: int, groups: Mapping[str, str] | None = None
) -> Split:
    """Set ``count`` patients of ``train`` aside for validation: they are the ``test`` of the new split."""
    return fixed_test(train, labelled_draw(train, count, seed, groups))


def _by_group(patients: Iterable[str], groups: Mapping[str, str]) -> dict[str, list[str]]:
    found = sorted((groups.get(patient, ""), patient) for patient in patients)
    return {group: [p for g, p in found if g == group] for group, _ in found}


def _enough(train: Collection[str], m: int) -> tuple[str, ...]:
    if not 0 < m <= len(train):
        raise ValueError(f"cannot draw {m} of {len(train)} patients; M is 1 to {len(train)} on this fold")
    return _distinct(train)


def _distinct(patients: Iterable[str]) -> tuple[str, ...]:
    patients = tuple(patients)
    if len(set(patients)) < len(patients):
        raise ValueError(f"patients listed twice: {sorted({p for p in patients if patients.count(p) > 1})}")
    return patients
