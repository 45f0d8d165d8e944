import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kaf.data.arrays import write_array
from kaf.files import (
    DRAFT,
    append_line,
    building,
    clear_drafts,
    exclusive,
    make_writable,
    read_json,
    replacing,
    whole_lines,
    write_csv,
    write_json,
)
from kaf.runs import Run

LARGE = 3_000_000  # bytes, more than there is room for
TABLE = pd.DataFrame({"a": np.arange(LARGE // 8)})


@contextmanager
def little_room():
    """Files of this process may not grow beyond 1 MiB: what is longer is written up to there, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(folder, content):
    with building(folder) as draft:
        write_array(draft / "x.npy", np.full(LARGE, content, np.uint8))


WRITERS = {
    "json": lambda file: write_json(file, "x" * LARGE),
    "csv": lambda file: write_csv(file, TABLE),
    "checkpoint": lambda file: Run(file.parent, {}).keep(file, {"model": torch.ones(LARGE // 4)}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_without_room_the_file_before_stays(tmp_path, name):
    Run(tmp_path, {})
    file = tmp_path / "x"
    file.write_text("good")
    before = sorted(tmp_path.iterdir())
    with little_room(), pytest.raises(OSError, match=f"{file} was not written: a file may not grow so large here; "
                                      "raise the limit .*, then run the same again; what was there before is") as error:
        WRITERS[name](file)
    assert error.value.errno == errno.EFBIG
    assert file.read_text() == "good" and sorted(tmp_path.iterdir()) == before
    WRITERS[name](file)
    assert file.stat().st_size > 2**20 and sorted(tmp_path.iterdir()) == before


def test_without_room_no_folder_appears(tmp_path):
    with little_room(), pytest.raises(OSError, match="v was not written: a file may not grow so large here"):
        fill(tmp_path / "v", 1)
    assert not list(tmp_path.iterdir())
    fill(tmp_path / "v", 1)
    assert [p.name for p in (tmp_path / "v").iterdir()] == ["x.npy"]
    with pytest.raises(OSError, match="v"):  # there already
        fill(tmp_path / "v", 2)
    assert (np.load(tmp_path / "v" / "x.npy", allow_pickle=False) == 1).all() and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_holds_something_is_not_replaced_and_one_is_told_what_to_do(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "mine").touch()
    with pytest.raises(OSError, match=f"{tmp_path / 'v'} was not written: a folder of this name holds something; move "
                                      "it away or delete it, then run the same again"):
        fill(tmp_path / "v", 1)
    assert [path.name for path in tmp_path.rglob("*")] == ["v", "mine"]


def test_without_room_a_line_is_added_whole_or_not_at_all(tmp_path):
    file = tmp_path / "log"
    file.write_text("x" * (2**20 - 7) + "\n")
    with little_room():
        append_line(file, "abc")
        with pytest.raises(OSError, match="log was not written"):
            append_line(file, "def")  # there is room for two letters
    assert file.read_bytes().endswith(b"x\nabc\n")


FULL = """
import sys, torch
from pathlib import Path
from kaf.runs import Run
run, size = Run(Path(sys.argv[1], "run"), {}), 300_000
run.save({"step": 1, "steps": 2, "model": {"a": torch.ones(size)}})
try:
    run.save({"step": 2, "steps": 2, "model": {"a": torch.zeros(size)}})
except OSError as error:
    print(error)
print(run.load()["step"], run.load()["model"]["a"].mean().item(), sorted(p.name for p in run.folder.iterdir()))
"""


def test_the_last_checkpoint_survives_a_full_disk(tmp_path):
    """On a real file system of 2 MiB, which holds one checkpoint and the better part of a second."""
    if not shutil.which("unshare"):
        pytest.skip("only Linux can mount a small file system for one process")
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=2m none "$1" || exit 77; '
               'exec "$2" -c "$3" "$1"', "sh", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this system does not allow it: {done.stderr}")
    said, left = done.stdout.splitlines()
    assert said.startswith(f"[Errno {errno.ENOSPC}] {tmp_path}/run/checkpoint.pt was not written: the disk is full; "
                           "make room, then run the same again")
    assert left == "1 1.0 ['.lock', 'checkpoint.pt', 'config.json']"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"x.json was not written: you may not write there; choose another"):
        write_json(tmp_path / "x.json", {})
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="only there")
def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_ino) or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append("name") or replace(a, b))
    run = Run(tmp_path / "run", {})
    run.log({"step": 0})
    events.clear()
    run.save({"step": 1})
    log, file, folder = (path.stat().st_ino for path in (run.folder / "log.csv", run.checkpoint, run.folder))
    assert events == [log, file, "name", folder]
    events.clear()
    with building(tmp_path / "v") as draft:
        (draft / "x").write_text("content")
    content, folder, parent = (path.stat().st_ino for path in (tmp_path / "v" / "x", tmp_path / "v", tmp_path))
    assert events == [content, folder, "name", parent]


def test_an_error_of_ones_own_stays_as_it_is(tmp_path):
    (tmp_path / "x").write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="^mine$"), replacing(tmp_path / "x"):
        raise RuntimeError("mine")
    assert (tmp_path / "x").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_json_is_written_at_once_or_not_at_all(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1} and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.json is damaged .*; put a copy in its place, or delete the folder"):
        read_json(tmp_path / "x.json")


def test_a_table_is_read_as_it_was_written(tmp_path):
    write_csv(tmp_path / "x.csv", TABLE.head())
    assert pd.read_csv(tmp_path / "x.csv").equals(TABLE.head())


def test_arrays_are_what_numpy_writes(tmp_path):
    for array in (np.arange(6).reshape(2, 3), np.zeros(2, [("xy", "f4", 2), ("d", "u1", 3)]), np.zeros((0, 4))):
        np.save(tmp_path / "a.npy", array)
        write_array(tmp_path / "b.npy", array)
        assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "c.npy", np.array([{}]))


def test_a_line_without_its_end_does_not_count(tmp_path):
    append_line(tmp_path / "x", "a,b")
    append_line(tmp_path / "x", "1,2")
    assert whole_lines(tmp_path / "x") == ["a,b", "1,2"]
    with (tmp_path / "x").open("a") as out:
        out.write("3,4")  # of "3,45"
    assert whole_lines(tmp_path / "x") == ["a,b", "1,2"]


def test_what_killed_processes_left_is_removed_by_the_next_one(tmp_path):
    (tmp_path / f"{DRAFT}1-x").write_text("half")
    (tmp_path / f"{DRAFT}2-v").mkdir()
    (tmp_path / ".mine").write_text("whole")
    with exclusive(tmp_path), pytest.raises(BlockingIOError, match="^no$"), exclusive(tmp_path, "no"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".mine"]
    clear_drafts(tmp_path / "nowhere")
    with exclusive(tmp_path, "no"):  # free again
        pass


def test_drafts_are_hidden_and_keep_their_suffixes(tmp_path):
    with replacing(tmp_path / "labels.nii.gz") as draft:
        draft.write_bytes(b"")
        assert draft.name.startswith(".") and draft.name.endswith("labels.nii.gz") and draft.parent == tmp_path
    assert json.dumps([p.name for p in tmp_path.iterdir()]) == '["labels.nii.gz"]'


def test_a_file_is_no_folder_to_write_into(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError, match="taken is a file; give a folder"):
        make_writable(tmp_path / "taken")
