"""Findings of the page "Claims and evidence" in words, of what no comparison says."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import kruskal

from book.dress import CHAPTERS
from book.evidence import evidence
from book.lines import table_lines
from book.names import OTHERS, PRETRAINED, SCRATCH, TAUGHT, UNET
from kaf.anatomy import within
from kaf.cost import COST, Cost, read_costs
from kaf.evaluate import pooled_dice, summarise
from kaf.expected import read_paper
from kaf.files import read_json
from kaf.monitors import COLLAPSED
from kaf.report import p_value, read_numbers
from kaf.verdicts import labelled

FAILED = 0.2  # of mean Dice below all others: a training that found nothing


def gain_by_group(records: Path) -> str:
    """Whether what pretraining gains a patient differs between groups: Kruskal and Wallis (1952)."""
    rows = evidence("fewshot", records).rows
    rows = labelled(rows)[lambda table: table["label"].isin([SCRATCH, PRETRAINED])] if len(rows) else rows
    parts = []
    for m, of_m in rows.groupby("m"):
        means = of_m.groupby(["group", "patient", "label"])["dice"].mean().unstack()
        if set(means) != {SCRATCH, PRETRAINED}:
            continue
        gains = [gain for _, gain in (means[PRETRAINED] - means[SCRATCH]).dropna().groupby("group")]
        if len(gains) > 1:
            parts.append(f"M = {m} p = {p_value(kruskal(*gains).pvalue)}")
    return ("The verdict is of what pretraining gains each group. Whether that differs between the groups: "
            f"{', '.join(parts)} (Kruskal and Wallis).") if parts else ""


def likeness_by_group(records: Path) -> str:
    """How alike the anatomy of slices is that L_pcl takes to be alike, by group and without any training."""
    if not (records / "anatomy.csv").is_file():
        return ""
    rows, threshold = pd.read_csv(records / "anatomy.csv"), read_json(records / "anatomy.json")["threshold"]
    patients = within(rows, threshold)
    means = patients.groupby("group")[["near", "far"]].mean()
    each = ", ".join(f"{group} {near:.2f} and {far:.2f}" for group, (near, far) in means.iterrows())
    gains = [some["near"] - some["far"] for _, some in patients.groupby("group")]
    more = int((pd.concat(gains) > 0).sum())
    return (f"Dice of the labels of two slices of different patients, hearts centred, closer than {threshold:g} in "
            f"position and farther apart: {each}. The closer ones are more alike in {more} of {len(patients)} "
            f"patients; whether by as much in every group: p = {p_value(kruskal(*gains).pvalue)} (Kruskal and Wallis; "
            "record `anatomy`, made by `python -m kaf.anatomy stores/STORE`).")


def pathology(records: Path) -> str:
    """What entry L2 has besides its comparisons."""
    return " ".join(filter(None, (gain_by_group(records), likeness_by_group(records))))


def _collapses() -> tuple[bool, bool]:
    """Whether pretraining in chapter 5 collapses by its monitor, at the large rate and at the small one."""
    numbers = read_numbers(json.loads((CHAPTERS / "05_pretrain.ipynb").read_text()))
    return tuple(numbers[f"spread_at_{size}_rate"] < COLLAPSED for size in ("large", "small"))


def caught(_: Path) -> str:
    """A verdict: whether the monitor tells the pretraining that collapses from the one that does not."""
    return {(True, False): "Happens, and is caught.", (True, True): "Happens at both rates."}.get(
        _collapses(), "Not shown to happen.")


def collapse(_: Path) -> str:
    """What chapter 5 shows of a pretraining that collapses; its last digits differ between machines."""
    flat, spread = _collapses()
    return (f"The monitor warns where features spread by less than {COLLAPSED:g}. On the phantom, pretrained at a rate "
            f"of .1, they {'do' if flat else 'do not'}, at .002 they {'do' if spread else 'do not'}.")


def _mean_dice(rows: pd.DataFrame) -> tuple[float, str]:
    """The mean Dice of the rows of one label, and of how many folds they are, in words."""
    folds = rows["fold"].nunique()
    return summarise(rows, ["label"], ["dice"])["dice"].item(), f"{folds} fold{'s' * (folds > 1)}"


def reached(records: Path) -> str:
    """The Dice of what goes as far as this book goes, each setting of it, beside the paper's best."""
    rows, paper = evidence("strongest", records).rows, read_paper("acdc")
    if rows.empty:
        return ""
    told = []
    for m, of_m in labelled(rows)[lambda table: table["label"].str.startswith(TAUGHT)].groupby("m"):
        for label, own in of_m.groupby("label"):
            dice, folds = _mean_dice(own)
            told.append([label, str(m), f"{dice:.3f}", f"{pooled_dice(own, ['fold', 'structure']).mean():.3f}", folds])
        told.append(["the paper's best", str(m), "", f"{paper.loc[paper['m'] == m, 'dice'].max():.3f}", "5 folds"])
    return _behind(
            "The table below sets them beside the paper. More than the method differs: folds and labelled patients are "
            "others, here small pieces of the predictions are removed, and the paper's pretraining saw the test "
            "patients and its epoch was chosen on them. What starts after 2500 or 5000 steps has gone through these "
            "and through those of self-training, while *as many steps* are 2500; only *5000 steps* of training on "
            "labels, where they are recorded, are more than 2500 and self-training. Settings of these runs were tried "
            "on training patients of folds 0 and 1, the angles on some of every fold; other folds test some of them, "
            "so the scores may be a little kind.",
            ["", "M", "Dice per patient and frame", "of the voxels of a fold, as the paper scores", "over"],
            told) if told else ""


def plain(records: Path) -> str:
    """The Dice of a UNet by a plain recipe, by what was changed of it: below it no baseline of others should be."""
    rows = evidence("baseline", records).rows
    if rows.empty:
        return ""
    rows = labelled(rows)
    told: dict[str, dict[int, str]] = {}
    for (label, m), own in rows.groupby(["label", "m"], sort=False):
        told.setdefault(label, {})[m] = "{:.3f} ({})".format(*_mean_dice(own))
    numbers = sorted(set(rows["m"]))
    return _behind(
        "Mean Dice per patient and frame on the larger images (`baseline`); those of different folds compare badly.",
        ["", *(f"M = {m}" for m in numbers)],
        [[label, *(own.get(m, "") for m in numbers)] for label, own in told.items()])


def _behind(paragraph: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A paragraph with a table behind it."""
    return "\n".join([paragraph, "", *table_lines(head, rows)])


def pretrained_networks(_: Path) -> str:
    """What differs between the methods of the main table besides their pretraining."""
    return (f"{', '.join(OTHERS)} pretrain a UNet without KAF layers: beside them {PRETRAINED} differs in network and "
            f"pretraining at once. What pretraining adds to a network is its difference from the same network without: "
            f"{PRETRAINED} from {SCRATCH} here, the others from the UNet in C1. Sparse slices and irregular anatomy, "
            "where the matching of slices may fail, were not tested by themselves; L2 looks at groups of patients.")


def cost_by_points(records: Path) -> str:
    """What a training step takes for several numbers of keypoints, on a machine that did nothing else."""
    cost = _cost("growth, points", records)
    if cost is None:
        return ""
    rows = cost.rows[cost.rows["points"] <= 512].pivot(index="points", columns="unit", values="value")
    told = [f"K = {count} {row['s']:.2f} s and {row['MiB']:.0f} MiB" for count, row in rows.iterrows()]
    return f"A training step with its memory: {', '.join(told)} ({_sizes(cost)})."


def cost_of_mixing(records: Path) -> str:
    """Time and memory of the mixing blocks and of SwinUNETR, beside the wide UNet."""
    cost = _cost("training step, alternatives", records)
    if cost is None:
        return ""
    ratio = cost.rows.pivot(index="network", columns="quantity", values="ratio").dropna()
    names = {"KAF default": "KAF", "KAF paper's block": "paper's block", "KAF graph": "graph",
             "KAF no mixing": "no mixing", "SwinUNETR": "SwinUNETR"}
    told = [f"{word} {ratio.loc[name, 'training step']:.2f} and {ratio.loc[name, 'peak memory']:.2f}"
            for name, word in names.items()]
    return f"Time and memory of a training step, the wide UNet being 1: {', '.join(told)} ({_sizes(cost)})."


def _cost(name: str, records: Path) -> Cost | None:
    return read_costs(records / COST.name).get(name) if (records / COST.name).is_file() else None


def _sizes(cost: Cost) -> str:
    s = cost.settings
    return f"{s['size']} px, f = {s['width']}, batch {s['batch']}; {cost.label}"


def failed_training(*numbers: int) -> Callable[[Path], str]:
    """A finding: that a brief training of the UNet failed, for these ``numbers`` M, which widens the noise floor."""

    def finding(records: Path) -> str:
        rows = labelled(evidence("seeds", records).rows)
        rows = rows[(rows["label"] == f"{UNET}: brief") & rows["m"].isin(numbers)]
        told = []
        for m, of_m in rows.groupby("m"):
            means = of_m.groupby("seed")["dice"].mean().sort_values()
            if len(means) > 2 and means.iloc[1] - means.iloc[0] > FAILED:
                told.append(f"at M = {m} {means.iloc[0]:.3f}, the others {means.iloc[1]:.3f} to {means.iloc[-1]:.3f}")
        return ("The noise floor of brief trainings of the UNet is wide, because one of those with several seeds "
                f"failed (chapter 7): {'; '.join(told)}.") if told else ""

    return finding
