"""The keypoint-augmented fusion layer: gather, embed, mix, scatter, diffuse, fuse (chapter 2).

A layer sits behind one encoder block. Its feature map has stride ``2**level``; a keypoint at image
pixel ``p`` lies at ``(p + 0.5) / stride - 0.5`` on that map, pixel centres at integers as everywhere.
"""

from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaf.choices import check_choice
from kaf.keypoints import Keypoints
from kaf.mixers import Mixer, TokenMLP

GATHERS = ("bilinear", "nearest")
SCATTERS = ("mean", "sum", "overwrite")
FUSIONS = ("concat", "project")
#: Norms behind convolutions. An instance is one channel of one slice: a slice is normalised by itself, in training and
#: after, where batch norm keeps the statistics of the slices that it was trained with.
NORMS = {"batch": nn.BatchNorm2d, "instance": partial(nn.InstanceNorm2d, affine=True)}


def level_coordinates(xy: Tensor, stride: int) -> Tensor:
    """Image points ``(..., 2)`` in the pixels of a map of the given stride, continuous."""
    return (xy + 0.5) / stride - 0.5


def cell_of(xy: Tensor, height: int, width: int) -> Tensor:
    """The cell ``(..., 2)`` (x, y, int64) of a map that holds each point; outside goes to the border."""
    cell = torch.floor(xy + 0.5).long()
    return torch.stack([cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)], -1)


def gather_bilinear(feature: Tensor, xy: Tensor) -> Tensor:
    """Sample a map ``(B, C, H, W)`` at points ``(B, K, 2)`` of that map, float32 or better: ``(B, K, C)``.

    Points outside take the value at the border. ``F.grid_sample`` does the same, but wants coordinates of the
    type of the map: in 16 bit they would be off by up to half a pixel.
    """
    height, width = feature.shape[2:]
    x, y = xy[..., 0].clamp(0, width - 1), xy[..., 1].clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    fx, fy = x - left, y - top
    upper, lower = top * width, bottom * width
    cell = torch.stack([upper + left, upper + right, lower + left, lower + right], 1)  # (B, 4, K)
    share = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], 1)  # (B, 4, K)
    return (read_cells(feature, cell.long()) * share.unsqueeze(-1)).sum(1)


def gather_nearest(feature: Tensor, xy: Tensor) -> Tensor:
    """The cell that holds each point ``(B, K, 2)`` of a map ``(B, C, H, W)``: ``(B, K, C)``."""
    x, y = cell_of(xy, *feature.shape[2:]).unbind(-1)
    return read_cells(feature, y * feature.shape[3] + x)


def read_cells(feature: Tensor, cell: Tensor) -> Tensor:
    """A map ``(B, C, H, W)`` at flat cells ``(B, ...)``: ``(B, ..., C)``."""
    rows = feature.permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, C)
    return F.embedding(cell + first_cell(cell, feature.shape[2] * feature.shape[3]), rows)


def first_cell(cell: Tensor, cells: int) -> Tensor:
    """Where each image of a batch begins among the cells of all, shaped to be added to ``cell (B, ...)``."""
    first = torch.arange(len(cell), device=cell.device) * cells
    return first.view(-1, *[1] * (cell.dim() - 1))


def scatter_weight(cell: Tensor, valid: Tensor, cells: int, how: str) -> Tensor:
    """Each keypoint's share of its cell, ``(B, K)``: the three readings of "scatter" as one weight.

    ``cell (B, K)`` is a flat cell index below ``cells``. ``mean`` divides a cell among its keypoints,
    ``sum`` gives each a whole share, ``overwrite`` gives the last one everything. Padding has weight 0.
    """
    weight = valid.to(torch.float32)
    if how == "mean":
        count = weight.new_zeros(cell.shape[0], cells).scatter_add_(1, cell, weight)
        return weight / count.gather(1, cell).clamp(min=1)
    if how == "overwrite":
        order = torch.arange(1, cell.shape[1] + 1, device=cell.device).expand_as(cell) * valid
        last = torch.zeros(cell.shape[0], cells, dtype=order.dtype, device=cell.device)
        last = last.scatter_reduce(1, cell, order, "amax")
        return weight * (last.gather(1, cell) == order)
    return weight


def scatter(tokens: Tensor, cell: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    """Write tokens ``(B, K, d)`` at flat cells ``(B, K)`` of an empty map: ``(B, d, H, W)``."""
    batch, _, dim = tokens.shape
    empty = tokens.new_zeros(batch, height * width, dim)
    index = cell.unsqueeze(-1).expand(-1, -1, dim)
    filled = empty.scatter_add(1, index, tokens * weight.unsqueeze(-1).to(tokens.dtype))
    return filled.transpose(1, 2).unflatten(2, (height, width))


def sparse_conv3x3(tokens: Tensor, cell: Tensor, weight: Tensor, height: int, width: int,
                   conv: nn.Conv2d) -> Tensor:
    """``conv(scatter(tokens, ...))`` without the empty map: ``(B, K, d) -> (B, out, H, W)``.

    A 3x3 convolution of a map that is empty but for ``K`` cells is ``9 K`` small products, added up where
    they fall. Equal to the dense convolution (a test compares them), and the number of its products grows
    with that of the keypoints instead of with the size of the image.
    """
    batch, _, dim = tokens.shape
    out = conv.out_channels
    tokens = tokens * weight.unsqueeze(-1).to(tokens.dtype)
    kernel = conv.weight.permute(1, 2, 3, 0).reshape(dim, 9 * out)  # tap (r, s) reads the cell at (r-1, s-1)
    parts = (tokens.flatten(0, 1) @ kernel.to(tokens.dtype)).view(-1, out)  # (B K 9, out)
    # So the target of tap (r, s) lies at cell - (r-1, s-1). What falls outside adds zero to cell 0.
    taps = torch.arange(-1, 2, device=cell.device)
    row = (cell // width)[..., None, None] - taps[:, None]
    col = (cell % width)[..., None, None] - taps
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)  # (B, K, 3, 3)
    target = torch.where(inside, row * width + col + first_cell(inside, height * width), 0)
    parts = parts * inside.view(-1, 1).to(parts.dtype)
    bias = conv.bias.to(parts.dtype).expand(batch * height * width, out)
    return bias.index_add(0, target.flatten(), parts).view(batch, height, width, out).permute(0, 3, 1, 2)


def add_positions(tokens: Tensor, mlp: TokenMLP, relative: Tensor, valid: Tensor) -> Tensor:
    """Tokens ``(B, K, d)`` plus ``mlp`` of their relative places ``(B, K, 2)``, which it sees in full precision.

    In bfloat16 places near the border of a slice of 224 pixels would be .6 pixels apart.
    """
    device = relative.device.type
    full = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    with full:
        position = mlp(relative, valid)
    return tokens + position.to(tokens.dtype)


class KAFLayer(nn.Module):
    """Keypoint-augmented fusion of a feature map ``(B, C, H, W)`` with its keypoints (section 3.1).

    ``dim`` is the token width, ``depth`` the number of attention blocks, ``hidden`` the channels between
    the two diffusion convolutions. ``fusion`` is ``concat`` (2C channels out, the paper's) or ``project``
    (back to C by a 1x1 convolution that starts as the identity on the feature map). ``norm`` between the
    convolutions is a name in :data:`NORMS`.
    """

    def __init__(self, channels: int, dim: int = 256, depth: int = 6, heads: int = 4, hidden: int = 64,
                 mixer: str = "transformer", gather: str = "bilinear", scatter: str = "mean",
                 fusion: str = "concat", position_norm: str = "layer", norm: str = "batch"):
        super().__init__()
        check_choice("gather", gather, GATHERS)
        check_choice("scatter", scatter, SCATTERS)
        check_choice("fusion", fusion, FUSIONS)
        check_choice("norm", norm, NORMS)
        self.gather, self.scatter = gather, scatter
        self.embed = nn.Linear(channels, dim)
        self.position = TokenMLP([2, 32, 64, 128, 256, dim], position_norm)
        self.mixer = Mixer(mixer, dim, depth, heads)
        self.conv1 = nn.Conv2d(dim, hidden, 3, padding=1)
        self.norm = NORMS[norm](hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1)
        self.project = identity_projection(channels) if fusion == "project" else None
        self.out_channels = channels * (1 if fusion == "project" else 2)

    def locate(self, feature: Tensor, keypoints: Keypoints, stride: int) -> tuple[Tensor, Tensor]:
        """Where the keypoints lie on the map: points ``(B, K, 2)`` and flat cells ``(B, K)``."""
        height, width = feature.shape[2:]
        xy = level_coordinates(keypoints.xy, stride)
        cell = cell_of(xy, height, width)
        if self.gather == "nearest":
            xy = cell.to(xy.dtype)
        return xy, cell[..., 1] * width + cell[..., 0]

    def tokens(self, feature: Tensor, xy: Tensor, valid: Tensor) -> Tensor:
        """Gather and embed: the tokens ``(B, K, d)`` before mixing."""
        gather = gather_nearest if self.gather == "nearest" else gather_bilinear
        height, width = feature.shape[2:]
        relative = torch.stack([xy[..., 0] - width / 2, xy[..., 1] - height / 2], -1) / (0.7 * max(height, width))
        return add_positions(self.embed(gather(feature, xy)), self.position, relative, valid)

    def diffuse(self, tokens: Tensor, cell: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
        """Scatter mixed tokens and spread them with two convolutions: ``(B, C, H, W)``."""
        weight = scatter_weight(cell, valid, height * width, self.scatter)
        spread = sparse_conv3x3(tokens, cell, weight, height, width, self.conv1)
        return self.conv2(F.relu(self.norm(spread)))

    def forward(self, feature: Tensor, keypoints: Keypoints, stride: int) -> tuple[Tensor, Tensor]:
        """The fused map ``(B, out_channels, H, W)`` and the mixed keypoint features ``(B, K, d)``."""
        xy, cell = self.locate(feature, keypoints, stride)
        mixed = self.mixer(self.tokens(feature, xy, keypoints.valid), keypoints.valid)
        diffused = self.diffuse(mixed, cell, keypoints.valid, *feature.shape[2:])
        fused = torch.cat([feature, diffused], 1)
        return (fused if self.project is None else self.project(fused)), mixed

    def attention_maps(self, feature: Tensor, keypoints: Keypoints, stride: int) -> list[Tensor]:
        """Attention weights ``(B, heads, K, K)`` of every block on this map."""
        xy, _ = self.locate(feature, keypoints, stride)
        return self.mixer.attention_maps(self.tokens(feature, xy, keypoints.valid), keypoints.valid)


def identity_projection(channels: int) -> nn.Conv2d:
    """A 1x1 convolution ``2C -> C`` that starts by passing the first C channels through.

    A layer that projects back to C channels then begins as no change to the UNet around it.
    """
    conv = nn.Conv2d(2 * channels, channels, 1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :channels, 0, 0] = torch.eye(channels)
        conv.bias.zero_()
    return conv
