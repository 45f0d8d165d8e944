"""Work that is killed again and again has to end as if nothing had happened.

Usage: python -m benchmarks.kills [--kills 12] [--steps 40] [--seed 0] [--workers 1] [--record]

Three kinds of work on a small phantom: a store is prepared, a network pretrained, a network fine-tuned. Each is done
once undisturbed, and then again while SIGKILL meets it ``--kills`` times: half of them at a random moment, half right
after a file or folder was begun. After every kill what lies there must be readable; a process started at once goes
on. What comes out is compared bit by bit: weights, optimiser and log of a run, every file of a store.

The rows go to ``faults.json`` beside the costs, which they are not.
"""

import argparse
import hashlib
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from kaf import loop
from kaf.config import Experiment, resolve
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare
from kaf.data.store import Store
from kaf.files import DRAFT, read_json
from kaf.finetune import finetune
from kaf.pretrain import pretrain
from kaf.records import FOLDER
from kaf.runs import Run

FILE = FOLDER / "faults.json"
KINDS = ("prepare", "pretrain", "finetune")
PATIENTS = 4
SAVE_EVERY_S = 0.1  # much more often than usual, so that many kills meet it
WRITING_S = 0.015  # about as long as a checkpoint takes to write


def experiment(steps: int) -> Experiment:
    """A small KAF-UNet."""
    small = {"width": 4, "data__size": 64, "data__points": 32, "data__spacing_mm": 2.5, "kaf__dim": 16,
             "kaf__depth": 1, "kaf__hidden": 8}
    optim = {f"{part}__optim__{name}": value for part in ("pretrain", "finetune")
             for name, value in (("steps", steps), ("batch", 2))}
    return resolve("smoke").changed(**small, **optim)


def work(kind: str, home: Path, folder: Path, steps: int, workers: int) -> None:
    """One kind of work into ``folder``; what it needs lies in ``home``."""
    torch.set_num_threads(1)
    loop.SAVE_EVERY_S = SAVE_EVERY_S
    if kind == "prepare":
        prepare("phantom", home / "phantom", folder, workers=workers, progress=False)
        return
    store = Store.open(home / "store")
    some = sorted(store.patients)[:2]
    {"pretrain": pretrain, "finetune": finetune}[kind](experiment(steps), store, some, folder, device="cpu")


def outcome(kind: str, folder: Path) -> dict[str, str]:
    """A digest of everything that has to be the same."""
    if kind == "prepare":
        files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
        return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (run,) = map(open_run, folder.glob("[!.]*"))
    state = run.load()
    found = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in state["model"].items()}
    return found | {"log": (run.folder / "log.csv").read_text(), "step": str(state["step"])}


def open_run(folder: Path) -> Run:
    return Run(folder, read_json(folder / "config.json"))


def check(kind: str, folder: Path) -> None:
    """Open all that a killed process has left; raises what the next process would meet."""
    if kind == "prepare":
        for volume in (folder / "volumes").glob("[!.]*"):
            read_json(volume / "record.json")
            for file in volume.glob("*.npy"):
                np.load(file, allow_pickle=False)
        return
    for path in folder.glob("[!.]*/config.json"):
        run = open_run(path.parent)
        run.load()
        if (run.folder / "log.csv").is_file():
            run.history()


class Killer:
    """Does one kind of work in processes of its own and kills them."""

    def __init__(self, kind: str, home: Path, steps: int, workers: int, seed: int):
        self.kind, self.home, self.settings = kind, home, (steps, workers)
        self.rng = np.random.default_rng(seed)
        self.context = multiprocessing.get_context("forkserver")  # a new process in milliseconds
        self.context.set_forkserver_preload(["benchmarks.record", "kaf.study"])
        self.start(time.sleep, 0).join()  # the first one waits for all imports

    def start(self, target: Callable, *arguments: Any) -> BaseProcess:
        process = self.context.Process(target=target, args=arguments)
        process.start()
        return process

    def begin(self, folder: Path) -> BaseProcess:
        return self.start(work, self.kind, self.home, folder, *self.settings)

    def undisturbed(self, folder: Path) -> tuple[dict[str, str], float]:
        """What comes out of a process that nobody kills, and its seconds."""
        start, process = time.perf_counter(), self.begin(folder)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{self.kind} failed by itself with {process.exitcode}; its error stands above")
        return outcome(self.kind, folder), time.perf_counter() - start

    def kill_one(self, folder: Path, seconds: float, writing: bool) -> bool:
        """Start a process and kill it: at a random moment within ``seconds``, or soon after it then begins to write.

        False where it had ended before.
        """
        process = self.begin(folder)
        process.join(self.rng.uniform(0, seconds))
        if writing:
            while process.is_alive() and not any(folder.rglob(f"{DRAFT}*")):
                time.sleep(0.0005)
            time.sleep(self.rng.uniform(0, WRITING_S))
        process.kill()
        process.join()
        if process.exitcode not in (0, -9):
            raise RuntimeError(f"{self.kind} could not go on after a kill: exit status {process.exitcode}, see above")
        return process.exitcode == -9

    def survive(self, kills: int) -> Counter:
        """Kill ``kills`` times, beginning anew where the work gets done; what happened, by name."""
        base, found, turn = self.home / f"{self.kind}-runs", Counter(), 0
        expected, seconds = self.undisturbed(base / "whole")
        while found["kills"] < kills or turn:
            folder = base / str(found["runs"])
            if found["kills"] < kills and self.kill_one(folder, 0.8 * seconds, writing=bool(found["kills"] % 2)):
                turn += 1
                found["kills"] += 1
                found["while writing"] += any(folder.rglob(f"{DRAFT}*"))
                check(self.kind, folder)
                continue
            self.undisturbed(folder)
            found["runs"] += 1
            found["most in one run"] = max(found["most in one run"], turn)
            found["different"] += outcome(self.kind, folder) != expected
            found["left over"] += any(folder.rglob(f"{DRAFT}*"))
            turn = 0
        return found


def rows_of(kind: str, found: Counter) -> list[dict]:
    """The rows of one kind of work."""
    name = {"prepare": "preparation", "pretrain": "pretraining", "finetune": "fine-tuning"}[kind]
    return [record.row(f"{name}: kills survived", found["kills"], "kills"),
            record.row(f"{name}: kills while a file was being written", found["while writing"], "kills", target=">= 1"),
            record.row(f"{name}: most kills of one run", found["most in one run"], "kills"),
            record.row(f"{name}: runs compared", found["runs"], "runs"),
            record.row(f"{name}: runs that end differently", found["different"], "runs", target="<= 0"),
            record.row(f"{name}: runs with a draft left over", found["left over"], "runs", target="<= 0")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--kills", type=int, default=12, help="of each kind of work")
    parser.add_argument("--steps", type=int, default=40, help="of each training")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare the store")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    record.add_options(parser)
    options = parser.parse_args(arguments)
    rows, kills = [], 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_phantom(home / "phantom", PATIENTS, progress=False, size=96, slices=(4, 6))
        prepare("phantom", home / "phantom", home / "store", workers=1, progress=False)
        for number, kind in enumerate(options.kinds):
            killer = Killer(kind, home, options.steps, options.workers, options.seed + number)
            rows += rows_of(kind, found := killer.survive(options.kills))
            kills += found["kills"]
    rows.append(record.row("all work: kills survived", kills, "kills", target=">= 20"))
    record.show(rows)
    if options.record:
        record.record("kills", rows, FILE, kills=options.kills, steps=options.steps, workers=options.workers,
                      seed=options.seed, patients=PATIENTS)


if __name__ == "__main__":
    main()
