"""Scores per patient, frame and structure, and what may be concluded from them (chapter 6).

A row of results is one structure of one frame of one patient. Distances are in mm, at the native
spacing of the volume, between surfaces in 3-D.

Missed structures follow a written rule, because an empty mask has no surface:

- truth and prediction empty: nothing to score. The values are NaN, the row is flagged ``absent``.
- only one of them empty: Dice is 0 and both distances are the diagonal of the field of view in mm,
  the largest distance the volume allows. The row is flagged ``missed``.

A method that misses a structure is so never rewarded by a row that drops out of the mean. Patients are
the unit of every conclusion: they are independent, the slices, frames and folds are not.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import stats

BEST = {"dice": 1.0, "hd95_mm": 0.0, "assd_mm": 0.0}
METRICS = tuple(BEST)
#: Columns of every table of scores: one row per patient, frame and structure.
COLUMNS = (
    "dataset", "protocol", "method", "pretraining", "m", "draw", "fold", "patient", "frame", "structure",
    *METRICS, "missed", "absent", "overlap_voxels", "predicted_voxels", "true_voxels",
    "scale", "seed", "device", "run",
)  # fmt: skip


def score_volume(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], structures: Mapping[int, str]
) -> pd.DataFrame:
    """Dice, HD95 and ASSD of two label volumes ``(S, H, W)``: one row per entry of ``structures``.

    ``spacing_mm`` is ``(slice, row, col)``. Columns: ``structure``, :data:`METRICS`, ``missed``, ``absent``
    and the three voxel counts. HD95 is the larger of the two directed 95th percentiles, ASSD the mean
    over all voxels of both surfaces. Raises ``ValueError`` for unequal shapes or a spacing that is not
    three positive numbers.
    """
    if prediction.shape != truth.shape or prediction.ndim != 3:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must be one shape (S, H, W)")
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (slice, row, col), got {spacing_mm}")
    spacing = tuple(float(s) for s in spacing_mm)
    return pd.DataFrame(
        {"structure": name, **_score_structure(prediction == label, truth == label, spacing)}
        for label, name in structures.items()
    )


def _score_structure(predicted: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> dict:
    counts = [int(np.count_nonzero(mask)) for mask in (predicted & true, predicted, true)]
    overlap, in_prediction, in_truth = counts
    absent = not in_prediction and not in_truth
    missed = not absent and not (in_prediction and in_truth)
    if absent:
        dice = hd95 = assd = np.nan
    elif missed:
        dice, hd95 = 0.0, float(np.linalg.norm(np.multiply(true.shape, spacing)))
        assd = hd95
    else:
        dice = 2 * overlap / (in_prediction + in_truth)
        hd95, assd = _surface_distances(predicted, true, spacing)
    return {
        "dice": dice, "hd95_mm": hd95, "assd_mm": assd, "missed": missed, "absent": absent,
        "overlap_voxels": overlap, "predicted_voxels": in_prediction, "true_voxels": in_truth,
    }  # fmt: skip


def _surface_distances(
    predicted: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]
) -> tuple[float, float]:
    """HD95 and ASSD in mm, within the box that holds both masks: what is outside changes no distance."""
    either = predicted | true
    along = (np.flatnonzero(either.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    box = tuple(slice(where[0], where[-1] + 1) for where in along)
    a, b = (torch.from_numpy(mask[box].copy())[None, None] for mask in (predicted, true))
    options = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls its own deprecated argument
        hd95 = compute_hausdorff_distance(a, b, percentile=95, **options)
        assd = compute_average_surface_distance(a, b, symmetric=True, **options)
    return hd95.item(), assd.item()


def pooled_dice(rows: pd.DataFrame, by: Sequence[str] = ("structure",)) -> pd.Series:
    """Dice of all voxels of a group taken together, as the released program reports it per fold.

    Large hearts weigh more than small ones and a missed structure of one patient hardly shows.
    """
    counts = rows.groupby(list(by), dropna=False)[["overlap_voxels", "predicted_voxels", "true_voxels"]].sum()
    total = counts["predicted_voxels"] + counts["true_voxels"]
    return (2 * counts["overlap_voxels"] / total.where(total > 0)).rename("pooled_dice")


def per_patient(rows: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Mean per patient and group of ``by``, over frames, structures, draws, seeds; NaN is left out."""
    return rows.groupby([*by, "patient"], dropna=False)[list(metrics)].mean()


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values`` ``(patients,)``, resampling patients; NaN below two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def summarise(
    rows: pd.DataFrame, by: Sequence[str] = ("method",), metrics: Sequence[str] = METRICS, seed: int = 0
) -> pd.DataFrame:
    """Mean over patients and its 95 % bootstrap interval for every group of ``by``.

    Columns: ``by``, ``patients`` with a value, per metric ``X``, ``X_low``, ``X_high``, then how many rows were
    ``missed`` and ``absent``. Every patient counts once (:func:`per_patient`).
    """
    by = list(by)
    table = []
    for key, group in rows.groupby(by, dropna=False):
        patients = per_patient(group, (), metrics)
        entry = dict(zip(by, key, strict=True)) | {"patients": len(patients.dropna(how="all"))}
        for metric in metrics:
            values = patients[metric].dropna().to_numpy()
            entry[metric] = values.mean() if len(values) else np.nan
            entry[f"{metric}_low"], entry[f"{metric}_high"] = bootstrap_interval(values, seed=seed)
        table.append(entry | {flag: int(group[flag].sum()) for flag in ("missed", "absent")})
    return pd.DataFrame(table)


def compare(
    rows: pd.DataFrame,
    methods: Sequence[str],
    reference: str,
    metric: str = "dice",
    column: str = "method",
    unit: str = "patient",
    seed: int = 0,
) -> pd.DataFrame:
    """Each of ``methods`` against ``reference``, paired over patients; p values with Holm's correction.

    One row per method: ``patients``, mean ``difference`` (method - reference) with its bootstrap
    interval, two-sided ``p_wilcoxon`` and ``p_t``, and both as ``*_holm``, corrected for the number of
    methods. Names are looked up in ``column``. A patient who has no value with either of two methods is left out of
    their comparison; where one of them rightly draws nothing and the other one something, nothing is the best score.
    Equal pairs say nothing to Wilcoxon's test and are left out there.

    Raises ``ValueError`` where the comparison would not be one of like with like: other units than
    patients, unequal sets of patients, frames or structures, several datasets, protocols, scales or
    sizes ``m`` at once, or a name that stands for several methods or kinds of pretraining.
    """
    if unit != "patient":
        raise ValueError(f"cannot pair over {unit!r}: folds share their training patients, and five of them "
                         "can never reach p < .0625 in a Wilcoxon test; pair over patients")
    methods = [name for name in methods if name != reference]
    rows = rows[rows[column].isin([*methods, reference])]
    _check_comparable(rows, methods, reference, column)
    if not methods:
        raise ValueError(f"a paired test needs a method besides {reference!r}")
    values = per_patient(rows, [column], [metric])[metric].unstack(column)
    table = []
    for name in methods:
        pair = values[[name, reference]].dropna(how="all").fillna(BEST.get(metric, np.nan)).dropna()
        if len(pair) < 2:
            raise ValueError(f"a paired test of {name!r} and {reference!r} needs two patients with values of {metric}, "
                             f"got {len(pair)}")
        difference = (pair[name] - pair[reference]).to_numpy()
        low, high = bootstrap_interval(difference, seed=seed)
        p_wilcoxon = p_t = 1.0  # identical results: no test is defined, and nothing differs
        if np.any(difference):
            p_wilcoxon, p_t = _wilcoxon(difference), stats.ttest_1samp(difference, 0).pvalue
        table.append({column: name, "reference": reference, "metric": metric, "patients": len(pair),
                      "difference": difference.mean(), "low": low, "high": high,
                      "p_wilcoxon": p_wilcoxon, "p_t": p_t})  # fmt: skip
    table = pd.DataFrame(table)
    return table.assign(**{f"{p}_holm": holm(table[p].to_numpy()) for p in ("p_wilcoxon", "p_t")})


def _wilcoxon(difference: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of differences that are not all 0."""
    changed = difference[difference != 0]
    # With zeros or ties SciPy takes a normal approximation, whose p can lie below what so few patients can reach.
    few = len(changed) <= 13 and len(np.unique(np.abs(changed))) < len(changed)
    method = stats.PermutationMethod(n_resamples=2**13) if few else "auto"  # all choices of signs
    return float(stats.wilcoxon(changed, method=method).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down adjusted p values: the k-th smallest of n times n - k + 1, made monotone."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Which of n pairs no other one beats, being at most as costly and at least as good, and better in one: bool (n,).

    Raises ``ValueError`` for NaN, which cannot be ordered.
    """
    cost, gain = np.asarray(cost, float), np.asarray(gain, float)
    if np.isnan(cost).any() or np.isnan(gain).any():
        raise ValueError("costs and gains must be numbers; leave out what was not measured")
    as_good = (cost[:, None] <= cost) & (gain[:, None] >= gain)  # [i, j]: i is as good as j in both
    return ~(as_good & ~as_good.T).any(0)


def _check_comparable(rows: pd.DataFrame, methods: Sequence[str], reference: str, column: str) -> None:
    """Raise ``ValueError`` unless all methods were scored on the same things under the same conditions."""
    for condition in (c for c in ("dataset", "protocol", "scale", "m") if c in rows):
        _check_single(rows, condition, "the rows")
    scored = {}
    for name in [reference, *methods]:
        own = rows[rows[column] == name]
        if own.empty:
            raise ValueError(f"no rows of {name!r} in column {column!r}")
        for other in (c for c in ("method", "pretraining") if c in rows and c != column):
            _check_single(own, other, repr(name))
        scored[name] = own
    for unit in (["patient"], [c for c in ("patient", "frame", "structure", "draw", "seed") if c in rows]):
        sets = {name: set(map(" ".join, own[unit].astype(str).itertuples(index=False, name=None)))
                for name, own in scored.items()}
        for name in methods:
            if different := sorted(sets[name] ^ sets[reference]):
                raise ValueError(f"{name!r} and {reference!r} were not scored on the same {', '.join(unit)}: "
                                 f"only one of them has {different[:5]} ({len(different)} in all)")


def _check_single(rows: pd.DataFrame, column: str, who: str) -> None:
    values = rows[column].astype(str).unique()
    if len(values) > 1:
        raise ValueError(f"{who} mix several values of {column!r}: {sorted(values)}; select one")
