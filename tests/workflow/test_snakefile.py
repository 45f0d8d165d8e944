"""The Snakefile as a user starts it: dry runs of all grids, and a tiny grid from nothing to its record."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from snakemake.cli import main

from kaf.data.phantom import write_phantom
from kaf.records import read_record
from workflow.grids import expand, load_grids

ROOT = Path(__file__).parents[2]
TINY = {
    "data__size": 32, "data__spacing_mm": 6.0, "data__points": 8, "width": 2, "kaf__dim": 8, "kaf__depth": 1,
    "kaf__hidden": 4, "pretrain__optim__steps": 2, "pretrain__optim__batch": 2, "finetune__optim__steps": 2,
    "finetune__optim__batch": 2}
BLOCK = {"dataset": "acdc", "scale": "smoke", "methods": ["unet", "kaf_pretrained"], "m": [1], "changes": TINY}


def dry_run(capfd, *words, ends=0):
    """What ``snakemake --dry-run`` says, in this process. Raises ``AssertionError`` where it ends otherwise."""
    with pytest.raises(SystemExit) as end:
        main(["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--dry-run", *words])
    said = "".join(capfd.readouterr())
    assert end.value.code == ends, said
    return said


@pytest.mark.parametrize("name", sorted(load_grids()))
def test_a_dry_run_names_the_jobs_of_each_grid(name, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = dry_run(capfd, "--config", f"grid={name}", f"acdc={tmp_path}", f"output={tmp_path}", f"records={tmp_path}")
    jobs = expand(load_grids()[name])
    assert f"grid {name}: {len(jobs)} runs, 0 recorded" in said
    assert all(f"few_shot/{job.key}.ipynb" in said for job in jobs)
    assert all(f"pretrain/{job.pretraining_key}.ipynb" in said for job in jobs if job.pretraining_key)


@pytest.mark.parametrize("words, said", [
    (["grid=fewshot", "adcd=."], "unknown word after --config 'adcd'; choose one of grid, acdc, chd"),
    (["grid=fewshot", "acdc=.", "device=gpu"], "unknown device 'gpu'; choose one of auto, cpu, cuda, mps"),
    (["grid=fewshot", "acdc=nowhere"], "acdc=nowhere: there is no such folder"),
    (["grid=fewshto", "acdc=."], "unknown grid 'fewshto'"),
    (["grid=2024", "acdc=."], "unknown grid '2024'"), (["grid=", "acdc=."], "unknown grid ''"),
    (["grid=fewshot", "acdc=123"], "acdc=123: there is no such folder"),
    (["acdc=."], "name a grid")])
def test_words_that_mean_nothing_are_refused_before_any_work(words, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in dry_run(capfd, "--config", *words, f"output={tmp_path}", f"records={tmp_path}", ends=1)


def test_numbers_are_folders_and_a_tilde_is_ones_home(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "123").mkdir()
    (tmp_path / "grids.yaml").write_text(yaml.safe_dump({"2025": {"runs": [BLOCK]}}))
    said = dry_run(capfd, "--printshellcmds", "--config", "grid=2025", "grids=~/grids.yaml", "records=~/new",
                   "acdc=123", "output=2024", "device=cpu")
    assert f"--output {tmp_path / '2024'} --records {tmp_path / 'new'} " in said
    assert f"--data-root={tmp_path / '123'}" in said and f"{tmp_path / '2024'}/jobs/few_shot/acdc" in said


def test_a_folder_with_braces_is_refused_for_output_alone(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "{key}").mkdir()
    words = ["--config", "grid=components", f"acdc={tmp_path}/{{key}}", f"records={tmp_path}/{{key}}"]
    said = dry_run(capfd, *words, f"output={tmp_path}/{{key}}", ends=1)
    assert "{key}: snakemake takes braces in a path for wildcards; choose a folder without" in said
    assert "few_shot/acdc" in dry_run(capfd, *words, f"output={tmp_path}")


def test_a_slurm_profile_is_taken_as_it_is(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile = str(ROOT / "workflow" / "profiles" / "slurm")
    said = dry_run(capfd, "--workflow-profile", profile, "--config", "grid=fewshot",
                   f"acdc={tmp_path}", "device=cuda", f"output={tmp_path}", f"records={tmp_path}")
    assert "gpu=1" in said and "runtime=240" in said and "cpus_per_task=4" in said


@pytest.mark.parametrize("device, there, asked", [
    ("auto", True, 1), ("auto", False, 0), ("cpu", True, 0), ("cuda", False, 1)])
def test_jobs_share_the_gpu_that_they_would_take(device, there, asked, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    said = dry_run(capfd, "--printshellcmds", "--config", "grid=fewshot", f"acdc={tmp_path}", f"device={device}",
                   f"output={tmp_path}", f"records={tmp_path}")
    assert (f"gpu={asked}" in said) and (f"gpu={1 - asked}" not in said)
    assert f"--device {'cuda' if asked else 'cpu'} " in said


def test_data_are_prepared_with_the_cores_that_snakemake_may_use(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = dry_run(capfd, "--printshellcmds", "--cores", "3", "--config", "grid=fewshot", f"acdc={tmp_path}",
                   f"output={tmp_path}", f"records={tmp_path}")
    assert "LOKY_MAX_CPU_COUNT=3 " in said


def test_one_machine_lets_one_job_at_a_time_on_its_gpu():
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / "default" / "config.yaml").read_text())
    assert profile["resources"] == "gpu=1"


def snakemake(folder, *words):
    """One command of a user; returns what it said."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--cores", "1",
               "--config", "grid=tiny", f"grids={folder / 'grids.yaml'}", f"acdc={folder / 'phantom'}",
               f"output={folder}", f"records={folder / 'records'}", "device=cpu", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A phantom of five patients in the layout of ACDC, and a grid of two jobs that was run; its name has a space."""
    here = tmp_path_factory.mktemp("a sweep")
    write_phantom(here / "phantom", 5, size=48, slices=(3, 4), progress=False)
    (here / "grids.yaml").write_text(yaml.safe_dump({"tiny": {"runs": [BLOCK]}}))
    snakemake(here)
    return here


@pytest.mark.slow
def test_a_grid_runs_to_its_record_and_pages(folder):
    record = read_record("tiny", folder / "records")
    assert record.rows["method"].unique().tolist() == ["UNet", "KAF pretrained"] and len(record.runs) == 2
    assert set(record.rows["setting"]) == {""} and record.rows["patient"].nunique() == 1
    pages = sorted((folder / "jobs" / "few_shot").glob("*.ipynb"))
    assert len(pages) == 2 and len(list((folder / "jobs" / "pretrain").glob("*.ipynb"))) == 1
    for page in pages:
        cells = [c for c in nbformat.read(page, 4).cells if c.cell_type == "code"]
        assert all(c.execution_count for c in cells) and any("Dice mean" in str(c.outputs) for c in cells)


@pytest.mark.slow
def test_trained_networks_are_corrupted_without_training_again(folder):
    kept, trained = (folder / "grids.yaml").read_text(), list((folder / "runs").glob("*/checkpoint.pt"))
    worse = {"levels": {"blur": [1.0], "noise": [0.2]}, "runs": [BLOCK | {"methods": ["kaf_pretrained"]}]}
    (folder / "grids.yaml").write_text(yaml.safe_dump({"tiny": worse}))
    snakemake(folder, f"records={folder / 'worse'}")
    rows = read_record("tiny", folder / "worse").rows
    assert rows[["corruption", "level"]].values.tolist() == [["", 0.0], ["blur", 1.0], ["noise", 0.2]]
    assert rows["entropy"].between(0, 1).all() and list((folder / "runs").glob("*/checkpoint.pt")) == trained
    (folder / "grids.yaml").write_text(kept)


@pytest.mark.slow
def test_a_grown_grid_runs_its_new_jobs_only(folder):
    assert "2 recorded, 0 to do" in snakemake(folder)
    before = {file: file.stat().st_mtime_ns for file in (folder / "runs").glob("*/checkpoint.pt")}
    block = BLOCK | {"methods": ["unet"], "settings": {"": {}, "wider": {"width": 3}}}
    (folder / "grids.yaml").write_text(yaml.safe_dump({"tiny": {"runs": [BLOCK, block]}}))
    said = snakemake(folder)
    assert "grid tiny: 3 runs, 2 recorded, 1 to do, which start from 0 pretrainings; about 0.0 hours" in said
    after = {file: file.stat().st_mtime_ns for file in (folder / "runs").glob("*/checkpoint.pt")}
    assert len(after) == len(before) + 1 and before.items() <= after.items()
    rows = read_record("tiny", folder / "records").rows
    assert rows.groupby("setting")["run"].nunique().to_dict() == {"": 2, "wider": 1}


@pytest.mark.slow
def test_a_page_without_rows_is_told_and_its_rows_come_back_without_training(folder):
    before = {file: file.stat().st_mtime_ns for file in (folder / "runs").glob("*/checkpoint.pt")}
    kept = {file: file.read_text() for file in (folder / "records").glob("tiny.*")}
    for file in kept:
        file.unlink()
    for page in (folder / "jobs" / "few_shot").glob("*-unet-*.ipynb"):
        page.unlink()
    assert "1 of them have a page in" in snakemake(folder)
    rows = read_record("tiny", folder / "records").rows
    assert rows["method"].unique().tolist() == ["UNet"]
    assert {file: file.stat().st_mtime_ns for file in (folder / "runs").glob("*/checkpoint.pt")} == before
    for file, text in kept.items():
        file.write_text(text)
