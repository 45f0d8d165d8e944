import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from kaf import study
from kaf.config import parse_changes, resolve
from kaf.runs import Run
from kaf.train import main, make_parser

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "appendix" / "several_gpus.md").read_text()
COMMANDS = [shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
            for line in block.splitlines() if "kaf.train" in line]


@pytest.mark.slow
def test_the_command_on_the_page_runs_on_two_processes(tmp_path):
    words = next(words for words in COMMANDS if "cpu" in words)
    environment = dict(word.split("=", 1) for word in words[: words.index("python")])
    words = [sys.executable, *words[words.index("python") + 1 :], "--output", str(tmp_path)]
    environment |= {"PATH": "/usr/bin:/bin", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.parent == tmp_path / "runs" and len(list((tmp_path / "runs").iterdir())) == 1
    assert "MEMBER: 2/2" in done.stderr, "there was a second process"
    config = json.loads((folder / "config.json").read_text())
    assert Run(folder, config).load()["step"] == 4


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:60])
def test_every_command_on_the_page_has_options_that_exist(words):
    options = make_parser().parse_args(words[words.index("kaf.train") + 1 :])
    resolve(options.scale, options.dataset, options.recipe, **parse_changes(" ".join(options.set)))
    assert options.devices * options.num_nodes > 1
    batch = getattr(resolve(options.scale, options.dataset), "finetune" if options.what == "few-shot" else "pretrain")
    assert batch.optim.batch % (options.devices * options.num_nodes) == 0


@pytest.mark.parametrize("change, words", [("pretrain__optim__bacth=4", "mean 'batch'"), ("steps", "NAME=VALUE")])
def test_mistakes_end_with_a_message(change, words, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--set", change])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("words, said", [
    (["--data-root", "somewhere"], "is made here and takes no data_root, got 'somewhere'; name the data set"),
    (["--set", "seed=3"], "seed decides more than itself: give seed 3 by its own name"),
    (["--seed", "-1"], "argument --seed: -1 is below 0"), (["--workers", "-2"], "argument --workers: -2 is below 0"),
    (["--devices", "-1"], "counts of 1 or more, got -1 and 1"), (["--num-nodes", "0"], "got 1 and 0"),
    (["--dataset", "ACDC"], "invalid choice: 'ACDC'")])
def test_options_that_cannot_be_meant_end_with_a_message(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--output", str(tmp_path), *words])
    assert end.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_too_little_memory_ends_with_what_makes_the_batch_smaller(tmp_path, capsys, monkeypatch):
    def fit(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(study.PHANTOM_PATIENTS, "smoke", 5)
    monkeypatch.setattr("kaf.finetune.fit", fit)
    with pytest.raises(SystemExit) as end:
        main(["few-shot", "--method", "unet", "--labelled", "2", "--output", str(tmp_path), "--device", "cpu", "--set",
              "data__spacing_mm=6.0", "--set", "finetune__optim__batch=6"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "--set finetune__optim__batch=3" in said and "CUDA out of memory" in said


@pytest.mark.parametrize("error", [BrokenProcessPool("a process ended with 0 of 4 volumes prepared"),
                                   ImportError("SuperPoint needs transformers")])
def test_what_stops_the_preparation_ends_with_a_message(error, tmp_path, capsys, monkeypatch):
    def open_study(*_, **__):
        raise error

    monkeypatch.setattr("kaf.train.open_study", open_study)
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--output", str(tmp_path), "--device", "cpu"])
    assert end.value.code == 2 and str(error) in capsys.readouterr().err


@pytest.mark.parametrize("stop, words", [(KeyboardInterrupt(), "stopped at once; run the same again"),
                                         (KeyboardInterrupt("stopped after step 3"), "stopped after step 3")])
def test_who_stops_it_is_told_how_to_go_on(stop, words, tmp_path, capsys, monkeypatch):
    def open_study(*_, **__):
        raise stop

    monkeypatch.setattr("kaf.train.open_study", open_study)
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--output", str(tmp_path), "--device", "cpu"])
    assert end.value.code == 130 and words in capsys.readouterr().err


def test_it_says_what_it_works_on_and_takes_other_folds(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(study.PHANTOM_PATIENTS, "smoke", 4)
    monkeypatch.setattr("kaf.train.train", lambda study, a: "done")
    main(["pretrain", "--output", str(tmp_path), "--device", "cpu", "--fold", "1", "--folds", "2", "--set",
          "data__spacing_mm=6.0"])
    out, err = capsys.readouterr()
    assert out == "done\n"
    assert "Store(phantom: 4 patients, 8 volumes, 8 labelled, " in err
    assert f"fold 1: 2 patients to train with, 2 to test; device cpu; runs in {tmp_path / 'runs'}" in err


@pytest.mark.slow
def test_readers_ahead_change_nothing_and_leave_stopping_to_who_trains(tmp_path):
    words = [sys.executable, "-m", "kaf.train", "pretrain", "--device", "cpu", "--set", "pretrain__optim__batch=4",
             "--set", "width=2", "--set", "data__size=32", "--set", "data__spacing_mm=6.0", "--set", "data__points=8"]
    shown = {"TQDM_DISABLE": "0", "TQDM_MININTERVAL": "0"}  # what it says tells when it trains
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | shown
    words += ["--output", tmp_path]
    ended = {}
    for workers in ("0", "2"):
        command = [*words, "--workers", workers, "--set", "pretrain__optim__steps=8"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        folder = Path(done.stdout.strip())
        ended[workers] = Run(folder, json.loads((folder / "config.json").read_text())).weights()
        folder.rename(tmp_path / workers)
    assert all(torch.equal(ended["0"][name], ended["2"][name]) for name in ended["0"])

    for steps, told in ((5000, signal.SIGINT), (5001, signal.SIGTERM)):  # a terminal and a scheduler tell all of them
        command = [*words, "--workers", "2", "--set", f"pretrain__optim__steps={steps}"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as running:
            read = ""
            while f" 3/{steps}" not in read and (more := running.stderr.read(1)):
                read += more
            os.killpg(running.pid, told)
            said = running.communicate(timeout=60)[1]
        assert running.returncode == 130 and "run the same again to go on" in said
