"""From data to one piece of HTML: the frame, the style and the scripts that all explorers share."""

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from IPython.display import HTML
from numpy.typing import ArrayLike

LARGEST = 300_000  # characters of an explorer: a notebook holds several in its two megabytes
LARGEST_PNG = 90_000  # bytes; a larger picture is compressed with a loss that nobody sees
WEBP_QUALITY = 90


def explorer(kind: str, about: str, data: dict[str, Any]) -> HTML:
    """The explorer ``kind`` with its ``data``, which JSON must be able to hold.

    ``about`` says in one sentence what can be chosen: it is the label of the whole and, where no script runs, all
    that stands there. Equal data give equal HTML. Raises ``ValueError`` where it would be larger than
    :data:`LARGEST`.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    scripts = "\n".join(_asset(f"{name}.js") for name in ("common", "chart", kind))
    sentence = html.escape(about)
    page = (
        f'<div class="kaf-explorer" data-kind="{kind}" data-key="{key}" role="group" aria-label="{sentence}"'
        ' data-lm-suppress-shortcuts="true">\n'
        f"<style>\n{_asset('explorer.css')}</style>\n"
        f'<div class="kx-body"><p>{sentence} This needs JavaScript, which does not run here; the figure before it'
        " shows the same for one choice.</p></div>\n"
        f'<script type="application/json">{text}</script>\n'
        f"<script>(() => {{\n{scripts}\nbegin({json.dumps(key)}, start);\n}})();</script>\n</div>"
    )
    if len(page) > LARGEST:
        raise ValueError(f"this explorer of {kind} would take {len(page):,} characters, more than {LARGEST:,}: pass a "
                         "smaller image or fewer points")  # fmt: skip
    return HTML(page)


def picture(image: ArrayLike) -> str:
    """A slice ``(H, W)`` as a data URL; what is not 8 bit is stretched from its minimum to its maximum."""
    grey = to_grey(image)
    ok, coded = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    kind = "png"
    if len(coded) > LARGEST_PNG:
        ok, coded = cv2.imencode(".webp", grey, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
        kind = "webp"
    if not ok:
        raise ValueError(f"an image of shape {grey.shape} cannot be coded as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(coded).decode()}"


def to_grey(image: ArrayLike) -> np.ndarray:
    """A slice as uint8 ``(H, W)``. Raises ``ValueError`` for another shape or values that are not finite."""
    image = np.asarray(image)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"an explorer shows one slice (H, W), got an array of shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    image = image.astype(np.float64)
    if not np.isfinite(image).all():
        raise ValueError("the image holds values that are not finite")
    low, high = image.min(), image.max()
    return np.round((image - low) * (255 / (high - low if high > low else 1))).astype(np.uint8)


def rounded(values: ArrayLike, digits: int = 2) -> list:
    """Nested lists of numbers with few digits, whole ones without a decimal point."""
    flat = np.round(np.asarray(values, np.float64), digits)
    return json.loads(json.dumps(flat.tolist()).replace(".0,", ",").replace(".0]", "]"))


def _asset(name: str) -> str:
    return files("kaf.explorers").joinpath(name).read_text(encoding="utf-8")
