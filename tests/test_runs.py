import getpass
import json
import os
import platform
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import kaf
from kaf import files
from kaf.guards import broken
from kaf.runs import Run, commit, load_weights, provenance
from tests.noisy import Noisy, train
from tests.tiny import interrupting


def test_a_folder_keeps_its_configuration_and_refuses_another(tmp_path):
    first = Run(tmp_path / "a" / "b", {"lr": 0.1, "weights": (1, 2)})
    assert json.loads((first.folder / "config.json").read_text()) == {"lr": 0.1, "weights": [1, 2]}
    Run(first.folder, {"weights": (1, 2), "lr": 0.1})
    with pytest.raises(ValueError, match=r"another configuration \(differs in lr, seed\); choose another folder"):
        Run(first.folder, {"lr": 0.2, "weights": (1, 2), "seed": 0})


STATE = {"step": 1, "steps": 2, "model": {"weight": torch.ones(100)}}


class Evil:
    """What a pickle can do to those who open it."""

    def __reduce__(self):
        return Path.touch, (Path("opened"),)


def test_a_run_that_two_begin_at_once_is_begun_once(tmp_path, monkeypatch):
    def begin():
        with Run(tmp_path, {"a": 1}, {"b": 2}).alone():  # removes what processes that were killed left behind
            begun.append("second")

    def second_begins(path):
        if not begun:
            begun.append("first")
            second.start()
            second.join(0.5)  # it has to wait
        return sync(path)

    begun, second, sync = [], threading.Thread(target=begin), files.sync
    monkeypatch.setattr(files, "sync", second_begins)  # what is called before a draft gets its name
    Run(tmp_path, {"a": 1}, {"b": 2})
    second.join(10)
    assert begun == ["first", "second"]
    assert [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "data")] == [{"a": 1}, {"b": 2}]


def test_a_damaged_checkpoint_says_what_to_do(tmp_path, monkeypatch):
    run = Run(tmp_path, {})
    assert run.load() is None
    run.save(STATE)
    whole = run.checkpoint.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-1], whole[100:]):
        run.checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint.pt cannot be read: with {len(content)} bytes it is cut "
                           "short, damaged, or no checkpoint; put a copy in its place, or delete it to start"):
            run.load()
        assert run.checkpoint.read_bytes() == content


def test_a_checkpoint_from_outside_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path, {})
    torch.save({**STATE, "more": Evil()}, run.checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint.pt cannot be read"):
        run.load()
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("content", [{"model": {}}, {}, []])
def test_another_file_of_torch_is_no_checkpoint(tmp_path, content):
    run = Run(tmp_path, {})
    torch.save(content, run.checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint.pt is no checkpoint of a run, it lacks .*step"):
        run.load()


def test_weights_of_another_network_are_refused(tmp_path):
    linear = nn.Linear(2, 3)
    before = linear.weight.clone()
    with pytest.raises(ValueError, match=r"x.pt holds the weights of another network: weight is 3 x 1 there, "
                       r"3 x 2 here; bias is missing there, 3 here; scale is a number there, missing here. Choose"):
        load_weights(linear, {"weight": torch.ones(3, 1), "scale": torch.tensor(1.0)}, tmp_path / "x.pt")
    assert torch.equal(linear.weight, before)
    load_weights(linear, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path / "x.pt")
    assert linear.weight.eq(1).all()


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
    assert run.history()["step"].tolist() == [0, 10, 20, 30, 40]
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


def test_a_commit_is_that_of_the_checkout_not_of_a_repository_around_it(tmp_path, monkeypatch):
    def git(*words):
        user = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *user, *words], cwd=tmp_path, check=True, capture_output=True)

    for folder in ("kaf", ".venv/lib/site-packages/kaf"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(kaf, "__file__", str(tmp_path / ".venv/lib/site-packages/kaf/__init__.py"))
    assert commit() == ""
    monkeypatch.setattr(kaf, "__file__", str(tmp_path / "kaf" / "__init__.py"))
    assert len(commit()) >= 7 and "+" not in commit()
    (tmp_path / "kaf" / "__init__.py").write_text("changed")
    assert commit().endswith("+")


def test_a_run_folder_names_nobody_and_no_place(tmp_path):
    """In none of its files, the checkpoint and a batch kept for inspection included."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", interrupting(Noisy, 3, "ctrl-c")())
    broken(Run(tmp_path / "run", {}), torch.ones(2), "a test", 4)
    files = list((tmp_path / "run").iterdir())
    assert {"config.json", "provenance.json", "log.csv", "checkpoint.pt", "bad_batch.pt"} <= {f.name for f in files}
    secrets = (getpass.getuser() + "@", platform.node(), os.path.expanduser("~") + "/", str(tmp_path), str(Path.cwd()))
    for file in files:
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret and secret.encode() in content], file.name
