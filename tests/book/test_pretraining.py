"""The command that keeps the log of a pretraining for chapter 5."""

import pandas as pd
import pytest

from book.pretraining import record
from kaf.files import read_json, write_json
from kaf.finetune import finetune
from kaf.pretrain import pretrain
from tests.tiny import tiny_experiment

PATIENTS = ("patient001", "patient002")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    return pretrain(tiny_experiment(), store, PATIENTS, tmp_path_factory.mktemp("runs"), device="cpu")


def test_a_record_is_the_log_of_the_run_with_what_made_it(run, tmp_path):
    record(run.folder, tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "pretraining.csv"), run.history())
    facts = read_json(tmp_path / "pretraining.json")
    assert facts["experiment"] == run.config["experiment"] and facts["patients"] == len(PATIENTS)
    assert facts["provenance"]["steps"] == 4


def test_what_is_no_finished_pretraining_is_refused(run, store, tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        record(tmp_path, tmp_path)
    other = finetune(tiny_experiment(), store, PATIENTS, tmp_path, "unet", device="cpu")
    with pytest.raises(ValueError, match="is no pretraining, but a run of unet"):
        record(other.folder, tmp_path)
    begun = tmp_path / run.folder.name
    begun.mkdir()
    write_json(begun / "config.json", run.config)
    write_json(begun / "provenance.json", {"commit": "0"})
    with pytest.raises(ValueError, match="has not ended; run the same again"):
        record(begun, tmp_path)
    assert not (tmp_path / "pretraining.csv").exists()
