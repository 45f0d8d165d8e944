"""What notebooks print: numbers that tests can check, tables for reading, and where a run comes from."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from kaf.evaluate import compare, pooled_dice, summarise
from kaf.runs import Run, provenance

NUMBERS = "kaf_numbers"  # key in the metadata of an output that holds exact values
RUNS = ("draw", "fold", "seed")  # what tells apart several trainings of one method


def show_numbers(**values: Any) -> None:
    """Display values rounded, one a line, with the exact ones in the metadata of the output.

    A value is a number (of Python, NumPy or a tensor with one element) or a sequence of numbers. A committed
    notebook so says what a run gave, and :func:`read_numbers` compares within a tolerance. Raises
    ``TypeError`` for anything else and ``ValueError`` for an infinite value.
    """
    from IPython.display import display  # only notebooks need it

    exact = {name: _exact(name, value) for name, value in values.items()}
    width = max(map(len, exact), default=0)
    lines = [f"{name.replace('_', ' '):{width}}  {_rounded(value)}" for name, value in exact.items()]
    display({"text/plain": "\n".join(lines)}, raw=True, metadata={NUMBERS: exact})


def read_numbers(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """All values shown with :func:`show_numbers` in a notebook, as ``json.load`` or ``nbformat.read`` gives it.

    NaN is None. Raises ``ValueError`` where one name was shown twice.
    """
    found: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            shown = output.get("metadata", {}).get(NUMBERS, {})
            if twice := found.keys() & shown.keys():
                raise ValueError(f"shown twice in one notebook: {', '.join(sorted(twice))}; use another name")
            found.update(shown)
    return found


def _exact(name: str, value: Any) -> Any:
    """A value that JSON can hold: int, float, None for NaN, or a list of them."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # arrays, tensors and NumPy's numbers
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return [_exact(name, v) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number or a sequence of numbers, got {type(value).__name__}")
    if np.isinf(value):
        raise ValueError(f"{name} is infinite, which a notebook cannot hold")
    return None if np.isnan(value) else value


def _rounded(value: Any) -> str:
    """Three digits; a fraction keeps its decimal point, so that checks of pages know it from a count."""
    if isinstance(value, list):
        return ", ".join(map(_rounded, value))
    if value is None or isinstance(value, int):
        return "none" if value is None else str(value)
    small = 0 < abs(value) < 0.001
    return f"{value:.2e}" if small else f"{value:.{3 if abs(value) < 10 else 1}f}"


def results_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :data:`kaf.evaluate.COLUMNS` as one line per method and number ``m`` of labelled patients.

    Dice of every structure, their mean over patients with its 95 % interval, HD95 and ASSD in mm, the paper's
    pooled Dice (per fold, mean over structures), and how many structures were missed. Lines follow ``m``, then the
    order of the methods in ``rows``. Raises ``ValueError`` for missing columns, and for several data sets, protocols or
    scales, or several settings of a method, at once.
    """
    _check(rows)
    by = ["method", "m"]
    structures = rows["structure"].unique()
    single = summarise(rows, [*by, "structure"], ["dice"]).set_index([*by, "structure"])["dice"].unstack("structure")
    whole = summarise(rows, by).set_index(by)
    runs = [c for c in RUNS if c in rows]
    pooled = pooled_dice(rows, [*by, *runs, "structure"]).groupby(by).mean()
    table = single[structures].rename(columns=lambda name: f"Dice {name}").round(3)
    table["Dice mean"] = whole["dice"].round(3)
    table["95 % interval"] = [_interval(*ends) for ends in zip(whole["dice_low"], whole["dice_high"], strict=True)]
    table["HD95 (mm)"], table["ASSD (mm)"] = whole["hd95_mm"].round(1), whole["assd_mm"].round(2)
    table["pooled Dice"] = pooled.round(3)
    table["missed"], table["patients"] = whole["missed"], whole["patients"]
    order = {name: i for i, name in enumerate(rows["method"].unique())}
    table.columns.name = None
    table = table.reset_index()
    place = table["method"].map(order)
    return table.assign(place=place).sort_values(["m", "place"], ignore_index=True).drop(columns="place")


def comparison_table(rows: pd.DataFrame, reference: str, metric: str = "dice") -> pd.DataFrame:
    """Every other method against ``reference``, paired over patients, for each ``m`` with its methods on its own.

    Mean difference with its 95 % interval and the p values of :func:`kaf.evaluate.compare`, corrected by Holm for
    the number of methods at the same ``m``. Raises ``ValueError`` where methods are not comparable.
    """
    _check(rows)
    tables = [compare(group, list(group["method"].unique()), reference, metric).assign(m=m)
              for m, group in rows.groupby("m", sort=True)]
    found = pd.concat(tables, ignore_index=True)
    digits = 3 if metric == "dice" else 2
    return pd.DataFrame({
        "m": found["m"], "method": found["method"], "against": found["reference"], "patients": found["patients"],
        f"difference in {metric}": found["difference"].map(lambda d: f"{d:+.{digits}f}"),
        "95 % interval": [_interval(*ends, digits, "+") for ends in zip(found["low"], found["high"], strict=True)],
        "p Wilcoxon (Holm)": found["p_wilcoxon_holm"].map(p_value),
        "p t-test (Holm)": found["p_t_holm"].map(p_value),
    })  # fmt: skip


def provenance_line(run: Run) -> str:
    """What made a finished run, in one line: kaf, commit, date, device, threads, minutes, peak memory.

    Raises ``FileNotFoundError`` for a run that was never started and ``ValueError`` for an unfinished one.
    """
    file = run.folder / "provenance.json"
    if not file.is_file():
        raise FileNotFoundError(f"{run.folder} has no provenance.json; nothing was trained there yet")
    facts = json.loads(file.read_text())
    if "seconds" not in facts:
        raise ValueError(f"{run.folder} is unfinished; run the same again, it continues")
    return (f"{_made_with(facts)}, {facts['seconds'] / 60:.1f} minutes, "
            f"peak memory {facts['peak_memory_mb']:.0f} MiB")


def session_line() -> str:
    """What makes the outputs of a notebook without a run: kaf, commit, date, device, threads."""
    return _made_with(provenance())


def size_line(run: Mapping[str, Any]) -> str:
    """The images, the network and its training of a recorded run (:mod:`kaf.records`), in a few words."""
    experiment = run["config"]["experiment"]
    data, optim = experiment["data"], experiment["finetune"]["optim"]
    spacing = f"{data['spacing_mm']:g} mm" if data["spacing_mm"] else "the files"
    further = f", {_length(selftrain['optim'])} of self-training" if (selftrain := experiment.get("selftrain")) else ""
    if pretraining := run.get("finetuning", run).get("pretraining"):
        further += f", {_length(pretraining['config']['experiment']['pretrain']['optim'])} of pretraining"
    if (precision := experiment.get("precision", "auto")) != "auto":
        further += f", in {precision}"
    network = f"{experiment['width']} filters, {_length(optim)} of {optim['batch']}{further}"
    return f"{data['size']} px of {spacing}, {network}"


def _length(optim: Mapping[str, Any]) -> str:
    return f"{optim['epochs']} epochs" if optim["epochs"] else f"{optim['steps']} steps"


def _made_with(facts: Mapping[str, Any]) -> str:
    commit = f" (commit {facts['commit']})" if facts["commit"] else ""
    return f"kaf {facts['kaf']}{commit}, {facts['date']}, {facts['device']}, threads: {facts['threads']}"


def _check(rows: pd.DataFrame) -> None:
    needed = {"method", "m", "patient", "structure", "dice", "hd95_mm", "assd_mm", "missed", "absent"}
    if missing := needed - set(rows):
        raise ValueError(f"rows lack the columns {', '.join(sorted(missing))}")
    for column in (c for c in ("dataset", "protocol", "scale") if c in rows):
        if rows[column].nunique() > 1:
            values = ", ".join(map(str, rows[column].unique()))
            raise ValueError(f"the rows mix several values of {column!r} ({values}); select one")
    for method, some in rows.groupby("method") if "setting" in rows else ():
        if some["setting"].nunique() > 1:
            names = ", ".join(map(repr, some["setting"].unique()))
            raise ValueError(f"the rows of {method!r} mix several settings ({names}); select one, or take the labels "
                             "of kaf.verdicts.labelled as methods")


def _interval(low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """"0.812 to 0.860"; a dash where one patient allows none."""
    return "–" if np.isnan(low) else f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def signed(value: float) -> str:
    """A difference in Dice with its sign; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return text.lstrip("+-") if float(text) == 0 else text


def p_value(p: float) -> str:
    """Three decimals, and powers of ten below .001."""
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"
