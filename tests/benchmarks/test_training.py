"""The training benchmarks run at tiny sizes. What they measure depends on the machine and is not tested."""

import json
import time

import pytest
import torch
from torch import nn

from benchmarks import growth, record, step_cost
from benchmarks.workload import NETWORKS, Step, Workload, interleaved, peak_memory_of, step_memory

TINY = Workload(size=64, batch=2, width=2, points=8)  # SwinUNETR needs more than 32
OPTIONS = ["--size", "64", "--batch", "2", "--width", "2", "--points", "8", "--rounds", "1"]


@pytest.fixture
def cost_file(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FILE", tmp_path / "cost.json")
    return tmp_path / "cost.json"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_changes_the_weights(name):
    step = Step(name, TINY)
    before = [p.detach().clone() for p in step.model.parameters()]
    step()
    assert any(not torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))


def test_networks_take_turns():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_time_of_the_processor_does_not_count_waiting():
    seconds = interleaved({"waits": lambda: time.sleep(0.05)}, 1, time.process_time)
    assert seconds["waits"][0] < 0.04 < interleaved({"waits": lambda: time.sleep(0.05)}, 1)["waits"][0]


def test_memory_is_that_of_a_process_of_its_own():
    small, large = (peak_memory_of(f"x = torch.ones({mb} * 2**18)") for mb in (1, 65))
    assert large - small == pytest.approx(64, abs=8)  # whatever this process holds
    with pytest.raises(RuntimeError, match="no_such_name"):
        peak_memory_of("no_such_name")


def test_step_cost_prints_and_records_every_group(cost_file, capsys, monkeypatch):
    monkeypatch.setattr(step_cost, "step_memory", lambda name, work, **_: 100.0 + len(name))
    monkeypatch.setattr(step_cost, "peak_memory_of", lambda *_: 100.0)
    step_cost.main([*OPTIONS, "--record"])
    found = json.loads(cost_file.read_text())
    assert list(found) == [f"training step, {name}" for name in ("alternatives", "light", "matched", "sparse")]
    matched = {row["what"]: row for row in found["training step, matched"]["rows"]}
    assert matched["training step, KAF paper / wide UNet"]["target"] == "<= 1.5"
    assert matched["peak memory, KAF paper / wide UNet"]["ratio"] == pytest.approx(1.0, abs=0.01)
    assert found["training step, sparse"]["rows"][-1]["status"] == "met"  # equal results at any size
    assert "KAF light / UNet" in capsys.readouterr().out


def test_step_memory_runs_the_network():
    assert step_memory("KAF light", TINY, steps=1, threads=1) > 50


def test_the_two_convolutions_have_equal_gradients():
    both = [step_cost.Diffusion(how, TINY) for how in ("sparse", "dense")]
    for one in both:
        one()
    torch.testing.assert_close(both[0].tokens.grad, both[1].tokens.grad)
    torch.testing.assert_close(both[0].conv.weight.grad, both[1].conv.weight.grad)


def test_growth_prints_and_records_its_curves(cost_file):
    growth.main([*OPTIONS, "--upto", "64", "--what", "points", "--what", "size", "--record"])
    growth.main([*OPTIONS, "--upto", "256", "--what", "attention", "--record"])
    found = json.loads(cost_file.read_text())
    assert [row["points"] for row in found["growth, points"]["rows"]] == [64, 64]
    assert {row["network"] for row in found["growth, size"]["rows"]} == {"UNet", "wide UNet", "KAF default"}
    assert "exponent of the memory of attention in K" in {row["what"] for row in found["growth, attention"]["rows"]}


def test_peak_of_allocations_is_exact():
    def work():
        a = torch.empty(1000)
        b = torch.empty(3000)
        del a
        c = torch.empty(500)
        return b, c

    assert growth.allocated_peak(work) == pytest.approx(4 * 4000, abs=256)  # rounded up to lines of the cache


def test_exponent_of_a_power_law():
    assert growth.exponent([1, 2, 4, 8], [3 * x**1.5 for x in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_attention_takes_memory_linear_in_the_points():
    # Below 768 points torch works in smaller blocks, each with a buffer of its own size.
    quarter, half, whole = (growth.attention_peak(k, dim=32, batch=1) for k in (1024, 2048, 4096))
    assert (whole - half) / (half - quarter) == pytest.approx(2, rel=0.1)  # 4 for a matrix


def test_networks_of_the_table_are_those_of_the_library():
    assert all(isinstance(Step(name, TINY).model, nn.Module) for name in NETWORKS)
    assert {row[0] for group in step_cost.GROUPS.values() for row in group} == set(NETWORKS)
