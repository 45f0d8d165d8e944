"""How alike slices are by their labels, on hearts whose likeness is known."""

import numpy as np
import pandas as pd
import pytest

from kaf import anatomy
from kaf.anatomy import EDGES, OTHERS, THRESHOLD, centred, dice_of_pairs, likeness, within


def square(side, at, size=2, value=1):
    labels = np.zeros((1, side, side + 3), np.uint8)
    labels[0, at[0] : at[0] + size, at[1] : at[1] + size] = value
    return labels


def test_a_heart_lies_in_the_middle_whatever_the_image():
    for at in ((0, 0), (7, 9), (3, 3)):
        moved = centred(square(9, at), 12)
        assert moved.sum() == 4 and moved.shape == (1, 12, 12)
        assert all(abs(places.mean() - 6) <= 0.5 for places in np.nonzero(moved[0]))
    assert np.array_equal(centred(square(9, (3, 3)), 8), centred(square(14, (9, 1)), 8))
    assert centred(square(9, (3, 3), 6), 4).sum() == 16, "what lies outside is lost"
    with pytest.raises(ValueError, match="has no centre"):
        centred(np.zeros((1, 4, 4), np.uint8), 4)


def test_dice_of_pairs_counts_structures_apart():
    one, half, other = square(8, (2, 2)), square(8, (2, 2)), square(8, (2, 2), value=2)
    half[0, 2, 2:4] = 0
    dice = dice_of_pairs(np.concatenate([one, half, other]), 3)
    assert dice[0].tolist() == pytest.approx([1, 2 * 2 / (4 + 2), 0]) and np.allclose(dice, dice.T)


def test_each_patient_is_compared_with_others_at_every_distance(store):
    rows = likeness(store)
    groups = {v.patient: v.group for v in store.volumes}
    labelled = {v.patient for v in store.volumes if v.labelled}
    assert set(rows["patient"]) == labelled and all(groups[p] == g for p, g in zip(rows["patient"], rows["group"]))
    assert len(rows) == len(labelled) * len(OTHERS) * (len(EDGES) - 1)
    assert rows["dice"].dropna().between(0, 1).all() and (rows["dice"].isna() == (rows["pairs"] == 0)).all()
    everyone, own = (rows[rows["others"] == others].set_index(["patient", "low"])["pairs"] for others in OTHERS)
    assert (own <= everyone).all() and everyone.sum() > own.sum()
    slices = {p: sum((np.asarray(store.label(v)) > 0).any((1, 2)).sum()
                     for v in store.select(patients=[p], labelled=True, frames=("ED",))) for p in labelled}
    total = sum(slices.values())
    assert everyone.groupby("patient").sum().to_dict() == {p: n * (total - n) for p, n in slices.items()}


def test_the_same_heart_in_every_slice_is_wholly_alike(store, monkeypatch):
    heart = square(40, (9, 9), 5)
    monkeypatch.setattr(type(store), "label", lambda self, v: np.tile(heart, (self.volumes[v].shape[0], 1, 1)))
    assert (likeness(store)["dice"].dropna() == 1).all()


def test_near_and_far_are_means_over_pairs():
    rows = pd.DataFrame({"patient": "a", "group": "NOR", "others": OTHERS[0], "low": [0.0, 0.2, THRESHOLD],
                         "dice": [0.9, 0.5, 0.1], "pairs": [1, 3, 7]})
    assert within(rows).loc["a"].to_dict() == {"group": "NOR", "near": pytest.approx(0.6), "far": pytest.approx(0.1)}
    assert THRESHOLD in EDGES


def test_the_command_writes_the_record_and_refuses_what_is_no_store(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kaf.anatomy", str(store.path), "--into", str(tmp_path / "records")])
    anatomy.main()
    written = pd.read_csv(tmp_path / "records" / "anatomy.csv")
    pd.testing.assert_frame_equal(written, likeness(store).round({"dice": 5}), check_dtype=False)
    assert "near" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["kaf.anatomy", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit):
        anatomy.main()
    assert "nowhere" in capsys.readouterr().err
