"""How far an output pixel sees: its influence map and the distance within which most of it lies (chapters 2 and 9)."""

from collections.abc import Callable

import torch
from torch import Tensor


def influence(network: Callable[[Tensor], Tensor], image: Tensor, at: tuple[int, int]) -> Tensor:
    """How strongly the output at ``at`` (x, y) depends on each pixel of ``image`` (1, 1, H, W): ``(H, W)``.

    The norm over the output's channels of their derivatives: where it is not 0 lies the receptive field, how it is
    distributed is the effective one (Luo et al. 2016). ``network`` maps the image alone to ``(1, C, H, W)``.
    Raises ``ValueError`` for a pixel outside the image.
    """
    height, width = image.shape[2:]
    x, y = at
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"no pixel (x, y) = {at} in an image of {width} x {height} pixels")
    given = image.detach().clone().requires_grad_()
    channels = network(given)[0, :, y, x]
    gradients = [torch.autograd.grad(one, given, retain_graph=True)[0][0, 0] for one in channels]
    return torch.stack(gradients).norm(dim=0)


def share_within(values: Tensor, at: tuple[int, int], radii: Tensor) -> Tensor:
    """Of an influence map ``(H, W)`` the share within each of ``radii`` (pixels) of the pixel ``at`` (x, y)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=values.device) for n in values.shape), indexing="ij")
    distance = (x - at[0]).square().add((y - at[1]).square()).sqrt()
    return (values * (distance <= radii.to(values.device)[:, None, None])).sum((1, 2)) / values.sum()
