"""The networks by name: UNet, the UNet of matched width, the KAF-UNet, SwinUNETR (chapters 2, 5, 6 and 9).

All take ``forward(image (B, 1, H, W), keypoints) -> logits (B, classes, H, W)``, so that loops need not
know which one they train; a network without keypoints ignores them. H and W are multiples of 16.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaf.baselines import SwinUNet
from kaf.choices import check_choice, check_multiple
from kaf.fields import LATER
from kaf.fusion import NORMS, KAFLayer
from kaf.keypoints import Keypoints
from kaf.parameters import INITS, Checked

LEVELS = 4
SLOPE = 0.01


class Encoded(NamedTuple):
    """What an encoder hands on.

    ``skips``   the output of every level, level l at stride ``2**l``.
    ``centre``  the bottleneck ``(B, C, H/16, W/16)``.
    ``points``  the mixed keypoint features ``(B, K, d)`` of every level that has a KAF layer.
    """

    skips: list[Tensor]
    centre: Tensor
    points: list[Tensor]


@dataclass(frozen=True)
class KAFConfig(Checked):
    """The KAF layers of a network."""

    levels: tuple[int, ...] = (0, 1, 2, 3)  # encoder levels that get a layer, level l at stride 2**l
    dim: int = 256  # token width d
    # Blocks a layer. The paper's table on depth compares 6 with 9 and finds 6 as good; its published sizes fit 16.
    depth: int = 6
    heads: int = 4
    hidden: int = 64  # channels between the two diffusion convolutions
    mixer: str = "transformer"  # or "paper", "graph", "none", or one entered in kaf.mixers.BLOCKS
    gather: str = "bilinear"  # or "nearest", the released program's integer cells
    scatter: str = "mean"  # or "sum", or "overwrite", the released program's last write
    fusion: str = "concat"  # or "project": back to C channels
    position_norm: str = "layer"  # or "batch", the paper's
    zero_start: bool = field(default=False, metadata=LATER)  # whether a layer begins by adding a map of zeros

    def __post_init__(self) -> None:
        super().__post_init__()
        check_multiple("the token width", self.dim, "the number of heads", self.heads)
        if self.zero_start and self.fusion == "project":
            raise ValueError("fusion 'project' begins as no change already; with zero_start as well its layers would "
                             "never learn: take one of the two")
        if not set(self.levels) <= set(range(LEVELS)):
            raise ValueError(f"KAF levels are among 0..{LEVELS - 1}, got {self.levels}")


PRESETS = {
    "default": KAFConfig(),
    "paper": KAFConfig(depth=16, mixer="paper", gather="nearest", scatter="overwrite", position_norm="batch"),
    "light": KAFConfig(dim=64, depth=3, hidden=32, fusion="project"),
}


def double_conv(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Two times (3x3 convolution, a norm of :data:`kaf.fusion.NORMS`, leaky ReLU)."""
    layers = []
    for i in (inputs, outputs):
        layers += [nn.Conv2d(i, outputs, 3, padding=1), NORMS[norm](outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def centre_conv(inputs: int, outputs: int) -> nn.Sequential:
    """The bottleneck: two times (3x3 convolution, ReLU), without a norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU())


class Encoder(nn.Module):
    """Four levels and the bottleneck, with a KAF layer behind the levels that ``kaf`` names.

    ``width`` is the number f of filters of the first block; level l convolves to ``f * 2**l`` channels.
    """

    def __init__(self, width: int, kaf: KAFConfig | None = None, norm: str = "batch", init: str = "he"):
        super().__init__()
        self.norm, self.init = norm, init  # for decoders that join it
        self.blocks, self.layers = nn.ModuleList(), nn.ModuleDict()
        inputs, self.widths = 1, []
        for level in range(LEVELS):
            channels = width * 2**level
            self.blocks.append(double_conv(inputs, channels, norm))
            if kaf is not None and level in kaf.levels:
                options = {k: v for k, v in vars(kaf).items() if k not in ("levels", "zero_start")}
                layer = KAFLayer(channels, norm=norm, **options)
                self.layers[str(level)] = layer
                channels = layer.out_channels
            inputs = channels
            self.widths.append(channels)
        self.widths.append(2 * inputs)
        self.centre = centre_conv(inputs, 2 * inputs)

    def level(self, level: int, x: Tensor, keypoints: Keypoints | None) -> tuple[Tensor, Tensor | None]:
        """One level: its output and, where it has a KAF layer, the mixed keypoint features."""
        x = self.blocks[level](x)
        if str(level) not in self.layers:
            return x, None
        return self.layers[str(level)](x, keypoints, 2**level)

    def forward(self, image: Tensor, keypoints: Keypoints | None = None) -> Encoded:
        check_size(image)
        skips, points, x = [], [], image
        for level in range(LEVELS):
            x, mixed = self.level(level, x, keypoints)
            skips.append(x)
            if mixed is not None:
                points.append(mixed)
            x = F.max_pool2d(x, 2)
        return Encoded(skips, self.centre(x), points)

    @torch.no_grad()
    def attention_maps(self, image: Tensor, keypoints: Keypoints) -> dict[int, list[Tensor]]:
        """Attention weights ``(B, heads, K, K)`` of every block, by level."""
        maps, x = {}, image
        for level in range(LEVELS):
            if str(level) in self.layers:
                feature = self.blocks[level](x)
                maps[level] = self.layers[str(level)].attention_maps(feature, keypoints, 2**level)
            x = F.max_pool2d(self.level(level, x, keypoints)[0], 2)
        return maps


class Decoder(nn.Module):
    """Transposed convolution, skip connection, two convolutions, four times; then a 1x1 head without bias."""

    def __init__(self, widths: list[int], classes: int, norm: str = "batch"):
        super().__init__()
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(LEVELS)):
            self.ups.append(nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2))
            self.blocks.append(double_conv(2 * widths[level], widths[level], norm))
        self.head = nn.Conv2d(widths[0], classes, 1, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        x = encoded.centre
        for up, block, skip in zip(self.ups, self.blocks, reversed(encoded.skips), strict=True):
            x = block(torch.cat([up(x), skip], 1))
        return self.head(x)


class UNet(nn.Module):
    """The UNet of the paper (its supplement): encoder, decoder, 1x1 head; arguments as in :func:`build_network`."""

    uses_keypoints = False

    def __init__(self, classes: int, width: int, kaf: KAFConfig | None = None, norm: str = "batch", init: str = "he"):
        super().__init__()
        check_choice("norm", norm, NORMS)
        check_choice("initialisation", init, INITS)
        self.encoder = Encoder(width, kaf, norm, init)
        self.decoder = Decoder(self.encoder.widths, classes, norm)
        begin(self, init)
        if init == "he":  # the head too, a 1x1 convolution
            nn.init.kaiming_normal_(self.decoder.head.weight, a=SLOPE)
        if kaf is not None and kaf.zero_start:
            for layer in self.encoder.layers.values():
                nn.init.zeros_(layer.conv2.weight)
                nn.init.zeros_(layer.conv2.bias)

    def forward(self, image: Tensor, keypoints: Keypoints | None = None) -> Tensor:
        return self.decoder(self.encoder(image, keypoints))


class KAFUNet(UNet):
    """The UNet with KAF layers (section 3.1). Without layers (``levels=()``) it is the UNet."""

    uses_keypoints = True

    def __init__(self, classes: int, width: int, kaf: KAFConfig = PRESETS["default"], norm: str = "batch",
                 init: str = "he"):
        super().__init__(classes, width, kaf, norm, init)

    def forward(self, image: Tensor, keypoints: Keypoints) -> Tensor:
        return super().forward(image, keypoints)


def begin(part: nn.Module, init: str) -> None:
    """Give a network, or a part of one, the weights that ``init`` says, a name in :data:`kaf.parameters.INITS`."""
    if init == "he":
        part.apply(initialise)


def initialise(module: nn.Module) -> None:
    """He-normal weights (negative slope .01) and zero bias for 3x3 and transposed convolutions."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size != (1, 1):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        nn.init.zeros_(module.bias)


def check_size(image: Tensor) -> None:
    """Raises ``ValueError`` unless ``image`` is ``(B, 1, H, W)`` with sides that four poolings divide."""
    if image.dim() != 4 or image.shape[1] != 1 or image.shape[2] % 16 or image.shape[3] % 16:
        raise ValueError("a network takes images (B, 1, H, W) with H and W multiples of 16, "
                         f"got {tuple(image.shape)}; crop or pad them first")


NETWORKS = ("unet", "wide_unet", "kaf_unet", "swin_unetr")


def build_network(name: str, classes: int, width: int, kaf: KAFConfig = PRESETS["default"],
                  norm: str = "batch", init: str = "he") -> nn.Module:
    """A network by name.

    ``unet``       f = ``width``.
    ``wide_unet``  f = 2 ``width``: the widths that concatenation gives the KAF-UNet.
    ``kaf_unet``   f = ``width`` with the layers of ``kaf``.
    ``swin_unetr`` :class:`kaf.baselines.SwinUNet`, as large as ``width`` says; it has no encoder to pretrain.

    The paper's control has the size of the KAF-UNet without its layers, 27.9 M parameters at f = 32: its encoder reads
    doubled widths and convolves to single ones. The wide UNet convolves to the doubled widths too: 31.0 M.

    ``norm`` is a name in :data:`kaf.fusion.NORMS`, ``init`` one in :data:`kaf.parameters.INITS`; SwinUNETR has both of
    its own. Raises ``ValueError`` for unknown names.
    """
    check_choice("network", name, NETWORKS)
    if name == "unet":
        return UNet(classes, width, norm=norm, init=init)
    if name == "wide_unet":
        return UNet(classes, 2 * width, norm=norm, init=init)
    if name == "kaf_unet":
        return KAFUNet(classes, width, kaf, norm, init)
    return SwinUNet(classes, width)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
