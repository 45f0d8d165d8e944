"""Checks of the exercises of chapter 2: where points lie on a map, how far cells see, masks, cost, scatter."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kaf.exercises.grading import Exercise, step
from kaf.fusion import cell_of, level_coordinates, scatter, scatter_weight
from kaf.mixers import Mixer


def _numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _cells_equal(student, xy: Tensor, level: int, height: int, width: int) -> bool:
    return torch.equal(student(xy, level, height, width), cell_of(level_coordinates(xy, 2**level), height, width))


def _cell_shape(student) -> bool:
    found = student(torch.zeros(2, 5, 2), 1, 8, 8)
    return found.shape == (2, 5, 2) and found.dtype == torch.int64


def _cell_whole_pixels(student) -> bool:
    xy = torch.arange(32.0)[:, None].expand(-1, 2)
    return all(torch.equal(student(xy, level, 32, 32), xy.long() // 2**level) for level in range(4))


def _cell_between_pixels(student) -> bool:
    xy = torch.rand(50, 2, generator=_numbers()) * torch.tensor([47.0, 31.0])
    return all(_cells_equal(student, xy, level, 32 >> level, 48 >> level) for level in range(4))


def _cell_border(student) -> bool:
    return _cells_equal(student, torch.tensor([[-3.0, 5.0], [99.0, 99.0], [2.0, 40.0]]), 2, 6, 10)


def _measured_field(level: int) -> int:
    """Input pixels in a row that reach one cell, counted by propagating ones through the encoder's windows."""
    side = 1 << (level + 6)
    x = torch.zeros(1, 1, 1, 16 * side, dtype=torch.float64, requires_grad=True)
    kernel, y = torch.ones(1, 1, 1, 3, dtype=torch.float64), x
    for at in range(level + 1):
        y = nn.functional.avg_pool2d(y, (1, 2)) if at else y
        for _ in range(2):
            y = nn.functional.conv2d(y, kernel, padding=(0, 1))
    y[0, 0, 0, y.shape[3] // 2].backward()
    return int((x.grad != 0).sum())


def _field_first(student) -> bool:
    return student(0) == _measured_field(0)


def _field_deeper(student) -> bool:
    return [student(level) for level in (1, 2, 3)] == [_measured_field(level) for level in (1, 2, 3)]


def _field_any(student) -> bool:
    return [student(level) for level in (4, 6)] == [_measured_field(level) for level in (4, 6)]


def _points(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points ``(2, 7, 2)`` and ``valid``; the second image has padding."""
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    return torch.rand(2, 7, 2, generator=_numbers(seed)) * 40 * valid[..., None], valid


def _window_shape(student) -> bool:
    found = student(*_points(), 10.0)
    return found.shape == (2, 7, 7) and found.dtype == torch.bool


def _window_value(student) -> bool:
    xy, valid = _points()
    found = student(xy, valid, 15.0)
    edge = student(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]), torch.ones(1, 2, dtype=torch.bool), 5.0)
    return bool(edge.all()) and all(bool(found[b, n, m]) == ((xy[b, n] - xy[b, m]).square().sum().item() <= 225)
               for b in range(2) for n in range(7) for m in range(7) if valid[b, n] and valid[b, m])


def _window_padding(student) -> bool:
    xy, valid = _points()
    found = student(xy, valid, 1e6)
    return torch.equal(found, valid[:, :, None] & valid[:, None])


def _window_mates(student) -> bool:
    xy, valid = _points()
    alone = student(xy[1:, :4], valid[1:, :4], 15.0)
    return torch.equal(student(xy, valid, 15.0)[1:, :4, :4], alone)


def _mixing(points: float, dim: int, share: float) -> tuple[int, float]:
    """Counted operations of a block of ``points`` tokens: products with weights, and of pairs."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        Mixer("transformer", dim, 1, 1)(torch.empty(1, int(points), dim), torch.ones(1, int(points), dtype=torch.bool))
    counts = counter.get_flop_counts()["Global"]
    pairs = sum(n for name, n in counts.items() if "addmm" not in str(name))
    return sum(counts.values()) - pairs, share * pairs


def _even(student, dim: int, share: float) -> bool:
    weights, pairs = _mixing(round(float(student(dim, share))), dim, share)
    return abs(weights / pairs - 1) < 0.01


def _even_all(student) -> bool:
    return all(_even(student, dim, 1.0) for dim in (64, 256))


def _even_share(student) -> bool:
    return all(_even(student, 64, share) for share in (0.5, 0.1))


def _tokens(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ``(2, 9, 3)`` below zero in one channel, at few cells of a map 3 x 4, some of them padding."""
    tokens = torch.randn(2, 9, 3, generator=_numbers(seed))
    tokens[..., 0] = -tokens[..., 0].abs() - 0.1
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, 6:] = False
    return tokens, torch.randint(0, 6, (2, 9), generator=_numbers(seed + 1)), valid


def _max_shape(student) -> bool:
    return student(*_tokens(), 3, 4).shape == (2, 3, 3, 4)


def _max_alone(student) -> bool:
    """Where no two keypoints meet, all readings agree."""
    tokens, _, valid = _tokens()
    cell = torch.arange(9).expand(2, 9)
    expected = scatter(tokens, cell, scatter_weight(cell, valid, 12, "mean"), 3, 4)
    torch.testing.assert_close(student(tokens, cell, valid, 3, 4), expected)
    return True


def _max_value(student) -> bool:
    tokens, cell, valid = _tokens()
    found = student(tokens, cell, valid, 3, 4).flatten(2)
    for b in range(2):
        for place in range(12):
            there = tokens[b][(cell[b] == place) & valid[b]]
            expected = there.amax(0) if len(there) else torch.zeros(3)
            torch.testing.assert_close(found[b, :, place], expected)
    return True


def _max_gradient(student) -> bool:
    """The sum over the map has gradient 1 at each winner and 0 elsewhere; padding gets nothing."""
    tokens, cell, valid = _tokens()
    tokens.requires_grad_()
    student(tokens, cell, valid, 3, 4).sum().backward()
    won = (tokens == student(tokens, cell, valid, 3, 4).flatten(2).transpose(1, 2)
           .gather(1, cell[..., None].expand(-1, -1, 3))) & valid[..., None]
    torch.testing.assert_close(tokens.grad, won.float())
    return True


def _max_order(student) -> bool:
    tokens, cell, valid = _tokens()
    order = torch.randperm(9, generator=_numbers(2))
    one, other = student(tokens, cell, valid, 3, 4), student(tokens[:, order], cell[:, order], valid[:, order], 3, 4)
    return torch.equal(one, other)


EXERCISES = {
    "02.cell": Exercise(1, (
        step("shape", "Return whole numbers, x and y along the last axis, as many as there are points.", _cell_shape),
        step("whole pixels", "Pixel 1 and pixel 0 lie in the same cell at stride 2: divide, then round down.",
             _cell_whole_pixels),
        step("between pixels", "A cell reaches from -0.5 to 0.5 around its centre: the half pixel belongs in.",
             _cell_between_pixels),
        step("border", "Clamp x to the width and y to the height; the map need not be square.", _cell_border),
    )),
    "02.receptive_field": Exercise(1, (
        step("level 0", "Each 3 x 3 convolution adds one pixel on either side to the one in the middle.", _field_first),
        step("levels 1 to 3", "Pooling adds one cell of the finer level; a convolution at level l adds 2**l pixels on "
             "either side.", _field_deeper),
        step("any level", "Use a recursion over the levels, no table.", _field_any),
    )),
    "02.window": Exercise(2, (
        step("shape", "One row and one column per keypoint, and booleans.", _window_shape),
        step("value", "Subtract points by broadcasting xy[:, :, None] and xy[:, None]; the norm is over the last axis.",
             _window_value),
        step("padding", "Neither a row nor a column of padding may be open.", _window_padding),
        step("invariance", "An entry may depend on its two keypoints only.", _window_mates),
    )),
    "02.break_even": Exercise(2, (
        step("all pairs", "Set 8 L K d² equal to 2 L K² d and solve for K.", _even_all),
        step("a share", "Only a share of the K² pairs is left.", _even_share),
    )),
    "02.scatter_max": Exercise(3, (
        step("shape", "Flat cells first, (B, H W, d), then channels to the front and cells to rows and columns.",
             _max_shape),
        step("one keypoint a cell", "Where nothing meets this is the scatter of the library; padding is not written.",
             _max_alone),
        step("value", "Start from minus infinity, or from include_self=False, or negative values lose against the 0.",
             _max_value),
        step("gradient", "Do not detach, and do not let padding win.", _max_gradient),
        step("order", "The order of the keypoints must not matter.", _max_order),
    )),
}  # fmt: skip
