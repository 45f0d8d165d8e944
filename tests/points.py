"""Keypoints for tests."""

import torch

from kaf.keypoints import Keypoints


def random_keypoints(batch, k, size, seed=0, valid=None):
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, k, 2, generator=g) * (size - 1)
    valid = torch.ones(batch, k, dtype=torch.bool) if valid is None else valid
    ones = torch.ones(batch, k)
    descriptor = torch.zeros(batch, k, 0, dtype=torch.uint8)
    return Keypoints(xy * valid[..., None], ones * valid, ones * valid, descriptor, valid)
