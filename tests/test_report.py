"""Tables against means computed by hand, and numbers through a notebook that is really run."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

import kaf
from kaf.evaluate import COLUMNS, compare
from kaf.report import (
    comparison_table,
    p_value,
    provenance_line,
    read_numbers,
    results_table,
    session_line,
    show_numbers,
    signed,
)
from kaf.runs import Run
from kaf.verdicts import labelled

NUMBERS = "kaf_numbers"


def make_rows(methods=("UNet", "KAF"), ms=(2, 8), patients=6):
    """Dice rises by .1 from method to method and by .01 from patient to patient; MYO is .1 lower than LV."""
    table = pd.DataFrame([
        {"dataset": "phantom", "method": method, "m": m, "fold": 0, "patient": f"patient{p:03d}", "frame": frame,
         "structure": structure, "dice": 0.5 + 0.1 * i + 0.01 * p - 0.1 * (structure == "MYO") + 0.02 * (m == 8),
         "hd95_mm": 10.0 - i * (1 + p % 2) + p, "assd_mm": 2.0 - 0.5 * i, "missed": False, "absent": False,
         "overlap_voxels": 300 + 100 * i + 2 * p, "predicted_voxels": 900, "true_voxels": 1100}
        for i, method in enumerate(methods) for m in ms for p in range(patients)
        for frame in ("ED", "ES") for structure in ("LV", "MYO")])
    return table.reindex(columns=[c for c in COLUMNS if c in table])


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: a list of (data, metadata)."""
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: calls.append((data, metadata)))
    return calls


def test_numbers_are_rounded_for_reading_and_exact_in_the_metadata(shown):
    show_numbers(mean_dice=np.float64(0.8123456789), patients=12, tensor=torch.tensor(0.25), small=1.2345e-5,
                 large=123.456, few=[0.5, np.float32(0.25)], zero=0.0, missing=float("nan"))
    ((data, metadata),) = shown
    assert data["text/plain"].split("\n") == [
        "mean dice  0.812", "patients   12", "tensor     0.250", "small      1.23e-05", "large      123.5",
        "few        0.500, 0.250", "zero       0.000", "missing    none"]
    assert metadata[NUMBERS] == {"mean_dice": 0.8123456789, "patients": 12, "tensor": 0.25, "small": 1.2345e-5,
                                 "large": 123.456, "few": [0.5, 0.25], "zero": 0.0, "missing": None}
    json.dumps(metadata, allow_nan=False)


@pytest.mark.parametrize("value", ["0.8", True, None, {"a": 1}, [0.1, "x"]])
def test_only_numbers_are_shown(shown, value):
    with pytest.raises(TypeError, match="score must be a number"):
        show_numbers(score=value)
    assert not shown


def test_infinite_values_are_refused(shown):
    with pytest.raises(ValueError, match="score is infinite"):
        show_numbers(score=[1.0, float("inf")])


def test_numbers_survive_a_notebook(tmp_path):
    cells = ["from kaf.report import show_numbers\nshow_numbers(dice=2 / 3, few=[1 / 3, float('nan')])",
             "print('no numbers here')", "show_numbers(count=7)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=60).execute()
    nbformat.write(notebook, tmp_path / "n.ipynb")
    found = read_numbers(json.loads((tmp_path / "n.ipynb").read_text()))
    assert found == {"dice": 2 / 3, "few": [1 / 3, None], "count": 7}


def test_a_name_shown_twice_is_an_error():
    output = {"metadata": {NUMBERS: {"dice": 0.5}}}
    with pytest.raises(ValueError, match="shown twice in one notebook: dice"):
        read_numbers({"cells": [{"outputs": [output]}, {"outputs": [output]}]})


def test_results_by_method_and_m():
    table = results_table(make_rows())
    assert table[["method", "m"]].to_numpy().tolist() == [["UNet", 2], ["KAF", 2], ["UNet", 8], ["KAF", 8]]
    assert list(table)[2:] == ["Dice LV", "Dice MYO", "Dice mean", "95 % interval", "HD95 (mm)", "ASSD (mm)",
                               "pooled Dice", "missed", "patients"]
    line = table.iloc[1]  # KAF, m = 2: patients have .6, .61 ... .65 for LV
    assert (line["Dice LV"], line["Dice MYO"], line["Dice mean"]) == (0.625, 0.525, 0.575)
    assert (line["HD95 (mm)"], line["ASSD (mm)"], line["patients"]) == (11.0, 1.5, 6)
    low, high = map(float, line["95 % interval"].split(" to "))
    assert 0.55 <= low < 0.575 < high <= 0.6
    assert line["pooled Dice"] == 0.405  # 2 x 405 of 2000 voxels


def test_pooled_dice_is_taken_per_fold_and_then_averaged():
    rows = make_rows(("UNet",), (2,))
    second = rows["patient"] >= "patient004"
    rows.loc[second, "fold"] = 1
    rows.loc[second, ["overlap_voxels", "predicted_voxels", "true_voxels"]] = 8, 10, 10
    rows.loc[~second, ["overlap_voxels", "predicted_voxels", "true_voxels"]] = 400, 1000, 1000
    assert results_table(rows)["pooled Dice"].tolist() == [0.6]  # (.8 + .4) / 2, not .402


def test_missed_structures_are_counted():
    rows = make_rows()
    rows.loc[(rows["method"] == "UNet") & (rows["m"] == 8) & (rows["patient"] == "patient000"), "missed"] = True
    assert results_table(rows)["missed"].tolist() == [0, 0, 4, 0]  # two frames of two structures


def test_one_patient_has_no_interval():
    assert results_table(make_rows(patients=1))["95 % interval"].tolist() == ["–"] * 4


def test_comparison_is_made_for_each_m_and_reads_as_a_table():
    rows = make_rows(("UNet", "wide", "KAF"))
    rows["dice"] += 0.013 * np.random.default_rng(0).standard_normal(len(rows))
    table = comparison_table(rows, "UNet")
    assert table[["m", "method", "against"]].to_numpy().tolist() == [
        [2, "wide", "UNet"], [2, "KAF", "UNet"], [8, "wide", "UNet"], [8, "KAF", "UNet"]]
    exact = compare(rows[rows["m"] == 8], ["wide", "KAF"], "UNet")
    line, truth = table.iloc[3], exact.iloc[1]
    assert line["difference in dice"] == f"{truth['difference']:+.3f}"
    assert line["95 % interval"] == f"{truth['low']:+.3f} to {truth['high']:+.3f}"
    assert float(line["p Wilcoxon (Holm)"]) == pytest.approx(truth["p_wilcoxon_holm"], abs=6e-4)
    assert float(line["p t-test (Holm)"]) == pytest.approx(truth["p_t_holm"], rel=0.05)
    assert line["patients"] == 6


def test_a_method_may_be_compared_at_some_numbers_of_labels_alone():
    rows = make_rows(("UNet", "wide", "KAF"))
    table = comparison_table(rows[(rows["m"] == 2) | (rows["method"] != "KAF")], "UNet")
    assert table[["m", "method"]].to_numpy().tolist() == [[2, "wide"], [2, "KAF"], [8, "wide"]]


def test_a_small_p_is_never_shown_as_zero():
    assert [p_value(p) for p in (1.0, 0.0312, 0.001, 0.00042)] == ["1.000", "0.031", "0.001", "4.2e-04"]


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert [signed(x) for x in (-0.0004, 0.0004, -0.0006, 0.02)] == ["0.000", "0.000", "-0.001", "+0.020"]


def test_comparison_of_distances():
    table = comparison_table(make_rows(), "UNet", "hd95_mm")
    assert table["difference in hd95_mm"].tolist() == ["-1.50", "-1.50"]


def test_tables_name_what_is_wrong():
    rows = make_rows()
    with pytest.raises(ValueError, match="lack the columns m"):
        results_table(rows.drop(columns="m"))
    mixed = pd.concat([rows, rows.assign(dataset="acdc")])
    for table in (results_table, lambda r: comparison_table(r, "UNet")):
        with pytest.raises(ValueError, match=r"several values of 'dataset' \(phantom, acdc\)"):
            table(mixed)
    sizes = pd.concat([rows.assign(scale="smoke"), rows.assign(scale="laptop")])
    for table in (results_table, lambda r: comparison_table(r, "UNet")):
        with pytest.raises(ValueError, match=r"several values of 'scale' \(smoke, laptop\); select one"):
            table(sizes)
    longer = pd.concat([rows.assign(setting=name) for name in ("", "as many steps")])
    with pytest.raises(ValueError, match=r"'KAF' mix several settings \('', 'as many steps'\); select one"):
        results_table(longer)
    named = labelled(longer)
    found = results_table(named.assign(method=named["label"]))
    assert {"UNet", "UNet: as many steps"} <= set(found["method"]) and len(found) == 2 * len(results_table(rows))


def test_provenance_in_one_line(tmp_path):
    run = Run(tmp_path / "run", {"seed": 0})
    with pytest.raises(FileNotFoundError, match="nothing was trained there yet"):
        provenance_line(run)
    facts = {"kaf": "0.1.0", "commit": "9bd59a5", "date": "2026-01-02", "device": "x86_64", "threads": 2}
    run.add_provenance(**facts)
    with pytest.raises(ValueError, match="unfinished"):
        provenance_line(run)
    run.add_provenance(seconds=90.0, peak_memory_mb=812, steps=10)
    assert provenance_line(run) == ("kaf 0.1.0 (commit 9bd59a5), 2026-01-02, x86_64, threads: 2, 1.5 minutes, "
                                    "peak memory 812 MiB")
    run.add_provenance(commit="")  # an installed copy
    assert provenance_line(run).startswith("kaf 0.1.0, 2026-01-02")


def test_a_notebook_without_a_run_says_what_made_it_too():
    line = session_line()
    assert line.startswith(f"kaf {kaf.__version__}") and f"threads: {torch.get_num_threads()}" in line
    assert "minutes" not in line
