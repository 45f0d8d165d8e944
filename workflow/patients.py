"""Whether the folder of a data set has the patients that the jobs of a grid need."""

from collections.abc import Iterable

from kaf.data.cases import find_cases
from kaf.protocols import FOLDS, PROTOCOLS, split_by
from kaf.records import Record
from workflow.grids import Job


def labelled_groups(dataset: str, root: str) -> dict[str, str]:
    """The pathology group of every labelled patient in a folder; empty where nothing can be read there.

    What is wrong with such a folder the job says that prepares it.
    """
    try:
        return {case.patient: case.group for case in find_cases(dataset, root) if case.label}
    except (ValueError, OSError):
        return {}


def check_labelled(jobs: Iterable[Job], groups: dict[str, str], root: str) -> None:
    """Raises ``ValueError`` for the first job with more labelled patients than its fold trains with.

    So it does for fewer patients than folds. ``groups`` without anybody are not looked at.
    """
    if 0 < len(groups) < FOLDS:
        raise ValueError(f"{root} has {len(groups)} labelled patients, and a grid tests in {FOLDS} folds: give at "
                         "least as many")
    for job in jobs if groups else ():
        train = split_by(job.protocol, groups, FOLDS)[job.fold].train
        if job.m > len(train):
            raise ValueError(f"{root} has {len(groups)} labelled patients, {len(train)} of them to train with in fold "
                             f"{job.fold}, and a job asks for {job.m}: {job.key}. Give the whole data set, or a grid "
                             "with smaller m")


def strangers(dataset: str, groups: dict[str, str], records: Iterable[Record]) -> str:
    """A warning where the records are of other patients; empty where they are not, or that cannot be told.

    Of records that lack a fold it cannot be told whether somebody here was not there.
    """
    known, folds = set(), set()
    for record in records:
        rows = record.rows[(record.rows["dataset"] == dataset) & (record.rows["protocol"] == PROTOCOLS["patient"])]
        known.update(rows["patient"])
        folds.update(rows["fold"])
    here = set(groups)
    if not here or not (known - here or (len(folds) == FOLDS and here - known)):
        return ""
    return (f"{len(groups)} labelled patients of {dataset} are here, the records are of {len(known)}: folds and draws "
            "are others, and new runs would stand beside those of the records. Give records=NEW for runs of your own")
