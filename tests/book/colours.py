"""Colours that a figure may use: the palette of Okabe and Ito, greys, and colour maps that everybody can read."""

import ast
import re

from kaf import canvas

MAPS = {"gray", "viridis", "cividis", "magma", "PuOr", "RdBu_r"}
PLAIN = {"black", "white", "none", "k", "w", "#FFFFFF", "#000000"}
PALE = {"#DCEBF5"}  # the ground of a box
ALLOWED = {*canvas.ON_BLACK, *canvas.ON_WHITE, *PLAIN, *PALE}
KEYS = {"color", "c", "fc", "ec", "mfc", "mec", "edgecolor", "facecolor", "colors"}


def strange_colours(tree):
    """Colours and colour maps, written as text in the syntax tree of a cell, that are not among these."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values, strict=True)]
        else:
            continue
        for key, value in pairs:
            words = {part.value for part in ast.walk(value) if isinstance(part, ast.Constant) and
                     isinstance(part.value, str)} if key in KEYS | {"cmap"} else set()
            found += sorted(word for word in words if not fits(word))
    found += [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
              and isinstance(node.value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", node.value)
              and node.value not in ALLOWED]
    return found


def fits(word):
    grey = re.fullmatch(r"[01]?(\.\d+)?", word)
    return bool(grey) or word in ALLOWED | MAPS
