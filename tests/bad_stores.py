"""Bad input, second part: disks, stores and runs."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from kaf.data import filling
from kaf.data.prepare import prepare
from kaf.data.store import VERSION, Store
from kaf.files import seal
from kaf.finetune import finetune, make_network
from kaf.networks import build_network
from kaf.predict import evaluate
from tests.bad_input import PATIENTS, SETTINGS, Action, Bad, World, as_nobody, preparing, small_disk, training
from tests.data.layouts import write_acdc_patient
from tests.tiny import tiny_experiment

GRID = {"data__detector": "grid"}
MEND = "run prepare again"


def onto(user, mode: int = 0o755):
    """The sound data set is prepared onto a disk with a fault."""

    def make(folder: Path, world: World) -> Action:
        (folder / "store").mkdir()
        os.chmod(folder / "store", mode)
        return preparing(folder, world.copy("root", folder), user=user)

    return make


def full_disk(folder: Path, world: World) -> Action:
    action = preparing(folder, world.root)

    def run() -> None:
        with patch.object(filling.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000)):
            action()

    return run


def store(edit, then=None):
    """``edit`` breaks a copy of the store; by default somebody then trains on it."""

    def make(folder: Path, world: World) -> Action:
        path = world.copy("store", folder)
        edit(path)
        return then(path, world) if then else training(folder, world, path)

    return make


def opening(path: Path, _: World) -> Action:
    return lambda: Store.open(path, SETTINGS)


def continuing(path: Path, world: World) -> Action:
    return lambda: prepare("acdc", world.root, path, SETTINGS, 1, False)


def fine_tuning(path: Path, _: World) -> Action:
    opened = Store.open(path)
    return lambda: finetune(tiny_experiment(**GRID), opened, PATIENTS, path.parent / "runs", "unet", device="cpu")


def scoring(path: Path, world: World) -> Action:
    e, opened = tiny_experiment(**GRID), Store.open(path)
    network = make_network(e, opened, "unet")
    return lambda: evaluate(network, opened, ["patient005"], e)


def manifest(**fields):
    def edit(path: Path) -> None:
        found = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(seal(found | fields)))

    return edit


def byte(name: str, place: int = -1):
    """Alter one byte of a file of the store."""

    def edit(path: Path) -> None:
        file = next(path.glob(name))
        data = bytearray(file.read_bytes())
        data[place] ^= 1
        file.write_bytes(data)

    return edit


def digit(name: str, entry: str):
    """Alter the first digit of an entry of a JSON file."""

    def edit(path: Path) -> None:
        file = next(path.glob(name))
        text = file.read_text()
        place = text.index(f'"{entry}": ') + len(entry) + 4
        file.write_text(f"{text[:place]}{9 - int(text[place])}{text[place + 1:]}")

    return edit


def extra(volume: Path) -> None:
    found = json.loads((volume / "record.json").read_text())
    (volume / "record.json").write_text(json.dumps(seal(found | {"age": 40})))


def halved(name: str):
    def edit(path: Path) -> None:
        file = next(path.glob(name))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return edit


def other_encoder(folder: Path, world: World) -> Action:
    """The encoder of a narrower network, found in the folder of the run that is asked for."""
    runs = world.copy("runs", folder)
    shutil.rmtree(next(runs.glob("finetune-*")))
    return training(folder, world, runs=swap(runs, "pretrain-*", width=4, kaf__dim=8))


def other_network(folder: Path, world: World) -> Action:
    return training(folder, world, runs=swap(world.copy("runs", folder), "finetune-*", width=4))


def swap(runs: Path, name: str, **changes) -> Path:
    """Put the weights of another network into the checkpoint of a finished run."""
    run = next(runs.glob(name))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    e = tiny_experiment(**GRID, **changes)
    network = build_network("kaf_unet", 4, e.width, e.kaf)
    torch.save({**state, "model": network.state_dict()}, run / "checkpoint.pt")
    return runs


def cut_checkpoint(folder: Path, world: World) -> Action:
    runs = world.copy("runs", folder)
    halved("finetune-*/checkpoint.pt")(runs)
    return training(folder, world, runs=runs)


def checkpoint(content):
    """Put something else into the checkpoint of a finished run."""

    def make(folder: Path, world: World) -> Action:
        runs = world.copy("runs", folder)
        torch.save(content, next(runs.glob("finetune-*")) / "checkpoint.pt")
        return training(folder, world, runs=runs)

    return make


class Stranger:
    """What another program pickles: reading it back could run code."""

    def __reduce__(self):
        return print, ("code from outside runs",)


def without_truth(folder: Path, world: World) -> Action:
    write_acdc_patient(folder / "acdc", 1, truth=False)
    path = folder / "store"
    prepared = prepare("acdc", folder / "acdc", path, SETTINGS, 1, False)
    return lambda: finetune(tiny_experiment(**GRID), prepared, ["patient001"], folder / "runs", "unet", device="cpu")


STORES = (
    # disks
    Bad("folder of the store may not be written", onto(as_nobody, 0o555), "store", "cannot write into .*Permission",
        "choose another folder, or make this one writable", PermissionError),
    Bad("disk too small for the store", full_disk, "store", "needs about .* GB, its disk has", "make room", OSError),
    Bad("disk full while writing", onto(lambda: small_disk(4000)), "patient001_frame02",
        "was not written: a file may not grow so large", "raise the limit .* run the same again", OSError),
    # stores
    Bad("store of another version", store(manifest(version=1), opening), "store", f"format version 1, not {VERSION}",
        "prepare it anew"),
    Bad("store unfinished", store(manifest(complete=False), opening), "store", "is unfinished", MEND),
    Bad("store of other settings", store(manifest(digest="0", settings={"dataset": "acdc", "spacing_mm": 2.0}),
        opening),
        "store", "made with other settings .spacing_mm 2.0, not 1.25", "choose another folder"),
    Bad("no store", store(lambda path: (path / "manifest.json").unlink(), opening), "store", "is no store",
        "kaf.data.prepare makes one", FileNotFoundError),
    Bad("one byte of an image altered", store(byte("volumes/patient001_frame02/image.npy")), "image.npy", "is damaged",
        MEND),
    Bad("one byte of keypoints altered", store(byte("volumes/patient002_frame04/keypoints.npy")), "keypoints.npy",
        "is damaged", MEND),
    Bad("one byte of labels altered", store(byte("volumes/patient002_frame02/label.npy"), fine_tuning), "label.npy",
        "is damaged", MEND),
    Bad("one byte of a truth altered", store(byte("volumes/patient005_frame04/truth.npy"), scoring), "truth.npy",
        "is damaged", MEND),
    Bad("array of a store gone", store(lambda path: (path / "volumes/patient002_frame02/label.npy").unlink()),
        "label.npy", "is damaged", MEND),
    Bad("one digit of the manifest altered", store(digit("manifest.json", "mean")), "manifest.json",
        "was altered since it was written", "delete the store and run prepare again"),
    Bad("manifest cut short", store(halved("manifest.json"), opening), "manifest.json", "is damaged", MEND),
    Bad("manifest of something else", store(lambda path: (path / "manifest.json").write_text("[1]"), opening),
        "manifest.json", "is damaged .it holds a list", MEND),
    Bad("record of a volume altered", store(digit("volumes/patient001_frame02/record.json", "std"), continuing),
        "record.json", "was altered", "delete its folder and run"),
    Bad("record of a volume without entries", store(lambda path: (path / "volumes/patient001_frame02/record.json")
        .write_text("{}"), continuing), "record.json", "is damaged .it lacks id, patient", "delete its folder and run"),
    Bad("record of a volume with an entry too many", store(lambda path: extra(path / "volumes/patient001_frame02"),
        continuing), "record.json", "is damaged .it has the unknown age", "delete its folder and run"),
    # runs
    Bad("encoder of another network", other_encoder, "checkpoint.pt", "holds the weights of another network",
        "Choose the network that it was trained with"),
    Bad("weights of another network", other_network, "checkpoint.pt", "holds the weights of another network",
        "Choose the network that it was trained with"),
    Bad("checkpoint cut short", cut_checkpoint, "checkpoint.pt", "cannot be read: with .* bytes it is cut short",
        "delete it to start this run again"),
    Bad("checkpoint of another program", checkpoint({"weights": torch.ones(1)}), "checkpoint.pt",
        "is no checkpoint of a run, it lacks model",
        "put a copy in its place"),
    Bad("checkpoint with code in it", checkpoint(Stranger()), "checkpoint.pt", "cannot be read",
        "put a copy in its place"),
    Bad("patients without labels", without_truth, "patient001", "patients without labels", "leave them out"),
)
