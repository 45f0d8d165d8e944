import math
import signal

import pytest
import torch

from kaf import loop
from kaf.data.pairs import SliceDataset, collate
from kaf.guards import Interrupts, broken
from kaf.runs import Run
from tests.noisy import STEPS, Noisy, batches, in_a_process, train
from tests.tiny import interrupting, same_weights


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)


def breaking(at, factor):
    class Broken(Noisy):
        def __call__(self, model, batch, step):
            value, logged = super().__call__(model, batch, step)
            return value * (factor if step == at else 1), logged

    return Broken()


def test_ctrl_c_saves_between_two_minutes_and_hands_the_signals_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=f"after step 4 of {STEPS}; run the same again"):
        train(tmp_path, interrupting(Noisy, 3, "ctrl-c")())
    assert Run(tmp_path, {}).load()["step"] == 4
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_wish_stops_at_once(tmp_path, second):
    class Impatient(Noisy):
        def __call__(self, model, batch, step):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(second)
            raise AssertionError("still here")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Impatient())
    assert Run(tmp_path, {}).load() is None


def test_without_a_signal_nobody_asked():
    with Interrupts() as interrupts:
        assert not interrupts.asked()
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.asked()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signals on Windows")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_told_to_stop_says_how_to_go_on(tmp_path, sent):
    process = in_a_process("print(step, flush=True); time.sleep(0.05)", tmp_path / "told")
    while process.stdout.readline() != "2\n":
        pass
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    step = Run(tmp_path / "told", {}).load()["step"]
    assert process.returncode and 3 <= step < STEPS
    assert said.endswith(f"KeyboardInterrupt: stopped after step {step} of {STEPS}; run the same again to go on\n")
    told, whole = train(tmp_path / "told", Noisy()), train(tmp_path / "whole", Noisy())
    assert same_weights(told.weights(), whole.weights()) and told.history().equals(whole.history())


@pytest.mark.parametrize("at", [0, 6])  # 6 is no step that is logged
def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path, save_every_step, at):
    kept = "last good state is in the checkpoint" if at else "no checkpoint yet"
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {at}; the batch is in .*{kept}"):
        train(tmp_path, breaking(at, math.nan))
    found = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert found["step"] == at and torch.equal(found["batch"], next(iter(batches(at))))
    state = Run(tmp_path, {}).load()
    assert (state is None) if at == 0 else state["step"] == at
    assert same_weights(train(tmp_path, Noisy()).weights(), train(tmp_path / "whole", Noisy()).weights())


def test_the_error_opens_the_batch(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate") as error:
        train(tmp_path, breaking(1, math.nan))
    command = str(error.value).split(". ")[1].removesuffix(" opens it")
    assert torch.equal(eval(command), next(iter(batches(1))))


def test_a_batch_of_slices_is_read_without_trust_in_the_file(store, tmp_path):
    data = SliceDataset(store, store.select(labelled=True)[:1], 32, 5)
    batch = collate([data[0], data[1]])
    broken(Run(tmp_path, {}), (batch, batch), "a test", 3)  # two, as a mean teacher takes them
    found, _ = torch.load(tmp_path / "bad_batch.pt", weights_only=True)["batch"]
    assert list(found) == list(batch._fields)
    assert torch.equal(found["image"], batch.image) and torch.equal(found["keypoints"]["xy"], batch.keypoints.xy)


def test_a_gradient_that_is_not_finite_never_reaches_the_checkpoint(tmp_path, save_every_step):
    class Steep(Noisy):
        def __call__(self, model, batch, step):
            value, logged = super().__call__(model, batch, step)
            if step == 5:
                value.register_hook(lambda gradient: gradient * math.nan)
            return value, logged

    with pytest.raises(FloatingPointError, match="a weight is not finite at step 5"):
        train(tmp_path, Steep())
    assert Run(tmp_path, {}).load()["step"] == 5


def test_a_loss_that_is_not_finite_is_found_before_the_next_row_of_the_log(tmp_path):
    with pytest.raises(FloatingPointError, match="the loss is inf at step 7; .* there is no checkpoint yet"):
        train(tmp_path, breaking(7, math.inf))
    found = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert torch.equal(found["batch"], next(iter(batches(7))))
    assert Run(tmp_path, {}).history()["step"].tolist() == [0, 5] and Run(tmp_path, {}).load() is None
    assert same_weights(train(tmp_path, Noisy()).weights(), train(tmp_path / "whole", Noisy()).weights())
