"""Benchmarks of changes, of the roofline and of a whole pretraining: what they count, at tiny sizes."""

import argparse
import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import changes, record, roofline, whole_pretraining
from benchmarks.workload import Workload, random_keypoints
from kaf.mixers import Attention

TINY = Workload(size=32, batch=2, width=2, points=8)
OPTIONS = ["--batch", "2", "--width", "2", "--points", "8", "--rounds", "1"]


@pytest.fixture
def cost_file(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FILE", tmp_path / "cost.json")
    return tmp_path / "cost.json"


@pytest.mark.parametrize("name", ["sparse", "attention", "layout", "optimiser", "waiting"])
def test_a_change_for_speed_changes_no_result(name):
    both = []
    for on in (True, False):
        step = changes.CHANGES[name].build(TINY, on)
        both.append([float(step()) for _ in range(3)])
    assert both[0] == pytest.approx(both[1], rel=1e-4)
    assert both[0][0] != both[0][2]  # it trains


def test_attention_by_way_of_its_matrix():
    torch.manual_seed(0)
    attention, tokens = Attention(8, 2), torch.randn(2, 5, 8)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.testing.assert_close(changes.matrix_attention(attention, tokens, tokens, valid),
                               attention(tokens, tokens, valid))


def test_changes_are_recorded_with_what_was_predicted(cost_file):
    changes.main([*OPTIONS, "--size", "32", "--only", "augmentation", "--only", "sparse", "--record"])
    rows = json.loads(cost_file.read_text())["changes, cpu"]["rows"]
    assert [row["what"] for row in rows] == [changes.CHANGES[n].what for n in ("augmentation", "sparse")]
    assert rows[1]["predicted"] == changes.CHANGES["sparse"].cpu and rows[1]["ratio"] > 0


def test_a_compiler_that_is_missing_leaves_its_row_open(monkeypatch):
    def fail(work, on):
        raise RuntimeError("no compiler")

    change = changes.Change("torch.compile", fail, 1.0, 1.0, "")
    with pytest.raises(RuntimeError, match="no compiler"):
        changes.change_row(change, TINY, 1)
    monkeypatch.setattr(changes, "compiled", fail)
    row = changes.change_row(change, TINY, 1)
    assert row["status"] == record.OPEN and row["error"] == "RuntimeError"


def test_traffic_counts_what_is_read_and_written_and_no_views():
    a = torch.ones(1000)
    with roofline.Traffic() as traffic:
        a.view(10, 100).transpose(0, 1)
        b = a + a
    assert traffic.bytes == 3 * 4000 and len(b) == 1000


def test_operations_of_a_step():
    one, four = (roofline.operations("UNet", Workload(size=32, batch=n, width=2)) for n in (1, 4))
    assert four == 4 * one
    assert roofline.operations("wide UNet", TINY) > 3 * roofline.operations("UNet", TINY)
    dense = torch.nn.Conv2d(1, 2, 3, padding=1)  # the first convolution alone, by hand
    assert one > 3 * 2 * dense.weight.numel() * 32**2


def test_ceilings_bound_the_step(cost_file):
    roofline.main([*OPTIONS, "--sizes", "32", "48", "--record"])
    rows = json.loads(cost_file.read_text())["roofline, cpu"]["rows"]
    shares = [row["value"] for row in rows if row["quantity"] == "share of the peak"]
    assert len(shares) == 6 and all(0 < share < 1 for share in shares)
    assert {row["size"] for row in rows if "size" in row} == {32, 48}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_its_rows_stay_open(cost_file):
    roofline.main(["--device", "cuda", "--sizes", "224", "--record"])
    whole_pretraining.main(["--record"])
    found = json.loads(cost_file.read_text())
    rows = found["roofline, cuda"]["rows"] + found["whole pretraining, cuda"]["rows"]
    assert rows and all(row["value"] is None and row["status"] == record.OPEN for row in rows)
    assert [row["target"] for row in rows if row["target"]] == ["<= 1.25", "<= 10"]


def test_a_whole_pretraining_is_extrapolated_from_its_first_steps(cost_file):
    whole_pretraining.main(["--device", "cpu", "--patients", "2", "--epochs", "3", "--width", "2", "--size", "32",
                            "--batch", "4", "--workers", "0", "--steps", "2", "--record"])
    row = json.loads(cost_file.read_text())["whole pretraining, cpu"]["rows"][0]
    assert row["steps_taken"] == 2 and row["steps"] > 2 and row["step_s"] > 0
    assert row["value"] == pytest.approx((row["start_s"] + row["step_s"] * row["steps"]) / 60, rel=1e-3)


def test_a_slow_start_is_not_multiplied(tmp_path, monkeypatch):
    clock = iter([0.0, 100.0, 102.0, 103.0])  # a start of 100 s, then 20 steps of .1 s, and the last one
    monkeypatch.setattr(whole_pretraining.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(whole_pretraining, "WARM", 5)
    monkeypatch.setattr(whole_pretraining.PretrainLoss, "__call__", lambda *_: None)

    def pretrain(experiment, *_, **__):
        loss = whole_pretraining.pretraining.PretrainLoss(experiment.pretrain, 0)
        for step in range(experiment.pretrain.optim.steps):
            loss(None, None, step)

    monkeypatch.setattr(whole_pretraining.pretraining, "pretrain", pretrain)
    monkeypatch.setattr(whole_pretraining, "prepare", lambda *_, **__: FakeStore())
    options = argparse.Namespace(root=tmp_path, patients=1, epochs=10, width=2, size=32, batch=10, steps=26,
                                 device="cpu", workers=0)
    minutes, more = whole_pretraining.minutes(options, tmp_path)
    assert more == pytest.approx({"steps": 1000, "steps_taken": 26, "start_s": 100.4, "step_s": 0.1})
    assert minutes == pytest.approx(200.4 / 60)


class FakeStore:
    """A thousand slices of one patient."""

    volumes = (SimpleNamespace(patient="patient001", shape=(1000, 9, 9)),)

    def select(self, patients):
        return [0]


def test_keypoints_are_made_on_any_device():
    assert random_keypoints(Workload(size=32, batch=1, points=4, device="meta")).xy.is_meta
