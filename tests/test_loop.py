import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kaf import loop
from kaf.config import OptimConfig
from kaf.loop import fit, learning_rate, make_fabric, make_optimiser, step_generator
from kaf.runs import Run
from tests.tiny import interrupting, must_not_train, same_weights

STEPS = 12


class Noisy:
    """Regression on random numbers; every step draws its own noise."""

    def __call__(self, model, batch, step):
        noise = torch.randn(batch.shape, generator=step_generator(0, step))
        value = (model(batch + 0.1 * noise) - batch.sum(1, keepdim=True)).square().mean()
        return value, {"noise": noise.mean()}


def batches(start):
    return (torch.randn(8, 3, generator=step_generator(1, step)) for step in range(start, STEPS))


def train(folder, loss, name="adamw", **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    run = Run(folder, {})
    optim = OptimConfig(STEPS, 8, name=name, lr=0.05, **changes)
    fit(run, make_fabric("cpu"), model, optim, STEPS, batches, loss, log_every=5)
    return run


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("how", ["ctrl-c", "error"])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, save_every_step, how, name):
    at = int(torch.randint(1, STEPS - 1, (1,), generator=torch.Generator().manual_seed(len(how + name))))
    whole = train(tmp_path / "whole", Noisy(), name)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", interrupting(Noisy, at, how)(), name)
    # Ctrl-C lets the step finish; in the middle of one, what was saved before it stays.
    assert Run(tmp_path / "parts", {}).load()["step"] == (at + 1 if how == "ctrl-c" else at)
    parts = train(tmp_path / "parts", Noisy(), name)
    assert same_weights(parts.weights(), whole.weights())
    assert parts.history().equals(whole.history())
    assert parts.history()["step"].tolist() == [0, 5, 10, 11]


def test_ctrl_c_saves_between_two_minutes_and_hands_the_signal_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=f"after step 4 of {STEPS}; run the same again"):
        train(tmp_path, interrupting(Noisy, 3, "ctrl-c")())
    assert Run(tmp_path, {}).load()["step"] == 4 and signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    class Impatient(Noisy):
        def __call__(self, model, batch, step):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("still here")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Impatient())
    assert Run(tmp_path, {}).load() is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_a_killed_process_loses_nothing_that_was_saved(tmp_path):
    program = ("import os, signal, sys; from tests import test_loop as t\n"
               "class Killed(t.Noisy):\n"
               "    def __call__(self, model, batch, step):\n"
               "        if step == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
               "        return super().__call__(model, batch, step)\n"
               "t.loop.SAVE_EVERY_S = -1.0; t.train(sys.argv[1], Killed())")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "killed")], capture_output=True,
                          cwd=Path(__file__).parents[1], env={**os.environ, "TQDM_DISABLE": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert Run(tmp_path / "killed", {}).load()["step"] == 7
    killed, whole = train(tmp_path / "killed", Noisy()), train(tmp_path / "whole", Noisy())
    assert same_weights(killed.weights(), whole.weights()) and killed.history().equals(whole.history())


def test_a_finished_run_is_not_trained_again(tmp_path):
    run = train(tmp_path, Noisy())
    files = {file: file.read_bytes() for file in run.folder.iterdir()}
    assert {"checkpoint.pt", "config.json", "log.csv", "provenance.json"} == {file.name for file in files}
    train(tmp_path, must_not_train)
    assert files == {file: file.read_bytes() for file in run.folder.iterdir()}


@pytest.mark.parametrize("at", [0, 6])  # 6 is no step that is logged
def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path, save_every_step, at):
    class Broken(Noisy):
        def __call__(self, model, batch, step):
            value, logged = super().__call__(model, batch, step)
            return value * (math.nan if step == at else 1), logged

    kept = "last good state is in the checkpoint" if at else "no checkpoint yet"
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {at}; the batch is in .*{kept}"):
        train(tmp_path, Broken())
    assert torch.equal(torch.load(tmp_path / "bad_batch.pt"), next(iter(batches(at))))
    state = Run(tmp_path, {}).load()
    assert (state is None) if at == 0 else state["step"] == at
    assert same_weights(train(tmp_path, Noisy()).weights(), train(tmp_path / "whole", Noisy()).weights())


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


def test_learning_rate_follows_its_closed_form():
    optim = OptimConfig(100, 1, lr=2.0, warmup=0.1, final=0.5)
    rates = [learning_rate(optim, step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == 2.0 and rates[55] == pytest.approx(1.5) and rates[100] == pytest.approx(1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([torch.zeros(1)], 2.0), 90, 1.0)
    for rate in rates[10:100]:
        assert rate == pytest.approx(scheduler.get_last_lr()[0])
        scheduler.optimizer.step(), scheduler.step()
    assert learning_rate(OptimConfig(1, 1, lr=1.0, warmup=0.0), 0, 1) == 1.0


def test_the_log_has_the_rates_that_were_used(tmp_path):
    table = train(tmp_path, Noisy()).history()
    optim = OptimConfig(STEPS, 8, lr=0.05)
    assert table["lr"].tolist() == pytest.approx([learning_rate(optim, s, STEPS) for s in table["step"]])


def test_one_step_of_sgd_by_hand(tmp_path):
    model, given = nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 4.0]])
    weight = model.weight.detach().clone()
    optim = OptimConfig(1, 1, name="sgd", lr=0.1, weight_decay=0.0, warmup=0.0, clip=1.0)
    fit(Run(tmp_path, {}), make_fabric("cpu"), model, optim, 1, lambda _: [given], lambda m, b, _: (m(b).sum(), {}))
    torch.testing.assert_close(model.weight, weight - 0.1 * given / 5)  # the gradient (3, 4) clipped to length 1


def test_steps_and_seeds_have_their_own_random_numbers():
    draw = lambda *key: torch.rand(3, generator=step_generator(*key)).tolist()  # noqa: E731
    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(seed, step)) for seed in range(3) for step in range(3)}) == 9


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="unknown optimiser 'lion'; choose adamw, adam or sgd"):
        make_optimiser(nn.Linear(1, 1), OptimConfig(1, 1, name="lion"))


def test_a_loss_that_is_not_finite_is_found_before_the_next_row_of_the_log(tmp_path):
    class Broken(Noisy):
        def __call__(self, model, batch, step):
            value, logged = super().__call__(model, batch, step)
            return value * (math.inf if step == 7 else 1), logged

    with pytest.raises(FloatingPointError, match="the loss is inf at step 7; .* there is no checkpoint yet"):
        train(tmp_path, Broken())
    assert torch.equal(torch.load(tmp_path / "bad_batch.pt"), next(iter(batches(7))))
    assert Run(tmp_path, {}).history()["step"].tolist() == [0, 5] and Run(tmp_path, {}).load() is None
    assert same_weights(train(tmp_path, Noisy()).weights(), train(tmp_path / "whole", Noisy()).weights())


def test_a_network_is_compiled_where_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: asked.append(self))
    torch.manual_seed(0)
    run, model = Run(tmp_path, {}), nn.Linear(3, 1)
    fit(run, make_fabric("cpu"), model, OptimConfig(STEPS, 8), STEPS, batches, Noisy(), compiled=True)
    assert asked == [model] and run.weights().keys() == model.state_dict().keys()


def test_precision_is_32_bit_on_a_processor_unless_16_is_asked_for():
    linear = nn.Linear(4, 4)
    for precision, dtype in (("auto", torch.float32), ("32", torch.float32), ("bf16", torch.bfloat16)):
        with make_fabric("cpu", precision=precision).autocast():
            assert linear(torch.ones(1, 4)).dtype == dtype
    with pytest.raises(ValueError, match="unknown precision '16'; choose one of auto, 32, bf16"):
        make_fabric("cpu", precision="16")
