"""Keypoint-augmented fusion (KAF) and its self-supervised pretraining, as taught in the book.

Conventions, used everywhere and stated only here:

- Points are ``(x, y)`` in pixels of the image they belong to; pixel centres lie at integers, so the
  top-left pixel is ``(0, 0)`` and the image covers ``[-0.5, width - 0.5] x [-0.5, height - 0.5]``.
- Images are ``B x C x H x W``. A volume is ``S x H x W``: slices first, base to apex or caudal to
  cranial as stored in the file.
- In-plane spacing is ``(row, col)`` in mm; the spacing of a volume is ``(slice, row, col)`` in mm.
- A match index of ``-1`` means unmatched, ``-2`` means ignored (padding).
- Label 0 is background.
- Keypoints of a batch are padded to a fixed number ``K`` with a ``valid`` mask, so that what is
  predicted for one image never depends on the other images of its batch.

Data flows one way: data -> keypoints -> networks -> losses -> loops -> evaluation -> report.
"""

__version__ = "0.1.0"
