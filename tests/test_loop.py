import os
import signal

import pytest
import torch
from torch import nn

from kaf import loop
from kaf.config import OptimConfig
from kaf.files import read_json
from kaf.loop import enough_memory, fit, learning_rate, make_fabric, make_optimiser, step_generator
from kaf.runs import Run
from tests import noisy
from tests.noisy import STEPS, Noisy, in_a_process, train
from tests.tiny import interrupting, must_not_train, same_weights


@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler")  # where there is no GPU
@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_uses_bfloat16_only_where_it_has_it(monkeypatch, native, precision):
    made = []

    class Recorded:
        def __init__(self, plugins=(), **_):
            made.extend(plugins)

    monkeypatch.setattr(loop, "Fabric", Recorded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    make_fabric("cuda")
    (plugin,) = made
    assert plugin.precision == precision


@pytest.mark.parametrize(("device", "cuda", "chosen"), [("auto", False, "cpu"), ("auto", True, "cuda"),
                                                        ("mps", True, "mps")])
@pytest.mark.parametrize("precision", ["32", "auto"])
def test_the_gpu_of_a_mac_is_taken_only_by_name(monkeypatch, device, cuda, chosen, precision):
    made = []
    monkeypatch.setattr(loop, "Fabric", lambda accelerator, **_: made.append(accelerator))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    make_fabric(device, precision=precision)
    assert set(made) == {chosen}


@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_a_network_gets_what_it_is_given_in_full_precision(precision):
    class Seen(nn.Linear):
        def forward(self, points, name):
            return super().forward(points), points

    # In bfloat16 these numbers would be 200 and 6400.
    given = torch.tensor([[200.5, 6401.0]])
    fabric = make_fabric("cpu", precision=precision)
    _, seen = fabric.setup(Seen(2, 2))(given, "xy")
    assert seen.dtype == torch.float32 and torch.equal(seen, given)


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


def test_a_scaled_loss_goes_on_with_its_scale(tmp_path, save_every_step):
    """In float16 the first scale is too large here: gradients overflow, steps are left out, the scale is halved."""
    options = {"hidden": 64, "precision": "fp16"}
    whole = train(tmp_path / "whole", Noisy(), **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", interrupting(Noisy, 6, "ctrl-c")(), **options)
    scale = Run(tmp_path / "parts", {}).load()["precision"]["scale"]
    assert 0 < scale < 65536
    parts = train(tmp_path / "parts", Noisy(), **options)
    assert same_weights(parts.weights(), whole.weights())
    losses = whole.history()["loss"]
    assert losses.iloc[-1] < losses.iloc[0]


def test_a_run_goes_on_where_float16_is_the_fastest(tmp_path, save_every_step):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupting(Noisy, 6, "ctrl-c")(), precision="bf16")
    assert not Run(tmp_path, {}).load()["precision"]
    run = train(tmp_path, Noisy(), precision="fp16")
    assert run.load()["step"] == STEPS


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_a_killed_process_loses_nothing_that_was_saved(tmp_path):
    killed = in_a_process("if step == 7: os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "killed")
    _, said = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, said
    assert Run(tmp_path / "killed", {}).load()["step"] == 7
    killed, whole = train(tmp_path / "killed", Noisy()), train(tmp_path / "whole", Noisy())
    assert same_weights(killed.weights(), whole.weights()) and killed.history().equals(whole.history())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_two_processes_do_not_train_in_one_folder_until_one_is_dead(tmp_path):
    # It has a child, as the workers of a loader are, which lives on when it is killed.
    first = in_a_process("if step == 3:\n"
                         "    child = os.fork() or time.sleep(600)\n"
                         "    print(child, flush=True); time.sleep(600)", tmp_path / "shared")
    child = int(first.stdout.readline())
    try:
        with pytest.raises(BlockingIOError, match=r"shared is in use: another process trains there. Wait until"):
            train(tmp_path / "shared", Noisy())
        for reader in (Run(tmp_path / "shared", {}), Run(tmp_path / "shared", {})):
            assert reader.load()["step"] == 3 and reader.history()["step"].tolist() == [0]
        first.kill()
        first.wait()
        os.kill(child, 0)  # raises where there is no such process
        again, whole = train(tmp_path / "shared", Noisy()), train(tmp_path / "whole", Noisy())
    finally:
        first.kill()
        os.kill(child, signal.SIGKILL)
    assert same_weights(again.weights(), whole.weights()) and again.history().equals(whole.history())


def test_the_folder_is_free_after_an_error(tmp_path):
    class Wrong(Noisy):
        def __call__(self, model, batch, step):
            with pytest.raises(BlockingIOError), Run(tmp_path, {}).alone():
                pass
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        train(tmp_path, Wrong())
    train(tmp_path, Noisy())


def test_a_checkpoint_of_another_network_is_refused_with_its_name(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupting(Noisy, 3, "ctrl-c")())
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint.pt holds the weights of another network: "
                       "0.weight is 4 x 3 there, 5 x 3 here; .* and 4 more. Choose the network"):
        train(tmp_path, Noisy(), hidden=5)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_finished_run_is_not_trained_again(tmp_path):
    run = train(tmp_path, Noisy())
    files = {file: file.read_bytes() for file in run.folder.iterdir()}
    assert {".lock", "checkpoint.pt", "config.json", "log.csv", "provenance.json"} == {file.name for file in files}
    train(tmp_path, must_not_train)
    assert files == {file: file.read_bytes() for file in run.folder.iterdir()}


def test_a_finished_run_keeps_only_what_others_need(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupting(Noisy, 3, "ctrl-c")())
    kept = {"step", "steps", "model", "seconds", "peak_memory_mb"}
    assert Run(tmp_path, {}).load().keys() == kept | {"optimiser", "precision"}
    assert train(tmp_path, Noisy()).load().keys() == kept


def test_a_run_that_another_process_finishes_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    before = train(tmp_path, Noisy()).weights()

    class Late(Run):
        looked = False

        def load(self, device="cpu"):
            state = super().load(device) if self.looked else None  # at first there is no checkpoint yet
            self.looked = True
            return state

    monkeypatch.setattr(noisy, "Run", Late)
    assert same_weights(train(tmp_path, must_not_train).weights(), before)


@pytest.mark.parametrize("at", ["save", "finish"])
def test_a_run_killed_at_its_end_does_not_look_finished_before_it_is(tmp_path, monkeypatch, at):
    class Killed(Run):
        def save(self, state):
            if at == "save" and state["step"] == STEPS:
                raise KeyboardInterrupt
            super().save(state)

        def finish(self, state):
            raise KeyboardInterrupt

    monkeypatch.setattr(noisy, "Run", Killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Noisy())
    assert "seconds" not in read_json(tmp_path / "provenance.json")
    monkeypatch.setattr(noisy, "Run", Run)
    train(tmp_path, Noisy() if at == "save" else must_not_train)
    facts = read_json(tmp_path / "provenance.json")
    assert facts["steps"] == STEPS and facts["seconds"] >= 0 and facts["peak_memory_mb"] > 0


def test_a_run_tells_what_made_its_earlier_parts(tmp_path, save_every_step, monkeypatch):
    for at, commit in ((3, "one"), (5, "one"), (7, "two"), (None, "three")):
        monkeypatch.setattr(loop, "provenance", lambda device, c=commit: {"date": c, "commit": c, "device": device})
        if at:
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, interrupting(Noisy, at, "ctrl-c")())
    train(tmp_path, Noisy())
    facts = read_json(tmp_path / "provenance.json")
    assert facts["commit"] == "three" and facts["steps"] == STEPS
    assert facts["earlier"] == [{"date": c, "commit": c, "device": "cpu"} for c in ("one", "two")]
    (tmp_path / "checkpoint.pt").unlink()  # starts again
    train(tmp_path, Noisy())
    assert "earlier" not in read_json(tmp_path / "provenance.json")


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


def test_a_batch_too_large_for_the_device_is_told_with_what_makes_it_smaller():
    with pytest.raises(torch.OutOfMemoryError, match=r"^finetune with 10 in a batch .* --set finetune__optim__batch=5: "
                       r".* Torch says: CUDA out of memory$"), enough_memory("finetune", OptimConfig(1, 10)):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_optimiser_that_is_not_fused_leaves_the_kernel_to_torch():
    for fused in (True, False):
        optimiser = make_optimiser(nn.Linear(1, 1), OptimConfig(1, 1), fused=fused)
        assert optimiser.defaults["fused"] == (fused or None) and optimiser.defaults["foreach"] is None


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="unknown optimiser 'lion'; choose one of adamw, adam, sgd"):
        make_optimiser(nn.Linear(1, 1), OptimConfig(1, 1, name="lion"))


def test_precision_is_32_bit_on_a_processor_unless_16_is_asked_for():
    linear = nn.Linear(4, 4)
    for precision, dtype in (("auto", torch.float32), ("32", torch.float32), ("bf16", torch.bfloat16),
                             ("fp16", torch.float16)):
        with make_fabric("cpu", precision=precision).autocast():
            assert linear(torch.ones(1, 4)).dtype == dtype
    with pytest.raises(ValueError, match="unknown precision '16'; choose one of auto, 32, bf16, fp16"):
        make_fabric("cpu", precision="16")
