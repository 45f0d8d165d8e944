"""What a result may be compared with: the values of the paper, and what other seeds give (chapters 5 and 6)."""

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kaf.config import Experiment, digest
from kaf.records import FOLDER

OUTDATED = "The text of this section was written for other results."


def read_paper(dataset: str, setting: str = "", folder: str | Path = FOLDER) -> pd.DataFrame:
    """The published Dice of a data set: ``method``, ``pretraining``, ``m``, ``dice``, ``sd`` over folds, ``source``.

    The paper's own are pooled over a fold, at the best epoch on the test fold, with test patients in the pretraining
    set. ``setting`` is empty for the main results; the file names the ablations. Raises ``FileNotFoundError``
    without the file and ``ValueError`` where it has nothing.
    """
    file = Path(folder) / "paper.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; the published values come with the repository")
    rows = pd.DataFrame(json.loads(file.read_text()))
    found = rows[(rows["dataset"] == dataset) & (rows["setting"] == setting)]
    if found.empty:
        raise ValueError(f"the paper has no values for dataset {dataset!r} and setting {setting!r}; it has "
                         f"{', '.join(sorted(set(rows['dataset'])))}")
    return found.reset_index(drop=True)


def pretraining_numbers(history: pd.DataFrame) -> dict[str, float]:
    """The headline numbers of a pretraining run, from its log: losses, and those monitors that it had, at the end."""
    last = history.ffill().iloc[-1]
    losses = {f"{name}_last": last[name] for name in ("loss", "pcl", "global", "local") if name in history}
    monitors = {"feature_spread": "spread", "attention_entropy": "entropy", "keypoints_on_background": "background"}
    return {"loss_first": history["loss"].iloc[0], **losses,
            **{name: last[column] for name, column in monitors.items() if column in history}}


def few_shot_numbers(rows: pd.DataFrame) -> dict[str, float]:
    """Mean Dice over the test patients of every method and number ``m``; names such as ``dice_UNet_m2``."""
    patients = rows.groupby(["method", "m", "patient"], sort=False)["dice"].mean()
    means = patients.groupby(level=[0, 1], sort=False).mean()
    return {f"dice_{method.replace(' ', '_')}_m{m}": value for (method, m), value in means.items()}


def configuration(experiment: Experiment) -> str:
    """Fingerprint of an experiment without its seed: the spread over seeds belongs to one of these."""
    return digest(replace(experiment, seed=0))


def read_spread(experiment: Experiment, folder: str | Path = FOLDER) -> pd.DataFrame | None:
    """Recorded ``name``, ``seed``, ``value`` of seeds other than its own; None for another configuration.

    Raises ``FileNotFoundError`` without a record.
    """
    file = Path(folder) / "spread.csv"
    if not file.is_file() or not file.with_suffix(".json").is_file():
        raise FileNotFoundError(f"{file} or its JSON is missing; `python book/spread.py` writes them")
    facts = json.loads(file.with_suffix(".json").read_text())
    if facts["configuration"] != configuration(experiment):
        return None
    rows = pd.read_csv(file)
    return rows[rows["seed"] != experiment.seed].reset_index(drop=True)  # else a run would lie inside its own range


def spread_table(recorded: pd.DataFrame, own: Mapping[str, float], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean, SD, lowest and highest of the recorded seeds beside ``own`` numbers, and whether these lie between them.

    One line for each of ``names`` (default: all of ``own``) that was recorded; SD is that of a sample.
    """
    lines = []
    for name in names or own:
        values = recorded.loc[recorded["name"] == name, "value"]
        if len(values):
            inside = values.min() - 1e-4 <= own[name] <= values.max() + 1e-4  # as rounded in the table
            numbers = {"yours": own[name], "mean": values.mean(), "SD": values.std(), "lowest": values.min(),
                       "highest": values.max()}
            lines.append({"number": name.replace("_", " "), **{k: round(v, 3) for k, v in numbers.items()},
                          "inside": "yes" if inside else "no"})
    return pd.DataFrame(lines, columns=["number", "yours", "mean", "SD", "lowest", "highest", "inside"])


@contextmanager
def as_written() -> Iterator[None]:
    """Check in here what the text around a cell says of results: where that does not hold, it is printed.

    Records grow with every grid that is run, sentences do not. So a statement that fails, or is about runs that are
    not there, stops nothing: tables and figures show what is recorded now.
    """
    try:
        yield
    except (AssertionError, LookupError, ValueError) as error:  # of nothing there is no smallest
        cell = next(frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__)
        print(f"{OUTDATED} This does not hold for yours:\n    {cell.line}\nGo by the tables and figures here.")
