"""Correspondences between two slices: matching rule, Sinkhorn with a dustbin, local loss (chapter 4).

A match is an index ``(M,)`` into the second set of keypoints: ``-1`` unmatched, ``-2`` ignored.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kaf.choices import check_choice
from kaf.keypoints import Keypoints

RULES = ("mutual", "released")
REDUCTIONS = ("mean", "paper", "released")
RELEASED_ROW_WINDOW = 20.0  # pixels, the same for every data set in the released program


def match_keypoints(a: Keypoints, b: Keypoints, window: float, rule: str = "mutual") -> Tensor:
    """Which keypoint of ``b`` each keypoint of ``a`` corresponds to: ``(..., K)`` int64, -1 and -2 as above.

    Both sets are in the coordinates of their un-augmented slices. Candidates lie less than ``window``
    pixels apart in Manhattan distance; among them the smallest Euclidean distance of descriptors wins,
    if it wins seen from ``b`` as well. Keypoints without descriptors are compared by place. Padding
    gets -2 and is never a candidate.

    ``rule="released"`` is what the authors' program does: a distance outside the window counts as the
    largest of all, and a point of ``a`` without a candidate within 20 px stays unmatched even where the
    window is 30 px. Raises ``ValueError`` for another rule.
    """
    check_choice("matching rule", rule, RULES)
    both = a.valid.unsqueeze(-1) & b.valid.unsqueeze(-2)  # (..., K, L)
    unmatched = torch.where(a.valid, -1, -2)
    if both.numel() == 0:
        return unmatched
    apart = torch.cdist(a.xy, b.xy, p=1)
    candidate = both & (apart < window)
    cost = _squared_distance(a.descriptor, b.descriptor) if a.descriptor.shape[-1] else apart.double()
    outside = torch.inf
    if rule == "released":
        outside = cost.masked_fill(~both, 0).amax((-2, -1), keepdim=True)
    cost = torch.where(candidate, cost, outside).masked_fill(~both, torch.inf)
    forward, backward = cost.argmin(-1), cost.argmin(-2)
    mutual = backward.gather(-1, forward) == torch.arange(a.valid.shape[-1], device=forward.device)
    if rule == "mutual":
        accepted = candidate.gather(-1, forward.unsqueeze(-1)).squeeze(-1)
    else:
        near = (both & (apart < min(window, RELEASED_ROW_WINDOW))).any(-1)
        accepted = near & candidate.any(-2).gather(-1, forward)
    return torch.where(mutual & accepted, forward, unmatched)


def log_sinkhorn(
    scores: Tensor,
    dustbin: Tensor | float,
    iterations: int = 100,
    valid0: Tensor | None = None,
    valid1: Tensor | None = None,
) -> Tensor:
    """Logarithm of the soft assignment of ``scores`` ``(B, M, N)``, with a dustbin: ``(B, M + 1, N + 1)``.

    The scores are bordered with the learnable score ``dustbin``. Rows and columns are then normalised
    in turn, so that every point gives away a mass of 1 and the last row and column, the dustbins, take
    up to N and M (Sarlin et al. 2020, Sinkhorn 1967). ``valid0`` ``(B, M)`` and ``valid1`` ``(B, N)`` mark
    padding: it is ``-inf`` in the result and changes nothing else. Where one side is empty, its points
    and the other dustbin do not exist. Computed in float32 or better, also under autocast.

    The first round works with logarithms. The others rescale the plan it found with matrix products,
    which is the same arithmetic without the exponentials; every :data:`ABSORB` rounds the scales move
    back into the logarithms, so that nothing overflows.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    batch, m, n = scores.shape
    valid0 = scores.new_ones((batch, m), dtype=torch.bool) if valid0 is None else valid0
    valid1 = scores.new_ones((batch, n), dtype=torch.bool) if valid1 is None else valid1
    with torch.autocast(scores.device.type, enabled=False):
        dtype = torch.promote_types(scores.dtype, torch.float32)
        row_mass, col_mass = _masses(valid0, valid1).to(dtype), _masses(valid1, valid0).to(dtype)
        rows, cols = row_mass > 0, col_mass > 0
        exists = rows.unsqueeze(2) & cols.unsqueeze(1)
        z = torch.as_tensor(dustbin, dtype=dtype, device=scores.device).expand(batch, m + 1, n + 1)
        z = torch.cat([torch.cat([scores.to(dtype), z[:, :-1, -1:]], 2), z[:, -1:]], 1)
        z = z.masked_fill(~exists, torch.finfo(dtype).min / 4)  # not -inf: its gradient would be nan
        u = torch.where(rows, row_mass.log() - torch.logsumexp(z, 2), 0)
        v = torch.where(cols, col_mass.log() - torch.logsumexp(z + u.unsqueeze(2), 1), 0)
        for done in range(1, iterations, ABSORB):
            plan = torch.exp(z + u.unsqueeze(2) + v.unsqueeze(1))
            log_a, log_b = _Rescale.apply(plan, row_mass, col_mass, min(ABSORB, iterations - done))
            u, v = u + log_a, v + log_b
        return (z + u.unsqueeze(2) + v.unsqueeze(1)).masked_fill(~exists, -torch.inf)


ABSORB = 5  # one round changes a scale by at most about M + N: five stay far inside float32


class _Rescale(torch.autograd.Function):
    """``rounds`` of ``a = row_mass / (plan b)``, ``b = col_mass / (a plan)`` from b = 1; log a, log b.

    Plain autograd would store and add an outer product as large as the plan for every step. Here the
    scales of every round are kept, which are small, and the gradient of the plan is two products.
    Vectors are rows ``(B, 1, M)``: torch multiplies those several times faster than columns on a CPU.
    """

    @staticmethod
    def forward(ctx, plan: Tensor, row_mass: Tensor, col_mass: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
        missing_row, missing_col = ((mass == 0).to(plan).unsqueeze(1) for mass in (row_mass, col_mass))
        row_mass = row_mass.unsqueeze(1) + missing_row  # what is missing keeps a scale of 1 / (0 + 1)
        col_mass = col_mass.unsqueeze(1) + missing_col
        a, b = [], [torch.ones_like(col_mass)]
        for _ in range(rounds):
            a.append(row_mass / (torch.bmm(b[-1], plan.mT) + missing_row))
            b.append(col_mass / (torch.bmm(a[-1], plan) + missing_col))
        ctx.save_for_backward(plan, row_mass, col_mass, torch.cat(a, 1), torch.cat(b, 1))
        return a[-1].squeeze(1).log(), b[-1].squeeze(1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_log_a: Tensor, grad_log_b: Tensor) -> tuple[Tensor, None, None, None]:
        plan, row_mass, col_mass, a, b = ctx.saved_tensors
        grad_log_a, grad_log_b = grad_log_a.unsqueeze(1), grad_log_b.unsqueeze(1)
        row_steps, col_steps = torch.empty_like(a), torch.empty_like(b[:, 1:])
        for t in reversed(range(a.shape[1])):
            a_t, b_t, b_before = a[:, t : t + 1], b[:, t + 1 : t + 2], b[:, t : t + 1]
            col_steps[:, t : t + 1] = step = -grad_log_b * b_t / col_mass
            grad_log_a = grad_log_a + a_t * torch.bmm(step, plan.mT)
            row_steps[:, t : t + 1] = step = -grad_log_a * a_t / row_mass
            grad_log_b = b_before * torch.bmm(step, plan)
            grad_log_a = torch.zeros_like(grad_log_a)
        return torch.bmm(a.mT, col_steps) + torch.bmm(row_steps.mT, b[:, :-1]), None, None, None


def local_loss(
    log_assignment: Tensor,
    match: Tensor,
    valid0: Tensor | None = None,
    valid1: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the log assignment ``(B, M + 1, N + 1)`` against ``match`` ``(B, M)``; a scalar.

    The terms of a pair of slices are ``-log P`` at every match and at the dustbin entry of every
    unmatched point of either slice. A match to a point that is not valid counts as unmatched;
    a point that is ``-2`` or not valid is left out. A pair in which one slice has no points gives 0, which counts.
    Each pair gives one number and the loss is their mean over the batch:

    - ``"mean"``: the mean of its terms, so that neither K nor the padding sets the size of the loss;
    - ``"paper"``: the plain sum of its terms, as in the paper, hundreds of times larger;
    - ``"released"``: .45 x mean over matches + 1.0 x mean over dustbins, as in the authors' program.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    batch, m, n = log_assignment.shape[0], log_assignment.shape[1] - 1, log_assignment.shape[2] - 1
    if match.shape != (batch, m):
        raise ValueError(f"match must be {(batch, m)} for {m} points, got {tuple(match.shape)}")
    valid0 = match.new_ones((batch, m), dtype=torch.bool) if valid0 is None else valid0
    valid1 = match.new_ones((batch, n), dtype=torch.bool) if valid1 is None else valid1
    target, matched, unmatched = _targets(match, valid0, valid1)
    at_match = -log_assignment[:, :-1].gather(2, target.unsqueeze(2)).squeeze(2)
    at_dustbin = -torch.cat([log_assignment[:, :-1, -1], log_assignment[:, -1, :-1]], 1)
    matches, dustbins = _masked_sum(at_match, matched), _masked_sum(at_dustbin, unmatched)
    n_matches, n_dustbins = matched.sum(1), unmatched.sum(1)
    if reduction == "paper":
        return (matches + dustbins).mean()
    if reduction == "released":
        return (0.45 * matches / n_matches.clamp(min=1) + dustbins / n_dustbins.clamp(min=1)).mean()
    return ((matches + dustbins) / (n_matches + n_dustbins).clamp(min=1)).mean()


def _targets(match: Tensor, valid0: Tensor, valid1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Partner ``(B, M)``, who has one ``(B, M)``, who of both sides has none ``(B, M + N)``."""
    valid0 = valid0 & (match > -2) & valid1.any(1, keepdim=True)
    valid1 = valid1 & valid0.any(1, keepdim=True)
    partners = torch.cat([valid1, valid1.new_zeros(len(valid1), 1)], 1)  # the dustbin is nobody's partner
    target = match.clamp(min=0)
    matched = valid0 & (match >= 0) & partners.gather(1, target)
    taken = torch.zeros_like(partners, dtype=torch.int64).scatter_add(1, target, matched.long()) > 0
    return target, matched, torch.cat([valid0 & ~matched, valid1 & ~taken[:, :-1]], 1)


def _masses(valid: Tensor, other: Tensor) -> Tensor:
    """Mass of every point and of its side's dustbin ``(B, M + 1)``; 0 for what does not exist.

    A point has 1, padding none; the dustbin has as much as there are points on the ``other`` side.
    """
    return torch.cat([valid.long(), other.sum(1, keepdim=True)], 1)


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances ``(..., K, L)`` in float64, exact for whole numbers as SIFT's."""
    a, b = a.double(), b.double()
    lengths = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return torch.add(lengths, a @ b.mT, alpha=-2)


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the last dimension of the values under the mask; the others may be infinite."""
    return values.masked_fill(~mask, 0.0).sum(-1)
