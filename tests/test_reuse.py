import json
import shutil
import threading

import pytest

from kaf import finetune as tuning
from kaf import reuse
from kaf import selftrain as teaching
from kaf.finetune import finetune, load_network
from kaf.reuse import TURNS, my_turn
from kaf.runs import Run
from kaf.selftrain import selftrain
from tests.tiny import interrupting, must_not_train, same_weights, tiny_experiment

PATIENTS, TRAIN = ("patient001", "patient002"), ("patient001", "patient002", "patient003")
SHORT = {"selftrain__optim__steps": 3, "selftrain__optim__batch": 2, "selftrain__unlabelled": 3}
AFTER = {"finetune__components": "largest", "finetune__rotations_deg": (-10.0, 0.0, 10.0)}


def tune(store, folder, **changes):
    return finetune(tiny_experiment(**SHORT, **changes), store, PATIENTS, folder, "unet", device="cpu")


def teach(store, folder, source, **changes):
    experiment = tiny_experiment(**SHORT, **changes)
    return selftrain(experiment, store, PATIENTS, TRAIN, folder, source, "unet_selftrained", device="cpu")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """The folder of a fine-tuned run and of one that went on from it."""
    folder = tmp_path_factory.mktemp("trained")
    return teach(store, folder, tune(store, folder)).folder.parent


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(tuning, "SegmentationLoss", lambda *_: must_not_train)
    monkeypatch.setattr(teaching, "SelftrainLoss", lambda *_: must_not_train)


def test_a_network_that_is_used_in_another_way_is_not_trained_again(store, runs, no_training):
    first, other = tune(store, runs), tune(store, runs, **AFTER)
    assert other.folder != first.folder and same_weights(other.weights(), first.weights())
    assert other.history().equals(first.history())
    facts, before = (json.loads((run.folder / "provenance.json").read_text()) for run in (other, first))
    assert facts == {**before, "weights_of": first.folder.name}
    assert other.config["experiment"]["finetune"]["rotations_deg"] == [-10.0, 0.0, 10.0]
    load_network(other, tiny_experiment(**AFTER), store, "unet")


def test_self_training_goes_on_from_such_a_network_without_training_either(store, runs, no_training):
    first, other = teach(store, runs, tune(store, runs)), teach(store, runs, tune(store, runs, **AFTER), **AFTER)
    assert other.config["source"] != first.config["source"] and same_weights(other.weights(), first.weights())


@pytest.mark.parametrize("change", [{"seed": 1}, {"finetune__optim__lr": 1e-4}, {"width": 4}])
def test_another_training_is_never_taken_over(store, runs, no_training, change):
    with pytest.raises(AssertionError, match="trained again"):
        tune(store, runs, **AFTER, **change)


def test_other_patients_or_another_source_are_another_training(store, runs, no_training):
    with pytest.raises(AssertionError, match="trained again"):
        finetune(tiny_experiment(**SHORT, **AFTER), store, TRAIN[1:], runs, "unet", device="cpu")


def test_a_source_that_was_trained_otherwise_is_another_training(store, runs):
    teach(store, runs, tune(store, runs, seed=1), **AFTER)
    assert len(list(runs.glob("selftrain-*"))) == 2
    assert not any("weights_of" in (one / "provenance.json").read_text() for one in runs.glob("selftrain-*"))


def test_nothing_is_taken_from_an_unfinished_run(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "SegmentationLoss", interrupting(tuning.SegmentationLoss, 1, "ctrl-c"))
        with pytest.raises(KeyboardInterrupt):
            tune(store, tmp_path)
    other = tune(store, tmp_path, **AFTER)
    assert "weights_of" not in json.loads((other.folder / "provenance.json").read_text())
    assert other.weights()


@pytest.mark.parametrize("damage", [
    lambda run: (run / "checkpoint.pt").write_bytes(b"cut"), lambda run: (run / "log.csv").unlink(),
    lambda run: (run / "config.json").write_text("{"), lambda run: (run / "config.json").write_text("{}"),
    lambda run: (run / "provenance.json").unlink()],
    ids=["checkpoint", "no log", "config", "no experiment", "no facts"])
def test_a_damaged_run_is_passed_over(store, runs, damage):
    (first,) = runs.glob("finetune-*")
    damage(first)
    other = tune(store, runs, **AFTER)
    assert other.weights() and "weights_of" not in json.loads((other.folder / "provenance.json").read_text())


def test_a_copy_that_was_killed_says_later_where_it_comes_from(store, runs, monkeypatch):
    copies, copy = [], shutil.copyfile

    def killed(source, target):
        copies.append(source)
        if len(copies) == 2:  # of the checkpoint
            raise KeyboardInterrupt
        return copy(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reuse.shutil, "copyfile", killed)
        tune(store, runs, **AFTER)
    other = tune(store, runs, **AFTER)
    assert other.weights() and "weights_of" in json.loads((other.folder / "provenance.json").read_text())


def test_what_another_process_trains_just_now_is_waited_for(store, tmp_path, monkeypatch, capsys):
    steps, said, later = [], [], []
    waiting = threading.Thread(target=lambda: later.append(tune(store, tmp_path, **AFTER)))

    class Counting(tuning.SegmentationLoss):
        def __call__(self, model, batch, step):
            steps.append(step)
            if len(steps) == 1:
                waiting.start()
                while "waits: another process trains what it needs" not in "".join(said) and waiting.is_alive():
                    said.append(capsys.readouterr().err)
            return super().__call__(model, batch, step)

    monkeypatch.setattr(tuning, "SegmentationLoss", Counting)
    first = tune(store, tmp_path)
    waiting.join(60)
    assert steps == [0, 1, 2, 3] and same_weights(later[0].weights(), first.weights())


def test_a_finished_run_waits_for_nobody(store, runs, no_training):
    (first,) = runs.glob("finetune-*")
    with my_turn(Run(first, json.loads((first / "config.json").read_text()))):  # makes no lock either
        tune(store, runs)
    shutil.rmtree(runs / TURNS)
    tune(store, runs)
    assert not (runs / TURNS).exists()


def test_a_folder_in_which_another_process_trains_is_left_alone(store, runs, monkeypatch):
    (first,) = runs.glob("finetune-*")
    seen = []

    def busy(run):
        seen.append(run.folder)
        raise BlockingIOError(f"{run.folder} is in use")

    monkeypatch.setattr(Run, "alone", busy)
    with pytest.raises(BlockingIOError, match="in use"):
        tune(store, runs, **AFTER)
    assert seen and seen[0] != first and not (seen[0] / "checkpoint.pt").exists()
