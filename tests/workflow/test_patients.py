"""Whether a folder of data has the patients of a grid."""

import pandas as pd
import pytest

from kaf.data.phantom import write_phantom
from kaf.protocols import PROTOCOLS
from kaf.records import Record
from workflow.grids import Job
from workflow.patients import check_labelled, labelled_groups, strangers

GROUPS = {f"patient{n:03d}": "AB"[n % 2] for n in range(1, 11)}


def record(patients, folds, protocol="patient"):
    """One row for each patient, the folds in turn."""
    return Record(pd.DataFrame([{"dataset": "acdc", "protocol": PROTOCOLS[protocol], "patient": p,
                                 "fold": folds[n % len(folds)]} for n, p in enumerate(patients)]), {})


def test_who_has_labels_is_found_and_a_folder_without_data_says_nothing(tmp_path):
    root = write_phantom(tmp_path / "acdc", 3, size=48, slices=(3, 4), progress=False)
    for file in (root / "patient002").glob("*_gt.nii.gz"):
        file.unlink()
    assert set(labelled_groups("acdc", root)) == {"patient001", "patient003"}
    assert labelled_groups("acdc", tmp_path / "nowhere") == {}
    check_labelled([Job("unet", 20)], {}, "nowhere")


@pytest.mark.parametrize("protocol, trains", [("patient", 8), ("inner", 6)])
def test_a_job_that_asks_for_more_labelled_patients_than_there_are_is_refused(protocol, trains):
    job = Job("unet", trains, protocol=protocol)
    check_labelled([job], GROUPS, "here")
    more = Job("unet", trains + 1, protocol=protocol)
    with pytest.raises(ValueError, match=f"here has 10 labelled patients, {trains} of them to train with in fold 0, "
                                         f"and a job asks for {trains + 1}: {more.key}"):
        check_labelled([job, more], GROUPS, "here")


def test_fewer_patients_than_folds_are_too_few():
    with pytest.raises(ValueError, match="here has 3 labelled patients, and a grid tests in 5 folds"):
        check_labelled([Job("unet", 1)], dict([*GROUPS.items()][:3]), "here")


@pytest.mark.parametrize("patients, folds, warned", [
    (GROUPS, range(5), False),
    ([*GROUPS][:2], [0], False),           # one fold says nothing of the others
    ([*GROUPS][:8], range(5), True),       # more are here than were tested
    ([*GROUPS, "patient099"], [0], True),  # somebody who was tested is not here
    ([], [0], False)])
def test_other_patients_than_those_of_the_records_are_told(patients, folds, warned):
    said = strangers("acdc", GROUPS, [record(patients, list(folds))] if patients else [])
    assert bool(said) == warned
    if warned:
        assert f"10 labelled patients of acdc are here, the records are of {len(patients)}:" in said


def test_patients_set_aside_say_nothing_of_who_there_is():
    assert not strangers("acdc", GROUPS, [record(["patient099"], [0], "inner")])
