"""What may mix keypoints: modules that map tokens ``(B, K, d)`` to tokens ``(B, K, d)`` (chapters 2 and 9).

Every mixer takes ``valid (B, K)``: padded tokens are never attended to and never counted in a
normalisation, so the result for one image never depends on its padding, and in prediction not on its batch mates.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kaf.choices import check_choice, check_multiple
from kaf.processes import total


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of tokens ``(B, K, C)`` over the valid ones only; the others come out as zeros.

    The statistics are weighted sums instead of a selection ``tokens[valid]``, which would make a GPU
    wait to learn how many there are.
    """

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        # Where no token varies the scale is hundreds: padding would grow from layer to layer to infinity.
        valid = valid.unsqueeze(-1)
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return ((tokens * scale + (self.bias - self.running_mean * scale)) * valid).to(tokens.dtype)
        count = total(valid.sum()).clamp(min=1)
        normed, mean, var = _Normalise.apply(tokens, valid, count, self.weight, self.bias, self.eps)
        self._track(mean, var, count)
        return normed

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        # A batch of fewer than two tokens says nothing about the spread: leave the statistics alone.
        rate = self.momentum * (count > 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)
        self.num_batches_tracked += 1


class _Normalise(torch.autograd.Function):
    """``(tokens - mean) / std * weight + bias`` over valid tokens; also mean and variance ``(C,)``, in 32 bit or more.

    Plain autograd keeps five copies of the tokens for the gradient; this keeps the tokens. The statistics are
    those of all processes.
    """

    @staticmethod
    def forward(ctx, tokens: Tensor, valid: Tensor, count: Tensor, weight: Tensor, bias: Tensor,
                eps: float) -> tuple[Tensor, Tensor, Tensor]:
        centred = tokens.to(torch.promote_types(tokens.dtype, torch.float32)) * valid
        mean = total(centred.sum((0, 1))) / count
        centred = centred.sub_(mean).mul_(valid)
        var = total(centred.square().sum((0, 1))) / count
        rstd = torch.rsqrt(var + eps)
        ctx.save_for_backward(tokens, valid, count, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, var)
        return centred.mul_(weight * rstd).add_(bias).mul_(valid).to(tokens.dtype), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        tokens, valid, count, weight, mean, rstd = ctx.saved_tensors
        grad = grad.to(mean.dtype) * valid
        normed = tokens.to(mean.dtype).sub(mean).mul_(rstd).mul_(valid)
        grad_bias, grad_weight = grad.sum((0, 1)), (grad * normed).sum((0, 1))
        through_mean, through_std = total(torch.stack([grad_bias, grad_weight])) / count
        grad = grad.sub_(through_mean).sub_(normed.mul_(through_std)).mul_(weight * rstd).mul_(valid)
        return grad.to(tokens.dtype), None, None, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


class TokenMLP(nn.Module):
    """Linear layers with a norm and ReLU between them, the last one linear: ``(B, K, in) -> (B, K, out)``.

    ``norm`` is ``batch`` (the paper's), ``layer`` or ``none``.
    """

    def __init__(self, sizes: list[int], norm: str = "layer"):
        super().__init__()
        norms = {"batch": MaskedBatchNorm, "layer": nn.LayerNorm, "none": nn.Identity}
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(norms[norm](size) for size in sizes[1:-1])

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        return self.behind_first(self.linears[0](tokens), valid)

    def behind_first(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """What follows the first linear layer."""
        for norm, linear in zip(self.norms, self.linears[1:], strict=True):
            tokens = norm(tokens, valid) if isinstance(norm, MaskedBatchNorm) else norm(tokens)
            tokens = linear(F.relu(tokens))
        return tokens


class Attention(nn.Module):
    """Attention of tokens ``(B, K, d)`` to a source ``(B, L, d)``: softmax(q.k / sqrt(d / heads)) v, by head.

    Where a source has no valid token the message is zero.
    """

    def __init__(self, dim: int, heads: int = 4):
        super().__init__()
        check_multiple("the token width", dim, "the number of heads", heads)
        self.heads = heads
        self.query, self.key, self.value, self.merge = (nn.Linear(dim, dim) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, K, d / heads)

    def forward(self, tokens: Tensor, source: Tensor, source_valid: Tensor) -> Tensor:
        q, k, v = (self._split(x) for x in (self.query(tokens), self.key(source), self.value(source)))
        seen = source_valid.any(1)
        # A row of the softmax needs one entry that is not masked: open all where no point is valid.
        mask = (source_valid | ~seen[:, None])[:, None, None]
        if q.device.type == "cpu":  # where the gradient of attention in 16 bit takes five times as long
            q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
        with torch.autocast("cpu", enabled=False):  # it would make them 16 bit again
            message = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.merge(message.transpose(1, 2).flatten(2)) * seen[:, None, None]

    def weights(self, tokens: Tensor, source: Tensor, source_valid: Tensor) -> Tensor:
        """The attention weights ``(B, heads, K, L)``; rows sum to 1, padding has weight 0."""
        q, k = self._split(self.query(tokens)), self._split(self.key(source))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        logits = logits.masked_fill(~source_valid[:, None, None], -torch.inf)
        return logits.softmax(-1).nan_to_num(0.0)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: ``x + MHA(LN x)``, then ``x + MLP(LN x)`` (Xiong et al. 2020)."""

    def __init__(self, dim: int, heads: int = 4, expansion: int = 2):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def normed(self, x: Tensor) -> Tensor:
        """What the attention sees."""
        return self.norm1(x)

    def forward(self, x: Tensor, valid: Tensor, source: Tensor | None = None,
                source_valid: Tensor | None = None) -> Tensor:
        normed = self.normed(x)
        source, source_valid = (normed, valid) if source is None else (self.normed(source), source_valid)
        x = x + self.attention(normed, source, source_valid)
        return x + self.mlp(self.norm2(x))


class PaperBlock(nn.Module):
    """The paper's block: ``x + MLP([x ; MHA(x)])`` with batch norm and without layer norm (section 3.1)."""

    def __init__(self, dim: int, heads: int = 4):
        super().__init__()
        self.attention = Attention(dim, heads)
        self.mlp = TokenMLP([2 * dim, 2 * dim, dim], norm="batch")

    def normed(self, x: Tensor) -> Tensor:
        """What the attention sees: the tokens as they are."""
        return x

    def forward(self, x: Tensor, valid: Tensor, source: Tensor | None = None,
                source_valid: Tensor | None = None) -> Tensor:
        source, source_valid = (x, valid) if source is None else (source, source_valid)
        message = self.attention(x, source, source_valid)
        return x + self.mlp.behind_first(linear_of_both(self.mlp.linears[0], x, message), valid)


def linear_of_both(linear: nn.Linear, a: Tensor, b: Tensor) -> Tensor:
    """``linear(torch.cat([a, b], -1))``, without a concatenation that would be kept for the gradient."""
    for_a, for_b = linear.weight.split([a.shape[-1], b.shape[-1]], 1)
    return F.linear(a, for_a, linear.bias) + F.linear(b, for_b)


class GraphBlock(nn.Module):
    """A graph block: ``x + W [n ; max_j (n_j - n)]`` with ``n = LN x``, then ``x + MLP(LN x)``.

    The maximum runs over the :data:`NEIGHBOURS` tokens nearest to a token in feature space, itself among them:
    max-relative convolution (Li et al. 2019) in the block of Vision GNN (Han et al. 2022).
    """

    def __init__(self, dim: int, heads: int = 4, expansion: int = 2):
        super().__init__()  # without heads, which the attention blocks have
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.merge = nn.Linear(2 * dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + linear_of_both(self.merge, normed, max_relative(normed, valid))
        return x + self.mlp(self.norm2(x))


NEIGHBOURS = 9  # as in Vision GNN


def max_relative(tokens: Tensor, valid: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """The largest difference of each token ``(B, K, d)`` to its nearest ones, by channel: ``(B, K, d)``.

    A token counts among its own neighbours, so that nothing comes out below 0; padding is nobody's neighbour.
    """
    with torch.no_grad():
        apart = torch.cdist(tokens.float(), tokens.float()).masked_fill(~valid[:, None], torch.inf)
        apart.diagonal(dim1=1, dim2=2).zero_()  # rounding may leave a token far from itself
        distance, index = apart.topk(min(neighbours, tokens.shape[1]), largest=False)  # (B, K, k)
    near = tokens[torch.arange(len(tokens), device=tokens.device)[:, None, None], index]  # (B, K, k, d)
    return (near - tokens.unsqueeze(2)).masked_fill(distance.isinf().unsqueeze(-1), 0.0).amax(2)


#: Blocks by name. One of your own is entered here before a configuration names it, ``BLOCKS["mine"] = MyBlock``.
#: ``MyBlock(dim, heads)`` makes it; called with tokens ``(B, K, d)`` and ``valid (B, K)`` it returns tokens
#: ``(B, K, d)``, and what it gives a valid token must not depend on padding. Monitors and figures look at its attention
#: where it has an ``attention`` that is an :class:`Attention` among the tokens ``normed(x)``, ``(B, K, d)``.
BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "transformer": TransformerBlock, "paper": PaperBlock, "graph": GraphBlock}


def make_block(name: str, dim: int, heads: int) -> nn.Module:
    """One block by its name in :data:`BLOCKS`.

    Raises ``ValueError`` for another name, ``TypeError`` for a block that is made otherwise.
    """
    check_choice("mixer", name, BLOCKS)
    try:
        return BLOCKS[name](dim, heads)
    except TypeError as error:
        raise TypeError(f"mixer {name!r} cannot be made as a block is, from dim and heads: {error}") from error


class Mixer(nn.Module):
    """A stack of ``depth`` blocks that mix the keypoints of an image; ``none`` mixes nothing.

    ``(B, K, d), valid (B, K) -> (B, K, d)``; padded tokens come out as zeros. Raises ``ValueError`` where a block
    returns tokens of another shape.
    """

    def __init__(self, name: str, dim: int, depth: int, heads: int = 4):
        super().__init__()
        self.name, self.heads = name, heads
        self.blocks = nn.ModuleList(make_block(name, dim, heads) for _ in range(0 if name == "none" else depth))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        for block in self.blocks:
            given, tokens = tokens.shape, block(tokens, valid)
            if tokens.shape != given:
                raise ValueError(f"a block of mixer {self.name!r} made tokens {tuple(tokens.shape)} of {tuple(given)}; "
                                 "it must return as many of the same width")
        return tokens * valid.unsqueeze(-1)

    def attention_maps(self, tokens: Tensor, valid: Tensor) -> list[Tensor]:
        """The attention weights ``(B, heads, K, K)`` of every block that has attention, to look at and for monitors."""
        maps = []
        for block in self.blocks:
            if isinstance(getattr(block, "attention", None), Attention) and hasattr(block, "normed"):
                normed = block.normed(tokens)
                maps.append(block.attention.weights(normed, normed, valid))
            tokens = block(tokens, valid)
        return maps
