import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from kaf import segment
from kaf.data import prepare as preparation
from kaf.data.check import check_dataset
from tests.bad_data import DATA
from tests.bad_input import World, accessible_folder, message_of
from tests.bad_stores import STORES
from tests.bad_use import USE

VALUES = ("is damaged", "holds NaN", "everywhere", "holds the")  # only voxels tell, the rest comes from headers
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions, links and limits are those of POSIX")


@pytest.fixture(scope="module")
def world():
    with accessible_folder() as folder:
        yield World.make(folder)


def test_the_cases_are_many_and_distinct():
    names = [bad.name for bad in (*DATA, *STORES, *USE)]
    assert len(names) == len(set(names)) >= 40


@pytest.mark.parametrize("bad", [*DATA, *STORES, *USE], ids=lambda bad: bad.name.replace(" ", "-"))
def test_the_message_names_the_file_what_is_wrong_and_what_to_do(bad, world, capfd):
    error, message = message_of(bad, world)
    assert not capfd.readouterr().err, "one message is enough"
    assert isinstance(error, bad.error), f"{type(error).__name__}: {message}"
    assert bad.file in message
    assert re.search(bad.what, message) and re.search(bad.remedy, message), message
    assert "Traceback" not in message and len(message) < 700


@pytest.mark.parametrize("bad", DATA, ids=lambda bad: bad.name.replace(" ", "-"))
def test_bad_files_are_found_before_the_work_and_by_the_report(bad, world):
    """Where headers tell, no volume is prepared and no store begun; where only voxels do, no volume is made of them."""
    real = preparation.prepare_volume
    with accessible_folder() as folder, patch.object(preparation, "prepare_volume", side_effect=real) as work:
        action = bad.make(folder, world)
        with pytest.raises((OSError, ValueError)) as got:
            action()
        if any(word in bad.what for word in VALUES):
            assert work.call_count <= 2, "the volumes of the sound patient come first"
            assert {p.name[:10] for p in (folder / "store" / "volumes").glob("*")} <= {"patient001", "ct_1"}
        else:
            assert not work.called and not (folder / "store").exists()
        closure = dict(zip(action.__code__.co_freevars, (cell.cell_contents for cell in action.__closure__)))
        with closure["user"]():
            findings = check_dataset(closure["dataset"], closure["root"], progress=False)
        assert str(got.value) in [str(problem) for problem in findings.errors]


def test_the_command_finds_bad_files_before_it_loads_a_network(world):
    cases = [bad for bad in USE if bad.error is SystemExit and "run" not in bad.name]
    assert len(cases) >= 6
    with patch.object(segment.Segmenter, "load", side_effect=AssertionError("a network was loaded")):
        for bad in cases:
            assert re.search(bad.what, message_of(bad, world)[1]), bad.name


@pytest.mark.slow
def test_the_table_can_be_printed():
    done = subprocess.run([sys.executable, "-m", "tests.bad_input"], cwd=Path(__file__).parents[1], capture_output=True,
                          text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == len(DATA) + len(STORES) + len(USE) + 1
