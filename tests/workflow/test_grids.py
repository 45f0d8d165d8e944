import json
from pathlib import Path

import pytest
import yaml

from kaf.finetune import METHODS
from workflow.grids import Job, expand, find, load_grids, with_sources

GRIDS = load_grids()
BLOCK = {"methods": ["unet", "kaf_pretrained"], "m": [1, 2], "folds": [0, 1]}


def grid(**changes):
    return {"runs": [BLOCK | changes]}


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_every_grid_is_jobs_of_known_methods(name):
    jobs = expand(GRIDS[name])
    assert len({job.key for job in jobs}) == len(jobs) > 0
    assert {job.method for job in jobs} <= set(METHODS)
    assert all((job.pretraining_key is None) == (METHODS[job.method].pretraining == "none") for job in jobs)


def test_the_main_table_has_the_methods_of_the_paper():
    jobs = [job for job in expand(GRIDS["fewshot"]) if (job.m, job.fold, job.scale) == (2, 0, "smoke")]
    names = [METHODS[job.method].name for job in jobs if not job.setting]
    assert names == ["UNet", "wide UNet", "SwinUNETR", "KAF from scratch", "Rotation", "SimCLR", "GCL", "PCL",
                     "KAF pretrained"]
    longer, = (job for job in jobs if job.setting)
    steps = [job.experiment.finetune.optim.steps + job.experiment.pretrain.optim.steps for job in jobs[:1]]
    assert (longer.method, [longer.experiment.finetune.optim.steps]) == ("unet", steps)


def test_a_block_is_a_product_and_a_fold_comes_as_a_whole():
    jobs = expand(grid())
    assert [(job.fold, job.m, job.method) for job in jobs] == [
        (fold, m, method) for fold in (0, 1) for m in (1, 2) for method in BLOCK["methods"]]


def test_a_grown_grid_has_its_old_jobs_and_new_ones():
    small = {job.key for job in expand(grid(m=[1]))}
    grown = {job.key for job in expand(grid(settings={"": {}, "level 1": {"kaf__levels": [0]}}))}
    assert small < grown


def test_jobs_are_one_where_blocks_overlap():
    assert len(expand({"runs": [BLOCK, BLOCK | {"m": [2, 3]}]})) == 12


def test_the_key_follows_the_configuration_and_not_the_name_of_the_setting():
    job = Job("kaf_scratch", 2)
    assert job.key == Job("kaf_scratch", 2, setting="x").key
    assert job.key != Job("kaf_scratch", 2, changes=(("kaf__levels", (0,)),)).key
    # A method that is not pretrained does not change with the pretraining.
    assert job.key == Job("kaf_scratch", 2, changes=(("pretrain__threshold", 0.1),)).key
    later = (("pretrain__threshold", 0.1),)
    assert Job("kaf_pretrained", 2).key != Job("kaf_pretrained", 2, changes=later).key
    assert Job("kaf_pretrained", 2).pretraining_key == Job("kaf_pretrained", 6).pretraining_key


@pytest.mark.parametrize("changes, message", [
    ({"method": ["unet"]}, "a block has no method; it has"),
    ({"m": 2}, "a block needs m, a list of whole numbers such as .2., got 2"),
    ({"m": ["two"]}, "a block needs m, a list of whole numbers"), ({"folds": []}, "a block needs folds, a list"),
    ({"methods": "unet"}, "a block needs methods, a list of methods such as .unet., got 'unet'"),
    ({"protocol": "nested"}, "unknown protocol 'nested'"),
    ({"protocol": "external"}, "one folder for each data set"),
    ({"methods": ["vnet"]}, "unknown method 'vnet'"),
    ({"changes": {"kaf__levls": [0]}}, "has no field 'levls'; did you mean 'levels'"),
    ({"methods": ["kaf_scratch"], "settings": {"": {}, "all": {"kaf__levels": [0, 1, 2, 3]}}},
     "settings '' and 'all' are the same experiment"),
    ({"settings": ["level 1"]}, "settings of a block are names with values, such as {\"level 1\""),
    ({"changes": ["width"]}, "changes of a block are names with values, such as {width: 8}; got"),
    ({"settings": {"level 1": [0]}}, "settings of a block are names with values"),
    ({"settings": {}}, "settings of a block are names with values"),
    ({"protocol": ["inner"]}, "protocol of a block is a word, got"),
    ({"folds": [0, 5]}, "fold is 0 to 4, got 5"),
])
def test_mistakes_in_a_grid_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        expand(grid(**changes))


def test_a_file_without_grids_is_told(tmp_path):
    file = tmp_path / "grids.yaml"
    file.write_text(yaml.safe_dump({"fewshot": [1, 2]}))
    with pytest.raises(ValueError, match="is no file of grids"):
        load_grids(file)
    file.write_text(yaml.safe_dump({"fewshot": {"runs": {"m": [2]}}}))
    with pytest.raises(ValueError, match="runs of the grid fewshot in .*grids.yaml are a list of blocks"):
        load_grids(file)
    with pytest.raises(FileNotFoundError, match="there is no file .*none.yaml; give one with grids"):
        load_grids(tmp_path / "none.yaml")
    file.write_text("fewshot: [")
    with pytest.raises(ValueError, match="grids.yaml is no YAML: "):
        load_grids(file)


def test_a_job_is_found_by_its_names():
    jobs = expand(grid())
    last = jobs[-1]
    assert find(jobs, last.key, "key") is last
    assert find(jobs, last.pretraining_key, "pretraining_key").method == "kaf_pretrained"
    with pytest.raises(ValueError, match="no job with key 'x': `snakemake --dry-run` lists"):
        find(jobs, "x", "key")


def test_parameters_are_what_papermill_can_write():
    job = Job("unet", 2, changes=(("kaf__levels", (0, 1)),))
    assert job.parameters()["changes"] == {"kaf__levels": [0, 1]}
    notebook = json.loads((Path(__file__).parents[2] / "workflow" / "few_shot.ipynb").read_text())
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    assert all(f"{name} = " in "".join(cell["source"]) for name in job.parameters())


def test_self_training_waits_for_what_it_goes_on_from():
    jobs = expand(grid(methods=["kaf_selftrained"], m=[1], folds=[0]))
    assert [job.method for job in with_sources(jobs)] == ["kaf_selftrained", "kaf_pretrained"]
    source = jobs[0].source
    assert source.source is None and source.pretraining_key == jobs[0].pretraining_key


def test_the_papers_protocol_pretrains_once_for_all_folds():
    jobs = [job for job in expand(GRIDS["papers_protocol"]) if job.pretraining_key]
    assert len({job.fold for job in jobs}) == 5
    assert len({job.pretraining_key for job in jobs}) == len({job.method for job in jobs})
