import json
import multiprocessing
import re

import pandas as pd
import pytest

from kaf.evaluate import COLUMNS
from kaf.files import read_json
from kaf.records import (
    FOLDER,
    Record,
    gather,
    main,
    of_corrupted,
    of_run,
    read_record,
    write_record,
)

EXPERIMENT = {"data": {"size": 80, "spacing_mm": 2.5}, "width": 6,
              "finetune": {"optim": {"steps": 150, "epochs": 0, "batch": 8}}}
FACTS = {"config": {"experiment": EXPERIMENT, "pretrained": None}, "provenance": {"date": "2026-01-02"}}


def rows(run="finetune-unet-a", method="UNet", m=2, dice=0.5):
    values = dict.fromkeys(COLUMNS, 0) | {
        "run": run, "method": method, "m": m, "dice": dice, "dataset": "phantom", "scale": "smoke", "device": "cpu",
        "patient": "p1", "group": "", "protocol": "x", "pretraining": "none", "setting": ""}
    return pd.DataFrame([values | {"frame": frame, "structure": s} for frame in ("ED", "") for s in ("LV", "RV")])


def record(**options):
    table = rows(**options)
    return Record(table, {table["run"][0]: FACTS})


def run_folder(root, name, method, pretrained=None, source=None):
    folder = root / name
    folder.mkdir(parents=True)
    rows(name, method).to_csv(folder / "scores.csv", index=False)
    (folder / "config.json").write_text(json.dumps({"pretrained": pretrained, "source": source}))
    (folder / "provenance.json").write_text(json.dumps({"date": "2026-01-02"}))


def test_what_was_written_is_read(tmp_path):
    write_record(record(dice=1 / 3), "a", tmp_path, note="why")
    read = read_record("a", tmp_path)
    assert read.rows["dice"].tolist() == [0.33333] * 4
    assert read.rows["frame"].tolist() == ["ED", "ED", "", ""]
    assert read.runs == {"finetune-unet-a": {**FACTS, "note": "why"}}


def test_names_that_look_like_numbers_stay_as_they_are(tmp_path):
    names = ["dataset", "protocol", "method", "pretraining", "scale", "device", "run", "group"]
    table = rows().assign(patient=["001", "1e5", "7", "1.0"], structure="1", **dict.fromkeys(names, "001"))
    write_record(Record(table, {"001": FACTS}), "a", tmp_path)
    read = read_record("a", tmp_path).rows
    assert read["patient"].tolist() == ["001", "1e5", "7", "1.0"] and (read["structure"] == "1").all()
    assert (read[names] == "001").all(axis=None) and read["m"].tolist() == [2] * 4


def test_recording_again_replaces_a_run_and_keeps_the_others(tmp_path):
    write_record(record(run="b", method="wide UNet"), "a", tmp_path)
    write_record(record(run="a", dice=0.1), "a", tmp_path)
    write_record(record(run="a", dice=0.2), "a", tmp_path)
    read = read_record("a", tmp_path)
    assert read.rows.groupby("run")["dice"].mean().to_dict() == {"a": 0.2, "b": 0.5}
    assert read.rows["method"].unique().tolist() == ["UNet", "wide UNet"]


def test_another_configuration_of_the_same_run_takes_its_place(tmp_path):
    write_record(record(run="a", dice=0.1), "a", tmp_path)
    write_record(record(run="b", dice=0.2), "a", tmp_path)
    changed = record(run="c", dice=0.3)
    write_record(Record(changed.rows.assign(setting="level 0"), changed.runs), "a", tmp_path)
    read = read_record("a", tmp_path)
    assert read.rows.groupby("run")["setting"].first().to_dict() == {"b": "", "c": "level 0"}
    assert set(read.runs) == {"b", "c"}


def _write(number, folder):
    write_record(record(run=f"run{number}", m=number), "a", folder)


def test_several_processes_add_to_one_record(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_write, [(n, tmp_path) for n in range(6)])
    assert set(read_record("a", tmp_path).runs) == {f"run{n}" for n in range(6)}


def test_gathers_the_runs_and_the_pretraining_they_start_from(tmp_path):
    run_folder(tmp_path, "finetune-kaf_pretrained-x", "KAF pretrained", "pretrain-y")
    run_folder(tmp_path, "finetune-unet-x", "UNet")
    run_folder(tmp_path, "pretrain-y", "-")
    found = gather(tmp_path)
    assert found.rows["method"].unique().tolist() == ["UNet", "KAF pretrained"]
    assert found.runs["finetune-kaf_pretrained-x"]["pretraining"]["provenance"]["date"] == "2026-01-02"
    assert set(found.runs) == {"finetune-kaf_pretrained-x", "finetune-unet-x"}


def test_gathers_self_trained_runs_with_all_that_they_went_on_from(tmp_path):
    run_folder(tmp_path, "selftrain-kaf-x", "KAF self-trained", source="finetune-kaf-y")
    run_folder(tmp_path, "finetune-kaf-y", "KAF pretrained", "pretrain-z")
    run_folder(tmp_path, "pretrain-z", "-")
    found = gather(tmp_path)
    assert set(found.runs) == {"selftrain-kaf-x", "finetune-kaf-y"} == set(found.rows["run"])
    assert found.runs["selftrain-kaf-x"]["finetuning"] == found.runs["finetune-kaf-y"]
    assert found.runs["finetune-kaf-y"]["pretraining"]["config"] == {"pretrained": None, "source": None}


def test_rows_of_corrupted_images_are_means_over_frames_with_what_the_run_was(tmp_path):
    run_folder(tmp_path / "runs", "finetune-unet-x", "UNet")
    found = pd.DataFrame([{"corruption": kind, "level": level, "patient": "p1", "frame": frame, "group": "NOR",
                           "dice": 0.5 + 0.1 * (frame == "ES"), "points": 9.0, "repeatability": 1.0,
                           "on_background": 0.0, "entropy": float("nan")}
                          for kind, level in (("", 0.0), ("blur", 2.0)) for frame in ("ED", "ES")])
    write_record(of_corrupted(of_run(tmp_path / "runs" / "finetune-unet-x", "why"), found, seconds=3.0), "a", tmp_path)
    read = read_record("a", tmp_path)
    assert read.rows["dice"].tolist() == [0.55, 0.55] and read.rows["corruption"].tolist() == ["", "blur"]
    assert (read.rows["method"] == "UNet").all() and (read.rows["setting"] == "why").all()
    assert read.runs["finetune-unet-x"]["seconds"] == 3.0


def test_the_label_says_what_a_reader_must_know():
    sizes = "80 px of 2.5 mm, 6 filters, 150 steps of 8"
    assert record().label == f"phantom; scale smoke; {sizes}; fold 0; draw 0; seed 0; cpu; 2026-01-02"


def test_a_record_without_rows_says_so():
    assert Record(rows()[:0], {}).label == "nothing yet"


def test_the_label_tells_runs_of_other_sizes_apart():
    papers = {"data": {"size": 512, "spacing_mm": None}, "width": 32,
              "finetune": {"optim": {"steps": 0, "epochs": 201, "batch": 10}}}
    runs = {"a": FACTS, "b": {**FACTS, "config": {"experiment": papers}}, "c": FACTS}
    assert Record(rows(), runs).label.split("; ")[2:4] == ["80 px of 2.5 mm, 6 filters, 150 steps of 8",
                                                          "512 px of the files, 32 filters, 201 epochs of 10"]


def test_a_label_says_the_precision_that_was_asked_for():
    runs = {"finetune-unet-a": {**FACTS, "config": {"experiment": EXPERIMENT | {"precision": "bf16"}}}}
    assert Record(rows(), runs).sizes == ["80 px of 2.5 mm, 6 filters, 150 steps of 8, in bf16"]


def test_a_label_says_how_long_self_training_lasted():
    further = EXPERIMENT | {"selftrain": {"optim": {"steps": 40, "epochs": 0}}}
    runs = {"finetune-unet-a": {**FACTS, "config": {"experiment": further}}}
    assert Record(rows(), runs).sizes == ["80 px of 2.5 mm, 6 filters, 150 steps of 8, 40 steps of self-training"]


def test_a_label_says_how_long_pretraining_lasted():
    before = {"config": {"experiment": {"pretrain": {"optim": {"steps": 70, "epochs": 0}}}}}
    runs = {"a": {**FACTS, "pretraining": before}, "b": {**FACTS, "finetuning": {**FACTS, "pretraining": before}}}
    assert Record(rows(), runs).sizes == ["80 px of 2.5 mm, 6 filters, 150 steps of 8, 70 steps of pretraining"]


def test_nothing_to_gather(tmp_path):
    with pytest.raises(FileNotFoundError, match="no scored run"):
        gather(tmp_path)


def test_no_such_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="no record 'b'"):
        read_record("b", tmp_path)


def test_who_reads_between_two_files_of_a_writer_reads_again(tmp_path, monkeypatch):
    write_record(record(), "a", tmp_path)
    file = tmp_path / "a.json"
    whole = file.read_text()
    file.write_text('{"runs": {}}')
    monkeypatch.setattr("time.sleep", lambda _: file.write_text(whole))
    assert list(read_record("a", tmp_path).runs) == ["finetune-unet-a"]


def test_rows_and_runs_must_agree(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    write_record(record(), "a", tmp_path)
    (tmp_path / "a.json").write_text('{"runs": {}}')
    with pytest.raises(ValueError, match="different runs: finetune-unet-a"):
        read_record("a", tmp_path)


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_a_table_that_was_cut_short_is_told_with_what_to_do(tmp_path, cut):
    write_record(record(), "a", tmp_path)
    file = tmp_path / "a.csv"
    file.write_text(file.read_text()[:-cut])
    with pytest.raises(ValueError, match="a.csv is cut short; restore both files .*, or delete both and record"):
        read_record("a", tmp_path)


def test_a_row_without_its_run_is_told(tmp_path):
    write_record(record(), "a", tmp_path)
    with (tmp_path / "a.csv").open("a") as file:
        file.write("phantom\n")
    with pytest.raises(ValueError, match="a.csv is cut short; restore both files"):
        read_record("a", tmp_path)


def test_a_record_between_two_renamings_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    write_record(record(), "a", tmp_path)
    before = (tmp_path / "a.csv").read_text()
    write_record(record(run="b", m=6), "a", tmp_path)
    (tmp_path / "a.csv").write_text(before)  # killed when the runs had their place and the rows had not
    with pytest.raises(ValueError, match="name different runs: b; restore both files .* again .python -m kaf.records"):
        read_record("a", tmp_path)


def test_runs_whose_rows_are_missing_are_not_overwritten_by_others(tmp_path):
    write_record(record(), "a", tmp_path)
    before = (tmp_path / "a.json").read_text()
    (tmp_path / "a.csv").unlink()
    with pytest.raises(ValueError, match="a.csv is missing beside a.json, which names 1 other runs: finetune-unet-a; "):
        write_record(record(run="b", m=6), "a", tmp_path)
    assert (tmp_path / "a.json").read_text() == before
    write_record(record(), "a", tmp_path)  # as after a first write that was killed between its two files
    assert read_record("a", tmp_path).runs.keys() == {"finetune-unet-a"}


@pytest.mark.parametrize("kind, said", [("csv", "a.csv holds no table"), ("json", "a.json is damaged")])
def test_a_file_in_another_encoding_is_named(tmp_path, kind, said):
    one = record()
    write_record(Record(one.rows.assign(group="größer"), {"finetune-unet-a": FACTS | {"note": "x"}}), "a", tmp_path)
    file = tmp_path / f"a.{kind}"
    file.write_bytes(file.read_bytes().replace("ö".encode(), b"\xf6").replace(b'"x"', b'"\xf6"'))
    with pytest.raises(ValueError, match=f"{said} .*utf-8.*; restore both files of the record from a copy"):
        read_record("a", tmp_path)


@pytest.mark.parametrize("name, text", [("cost", '{"growth": {}}'), ("paper", '[{"dice": 0.8}]'), ("cut", '{"runs"')])
def test_facts_of_another_kind_are_not_overwritten(tmp_path, name, text):
    (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(ValueError, match=f"{name}.json in .* is no record of runs; choose another name"):
        write_record(record(), name, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}.json"]
    assert (tmp_path / f"{name}.json").read_text() == text


def test_a_name_of_a_record_is_that_of_two_files_in_its_folder(tmp_path):
    with pytest.raises(ValueError, match="the name of a record is that of a file, such as fewshot, got 'a/b'"):
        write_record(record(), "a/b", tmp_path)
    (tmp_path / "a.csv").write_text("run\n")
    with pytest.raises(ValueError, match="a.json is missing beside .*a.csv: put a copy in its place, or choose"):
        write_record(record(), "a", tmp_path)


def test_facts_of_another_kind_with_a_table_are_no_record(tmp_path):
    write_record(record(), "a", tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="a.json in .* is no record of runs; choose another name"):
        read_record("a", tmp_path)


def wider(run="finetune-unet-b", **options):
    """A record of the same method with another network."""
    facts = {**FACTS, "config": {**FACTS["config"], "experiment": EXPERIMENT | {"width": 7}}}
    return Record(record(run=run, **options).rows, {run: facts})


def test_runs_of_another_configuration_are_named_before_they_go(tmp_path):
    write_record(record(), "a", tmp_path)
    write_record(record(), "a", tmp_path, replace=False)  # the same run
    write_record(record(run="renamed"), "a", tmp_path, replace=False)  # the same configuration
    with pytest.raises(ValueError, match="a.csv holds 1 of another configuration or setting that would be lost: renam"
                                         "ed .config.experiment.width.; give --replace if they may go, --setting NAME"):
        write_record(wider(), "a", tmp_path, replace=False)
    assert set(read_record("a", tmp_path).runs) == {"renamed"}
    write_record(wider("six", m=6), "a", tmp_path, replace=False)
    write_record(wider(), "a", tmp_path)  # as grids do
    assert read_record("a", tmp_path).rows["run"].unique().tolist() == ["finetune-unet-b", "six"]


def test_a_run_that_was_recorded_under_a_setting_does_not_lose_it(tmp_path):
    one = record()
    write_record(Record(one.rows.assign(setting="level 1"), one.runs), "a", tmp_path)
    with pytest.raises(ValueError, match="would be lost: finetune-unet-a .setting 'level 1', not ''.; give --replace"):
        write_record(one, "a", tmp_path, replace=False)


def test_of_many_that_would_go_some_are_named(tmp_path):
    for m in range(1, 8):
        write_record(record(run=f"run{m}", m=m), "a", tmp_path)
    tables = [wider(f"wide{m}", m=m) for m in range(1, 8)]
    new = Record(pd.concat([t.rows for t in tables]), {name: facts for t in tables for name, facts in t.runs.items()})
    with pytest.raises(ValueError, match="holds 7 of .*: run1 .config.experiment.width., .*run5 .* and 2 more; give"):
        write_record(new, "a", tmp_path, replace=False)


def test_the_command_keeps_recorded_runs_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    run_folder(tmp_path / "runs", "finetune-unet-x", "UNet")
    write_record(record(), "a", tmp_path)

    def command(*words):
        monkeypatch.setattr("sys.argv", ["kaf.records", str(tmp_path / "runs"), "a", "--into", str(tmp_path), *words])
        main()
        return read_record("a", tmp_path).rows.groupby("run")["setting"].first().to_dict()

    with pytest.raises(SystemExit, match="2"):
        command()
    assert "would be lost: finetune-unet-a (config." in capsys.readouterr().err
    assert command("--setting", "other") == {"finetune-unet-a": "", "finetune-unet-x": "other"}
    assert command("--replace") == {"finetune-unet-x": ""}


def test_a_structure_scored_twice(tmp_path):
    one = record()
    write_record(Record(pd.concat([one.rows, one.rows]), one.runs), "a", tmp_path)
    with pytest.raises(ValueError, match="scores a structure twice"):
        read_record("a", tmp_path)


def test_a_missing_column(tmp_path):
    one = record()
    write_record(Record(one.rows.drop(columns="assd_mm"), one.runs), "a", tmp_path)
    with pytest.raises(ValueError, match="lacks the columns assd_mm"):
        read_record("a", tmp_path)


@pytest.mark.parametrize("name", [p.stem for p in sorted(FOLDER.glob("*.csv")) if "dice" in p.open().readline()
                                  and "hd95_mm" in p.open().readline()])
def test_the_committed_records_are_whole(name):
    read = read_record(name)
    assert all(run["provenance"]["commit"] for run in read.runs.values())
    assert read.rows["dice"].between(0, 1).all()


def test_the_record_of_copied_labels_is_that_of_its_command():
    rows, facts = pd.read_csv(FOLDER / "acdc_copied_labels.csv"), read_json(FOLDER / "acdc_copied_labels.json")
    draws, repeats = map(int, re.search(r"\((\d+) draws, .* \((\d+) repeats\)", facts["what"]).groups())
    counts = rows.groupby(["split", "m"], dropna=False).size().to_dict()
    few = {("labelled patients", m): draws for m in (1, 2, 4, 8, 16, 32)} | {("labelled patients", 64): 1}
    assert {key: n for key, n in counts.items() if key[0] == "labelled patients"} == few
    assert rows.groupby("split").size()[["by slice", "by patient"]].tolist() == [repeats, repeats]
    assert rows["dice"].nunique() > 0.9 * len(rows)  # measured, not made up


def test_a_run_of_two_folds_keeps_the_rows_of_both(tmp_path):
    first = record()
    other = Record(first.rows.assign(fold=1, patient="p2"), first.runs)
    for one in (first, other, first):
        write_record(one, "any", tmp_path)
    kept = read_record("any", tmp_path)
    assert len(kept.rows) == 2 * len(first.rows) and set(kept.rows["fold"]) == {0, 1}
    assert set(kept.runs) == set(first.runs)
