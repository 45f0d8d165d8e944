import json
from pathlib import Path

import pytest
import yaml

from kaf.finetune import METHODS
from workflow.grids import Job, expand, find, load_grids, with_sources

GRIDS = load_grids()
BLOCK = {"methods": ["unet", "kaf_pretrained"], "m": [1, 2], "folds": [0, 1]}


def grid(changes=(), **others):
    return {"runs": [BLOCK | dict(changes) | others]}


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
    ({"m": [2, 0]}, "m of a block are numbers from 1 on, got 0"),
    ({"draws": [-1]}, "draws of a block are numbers from 0 on, got -1"),
    ({"seeds": [-2]}, "seeds of a block are numbers from 0 on, got -2"),
    ({"protocol": "paper", "draws": [0, 1]}, "the paper has one draw of labelled patients, draw 0, not 1"),
    ({"changes": {"seed": 1}}, "seed decides more than itself: give it as seeds of the block, not as a change"),
    ({"changes": {"scale": "full"}}, "scale decides more than itself: give it as scale of the block"),
    ({"settings": {"": {}, "chd": {"dataset": "chd"}}}, "dataset decides more than itself"),
    ({"settings": {"chd": {"data__dataset": "chd"}}}, "data__dataset decides more than itself: give it as dataset of"),
    ({"changes": {1: 2}}, "changes name fields of the experiment, such as {width: 8}; got 1"),
    ({1: 2}, "a block has no 1; it has"),
    ({"settings": {12: {"width": 8}}}, "a name of settings is text, but YAML reads 12: put it in quotes"),
    ({"settings": yaml.safe_load("no: {width: 8}")}, "a name of settings is text, but YAML reads False"),
])
def test_mistakes_in_a_grid_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        expand(grid(changes.items()))


@pytest.mark.parametrize("other, differ", [
    ({"changes": {"width": 9}}, "width"), ({"changes": {"kaf__depth": 3}}, "kaf.depth"), ({"recipe": "paper"}, ".*")])
def test_one_setting_is_one_experiment(other, differ):
    block = {"methods": ["kaf_scratch"], "m": [2]}
    message = f"the setting '' is two experiments, phantom-.*-kaf_scratch-.* and .*, which differ in {differ}: .*; name"
    with pytest.raises(ValueError, match=message):
        expand({"runs": [block, block | other]})
    named = {"recipe": other.get("recipe", "default"), "settings": {"other": other.get("changes", {})}}
    assert len(expand({"runs": [block, block | named]})) == 2


def test_what_self_training_goes_on_from_has_a_setting_of_its_own_too():
    block = {"methods": ["unet"], "m": [2]}
    with pytest.raises(ValueError, match="the setting '' is two experiments, .*-unet-.* and .*-unet-.*, which differ"):
        expand({"runs": [block, block | {"methods": ["unet_selftrained"], "changes": {"width": 9}}]})


def test_a_job_of_the_grid_keeps_its_setting_where_self_training_goes_on_from_it():
    block = {"methods": ["unet"], "m": [2], "settings": {"wider": {"width": 9}}}
    further = block | {"methods": ["unet_selftrained"], "settings": {"wider, further": {"width": 9}}}
    assert [job.setting for job in with_sources(expand({"runs": [block, further]}))] == ["wider", "wider, further"]


@pytest.mark.parametrize("text, message", [
    ("level: {blur: [1]}", "the grid a in .*grids.yaml: unknown part of a grid 'level'; .*did you mean 'levels'"),
    ("levels: {blurr: [1]}", "the grid a in .*grids.yaml: unknown corruption 'blurr'; .*did you mean 'blur'"),
    ("levels: [1]", "levels are corruptions with their levels, such as {blur: .1.0, 2.0.}; got .1."),
    ("levels:", "levels are corruptions with their levels, .*; got None"),
    ("levels: {}", "levels are corruptions with their levels"),
    ("levels: {blur: 1}", "levels of blur are a list of positive numbers such as .1.0, 2.0., got 1"),
    ("levels: {blur: [0]}", "levels of blur are a list of positive"), ("levels: {blur: [.inf]}", "levels of blur are"),
    ("levels: {blur: ['1']}", "levels of blur are"), ("levels: {blur: []}", "levels of blur are")])
def test_mistakes_beside_the_runs_of_a_grid_are_told_as_it_is_read(text, message, tmp_path):
    file = tmp_path / "grids.yaml"
    file.write_text(f"a:\n  runs: [{{methods: [unet], m: [1]}}]\n  {text}\n")
    with pytest.raises(ValueError, match=message):
        load_grids(file)
    with pytest.raises(ValueError, match=message.removeprefix("the grid a in .*grids.yaml: ")):
        expand(yaml.safe_load(file.read_text())["a"])


@pytest.mark.parametrize("name", ["2024", "no", "1.5"])
def test_a_name_of_a_grid_is_text(name, tmp_path):
    file = tmp_path / "grids.yaml"
    file.write_text(f"{name}: {{runs: [{{methods: [unet], m: [1]}}]}}\n")
    with pytest.raises(ValueError, match="name of a grid in .*grids.yaml is text, but YAML reads .*: put it in quotes"):
        load_grids(file)
    file.write_text(f'"{name}": {{runs: [{{methods: [unet], m: [1]}}]}}\n')
    assert list(load_grids(file)) == [name]


def test_a_file_in_another_encoding_is_told(tmp_path):
    file = tmp_path / "grids.yaml"
    file.write_bytes("größe: 1".encode("latin-1"))
    with pytest.raises(ValueError, match="grids.yaml is not in UTF-8 .*; save it in this encoding"):
        load_grids(file)


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
