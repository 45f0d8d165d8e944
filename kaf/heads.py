"""What pretraining puts on an encoder and throws away afterwards: three heads (chapters 3 to 5)."""

import torch
from torch import Tensor, nn

from kaf.correspondence import log_sinkhorn
from kaf.fusion import add_positions
from kaf.keypoints import Keypoints
from kaf.mixers import TokenMLP, make_block


def in_32_bit(mlp: nn.Module, features: Tensor, count: Tensor | int) -> Tensor:
    """``mlp`` of the sum of features ``(B, N, C)`` over N, divided by ``count``; float32 also under autocast.

    Slices differ little before the norm in the heads enlarges it: in 16 bit that would be mostly rounding.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return mlp(features.sum(1) / count)


class BottleneckHead(nn.Module):
    """Global average pool of the bottleneck, then two linear layers: ``(B, C, h, w) -> (B, out)``.

    The paper has no norm between them. Behind a pool of positive values all slices then begin with nearly
    the same feature and leave it slowly; ``norm`` adds batch normalisation, as SimCLR does.
    """

    def __init__(self, channels: int, out: int = 512, norm: bool = True):
        super().__init__()
        hidden = channels // 2
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.BatchNorm1d(hidden) if norm else nn.Identity(),
                                 nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, centre: Tensor) -> Tensor:
        return in_32_bit(self.mlp, centre.flatten(2).transpose(1, 2), centre.shape[2] * centre.shape[3])


class KeypointHead(nn.Module):
    """Fuse the keypoint features of all levels; project their mean over the keypoints of a slice.

    ``levels`` times ``(B, K, d)``, ``valid (B, K)`` -> the projection ``(B, out)`` for the global loss and
    the fused features ``(B, K, d)`` for the local one. A slice without keypoints has the mean 0.
    """

    def __init__(self, levels: int, dim: int, out: int = 512):
        super().__init__()
        self.fuse = nn.Linear(levels * dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, out))

    def forward(self, points: list[Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
        fused = self.fuse(torch.cat(points, -1)) * valid.unsqueeze(-1)
        return in_32_bit(self.mlp, fused, valid.sum(1, keepdim=True).clamp(min=1)), fused


class MatchHead(nn.Module):
    """Match the keypoints of two slices: ``(B, K, d)`` twice -> log assignment ``(B, K + 1, K + 1)``.

    Positions are added once more, then ``depth`` blocks alternate between attention within a slice and
    attention to the other slice; scores are scaled dot products, made an assignment by Sinkhorn's
    algorithm with a learnable dustbin (section 3.3; Sarlin et al. 2020).
    """

    def __init__(self, dim: int, depth: int = 4, heads: int = 4, block: str = "transformer",
                 position_norm: str = "layer", iterations: int = 100):
        super().__init__()
        self.position = TokenMLP([2, 32, 64, 128, 256, dim], position_norm)
        self.blocks = nn.ModuleList(make_block(block, dim, heads) for _ in range(depth))
        self.project = nn.Linear(dim, dim)
        self.dustbin = nn.Parameter(torch.tensor(1.0))
        self.iterations = iterations

    def scores(self, a: Tensor, b: Tensor, points_a: Keypoints, points_b: Keypoints, size: int) -> Tensor:
        """Scores ``(B, K, K)`` before the assignment; ``size`` is the side of the square slices in pixels."""
        a, b = self._place(a, points_a, size), self._place(b, points_b, size)
        valid_a, valid_b = points_a.valid, points_b.valid
        for index, block in enumerate(self.blocks):
            if index % 2 == 0:
                a, b = block(a, valid_a), block(b, valid_b)
            else:
                a, b = block(a, valid_a, b, valid_b), block(b, valid_b, a, valid_a)
        a, b = self.project(a) / a.shape[-1] ** 0.5, self.project(b)  # scaled first: float16 may not hold the sum
        return a @ b.transpose(1, 2)

    def forward(self, a: Tensor, b: Tensor, points_a: Keypoints, points_b: Keypoints, size: int) -> Tensor:
        scores = self.scores(a, b, points_a, points_b, size)
        return log_sinkhorn(scores, self.dustbin, self.iterations, points_a.valid, points_b.valid)

    def _place(self, tokens: Tensor, points: Keypoints, size: int) -> Tensor:
        relative = (points.xy - size / 2) / (0.7 * size)
        return add_positions(tokens, self.position, relative, points.valid)
