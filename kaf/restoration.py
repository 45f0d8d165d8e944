"""Pretraining by restoration: what is in the cells of a slice that were masked? (chapter 9; Zhou et al. 2021)"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaf.config import PretrainConfig
from kaf.data.augment import augment
from kaf.data.pairs import PairSample, flatten_pairs
from kaf.data.warp import send
from kaf.keypoints import Keypoints, read_pixels
from kaf.loop import step_generator
from kaf.networks import Decoder, Encoder, begin
from kaf.processes import gather, rank, share, world


class RestorationModel(nn.Module):
    """An encoder and a decoder with one channel, the slice itself: ``(N, 1, H, W)`` -> ``(N, 1, H, W)``.

    Both are what fine-tuning starts from; only the head is its own.
    """

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(encoder.widths, 1, encoder.norm)
        begin(self.decoder, encoder.init)

    def forward(self, image: Tensor, keypoints: Keypoints) -> Tensor:
        return self.decoder(self.encoder(image, keypoints))


class RestorationLoss:
    """Mean squared error in the masked cells of augmented slices, which the network sees as 0, the mean of the
    volume before augmentation.

    Keypoints in masked cells are masked, too: they would tell what was there.
    """

    def __init__(self, config: PretrainConfig, seed: int):
        self.config, self.seed = config, seed

    def __call__(self, model: nn.Module, batch: PairSample, step: int) -> tuple[Tensor, dict]:
        config, generator = self.config, step_generator(self.seed, step)
        image, keypoints = flatten_pairs(batch)
        image, keypoints, _ = augment(image, keypoints, None, config.augment, generator, share=(rank(), world()))
        shape = (world() * len(image), *image.shape[2:])
        mask = send(draw_cells(shape, config.mask_cell, config.mask_share, generator), image.device)
        own = mask[share(len(mask))]
        seen = keypoints.moved(keypoints.xy, ~read_pixels(own, keypoints.xy))
        restored = gather(model(image.masked_fill(own[:, None], 0.0), seen).float())
        error = (restored - gather(image)).square() * mask[:, None]
        loss = error.sum() / mask.sum().clamp(min=1)  # 0 where no cell was drawn
        return loss, {"restoration": loss.detach()}


def draw_cells(shape: tuple[int, int, int], cell: int, probability: float, generator: torch.Generator) -> Tensor:
    """Masks ``(N, H, W)``: square cells of ``cell`` pixels, each masked with ``probability``."""
    count, height, width = shape
    drawn = torch.rand(count, 1, math.ceil(height / cell), math.ceil(width / cell), generator=generator) < probability
    return F.interpolate(drawn.float(), scale_factor=cell)[:, 0, :height, :width].bool()
