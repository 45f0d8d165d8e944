"""Train from the command line, on one device or on many; the appendix on several GPUs has the commands.

``python -m kaf.train pretrain --scale full --dataset acdc --data-root DIR --devices 8``
``python -m kaf.train few-shot --method kaf_pretrained --labelled 6 ...`` pretrains if need be, fine-tunes and scores.

What is trained does not depend on the number of devices, and the chapters find these runs as their own.
"""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool

import torch

from kaf.config import RECIPES, SCALES, parse_changes, resolve
from kaf.data.cases import LAYOUTS
from kaf.data.pairs import usual_workers
from kaf.evaluate import per_patient
from kaf.finetune import METHODS
from kaf.loop import make_fabric
from kaf.networks import NETWORKS
from kaf.pretrain import KINDS
from kaf.protocols import PROTOCOLS
from kaf.study import Study, open_study


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser()
    a = parser.parse_args(arguments)
    try:
        experiment = resolve(a.scale, a.dataset, a.recipe, a.seed, **parse_changes(" ".join(a.set)))
        fabric = make_fabric(a.device, a.devices, a.num_nodes)
        with fabric.rank_zero_first():  # the first process prepares the data, the others find them
            workers = usual_workers(fabric.device, a.devices) if a.workers is None else a.workers
            study = open_study(experiment, a.data_root, a.output, a.fold, a.folds, a.device, devices=a.devices,
                               num_nodes=a.num_nodes, protocol=a.protocol, workers=workers, test_root=a.test_root)
        if fabric.is_global_zero:
            print(f"{study.store}, fold {a.fold}: {len(study.split.train)} patients to train with, "
                  f"{len(study.split.test)} to test; device {fabric.device}; runs in {study.runs}", file=sys.stderr)
        result = train(study, a)
    except (OSError, ValueError, ImportError, FloatingPointError, BrokenProcessPool, torch.OutOfMemoryError) as error:
        parser.error(str(error))
    except KeyboardInterrupt as stop:
        parser.exit(130, f"{str(stop) or 'stopped at once; run the same again, it goes on from what was saved'}\n")
    if fabric.is_global_zero:
        print(result)


def train(study: Study, a: argparse.Namespace) -> str:
    """Do what was asked for; says where the run is."""
    if a.what == "pretrain":
        return str(study.pretrain(a.network, a.kind).folder)
    run, rows = study.few_shot(a.method, a.labelled, a.draw)
    means = per_patient(rows, [], ["dice"])  # each counts once, as in every table
    return f"{run.folder}\nmean Dice of {len(means)} test patients {means['dice'].mean():.3f}"


def make_parser() -> argparse.ArgumentParser:
    """The options of both commands."""
    parser = argparse.ArgumentParser(prog="python -m kaf.train", description=__doc__.splitlines()[0])
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--scale", choices=SCALES, default="smoke", help="how large: minutes, hours, or a GPU")
    shared.add_argument("--dataset", choices=LAYOUTS, default="phantom", help="phantoms are made here")
    shared.add_argument("--data-root", default="", help="folder of the data set as downloaded; a phantom needs none")
    shared.add_argument("--output", default="", help="folder for stores and runs")
    shared.add_argument("--recipe", choices=RECIPES, default="default")
    shared.add_argument("--seed", type=natural, default=0, help="of training; splits and draws do not depend on it")
    shared.add_argument("--fold", type=int, default=0, help="which patients test, from 0")
    shared.add_argument("--folds", type=int, default=5, help="how many folds there are")
    shared.add_argument("--protocol", choices=PROTOCOLS, default="patient", help="who trains and who tests")
    shared.add_argument("--test-root", default="", help="folder of those who test, for the protocol external")
    shared.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="change the configuration, for instance pretrain__optim__batch=64; may be repeated")
    shared.add_argument("--device", default="auto", help="auto (cuda, else cpu), cpu, cuda or mps")
    shared.add_argument("--workers", type=natural, help="processes that read ahead, for each device, which change "
                        "nothing in the result; by default none for a processor, and up to 8 for a GPU")
    shared.add_argument("--devices", type=int, default=1, help="devices of each machine")
    shared.add_argument("--num-nodes", type=int, default=1, help="machines")
    commands = parser.add_subparsers(dest="what", required=True)
    pretraining = commands.add_parser("pretrain", parents=[shared], help="without labels")
    pretraining.add_argument("--network", choices=NETWORKS, default="kaf_unet")
    pretraining.add_argument("--kind", choices=KINDS, default="kaf", help="what is learned; all but kaf are for a unet")
    few = commands.add_parser("few-shot", parents=[shared], help="from a few labelled patients")
    few.add_argument("--method", choices=sorted(METHODS), default="kaf_pretrained")
    few.add_argument("--labelled", type=int, required=True, metavar="M", help="number of labelled patients")
    few.add_argument("--draw", type=natural, default=0, help="which draw of M patients")
    return parser


def natural(text: str) -> int:
    """A whole number of 0 or more."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


if __name__ == "__main__":
    main()
