"""Explorers: pictures that answer to mouse and keyboard, without a kernel and without network.

Each function computes with ``kaf`` what can be chosen and returns one piece of HTML that carries these results,
its pictures, its style and its script. It works in the rendered book, in Jupyter and in Colab, also several times
on a page. Where scripts do not run, a sentence stands in its place: show a figure of the same thing before it.

How to add one: a module ``NAME.py`` here that computes the data and calls :func:`kaf.explorers.page.explorer`, and
``NAME.js`` beside it, whose last lines define ``start(root, data)`` with the helpers of ``common.js`` and
``chart.js``.
"""

from kaf.explorers.attention import explore_attention
from kaf.explorers.corruption import explore_corruption
from kaf.explorers.keypoints import explore_keypoints
from kaf.explorers.labels import explore_labels
from kaf.explorers.matches import explore_matches

__all__ = ["explore_attention", "explore_corruption", "explore_keypoints", "explore_labels", "explore_matches"]
