"""Bad input, second half: disks, stores, runs, names, numbers and commands."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from kaf import segment
from kaf.config import refuse_unknown, resolve
from kaf.data import filling
from kaf.data.prepare import prepare
from kaf.data.splits import kfold
from kaf.data.store import Store, StoreSettings
from kaf.files import seal
from kaf.finetune import finetune
from kaf.networks import build_network
from kaf.study import Study, open_study, parse_labelled, parse_methods
from tests.bad_input import SETTINGS, Action, Bad, World, as_nobody, preparing, small_disk, training
from tests.data.layouts import write_acdc_patient
from tests.tiny import tiny_experiment

GRID = {"data__detector": "grid"}


def doing(function, *words, **options):
    """A call that needs nothing prepared."""
    return lambda folder, world: lambda: function(*words, **options)


def changing(**changes):
    return doing(resolve, "smoke", **changes)


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
    import torch

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


def few_shot(m: int):
    def make(folder: Path, world: World) -> Action:
        opened = Store.open(world.store)
        split = kfold(opened.patients, 5)[0]
        study = Study(tiny_experiment(**GRID), opened, split, 0, folder / "runs", "cpu")
        return lambda: study.few_shot("kaf_pretrained", m)

    return make


def study_of(patients: int):
    def make(folder: Path, world: World) -> Action:
        for number in range(1, patients + 1):
            write_acdc_patient(folder / "acdc", number)
        return lambda: open_study(tiny_experiment(**GRID), folder / "acdc", folder / "home", device="cpu")

    return make


def read_only_home(folder: Path, world: World) -> Action:
    (folder / "home").mkdir(mode=0o555)

    def action() -> None:
        with as_nobody():
            open_study(resolve("smoke"), output=folder / "home", device="cpu")

    return action


def without_truth(folder: Path, world: World) -> Action:
    write_acdc_patient(folder / "acdc", 1, truth=False)
    path = folder / "store"
    prepared = prepare("acdc", folder / "acdc", path, SETTINGS, 1, False)
    return lambda: finetune(tiny_experiment(**GRID), prepared, ["patient001"], folder / "runs", "unet", device="cpu")


def segmenting(image: str = "patient001/patient001_frame02.nii.gz", out: str = "labels.nii.gz", run: str = "finetune",
               before=lambda folder, world: None, user=None, frame: int | None = None):
    """Somebody runs the command; the network may be loaded only where nothing is wrong with the files."""

    def make(folder: Path, world: World) -> Action:
        write_acdc_patient(folder / "cine", 9, cine=True)
        before(folder, world)
        place = folder / image if image.startswith("cine") else world.root / image
        runs = folder / "runs" if (folder / "runs").is_dir() else world.runs
        words = [next(runs.glob(f"{run}-*"), runs), place, folder / out, "--device", "cpu"]
        words += ["--frame", frame] if frame is not None else []

        def action() -> None:
            with patch.object(segment.argparse.ArgumentParser, "error", raise_it), (user or no_user)():
                segment.main(list(map(str, words)))

        return action

    return make


def no_user():
    return patch.dict(os.environ)


def raise_it(_, message: str) -> None:
    raise SystemExit(message)


def read_only(folder: Path, world: World) -> None:
    (folder / "out").mkdir(mode=0o555)


def half_a_config(folder: Path, world: World) -> None:
    halved("finetune-*/config.json")(world.copy("runs", folder))


CHOOSE = "choose one of "
MEND = "run prepare again"

USE = (
    # disks
    Bad("folder of the store may not be written", onto(as_nobody, 0o555), "store", "cannot write into .*Permission",
        "choose another folder, or make this one writable", PermissionError),
    Bad("disk too small for the store", full_disk, "store", "needs about .* GB, its disk has", "make room", OSError),
    Bad("disk full while writing", onto(lambda: small_disk(4000)), "store", "cannot write patient001_frame02 into",
        "make room there.*it continues", OSError),
    Bad("folder of a study may not be written", read_only_home, "home", "cannot write into", "choose another",
        PermissionError),
    # stores
    Bad("store of another version", store(manifest(version=1), opening), "store", "format version 1, not 2",
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
    Bad("array of a store gone", store(lambda path: (path / "volumes/patient002_frame02/label.npy").unlink()),
        "label.npy", "is damaged", MEND),
    Bad("one digit of the manifest altered", store(digit("manifest.json", "mean")), "manifest.json",
        "was altered since it was written", "delete the store and run prepare again"),
    Bad("manifest cut short", store(halved("manifest.json"), opening), "manifest.json", "is damaged", MEND),
    Bad("manifest of something else", store(lambda path: (path / "manifest.json").write_text("[1]"), opening),
        "manifest.json", "is damaged .it holds a list", MEND),
    Bad("record of a volume altered", store(digit("volumes/patient001_frame02/record.json", "std"), continuing),
        "record.json", "was altered", "delete its folder and run"),
    # runs
    Bad("encoder of another network", other_encoder, "pretrain-kaf_unet", "do not fit this network",
        "configuration of"),
    Bad("weights of another network", other_network, "finetune-kaf_pretrained", "do not fit this network", "build it"),
    Bad("checkpoint cut short", cut_checkpoint, "checkpoint.pt", "cannot be read", "delete it"),
    Bad("patients without labels", without_truth, "patient001", "patients without labels", "leave them out"),
    # numbers of patients and folds
    Bad("M larger than the fold", few_shot(50), "50", "cannot draw 50 of 4 patients", "M is 1 to 4 on this fold"),
    Bad("M of zero", few_shot(0), "0", "cannot draw 0 of 4", "M is 1 to 4"),
    Bad("M of zero in a notebook", doing(parse_labelled, "2, 0", "smoke"), "2, 0", "labelled is a list of numbers",
        "such as '2, 8'"),
    Bad("M as a word", doing(parse_labelled, "two", "smoke"), "two", "labelled is a list of numbers", "such as '2, 8'"),
    Bad("fold out of range", doing(open_study, resolve("smoke"), fold=5), "5", "fold is 0 to 4, got 5", "0 to 4"),
    Bad("fewer patients than folds", study_of(3), "3", "3 patients cannot be split into 5 folds",
        "choose 2 to 3 folds"),
    Bad("real data without a folder", doing(open_study, resolve("smoke", "acdc")), "acdc", "needs data_root",
        "the folder you downloaded"),
    # names and parameters
    Bad("unknown scale", doing(resolve, "ful"), "ful", "unknown scale", "smoke, laptop, full; did you mean 'full'"),
    Bad("unknown data set", doing(resolve, "smoke", "acdcc"), "acdcc", "unknown dataset", "did you mean 'acdc'"),
    Bad("unknown recipe", doing(resolve, "smoke", "acdc", "papers"), "papers", "unknown recipe",
        "did you mean 'paper'"),
    Bad("unknown network", doing(build_network, "kafunet", 4, 8), "kafunet", "unknown network", f"{CHOOSE}unet"),
    Bad("unknown method", doing(parse_methods, "unet, vnet"), "vnet", "unknown method", f"{CHOOSE}unet"),
    Bad("unknown detector", changing(data__detector="surf"), "surf", "unknown detector", f"{CHOOSE}sift"),
    Bad("unknown detector of a store", doing(StoreSettings, "acdc", detector="surf"), "surf", "unknown detector",
        CHOOSE),
    Bad("unknown mixer", changing(kaf__mixer="transfromer"), "transfromer", "unknown mixer",
        "did you mean 'transformer'"),
    Bad("unknown optimiser", changing(pretrain__optim__name="lion"), "lion", "unknown optimiser", f"{CHOOSE}adamw"),
    Bad("unknown loss", changing(finetune__loss="focal"), "focal", "unknown loss", f"{CHOOSE}dice_ce, ce"),
    Bad("unknown field", changing(pretrain__optm__lr=1), "optm", "has no field 'optm'", "did you mean 'optim'"),
    Bad("unknown parameter of a notebook", doing(refuse_unknown, {"datset": "acdc"}, ["dataset"]), "datset",
        "unknown parameter", "did you mean 'dataset'"),
    Bad("size that cannot be halved four times", changing(data__size=100), "size", "has size = 100", "multiple of 16"),
    Bad("word for a number", changing(finetune__optim__lr="fast"), "lr", "has lr = 'fast'", "must be a number"),
    Bad("number of no sense", changing(pretrain__temperature=0.0), "temperature", "temperature = 0.0", "positive"),
    Bad("KAF level that there is not", changing(kaf__levels=(4,)), "4", "KAF levels", "among 0..3"),
    # the command that segments
    Bad("image that is not there", segmenting("gone.nii.gz"), "gone.nii.gz", "there is no file", "give", SystemExit),
    Bad("cine file without a frame", segmenting("cine/patient009/patient009_4d.nii.gz"), "patient009_4d.nii.gz",
        "has 4 axes, expected 3", "one frame must be chosen", SystemExit),
    Bad("frame that there is not", segmenting("cine/patient009/patient009_4d.nii.gz", frame=99), "patient009_4d.nii.gz",
        "has the frames 0 to 4, not 99", "choose one of these", SystemExit),
    Bad("name that is not NIfTI's", segmenting(out="labels.mha"), "labels.mha", "must end in .nii.gz", "or .nii",
        SystemExit),
    Bad("labels that are there already", segmenting(before=lambda folder,
        _: (folder / "labels.nii.gz").write_text("mine")),
        "labels.nii.gz", "exists", "choose another name, or pass --overwrite", SystemExit),
    Bad("folder for the labels missing", segmenting(out="no/labels.nii.gz"), "no", "there is no folder",
        "make it first",
        SystemExit),
    Bad("folder for the labels may not be written", segmenting(out="out/labels.nii.gz", before=read_only,
        user=as_nobody),
        "out", "cannot write into", "choose another folder", SystemExit),
    Bad("folder that is no run", segmenting(run="nothing"), "runs", "is no run folder", "kaf.finetune makes one",
        SystemExit),
    Bad("run of pretraining", segmenting(run="pretrain"), "pretrain-", "segments nothing", "give one of fine-tuning",
        SystemExit),
    Bad("configuration of a run cut short", segmenting(before=half_a_config), "config.json", "is damaged",
        "copy the run folder again", SystemExit),
)
