"""The command that measures how far numbers move with the seed; the training is left out."""

import importlib.util
import json
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from kaf.files import exclusive


@pytest.fixture
def spread():
    spec = importlib.util.spec_from_file_location("spread", Path(__file__).parents[2] / "book" / "spread.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_files_are_written_while_nobody_else_records(spread, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "FOLDER", tmp_path)
    monkeypatch.setattr(spread, "numbers", lambda seed: {"loss": seed / 3})
    monkeypatch.setattr(spread, "provenance", lambda: {"date": "2026-01-02"})
    monkeypatch.setattr(sys, "argv", ["spread.py", "2"])
    command = threading.Thread(target=spread.main)
    with exclusive(tmp_path):
        command.start()
        command.join(0.5)
        waits = command.is_alive() and not (tmp_path / "spread.csv").exists()
    command.join()
    assert waits and pd.read_csv(tmp_path / "spread.csv")["value"].tolist() == [0.0, 0.33333]
    assert json.loads((tmp_path / "spread.json").read_text())["seeds"] == [0, 1]
