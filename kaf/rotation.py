"""Pretraining by rotation: by how many quarter turns was a slice turned? (chapter 5; Gidaris et al. 2018)"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaf.config import PretrainConfig
from kaf.data.augment import augment
from kaf.data.pairs import PairSample, flatten_pairs
from kaf.data.warp import send
from kaf.loop import step_generator
from kaf.monitors import MONITOR_EVERY, feature_spread
from kaf.processes import gather, rank, share, world


class RotationModel(nn.Module):
    """An encoder and a linear layer on its mean bottleneck: slices ``(N, 1, H, W)`` -> logits ``(N, 4)``.

    Raises ``ValueError`` for an encoder with KAF layers: the image turns, its keypoints would not.
    """

    def __init__(self, encoder: nn.Module, config: PretrainConfig):
        super().__init__()
        if encoder.layers:
            raise ValueError("rotation prediction turns images without their keypoints; give it a UNet")
        self.encoder, self.head = encoder, nn.Linear(encoder.widths[-1], 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the features ``(N, C)`` that they come from."""
        features = self.encoder(image).centre.mean((2, 3))
        return self.head(features), features


class RotationLoss:
    """Cross-entropy of the number of quarter turns; each augmented slice gets one at random."""

    def __init__(self, config: PretrainConfig, seed: int):
        self.config, self.seed = config, seed

    def __call__(self, model: nn.Module, batch: PairSample, step: int) -> tuple[Tensor, dict]:
        generator = step_generator(self.seed, step)
        image, keypoints = flatten_pairs(batch)
        image, _, _ = augment(image, keypoints, None, self.config.augment, generator, share=(rank(), world()))
        turns = torch.randint(4, (world() * len(image),), generator=generator)
        own = turns[share(len(turns))]
        turned = torch.stack([slice_.rot90(int(k), (1, 2)) for slice_, k in zip(image, own, strict=True)])
        logits, features = (gather(x.float()) for x in model(turned))
        turns = send(turns, logits.device)
        loss = F.cross_entropy(logits, turns)
        right = (logits.argmax(1) == turns).float().mean()
        logged = {"rotation": loss.detach(), "right": right}
        if step % MONITOR_EVERY == 0:
            logged["spread"] = feature_spread(features)
        return loss, logged
