"""Bad input, third part: names, numbers and commands."""

import os
from pathlib import Path
from unittest.mock import patch

from kaf import segment
from kaf.config import refuse_unknown, resolve
from kaf.data.phantom import write_phantom
from kaf.data.splits import kfold
from kaf.data.store import Store, StoreSettings
from kaf.finetune import parse_methods
from kaf.loop import make_fabric
from kaf.networks import build_network
from kaf.protocols import parse_labelled
from kaf.study import Study, open_study
from tests.bad_input import Action, Bad, World, as_nobody
from tests.bad_stores import GRID, halved
from tests.data.layouts import write_acdc_patient
from tests.tiny import tiny_experiment


def doing(function, *words, **options):
    """A call that needs nothing prepared."""
    return lambda folder, world: lambda: function(*words, **options)


def changing(**changes):
    return doing(resolve, "smoke", **changes)


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


def without_gpu(folder: Path, world: World) -> Action:
    def action() -> None:
        with patch("torch.cuda.is_available", return_value=False):
            make_fabric("cuda")

    return action


def no_user():
    return patch.dict(os.environ)


def raise_it(_, message: str) -> None:
    raise SystemExit(message)


def read_only(folder: Path, world: World) -> None:
    (folder / "out").mkdir(mode=0o555)


def half_a_config(folder: Path, world: World) -> None:
    halved("finetune-*/config.json")(world.copy("runs", folder))


CHOOSE = "choose one of "

USE = (
    Bad("folder of a study may not be written", read_only_home, "home", "cannot write into", "choose another",
        PermissionError),
    # numbers of patients and folds
    Bad("M larger than the fold", few_shot(50), "50", "cannot draw 50 of 4 patients", "M is 1 to 4 on this fold"),
    Bad("M of zero", few_shot(0), "0", "cannot draw 0 of 4", "M is 1 to 4"),
    Bad("M of zero in a notebook", doing(parse_labelled, "2, 0", "smoke"), "2, 0", "labelled is a list of numbers",
        "such as '2, 8'"),
    Bad("M as a word", doing(parse_labelled, "two", "smoke"), "two", "labelled is a list of numbers", "such as '2, 8'"),
    Bad("fold out of range", doing(open_study, resolve("smoke"), fold=5), "5", "fold is 0 to 4, got 5", "0 to 4"),
    Bad("fewer patients than folds", study_of(3), "3", "3 patients cannot be split into 5 folds",
        "choose 2 to 3 folds"),
    Bad("one patient", study_of(1), "1", "1 patients with labels cannot be split", "kaf.data.check DATASET ROOT"),
    Bad("folder given to a phantom", doing(open_study, resolve("smoke"), "scans"), "scans", "takes no data_root",
        "name the data set that lies there"),
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
    Bad("share of no sense", changing(finetune__ema=1.0), "ema", "ema = 1.0", "0 or more and below 1"),
    Bad("no loss at all", changing(pretrain__weights=(0, 0, 0)), "weights", "weights = .0.0, 0", "not all 0"),
    Bad("warp on no grid", changing(finetune__augment__elastic_px=0.0, finetune__augment__elastic_grid=0.0), "grid",
        "on a grid of 0.0 px", "above 0"),
    Bad("layers that could not learn", changing(kaf__fusion="project", kaf__zero_start=True), "zero_start",
        "would never learn", "take one of the two"),
    Bad("KAF level that there is not", changing(kaf__levels=(4,)), "4", "KAF levels", "among 0..3"),
    Bad("unknown device", doing(make_fabric, "gpu"), "gpu", "unknown device", f"{CHOOSE}auto, cpu, cuda, mps"),
    Bad("GPU that there is not", without_gpu, "cuda", "finds none here", "take 'auto' or 'cpu'"),
    Bad("phantom without patients", doing(write_phantom, "phantom", 0), "0", "got 0", "needs 1 patient or more"),
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
    Bad("folder that is no run", segmenting(run="nothing"), "runs", "is no run folder",
        "trained ones are in the folder runs", SystemExit),
    Bad("run of pretraining", segmenting(run="pretrain"), "pretrain-", "segments nothing", "give one of fine-tuning",
        SystemExit),
    Bad("configuration of a run cut short", segmenting(before=half_a_config), "config.json", "is damaged",
        "put a copy in its place", SystemExit),
)
