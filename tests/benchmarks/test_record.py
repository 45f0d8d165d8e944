import json
import platform
import threading

import pytest

from benchmarks import record
from kaf.files import LOCK, exclusive


def test_a_target_is_met_missed_or_open():
    assert record.row("a", 3.0, "s", ratio=1.5, target="<= 1.5")["status"] == "met"
    assert record.row("a", 1.0, "s", ratio=1.51, target="<= 1.5")["status"] == "not met"
    assert record.row("a", 49.0, "1/s", target=">= 50")["status"] == "not met"
    assert record.row("a", None, "s", target="<= 1.5")["status"] == "open"
    assert record.row("a", 2.0, "s")["status"] == ""
    with pytest.raises(ValueError, match="a target is '<= NUMBER'"):
        record.row("a", 2.0, "s", target="below 3")


def test_a_benchmark_replaces_only_its_own_rows(tmp_path):
    file = tmp_path / "deep" / "cost.json"
    record.record("one", [record.row("a", 1.0, "s")], file, size=32)
    record.record("two", [record.row("b", 2.0, "s", points=64)], file)
    record.record("one", [record.row("c", 1 / 3, "s")], file)
    found = record.read(file)
    assert list(found) == ["one", "two"]
    assert [r["what"] for r in found["one"]["rows"]] == ["c"] and found["one"]["rows"][0]["value"] == 0.3333
    assert found["two"]["rows"][0]["points"] == 64 and {f.name for f in file.parent.iterdir()} == {LOCK, file.name}


def test_a_benchmark_waits_for_whoever_else_records_there(tmp_path):
    file = tmp_path / "cost.json"
    one = threading.Thread(target=record.record, args=["one", [record.row("a", 1.0, "s")], file])
    with exclusive(tmp_path):
        one.start()
        one.join(0.3)
        waits = one.is_alive() and not file.exists()
    one.join()
    assert waits and list(record.read(file)) == ["one"]


def test_a_row_without_a_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lacks unit, ratio, target, status"):
        record.record("one", [{"what": "a", "value": 1.0}], tmp_path / "cost.json")


def test_the_machine_is_described_without_its_name(tmp_path):
    found = record.machine()
    assert found["cpu"] and found["cores"] >= 1 and found["threads"] >= 1 and found["torch"]
    assert platform.node() not in json.dumps(found).split('"')


def test_a_table_shows_what_was_measured(capsys):
    record.show([record.row("step", 1.5, "s", ratio=1.2, target="<= 1.25"), record.row("gpu", None, "s")])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["value", "unit", "ratio", "target", "status"]
    assert first.split() == ["step", "1.5", "s", "1.2", "<=", "1.25", "met"] and second.split()[-1] == "open"
