"""Who trains and who tests: the protocols, the split of a store that each makes, and its labelled patients.

The rows of results say the protocol in the words of :data:`PROTOCOLS`.
"""

from collections.abc import Mapping, Sequence

from kaf.choices import check_choice
from kaf.data.splits import (
    Split,
    external_test,
    inner_split,
    kfold,
    labelled_draw,
    paper_draw,
    paper_folds,
    without_twins,
)
from kaf.data.store import Store

#: The paper's scores are those of pooled voxels (:func:`kaf.evaluate.pooled_dice`); ``inner`` sets training patients
#: aside, to choose settings on; ``external`` trains on a whole data set and tests on patients who came in a folder of
#: their own.
PROTOCOLS = {
    "patient": "patient, no test patient in pretraining",
    "inner": "inner validation, no test patient at all",
    "paper": "the paper's folds and draw, test patients in pretraining",
    "external": "a test set of its own, no test patient in pretraining",
}
FOLDS = 5  # of every protocol but external; the paper's, too
LABELLED = {"smoke": (2,), "laptop": (2, 8), "full": (2, 6, 10, 20)}  # numbers M of labelled patients


def check_fold(fold: int, folds: int = FOLDS) -> None:
    """Raises ``ValueError`` for a fold that there is not."""
    if not 0 <= fold < folds:
        raise ValueError(f"fold is {'0' if folds == 1 else f'0 to {folds - 1}'}, got {fold}")


def split_by(protocol: str, groups: Mapping[str, str], folds: int) -> list[Split]:
    """The splits of a protocol with folds; ``groups`` maps a patient to its pathology group.

    They do not depend on the seed of an experiment: two seeds are two trainings for the same patients. ``inner`` sets
    as many patients of the training side aside as the fold tests, and leaves those of the fold out. Raises
    ``ValueError`` for a protocol without folds, for fewer patients than folds, and for other than the paper's folds in
    its protocol.
    """
    check_choice("protocol with folds", protocol, [name for name in PROTOCOLS if name != "external"])
    if protocol == "paper":
        if folds != FOLDS:
            raise ValueError(f"the paper has {FOLDS} folds, not {folds}")
        return paper_folds(groups)
    splits = kfold(groups, folds)
    return [inner_split(s.train, len(s.test), 0, groups) for s in splits] if protocol == "inner" else splits


def split_store(protocol: str, store: Store, fold: int, folds: int, test_store: Store | None = None) -> Split:
    """Fold ``fold`` of a store; with a ``test_store``, whose patients test, all of ``store`` trains.

    Patients without labels are in no fold; they join those who are pretrained with. Who has the same scan as a test
    patient is left out, except where test patients are pretrained with anyway. Raises ``ValueError`` for a fold that
    there is not, as :func:`split_by` does, and as :func:`kaf.data.splits.external_test` does.
    """
    if test_store is not None:
        return external_test(store, test_store)
    check_fold(fold, folds)
    known = store.labelled_patients
    split = split_by(protocol, {p: g for p, g in store.patients.items() if p in known}, folds)[fold]
    others = tuple(p for p in store.patients if p not in known)
    split = Split(split.train + others, split.test) if others else split
    return split if protocol == "paper" else without_twins(split, store)


def draw_labelled(protocol: str, split: Split, store: Store, m: int, draw: int = 0) -> tuple[str, ...]:
    """The ``m`` labelled patients of a draw, as evenly from the groups as possible; all methods get the same.

    The paper's protocol has draw 0 only. Raises ``ValueError`` for another, and for more patients than there are.
    """
    known = store.labelled_patients
    train = tuple(p for p in split.train if p in known)
    if protocol == "paper":
        if draw:
            raise ValueError(f"the paper has one draw of labelled patients, draw 0, not {draw}")
        return paper_draw(train, m)
    return labelled_draw(train, m, draw, store.patients, split.twins)


def parse_labelled(text: str | int | Sequence[int], scale: str) -> tuple[int, ...]:
    """The numbers M from a notebook parameter such as ``"2, 8"``; empty means what the scale says.

    Raises ``ValueError`` for anything else.
    """
    text = str(text) if isinstance(text, int) else text
    numbers = [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else list(text)
    try:
        chosen = tuple(int(n) for n in numbers) or LABELLED[scale]
    except ValueError:
        chosen = ()
    if not chosen or min(chosen) < 1:
        raise ValueError(f"labelled is a list of numbers of patients such as '2, 8', got {text!r}")
    return chosen
