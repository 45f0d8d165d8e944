"""The log of one pretraining as a record, which chapter 5 shows: ``python -m book.pretraining RUN``.

RUN is the folder of a finished pretraining, such as those that the grids leave in ``runs``. Writes
``book/records/pretraining.csv`` and its JSON.
"""

import argparse
from pathlib import Path

from kaf.files import exclusive, read_json, write_csv, write_json
from kaf.records import FOLDER
from kaf.runs import Run


def record(folder: Path, records: Path = FOLDER) -> None:
    """Copy what a run logged, with its configuration and what made it.

    Raises ``ValueError`` where ``folder`` is no run, no pretraining, or one that has not ended.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no folder of a run: it has no config.json")
    run = Run(folder, read_json(folder / "config.json"))
    provenance = read_json(folder / "provenance.json")
    if "pretrain" not in run.config["experiment"] or "method" in run.config:
        raise ValueError(f"{folder} is no pretraining, but a run of {run.config.get('method', 'another kind')}")
    if "seconds" not in provenance:
        raise ValueError(f"the pretraining in {folder} has not ended; run the same again, it goes on")
    facts = {"experiment": run.config["experiment"], "network": run.config["network"],
             "patients": len(run.config["patients"]), "provenance": provenance}
    with exclusive(records):
        write_csv(records / "pretraining.csv", run.history())
        write_json(records / "pretraining.json", facts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.pretraining", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    try:
        record(parser.parse_args().run)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
