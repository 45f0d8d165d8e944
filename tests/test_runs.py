import getpass
import json
import os
import platform
import sys

import pytest
import torch

from kaf.runs import Clock, Run, peak_memory_mb, provenance, reset_peak_memory, write_json


def test_a_folder_keeps_its_configuration_and_refuses_another(tmp_path):
    first = Run(tmp_path / "a" / "b", {"lr": 0.1, "weights": (1, 2)})
    assert json.loads((first.folder / "config.json").read_text()) == {"lr": 0.1, "weights": [1, 2]}
    Run(first.folder, {"weights": (1, 2), "lr": 0.1})
    with pytest.raises(ValueError, match=r"another configuration \(differs in lr, seed\); choose another folder"):
        Run(first.folder, {"lr": 0.2, "weights": (1, 2), "seed": 0})


def test_a_save_that_fails_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    run = Run(tmp_path, {})
    assert run.load() is None
    run.save({"step": 1, "weight": torch.ones(2)})

    def half(_, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        run.save({"step": 2})
    assert run.load()["step"] == 1 and run.load()["weight"].tolist() == [1, 1]


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    run = Run(tmp_path, {})
    run.checkpoint.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="checkpoint.pt cannot be read; delete it"):
        run.load()


def test_only_a_finished_run_gives_its_weights(tmp_path):
    run = Run(tmp_path, {})
    with pytest.raises(ValueError, match="no checkpoint"):
        run.weights()
    run.save({"step": 3, "steps": 4, "model": {"a": torch.ones(1)}})
    with pytest.raises(ValueError, match="unfinished .3 of 4 steps"):
        run.weights()
    run.save({"step": 4, "steps": 4, "model": {"a": torch.ones(1)}})
    assert run.weights()["a"].item() == 1


def test_log_rows_stay_in_their_columns(tmp_path):
    run = Run(tmp_path, {})
    run.log({"step": 0, "loss": 0.1, "spread": 0.5})
    run.log({"step": 1, "spread": 0.25})
    table = run.history()
    assert table["spread"].tolist() == [0.5, 0.25] and table["loss"].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match="color"):
        run.log({"step": 2, "color": 1})


def test_rewinding_forgets_later_rows_and_one_cut_short(tmp_path):
    run = Run(tmp_path, {})
    for step in range(0, 50, 10):
        run.log({"step": step, "loss": 1 / 3})
    with (tmp_path / "log.csv").open("a") as out:
        out.write("2")  # of "250,...": the process died here
    run.rewind_log(30)
    run.log({"step": 30, "loss": 2.0})
    assert run.history()["step"].tolist() == [0, 10, 20, 30]
    assert run.history()["loss"].tolist() == [1 / 3] * 3 + [2.0]
    run.rewind_log(0)
    assert not (tmp_path / "log.csv").exists()
    run.rewind_log(0)


def test_provenance_names_versions_but_nobody(tmp_path):
    run = Run(tmp_path, {})
    found = run.add_provenance(**provenance(), seconds=3)
    assert run.add_provenance(steps=4) == {**found, "steps": 4}
    assert found["torch"] == torch.__version__ and found["seconds"] == 3
    text = (tmp_path / "provenance.json").read_text()
    for secret in (getpass.getuser() + "@", platform.node(), os.path.expanduser("~") + "/", str(tmp_path)):
        assert not secret or secret not in text


def test_json_is_written_at_once_or_not_at_all(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [file]


def test_memory_and_time_are_measured():
    before = peak_memory_mb()
    block = torch.ones(200 * 2**18)  # 200 MiB
    assert peak_memory_mb() >= before > 50 and peak_memory_mb() > block.numel() * 4 / 2**20
    assert 10 <= Clock(10).seconds() < 11


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the peak of a process")
def test_a_reset_forgets_the_memory_of_the_run_before():
    block = torch.ones(50_000_000)
    before = peak_memory_mb()
    del block
    reset_peak_memory()
    assert peak_memory_mb() < before - 150
