"""The line about the machine, with and without a GPU."""

from types import SimpleNamespace

import pytest
import torch

from kaf.machine import FULL_GB, describe_machine


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_without_a_gpu_the_small_scale_fits():
    line = describe_machine()
    assert f"torch {torch.__version__}; GPU: none, " in line and line.endswith("scale 'smoke' fits")


@pytest.mark.parametrize(("gigabytes", "scale"), [(8.0, "laptop"), (FULL_GB, "full"), (80.0, "full")])
def test_a_gpu_is_named_and_its_memory_decides(monkeypatch, gigabytes, scale):
    found = SimpleNamespace(name="Some GPU", total_memory=int(gigabytes * 1e9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    assert describe_machine().endswith(f"; GPU: Some GPU, {gigabytes:.0f} GB; scale {scale!r} fits")


def test_a_gpu_that_is_taken_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    line = describe_machine()
    assert "; GPU: Apple, untested, " in line and line.endswith(" processor cores; scale 'smoke' fits")
