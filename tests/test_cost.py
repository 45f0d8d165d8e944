"""What the benchmarks measured, read back."""

import json

from kaf.cost import COST, read_costs


def test_costs_say_where_they_were_measured(tmp_path):
    machine = {"cpu": "Some CPU", "cores": 2, "gpu": None, "torch": "2.6"}
    some = {"machine": machine, "date": "2026-01-02", "rows": [{"what": "a step", "value": 1.5}]}
    file = tmp_path / "cost.json"
    file.write_text(json.dumps({"one": {**some, "settings": {}}, "two": {**some, "settings": {"device": "cuda"}}}))
    costs = read_costs(file)
    assert costs["one"].rows["value"].tolist() == [1.5]
    assert costs["one"].label == "Some CPU, 2 cores; torch 2.6; 2026-01-02"
    assert costs["two"].label.startswith("no GPU")


def test_committed_costs_hold_every_target():
    costs = read_costs(COST)
    targets = {(name, row["what"]) for name, cost in costs.items() for row in cost.rows.to_dict("records")
               if row["target"]}
    assert {("training step, matched", "training step, KAF paper / wide UNet"),
            ("training step, light", "training step, KAF light / UNet"),
            ("roofline, cuda", "step, KAF default / wide UNet, 224 px")} <= targets
