"""Data sets of a few small volumes, made once per test session; and no network."""

import os
import runpy
from pathlib import Path

import pytest
from hypothesis import settings

from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings
from tests.data.layouts import write_acdc_patient, write_chd_case

# In this process, and in all that tests start.
OFFLINE = Path(__file__).parent / "offline"
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(OFFLINE), os.environ.get("PYTHONPATH"))))

# Examples are the same in every run, and a busy machine is no reason to fail.
settings.register_profile("kaf", deadline=None, derandomize=True)
settings.load_profile("kaf")


@pytest.fixture(scope="session")
def acdc_root(tmp_path_factory):
    """Four patients in the ACDC layout; patient002 has a cine file with three further frames."""
    root = tmp_path_factory.mktemp("acdc")
    for number, group in ((1, "DCM"), (2, "NOR"), (3, "DCM"), (5, "NOR")):
        write_acdc_patient(root, number, group, cine=number == 2)
    return root


@pytest.fixture(scope="session")
def chd_root(tmp_path_factory):
    """Two scans in the CHD-68 layout, one of them in a subfolder."""
    root = tmp_path_factory.mktemp("chd")
    write_chd_case(root, 1002)
    write_chd_case(root / "more", 1001)
    return root


@pytest.fixture(scope="session")
def store(acdc_root, tmp_path_factory):
    """The four patients at 1.25 mm: 11 volumes, 8 labelled."""
    out = tmp_path_factory.mktemp("stores") / "acdc"
    return prepare("acdc", acdc_root, out, StoreSettings("acdc", 1.25), workers=1, progress=False)
