"""Which runs may be recorded together, by the command too."""

import json
import shutil

import pandas as pd
import pytest

from kaf.files import read_json
from kaf.records import Record, gather, main, of_run, read_record, write_record
from tests.test_records import run_folder

A, B = "finetune-kaf_pretrained-a", "finetune-kaf_pretrained-b"
SAID = (f"the runs {A} and {B} stand for the same thing .dataset phantom, .*, method KAF pretrained, m 2, .*, but "
        "differ in config.pretrained, config.experiment.optim.steps, pretraining.config.experiment.optim.steps; record")


@pytest.fixture
def rivals(tmp_path):
    """The folder of two runs of one method on the same patients, the second pretrained for longer."""
    for name, source, steps in ((A, "pretrain-a", 400), (B, "pretrain-b", 800)):
        run_folder(tmp_path / "runs", name, "KAF pretrained", source)
        run_folder(tmp_path / "runs", source, "-")
        for folder in (name, source):
            file = tmp_path / "runs" / folder / "config.json"
            file.write_text(json.dumps({**read_json(file), "experiment": {"seed": 0, "optim": {"steps": steps}}}))
    return tmp_path / "runs"


def test_two_configurations_of_one_run_are_not_taken_for_one(rivals, tmp_path):
    with pytest.raises(ValueError, match=SAID):
        gather(rivals)
    one, other = (of_run(rivals / name) for name in (A, B))
    with pytest.raises(ValueError, match=SAID):
        write_record(Record(pd.concat([one.rows, other.rows]), one.runs | other.runs), "x", tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_a_later_configuration_still_takes_the_place_of_an_earlier_one(rivals, tmp_path):
    for name in (A, B):
        write_record(of_run(rivals / name), "x", tmp_path)
    assert set(read_record("x", tmp_path).runs) == {B}


def test_the_command_says_so_in_a_line_and_doing_as_it_says_helps(rivals, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kaf.records", str(rivals), "x", "--into", str(tmp_path / "records")])
    with pytest.raises(SystemExit):
        main()
    assert "error: the runs" in capsys.readouterr().err and not (tmp_path / "records").exists()
    write_record(of_run(rivals / A, "brief"), "x", tmp_path / "records")
    shutil.rmtree(rivals / A)
    main()
    kept = read_record("x", tmp_path / "records").rows
    assert dict(zip(kept["setting"], kept["run"], strict=True)) == {"brief": A, "": B}
