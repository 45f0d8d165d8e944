"""How committed notebooks are written back: small, and the same for the eye."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from book.run_chapters import UNSEEN, compact


def as_notebook(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def pixels_of(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), int)


def chart() -> np.ndarray:
    """Two colours that blend into white, as lines and letters do, opaque as matplotlib saves them."""
    shade = np.linspace(0, 255, 400)[None, :, None]
    colour = np.repeat(np.array([[0, 114, 178], [213, 94, 0]]), 60, 0)[:, None]
    rgb = (255 - (255 - colour) * shade / 255).astype(np.uint8)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def test_a_chart_gets_a_palette_and_looks_the_same():
    small = compact(as_notebook(chart()))
    assert Image.open(io.BytesIO(base64.b64decode(small))).mode == "P"
    assert np.abs(pixels_of(small) - chart()[..., :3]).max() <= UNSEEN
    assert compact(small) == compact(compact(small)), "a second time changes nothing"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_picture_of_more_colours_keeps_every_one(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
    small = compact(as_notebook(pixels))
    assert Image.open(io.BytesIO(base64.b64decode(small))).mode == "RGB"
    assert np.array_equal(pixels_of(small), pixels)
