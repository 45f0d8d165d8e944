"""What results are compared with: the paper's values and the spread over seeds."""

import json

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from kaf.config import resolve
from kaf.expected import (
    OUTDATED,
    as_written,
    configuration,
    few_shot_numbers,
    pretraining_numbers,
    read_paper,
    read_spread,
    spread_table,
)
from kaf.protocols import LABELLED


def test_paper_values_of_acdc():
    paper = read_paper("acdc").set_index(["method", "m"])["dice"]
    assert paper["KAF pretrained", 2] == 0.741 and paper["UNet", 6] == 0.782
    assert paper.index.is_unique and paper.between(0, 1).all()


def test_pretraining_helps_in_the_paper_on_both_data_sets():
    for dataset, m in (("acdc", 6), ("chd", 2)):
        paper = read_paper(dataset).set_index(["method", "m"])["dice"]
        assert paper["KAF pretrained", m] > paper["KAF from scratch", m] > paper["UNet", m]


def test_the_papers_comparison_with_transformers():
    paper = read_paper("synapse").set_index("method")["dice"]
    assert paper["UNet"] < paper["SwinUNETR"] < paper["KAF from scratch"] < paper["KAF pretrained"] == 0.322


def test_ablations_are_apart_from_the_main_results():
    assert read_paper("acdc", "ablation: L_global")["dice"].tolist() == [0.865]
    assert (read_paper("acdc")["setting"] == "").all()
    with pytest.raises(ValueError, match="no values for dataset 'hvsmr'"):
        read_paper("hvsmr")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="paper.json is missing"):
        read_paper("acdc", folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="spread.csv or its JSON is missing"):
        read_spread(resolve("smoke"), tmp_path)


def test_spread_belongs_to_one_configuration_whatever_the_seed(tmp_path):
    pd.DataFrame({"name": ["x"], "seed": [0], "value": [0.5]}).to_csv(tmp_path / "spread.csv", index=False)
    (tmp_path / "spread.json").write_text(json.dumps({"configuration": configuration(resolve("smoke"))}))
    assert len(read_spread(resolve("smoke", seed=7), tmp_path)) == 1
    assert read_spread(resolve("smoke", seed=0), tmp_path).empty  # a run is not compared with itself
    assert read_spread(resolve("laptop"), tmp_path) is None


def test_committed_spread_is_that_of_the_committed_configuration():
    recorded = read_spread(resolve("smoke", seed=99))
    assert recorded is not None, "the configuration has changed since; run python book/spread.py"
    assert recorded.groupby("name")["seed"].nunique().eq(5).all()
    assert {f"dice_KAF_pretrained_m{m}" for m in LABELLED["smoke"]} <= set(recorded["name"])


def test_spread_table_says_what_lies_inside():
    recorded = pd.DataFrame({"name": ["a_b"] * 3 + ["c"] * 3, "seed": [0, 1, 2] * 2, "value": [1, 2, 3, 0.1, 0.1, 0.1]})
    table = spread_table(recorded, {"a_b": 2.5, "c": 0.2, "unknown": 1.0})
    assert table["number"].tolist() == ["a b", "c"] and table["inside"].tolist() == ["yes", "no"]
    assert table.loc[0, ["mean", "SD", "lowest", "highest"]].tolist() == [2, 1, 1, 3]


def test_numbers_of_pretraining_are_the_last_ones_logged():
    history = pd.DataFrame({"step": [0, 10, 11], "loss": [3.0, 2.0, 1.0], "pcl": [1.0, 0.8, 0.6],
                            "spread": [0.9, 0.7, None], "entropy": [1.0, 0.9, None], "background": [0.1, 0.2, None]})
    numbers = pretraining_numbers(history)
    assert numbers["loss_first"] == 3.0 and numbers["loss_last"] == 1.0 and numbers["feature_spread"] == 0.7
    assert "local_last" not in numbers
    assert "feature_spread" not in pretraining_numbers(history.drop(columns="spread")), "of another pretraining"


def test_every_patient_counts_once():
    rows = pd.DataFrame({"method": "KAF from scratch", "m": 2, "patient": ["a", "a", "b"], "dice": [0.2, 0.4, 0.9]})
    assert few_shot_numbers(rows) == {"dice_KAF_from_scratch_m2": pytest.approx(0.6)}


@pytest.mark.parametrize("line", [
    "assert verdicts == {2: 'better'}", "assert verdicts[6] == 'worse'", "assert min([]) < 0"])
def test_text_that_results_outgrew_is_named_and_stops_nothing(line, capsys):
    """In a cell, whose statement is shown."""
    shell = InteractiveShell.instance()
    ran = shell.run_cell(f"from kaf.expected import as_written\nverdicts = {{2: 'worse'}}\nwith as_written():\n"
                         f"    {line}\nprint('and on')")
    printed = capsys.readouterr().out
    assert ran.success and OUTDATED in printed and line in printed and "and on" in printed


def test_text_that_still_holds_says_nothing(capsys):
    with as_written():
        assert OUTDATED
    assert not capsys.readouterr().out


def test_a_mistake_in_a_statement_is_no_outdated_text():
    with pytest.raises(NameError), as_written():
        assert unknown  # noqa: F821
