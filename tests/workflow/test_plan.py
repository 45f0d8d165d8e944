from dataclasses import replace

import pandas as pd
import pytest
import yaml

from kaf.evaluate import COLUMNS
from kaf.finetune import METHODS
from kaf.protocols import PROTOCOLS
from kaf.records import CORRUPTED, FOLDER, Record, read_records, write_record
from kaf.study import configurations
from workflow.grids import expand
from workflow.plan import Plan, evidence, main, read_recorded, recorded

GRID = {"small": {"runs": [{"methods": ["unet", "wide_unet", "kaf_pretrained"], "m": [1]}]}}
CHAINS = {"runs": [{"methods": ["unet_selftrained", "kaf_selftrained"], "m": [1]}]}


def record_of(job, seconds=600.0, **changes):
    """A record as the run of this job would leave it."""
    chosen, e = METHODS[job.method], job.experiment
    row = dict.fromkeys(COLUMNS, 0) | {
        "run": f"run-{job.key}", "method": chosen.name, "pretraining": chosen.pretraining, "m": job.m,
        "dataset": job.dataset, "scale": job.scale, "protocol": PROTOCOLS[job.protocol], "device": "cpu",
        "draw": job.draw, "fold": job.fold, "seed": job.seed, "patient": "p1", "frame": "ED", "structure": "LV",
        "dice": 0.5, "group": "", "setting": job.setting}
    chain = [{"config": {"experiment": part}, "provenance": {"date": "2026-01-02", "seconds": seconds}}
             for part in configurations(e, job.method)]
    facts = chain[0]
    facts["config"]["method"] = job.method
    if chosen.selftrained:
        facts["finetuning"] = chain[1] | {"config": chain[1]["config"] | {"method": chosen.selftrained}}
    if chosen.pretraining != "none":
        facts.get("finetuning", facts)["pretraining"] = chain[-1] | {"provenance": {"seconds": 2 * seconds}}
    return Record(pd.DataFrame([row | changes]), {row["run"]: facts})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grids.yaml"
    path.write_text(yaml.safe_dump(GRID))
    return path


def test_what_is_recorded_is_done(tmp_path, file):
    jobs = expand(GRID["small"])
    assert Plan("small", tmp_path, file).missing == jobs
    for job in (jobs[0], jobs[2]):
        write_record(record_of(job), "any", tmp_path)
    assert Plan("small", tmp_path, file).missing == [jobs[1]]


def test_records_are_read_once_and_again_where_a_file_changed(tmp_path):
    first, second = expand(GRID["small"])[:2]
    write_record(record_of(first), "any", tmp_path)
    found = read_recorded(tmp_path)
    assert read_recorded(str(tmp_path)) is found and [len(lines) for _, lines in found] == [1]
    write_record(record_of(second), "any", tmp_path)
    assert [len(lines) for _, lines in read_recorded(tmp_path)] == [2]
    (tmp_path / "any.csv").write_text((tmp_path / "any.csv").read_text().replace("0.5", "0.7"))
    assert set(read_recorded(tmp_path)[0][0].rows["dice"]) == {0.7}


def test_a_chain_of_runs_is_done_where_all_of_it_is_recorded_as_it_would_be(tmp_path, file):
    file.write_text(yaml.safe_dump({"chains": CHAINS}))
    for job in expand(CHAINS):
        write_record(record_of(job), "any", tmp_path)
    plan = Plan("chains", tmp_path, file)
    assert plan.missing == [] and plan.known["seconds"].tolist() == [1200.0, 1200.0]
    assert plan.known["pretraining_seconds"].tolist() == [0.0, 1200.0]


def test_a_run_that_two_folds_share_is_done_for_both(tmp_path, file):
    block = {"methods": ["unet"], "m": [2], "folds": [0, 1]}
    file.write_text(yaml.safe_dump({"folds": {"runs": [block]}}))
    for job, patient in zip(expand({"runs": [block]}), ("p1", "p2"), strict=True):
        one = record_of(job, patient=patient)
        ((_, facts),) = one.runs.items()
        write_record(Record(one.rows.assign(run="shared"), {"shared": facts}), "any", tmp_path)
    assert not Plan("folds", tmp_path, file).missing
    assert evidence("folds", tmp_path, file).rows["fold"].tolist() == [0, 1]


def test_another_configuration_is_to_be_run(tmp_path, file):
    job = expand(GRID["small"])[0]
    one = record_of(job)
    facts = next(iter(one.runs.values()))
    facts["config"]["experiment"]["width"] += 1
    write_record(one, "any", tmp_path)
    assert job in Plan("small", tmp_path, file).missing


def test_hours_come_from_what_alike_runs_took(tmp_path, file):
    jobs = expand(GRID["small"])
    assert "3 to do, which start from 1 pretrainings; nothing alike was recorded" in str(Plan("small", tmp_path, file))
    write_record(record_of(jobs[2], seconds=3600.0), "any", tmp_path)
    other = expand({"runs": [{"methods": ["unet"], "m": [9]}]})[0]
    write_record(record_of(other, seconds=1800.0), "any", tmp_path)
    plan = Plan("small", tmp_path, file)
    assert plan.hours() == pytest.approx(0.5 + 0.75)  # a UNet as the other UNet, a wide one as the mean of both
    assert str(plan) == ("grid small: 3 runs, 1 recorded, 2 to do, which start from 0 pretrainings; "
                         "about 1.2 hours of one process")


def test_hours_of_a_pretraining_are_those_of_its_kind(tmp_path, file):
    job = expand({"runs": [{"methods": ["kaf_pretrained"], "m": [9], "folds": [1]}]})[0]
    write_record(record_of(job, seconds=1800.0), "any", tmp_path)
    assert Plan("small", tmp_path, file).hours() == pytest.approx(3 * 0.5 + 1.0)


def test_hours_grow_with_the_steps_to_be_trained(tmp_path, file):
    (job,) = expand({"runs": [{"methods": ["kaf_pretrained"], "m": [9]}]})
    write_record(record_of(job, seconds=1800.0), "any", tmp_path)
    optims = [job.experiment.finetune.optim, job.experiment.pretrain.optim]
    block = {"methods": ["kaf_pretrained"], "m": [1], "changes": {
        "finetune__optim__steps": 4 * optims[0].steps, "pretrain__optim__steps": 3 * optims[1].steps}}
    file.write_text(yaml.safe_dump({"longer": {"runs": [block]}, "epochs": {"runs": [
        {**block, "changes": {"finetune__optim__epochs": 9, "pretrain__optim__epochs": 9}}]}}))
    assert Plan("longer", tmp_path, file).hours() == pytest.approx(4 * 0.5 + 3 * 1.0)
    assert Plan("epochs", tmp_path, file).hours() == pytest.approx(0.5 + 1.0), "passes over the data are not steps"


def test_an_unknown_grid_is_told(tmp_path, file):
    with pytest.raises(ValueError, match="unknown grid 'smal'; choose one of small"):
        Plan("smal", tmp_path, file)


def test_a_grid_with_the_name_of_other_facts_is_refused_before_the_work(tmp_path, file):
    file.write_text(yaml.safe_dump({"cost": GRID["small"]}))
    Plan("cost", tmp_path, file)
    (tmp_path / "cost.json").write_text("{}")
    with pytest.raises(ValueError, match="cost.json in .* is no record of runs; choose another name"):
        Plan("cost", tmp_path, file)


def test_the_command_ends_with_one_line_at_an_unknown_grid(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["plan", "fewshto"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "unknown grid 'fewshto'" in capsys.readouterr().err.split("error: ")[1]


def test_the_committed_records_are_known_by_the_names_of_jobs():
    found = recorded(read_records(FOLDER))
    assert len(found) >= 8 and (found["seconds"] > 0).all()
    # A job stands in one record, and once more where its network was given corrupted images.
    assert not found.assign(corrupted=found["levels"].astype(bool)).duplicated(["key", "corrupted"]).any()


def corrupted(job, levels):
    one = record_of(job)
    state = {"points": 9.0, "repeatability": 0.5, "on_background": 0.1, "entropy": 0.9}
    rows = [one.rows.assign(corruption=kind, level=level, **state)[CORRUPTED]
            for kind, values in {"": [0.0], **levels}.items() for level in values]
    return Record(pd.concat(rows, ignore_index=True), one.runs)


def test_a_corrupted_network_is_done_where_all_levels_are_recorded(tmp_path, file):
    job = expand(GRID["small"])[0]
    file.write_text(yaml.safe_dump({"worse": {**GRID["small"], "levels": {"blur": [1, 2.0]}}, **GRID}))
    write_record(record_of(job), "scores", tmp_path)
    assert job in Plan("worse", tmp_path, file).missing, "scores of the images as they are say nothing"
    write_record(corrupted(job, {"blur": [1.0]}), "worse", tmp_path)
    assert job in Plan("worse", tmp_path, file).missing
    write_record(corrupted(job, {"blur": [1.0, 2.0]}), "worse", tmp_path)
    assert job not in Plan("worse", tmp_path, file).missing and len(Plan("worse", tmp_path, file).missing) == 2
    assert [len(evidence(name, tmp_path, file).rows) for name in ("worse", "small")] == [3, 1]


def test_evidence_has_the_settings_of_the_grid_and_todays_configuration_only(tmp_path, file):
    block = {"methods": ["kaf_scratch"], "m": [1], "settings": {"": {}, "one level": {"kaf__levels": [0]}}}
    file.write_text(yaml.safe_dump({"some": {"runs": [block]}}))
    plain, changed = expand({"runs": [block]})
    write_record(record_of(plain), "a", tmp_path)
    write_record(record_of(replace(changed, setting="as it was called before")), "a", tmp_path)
    write_record(record_of(replace(plain, changes=(("width", 9),), fold=1)), "a", tmp_path)
    write_record(record_of(plain), "b", tmp_path)
    assert evidence("some", tmp_path, file).rows["setting"].tolist() == ["", "one level"]


def test_hours_count_a_network_once_however_it_is_used(tmp_path, file):
    after = {"largest": {"finetune__components": "largest"}, "turned": {"finetune__rotations_deg": [-10, 10]}}
    block = {"methods": ["unet"], "m": [1], "settings": {"": {}, **after, "longer": {"finetune__optim__steps": 99}}}
    file.write_text(yaml.safe_dump({**GRID, "used": {"runs": [block]}}))
    write_record(record_of(expand(GRID["small"])[0], seconds=1800.0), "any", tmp_path)
    used = Plan("used", tmp_path, file)
    steps = used.missing[0].experiment.finetune.optim.steps
    assert len(used.missing) == 3 and used.hours() == pytest.approx(0.5 + 0.5 * 99 / steps)


def test_evidence_brings_its_provenance_from_whatever_record_holds_it(tmp_path, file):
    assert evidence("small", tmp_path, file).rows.empty
    jobs = expand(GRID["small"])
    for job, name in zip(jobs, ("other", "other", "one"), strict=True):
        write_record(record_of(job, seconds=1.0 + len(name)), name, tmp_path)
    found = evidence("small", tmp_path, file)
    assert len(found.runs) == 3 and set(found.runs) == set(found.rows["run"])
    assert found.runs[f"run-{jobs[2].key}"]["provenance"]["seconds"] == 4.0
    assert found.rows["run"].tolist() == [f"run-{job.key}" for job in jobs], "in the order of the grid"


def test_evidence_names_the_training_that_made_a_network_or_that_it_goes_on_from(tmp_path, file):
    settings = {"": {}, "largest": {"finetune__components": "largest"}, "longer": {"finetune__optim__steps": 99}}
    grid = {"runs": [{"methods": ["unet", "unet_selftrained"], "m": [1], "settings": settings}]}
    file.write_text(yaml.safe_dump({"some": grid}))
    for n, job in enumerate(expand(grid)):
        one = record_of(job)
        (facts,) = one.runs.values()
        for tuned in (facts, facts.get("finetuning", facts)):
            tuned["config"] |= {"patients": ["p2"], "store": str(n)}  # the store may have changed meanwhile
        write_record(one, "any", tmp_path)
    found = evidence("some", tmp_path, file).rows.set_index(["setting", "method"])["network"]
    (short, long) = dict.fromkeys(found)
    assert found["longer"].tolist() == [long, long] and set(found[["", "largest"]]) == {short} and len(found) == 6
