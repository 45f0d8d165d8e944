"""How far the numbers of chapters 5 and 6 move with the seed: ``python book/spread.py [SEEDS]``.

Every seed starts the weights and orders and augments the batches anew; the patients stay the same. Runs are
kept in ``_build/spread`` (or ``$KAF_HOME``), so that the command goes on where it stopped. Writes
``book/records/spread.csv`` and its JSON; the chapters show them beside what they computed themselves.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from kaf.config import resolve
from kaf.expected import configuration, few_shot_numbers, pretraining_numbers
from kaf.files import exclusive, write_csv, write_json
from kaf.protocols import LABELLED
from kaf.records import FOLDER
from kaf.runs import provenance
from kaf.study import open_study

METHODS = ("unet", "wide_unet", "kaf_scratch", "kaf_pretrained")  # those of chapter 6
HOME = Path(os.environ.get("KAF_HOME") or Path(__file__).parents[1] / "_build" / "spread")


def numbers(seed: int) -> dict[str, float]:
    """The headline numbers of both chapters at scale smoke."""
    study = open_study(resolve("smoke", seed=seed), output=HOME, device="cpu")
    found = pretraining_numbers(study.pretrain().history())
    tables = [study.few_shot(method, m)[1] for m in LABELLED["smoke"] for method in METHODS]
    return found | few_shot_numbers(pd.concat(tables, ignore_index=True))


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    lines = []
    for seed in seeds:
        lines += [{"name": name, "seed": seed, "value": round(value, 5)} for name, value in numbers(seed).items()]
        print(f"seed {seed} of {len(seeds)}: done", flush=True)
    facts = {"what": "headline numbers of chapters 5 and 6, phantom at scale smoke, fold 0, draw 0",
             "configuration": configuration(resolve("smoke")), "seeds": list(seeds), "provenance": provenance()}
    with exclusive(FOLDER):  # whoever records there meanwhile would clear the drafts of these
        write_csv(FOLDER / "spread.csv", pd.DataFrame(lines))
        write_json(FOLDER / "spread.json", facts)


if __name__ == "__main__":
    main()
