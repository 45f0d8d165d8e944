"""How alike two slices are by their labels, against how far apart they lie: what L_pcl takes for granted (chapter 8).

Usage: ``python -m kaf.anatomy STORE [--into FOLDER]`` measures a store whose patients have groups and writes
``anatomy.csv`` and its JSON; no network and no training is involved.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kaf.config import resolve
from kaf.data.grid import place
from kaf.data.store import Store
from kaf.files import exclusive, make_writable, write_csv, write_json
from kaf.records import FOLDER
from kaf.runs import provenance

FRAME = "ED"  # of each patient; the heart is relaxed and its structures are largest
THRESHOLD = resolve("smoke", "acdc").pretrain.threshold
#: Distances in relative position between which pairs are counted together; one of them is the threshold of L_pcl.
EDGES = (0.0, 0.05, 0.15, 0.25, THRESHOLD, 0.45, 0.55, 0.65, 1.0)
OTHERS = ("all groups", "own group")  # whose slices a patient's are compared with, always other patients'


def centred(labels: np.ndarray, side: int) -> np.ndarray:
    """Squares ``(S, side, side)`` of labels ``(S, H, W)``, each about the centre of mass of its structures.

    What lies outside is lost, and background comes in. Raises ``ValueError`` for a slice without any structure.
    """
    if not (labels > 0).any((1, 2)).all():
        raise ValueError("a slice without any structure has no centre; leave it out")
    moves = ([side // 2 - int(np.round(places.mean())) for places in np.nonzero(slice_)] for slice_ in labels)
    return np.stack([place(slice_, (side, side), tuple(move)) for slice_, move in zip(labels, moves, strict=True)])


def dice_of_pairs(labels: np.ndarray, structures: int) -> Tensor:
    """Dice ``(N, N)`` of every two of the label images ``(N, H, W)``, all structures 1 to ``structures`` together."""
    found = torch.from_numpy(labels.astype(np.int64))
    masks = torch.stack([found == value for value in range(1, structures + 1)], 1).flatten(1).float()
    size = masks.sum(1)
    return 2 * (masks @ masks.T) / (size[:, None] + size)


def likeness(store: Store, frame: str = FRAME, edges: tuple[float, ...] = EDGES) -> pd.DataFrame:
    """How alike the slices of each patient are to those of others: one row per patient, :data:`OTHERS` and distance.

    Columns: ``patient``, ``group``, ``others``, ``low`` and ``high`` (the pairs lie at least and less than so far
    apart in relative position), ``dice`` (mean over pairs of :func:`dice_of_pairs`, hearts centred) and ``pairs``.
    Slices without any structure take no part. Raises ``ValueError`` where no patient has such a frame.
    """
    volumes = store.select(labelled=True, frames=(frame,))
    side = max((max(store.volumes[volume].shape[1:]) for volume in volumes), default=0)
    labels, position, owner, group = [], [], [], []
    for volume in volumes:
        record, own = store.volumes[volume], np.asarray(store.label(volume))
        kept = np.flatnonzero((own > 0).any((1, 2)))
        labels += list(centred(own[kept], side))
        position += list(kept / record.shape[0])
        owner += [record.patient] * len(kept)
        group += [record.group] * len(kept)
    if not labels:
        raise ValueError(f"{store.path} has no labelled frame {frame}")
    dice = dice_of_pairs(np.stack(labels), len(store.structures)).numpy()
    position, owner, group = np.array(position), np.array(owner), np.array(group)
    distance = np.abs(position[:, None] - position)
    rows = []
    for patient in np.unique(owner):
        mine = owner == patient
        own_group = group[mine][0]
        for others, asked in zip(OTHERS, (~mine, ~mine & (group == own_group)), strict=True):
            far, alike = distance[mine][:, asked], dice[mine][:, asked]
            for low, high in pairwise(edges):
                values = alike[(far >= low) & (far < high)]
                rows.append({"patient": patient, "group": own_group, "others": others, "low": low, "high": high,
                             "dice": values.mean() if len(values) else np.nan, "pairs": len(values)})
    return pd.DataFrame(rows)


def within(rows: pd.DataFrame, threshold: float = THRESHOLD, others: str = OTHERS[0]) -> pd.DataFrame:
    """Mean Dice per patient ``near`` (pairs closer than ``threshold``) and ``far``, with ``group``, by patient."""
    some = rows[rows["others"] == others].assign(total=lambda table: table["dice"] * table["pairs"])
    sums = some.groupby([some["patient"], some["group"], np.where(some["low"] < threshold, "near", "far")])[
        ["total", "pairs"]].sum()
    return (sums["total"] / sums["pairs"]).unstack()[["near", "far"]].reset_index("group")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m kaf.anatomy", description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of a store")
    parser.add_argument("--into", type=Path, default=FOLDER, help="folder of the record (default: book/records)")
    options = parser.parse_args()
    try:
        store = Store.open(options.store)
        rows = likeness(store)
        make_writable(options.into)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    facts = {"what": f"Dice of the labels of two slices of different patients, frame {FRAME}, hearts centred",
             "dataset": store.settings.dataset, "spacing_mm": store.settings.spacing_mm, "threshold": THRESHOLD,
             "patients": rows["patient"].nunique(), "provenance": provenance()}
    with exclusive(options.into):
        write_csv(options.into / "anatomy.csv", rows.round({"dice": 5}))
        write_json(options.into / "anatomy.json", facts)
    print(within(rows).groupby("group").mean().round(3))


if __name__ == "__main__":
    main()
