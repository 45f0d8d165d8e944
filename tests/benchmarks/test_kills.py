"""The benchmark of kills, with two: what it measures is that nothing happens."""

import multiprocessing

import pytest

from benchmarks import kills, record


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no such processes on Windows")
def test_killed_trainings_end_as_undisturbed_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kills, "FILE", tmp_path / "faults.json")
    kills.main(["--kinds", "pretrain", "finetune", "--kills", "1", "--steps", "12", "--record"])
    rows = {row["what"]: row for row in record.read(tmp_path / "faults.json")["kills"]["rows"]}
    for name in ("pretraining", "fine-tuning"):
        assert rows[f"{name}: kills survived"]["value"] == 1 == rows[f"{name}: most kills of one run"]["value"]
        assert rows[f"{name}: runs that end differently"]["status"] == "met"
        assert rows[f"{name}: runs with a draft left over"]["status"] == "met"
    assert rows["all work: kills survived"]["status"] == "not met"  # 20 are wanted
    assert "fine-tuning: runs compared" in capsys.readouterr().out


def test_a_different_end_would_show(tmp_path, monkeypatch):
    killer = object.__new__(kills.Killer)
    killer.kind, killer.home = "pretrain", tmp_path
    monkeypatch.setattr(kills, "outcome", lambda *_: {"log": "b"})
    monkeypatch.setattr(kills, "check", lambda *_: None)
    killer.undisturbed = lambda folder: ({"log": "a"}, 1.0)
    killer.kill_one = lambda *_, writing: True
    found = killer.survive(1)
    assert found["different"] == 1 and kills.rows_of("pretrain", found)[4]["status"] == "not met"
