"""What people bring, and what they are told: a table of bad input, each with the error that it must give.

``python -m tests.bad_input`` prints the table with the messages; ``tests/test_bad_input.py`` checks it.
"""

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from kaf import finetune, pretrain
from kaf.data.prepare import prepare
from kaf.data.store import Store, StoreSettings
from tests.data.layouts import write_acdc_patient
from tests.tiny import must_not_train, tiny_experiment

SETTINGS = StoreSettings("acdc", 1.25, detector="grid")
PATIENTS = ("patient001", "patient002")


@dataclass(frozen=True)
class World:
    """Sound things to break copies of: a data set, its store, a pretraining run and a fine-tuning run."""

    root: Path
    store: Path
    runs: Path

    @classmethod
    def make(cls, folder: Path) -> "World":
        for number in range(1, 6):
            write_acdc_patient(folder / "acdc", number)
        store = prepare("acdc", folder / "acdc", folder / "store", SETTINGS, 1, False)
        e = tiny_experiment(data__detector="grid")
        before = pretrain.pretrain(e, store, PATIENTS, folder / "runs", device="cpu")
        finetune.finetune(e, store, PATIENTS, folder / "runs", "kaf_pretrained", before, device="cpu")
        return cls(folder / "acdc", store.path, folder / "runs")

    def copy(self, what: str, folder: Path) -> Path:
        """A copy of ``root``, ``store`` or ``runs`` that may be broken."""
        return Path(shutil.copytree(getattr(self, what), folder / what))

    def run(self, kind: str) -> Path:
        """The folder of a run, by the beginning of its name."""
        return next(self.runs.glob(f"{kind}-*"))


Action = Callable[[], object]


@dataclass(frozen=True)
class Bad:
    """One way in which things are wrong."""

    name: str
    make: Callable[[Path, World], Action]  # breaks something in an empty folder; what a person does then
    file: str  # the message names it
    what: str  # a pattern: what is wrong
    remedy: str  # a pattern: what to do
    error: type[Exception] = ValueError


def message_of(bad: Bad, world: World) -> tuple[Exception, str]:
    """The error of a case and its message, without the folder; no training may begin before it."""
    with accessible_folder() as folder:
        action = bad.make(folder, world)
        try:
            with no_training():
                action()
        except (Exception, SystemExit) as error:
            return error, str(error).replace(str(folder), "FOLDER").replace(str(world.root.parent), "FOLDER")
    raise AssertionError(f"{bad.name}: nobody complained")


@contextlib.contextmanager
def accessible_folder() -> Iterator[Path]:
    """An empty folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="bad ") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextlib.contextmanager
def no_training() -> Iterator[None]:
    with (patch.object(pretrain, "PretrainLoss", lambda *_: must_not_train),
          patch.object(finetune, "SegmentationLoss", lambda *_: must_not_train)):
        yield


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, to whom permissions mean nothing."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def small_disk(largest: int) -> Iterator[None]:
    """No file may grow beyond ``largest`` bytes: a write fails in its middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def preparing(folder: Path, root: Path, dataset: str = "acdc", user=contextlib.nullcontext) -> Action:
    """Somebody prepares ``root`` into ``folder/store``."""
    settings = StoreSettings(dataset, 1.25 if dataset == "acdc" else None, detector="grid")

    def action() -> None:
        with user():
            prepare(dataset, root, folder / "store", settings, 1, False)

    return action


def training(folder: Path, world: World, store: Path | None = None, runs: Path | None = None, **changes) -> Action:
    """Somebody pretrains on a store, then fine-tunes."""
    e = tiny_experiment(data__detector="grid", **changes)
    runs = runs or folder / "runs"

    def action() -> None:
        opened = Store.open(store or world.store)
        before = pretrain.pretrain(e, opened, PATIENTS, runs, device="cpu")
        run = finetune.finetune(e, opened, PATIENTS, runs, "kaf_pretrained", before, device="cpu")
        finetune.load_network(run, e, opened, "kaf_pretrained")

    return action


def main() -> None:
    """Print the table."""
    from tests.bad_data import DATA
    from tests.bad_stores import STORES
    from tests.bad_use import USE

    print("| Case | Error | Message |\n|---|---|---|")
    with accessible_folder() as folder:
        world = World.make(folder)
        for bad in (*DATA, *STORES, *USE):
            error, message = message_of(bad, world)
            cells = (bad.name, type(error).__name__, " ".join(message.split()).replace("|", "\\|"))
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()


