"""Networks of others behind the interface of ours, to compare with (chapter 9)."""

import math

import torch.nn.functional as F
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from kaf.keypoints import Keypoints

STRIDE = 32  # of the deepest level of SwinUNETR: sides must be multiples of it


class SwinUNet(nn.Module):
    """SwinUNETR of MONAI in 2-D (Hatamizadeh et al. 2022): shifted-window attention, convolutional decoder.

    ``(B, 1, H, W) -> (B, classes, H, W)``. Published with 48 features, which stands beside UNets of f = 32; other
    widths f in proportion, in the steps of 12 that its heads allow. Images are padded to multiples of 32 by
    repeating the border. Raises ``ValueError`` for images no larger than one such multiple: the deepest level would
    be a single pixel, which its norms cannot scale.
    """

    uses_keypoints = False

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.network = SwinUNETR(1, classes, feature_size=12 * math.ceil(width / 8), spatial_dims=2)

    def forward(self, image: Tensor, keypoints: Keypoints | None = None) -> Tensor:
        height, width = image.shape[2:]
        if max(height, width) <= STRIDE:
            raise ValueError(f"SwinUNETR takes images of more than {STRIDE} px, got {height} x {width}; choose a "
                             "larger size")
        padded = F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return self.network(padded)[..., :height, :width]
