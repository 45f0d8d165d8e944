"""Rebuild the reference weights from their seeds and carry them over to our modules."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kaf.keypoints import Keypoints

FOLDER = Path(__file__).parent / "golden"
CASES = json.loads((FOLDER / "reference.json").read_text())


def arrays(case: str) -> dict[str, Tensor]:
    """The arrays of one case by short name, as tensors."""
    with np.load(FOLDER / "reference.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.startswith(f"{case}_")]
        return {name.removeprefix(f"{case}_"): torch.from_numpy(file[name]) for name in names}


def drawn_state(case: str) -> dict[str, Tensor]:
    """The weights of a case, drawn as tests/golden/README.md says."""
    rs = np.random.RandomState(CASES[case]["seed"])
    scale = 0.05 if case.startswith("layer") else 0.03
    state = {}
    for name, shape in CASES[case]["state"]:
        if name.endswith("num_batches_tracked"):
            continue
        r = rs.standard_normal(int(np.prod(shape))).reshape(shape).astype(np.float32)
        if name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(r)
        elif name.endswith("running_mean"):
            value = 0.1 * r
        elif len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.1 * r
        elif len(shape) >= 2:
            value = r * np.sqrt(0.6 / np.prod(shape[1:]))
        else:
            value = r * scale
        state[name] = torch.from_numpy(np.asarray(value, np.float32))
    return state


def copy(module: nn.Module, state: dict[str, Tensor], prefix: str, channels: Tensor | None = None,
         columns: Tensor | None = None) -> None:
    """Copy weight, bias and statistics; ``channels`` reorders the outputs, ``columns`` the inputs."""
    for name, target in list(module.named_parameters()) + list(module.named_buffers()):
        if name == "num_batches_tracked":
            continue
        value = state[f"{prefix}.{name}"]
        if channels is not None:
            value = value[channels]
        if columns is not None and name == "weight":
            value = value[:, columns]
        with torch.no_grad():
            target.copy_(value.reshape(target.shape))


def copy_kaf_layer(layer: nn.Module, state: dict[str, Tensor], prefix: str = "") -> None:
    """Weights of a reference KAF layer into ours (heads interleaved there, blocked here; row, col there)."""
    glue = f"{prefix}superglue."
    copy(layer.embed, state, f"{prefix}feature_mlp")
    for linear, index in zip(layer.position.linears, (0, 3, 6, 9, 12), strict=True):
        columns = torch.tensor([1, 0]) if index == 0 else None
        copy(linear, state, f"{glue}kenc.encoder.{index}", columns=columns)
    for norm, index in zip(layer.position.norms, (1, 4, 7, 10), strict=True):
        copy(norm, state, f"{glue}kenc.encoder.{index}")
    heads = 4
    dim = layer.embed.out_features
    blocked = torch.arange(dim).view(-1, heads).T.flatten()  # channel c belongs to head c mod 4
    for k, block in enumerate(layer.mixer.blocks):
        attn = f"{glue}gnn.layers.{k}.attn."
        for i, linear in enumerate((block.attention.query, block.attention.key, block.attention.value)):
            copy(linear, state, f"{attn}proj.{i}", channels=blocked)
        copy(block.attention.merge, state, f"{attn}merge", columns=blocked)
        mlp = f"{glue}gnn.layers.{k}.mlp."
        copy(block.mlp.linears[0], state, f"{mlp}0")
        copy(block.mlp.norms[0], state, f"{mlp}1")
        copy(block.mlp.linears[1], state, f"{mlp}3")
    copy(layer.conv1, state, f"{prefix}diffusion_cnn.0")
    copy(layer.norm, state, f"{prefix}diffusion_cnn.1")
    copy(layer.conv2, state, f"{prefix}diffusion_cnn.3")


def copy_network(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Weights of a reference KAF-UNet into ours."""
    for level in range(4):
        for i in (1, 2):
            at = 3 * (i - 1)
            copy(network.encoder.blocks[level][at], state, f"encoder.contr_{level + 1}_{i}.0")
            copy(network.encoder.blocks[level][at + 1], state, f"encoder.contr_{level + 1}_{i}.1")
            block = network.decoder.blocks[3 - level]
            copy(block[at], state, f"decoder.expand_{level + 1}_{i}.0")
            copy(block[at + 1], state, f"decoder.expand_{level + 1}_{i}.1")
        copy_kaf_layer(network.encoder.layers[str(level)], state, f"encoder.graph_{level + 1}.")
        copy(network.decoder.ups[3 - level], state, f"decoder.upscale{level + 2}")
    copy(network.encoder.centre[0], state, "encoder.center.0")
    copy(network.encoder.centre[2], state, "encoder.center.2")
    copy(network.decoder.head, state, "decoder.head.0")


def keypoints_from_yx(yx: Tensor) -> Keypoints:
    """Reference points ``(B, N, 2)`` (row, col) as a batch of keypoints, all valid."""
    batch, n = yx.shape[:2]
    ones = torch.ones(batch, n)
    return Keypoints(yx.flip(-1).float(), ones, ones, torch.zeros(batch, n, 0).byte(), ones.bool())


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest reference value."""
    return ((ours - reference).abs().max() / reference.abs().max()).item()
