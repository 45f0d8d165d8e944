"""What a process that was started takes, and that of one started before does not count."""

import subprocess
import sys

import pytest

from book.meter import Meter

WORK = "import time; x = bytearray(200_000_000); t = time.process_time()\nwhile time.process_time() - t < 0.8: pass"


def test_time_and_memory_of_a_child_and_of_its_child():
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}])"
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", inner], check=True)
    assert meter.seconds == pytest.approx(0.8, abs=0.6) and meter.seconds > 0.5
    assert 0.2 < meter.gigabytes < 0.3


def test_others_do_not_count():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with Meter() as meter:
            subprocess.run([sys.executable, "-c", ""], check=True)
        other.communicate(b"\n")
    assert meter.gigabytes < 0.1
