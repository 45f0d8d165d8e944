"""What explorers and widgets show in tests: two similar slices, attention maps, few-shot results, worse slices."""

import cv2
import numpy as np
import pandas as pd
import torch

from kaf.explorers import explore_corruption
from kaf.finetune import make_network
from tests.tiny import tiny_experiment


def slices(height=90, width=100):
    """Two neighbouring 8-bit slices: blobs of several sizes on a noisy, partly dark background."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for cx, cy, radius in zip(rng.uniform(15, 85, 40), rng.uniform(15, 75, 40), rng.uniform(2, 7, 40)):
        image += rng.choice([-1, 1]) * 90 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
    pair = []
    for shift in (0, 2):
        moved = cv2.warpAffine(image, np.float32([[1, 0, shift], [0, 1, shift / 2]]), (width, height))
        pair.append(np.clip(70 + moved + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    return pair


def attention_maps(keypoints, names):
    """Softmax over distances, wider for every next name; nothing at padding."""
    apart = torch.cdist(keypoints.xy, keypoints.xy)
    found = {}
    for i, name in enumerate(names):
        noise = torch.rand(apart.shape, generator=torch.Generator().manual_seed(i))
        weights = torch.softmax((noise - apart / (5 * 4**i)).masked_fill(~keypoints.valid[None], -torch.inf), 1)
        found[name] = weights * keypoints.valid[:, None]
    return found


def few_shot_rows(methods=("UNet", "KAF"), numbers=(2, 6, 20), patients=6):
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"dataset": "phantom", "protocol": "P", "scale": "smoke", "seed": seed, "device": "cpu", "method": method,
         "m": m, "patient": f"p{p}", "frame": "ED", "structure": structure, "missed": False, "absent": False,
         "dice": float(0.5 + 0.1 * i + 0.05 * np.log(m) + rng.normal(0, 0.03))}
        for i, method in enumerate(methods) for m in numbers for seed in (0, 1) for p in range(patients)
        for structure in ("RV", "MYO", "LV")])


def published():
    return pd.DataFrame([
        {"dataset": "acdc", "method": "KAF", "m": 2, "dice": 0.741, "sd": 0.034, "setting": ""},
        {"dataset": "acdc", "method": "KAF", "m": 6, "dice": 0.873, "sd": None, "setting": ""},
        {"dataset": "acdc", "method": "KAF", "m": 6, "dice": 0.824, "sd": None, "setting": "depth 6"}])


def worse_slice(store) -> dict:
    """What the explorer of corruptions is called with: two untrained networks and a slice with structures."""
    experiment = tiny_experiment()
    torch.manual_seed(0)
    networks = {name: make_network(experiment, store, name).eval() for name in ("unet", "kaf_scratch")}
    volume = store.select(labelled=True)[0]
    sizes = [int((store.sample(volume, s, 32, 12).label > 0).sum()) for s in range(store.volumes[volume].shape[0])]
    return {"networks": networks, "store": store, "volume": volume, "s": sizes.index(max(sizes)),
            "experiment": experiment, "levels": {"blur": (1.0, 2.0), "noise": (0.1, 0.3)}}


def corruption_explorer(store):
    """The explorer of :func:`worse_slice`."""
    return explore_corruption(**worse_slice(store))
