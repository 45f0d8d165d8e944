"""SuperPoint keypoints through ``transformers``: a detector that was learned (DeTone et al. 2018).

It needs the extra ``superpoint`` and weights that are not ours to hand on (read their licence). Fetch the model
``magic-leap-community/superpoint`` from the Hugging Face hub into a folder and name it in ``$KAF_SUPERPOINT``; the
detector is then ``superpoint``. The name says nothing about the weights: give other weights a store of their own.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaf.keypoints import Keypoints, from_arrays, inside

CELL = 8  # pixels; sides must be multiples of it
VARIABLE = "KAF_SUPERPOINT"


class SuperPoint:
    """A detector of a model of :class:`transformers.SuperPointForKeypointDetection`.

    Takes an 8-bit image ``(H, W)``; the descriptors, unit vectors of 256 numbers in [-1, 1], come as 8 bit, which keeps
    the order of their distances up to rounding.
    """

    def __init__(self, model: Any):
        self.model = model.eval()

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Keypoints:
        height, width = image.shape
        padded = np.pad(image, ((0, -height % CELL), (0, -width % CELL)), mode="edge")
        pixels = torch.from_numpy(padded).float().div(255).expand(1, 3, -1, -1)
        found = self.model(pixel_values=pixels)
        xy = found.keypoints[0] * torch.tensor(padded.shape[::-1])
        kept = found.mask[0].bool() & inside(xy, height, width)
        kept = torch.where(kept)[0][found.scores[0][kept].argsort(descending=True, stable=True)]
        descriptor = (found.descriptors[0][kept] * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        score = found.scores[0][kept].numpy()
        return from_arrays(xy[kept].numpy(), np.full(len(kept), CELL), score, descriptor.numpy())


def load_superpoint(folder: str | None = None) -> SuperPoint:
    """The detector with the weights in ``folder``, by default ``$KAF_SUPERPOINT``; read once.

    Raises ``ImportError`` without ``transformers`` and ``FileNotFoundError`` without weights.
    """
    folder = folder or os.environ.get(VARIABLE, "")  # outside what is kept: the variable may change
    return _read_once(str(Path(folder).expanduser().resolve()) if folder else "")


@lru_cache(maxsize=1)
def _read_once(folder: str) -> SuperPoint:
    try:
        from transformers import SuperPointForKeypointDetection
    except ImportError as error:
        raise ImportError("SuperPoint needs transformers: pip install 'kaf[superpoint]'") from error
    if not (folder and (Path(folder) / "config.json").is_file()):
        raise FileNotFoundError(f"there is no SuperPoint model in {folder!r}; fetch magic-leap-community/superpoint "
                                f"from the Hugging Face hub into a folder and set {VARIABLE} to it")
    model = SuperPointForKeypointDetection.from_pretrained(folder, local_files_only=True)
    return SuperPoint(model)
