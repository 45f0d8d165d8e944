"""Segmenting one volume from NIfTI to NIfTI, against the forward passes of the networks alone.

Usage: python -m benchmarks.inference [--image FILE.nii.gz --data NAME] [--size 224]
                                      [--width 32] [--rounds 2] [--record]

Without ``--image`` a volume of the phantom. End to end is what :func:`kaf.segment.segment` does: read, resample to
1.25 mm, find keypoints, predict, back to the grid of the file, write. It leaves out the start of the program and
loading the weights, which are paid once for any number of volumes. The networks are untrained: that changes the
labels, not the time. Everything takes turns within one run, and the best of the rounds counts.

Which network's forward passes a KAF-UNet is held against makes a difference, so both readings are printed: the
UNet it extends, and the UNet of the same width as its maps.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import record
from benchmarks.workload import NETWORKS, interleaved
from kaf.config import PredictConfig
from kaf.data.cases import Case, get_layout, read_volume, write_labels
from kaf.data.grid import store_shape
from kaf.data.pairs import collate
from kaf.data.phantom import write_phantom
from kaf.data.prepare import find_keypoints, to_8bit
from kaf.data.store import StoreSettings
from kaf.finetune import z_score
from kaf.networks import build_network
from kaf.predict import PREDICT_BATCH, to_native
from kaf.segment import Segmenter, segment

NAMES = ("UNet", "wide UNet", "KAF light", "KAF default")
READINGS = (("UNet", "UNet"), ("KAF light", "UNet"), ("KAF default", "wide UNet"), ("KAF default", "UNet"))
SETTINGS = StoreSettings("acdc", 1.25)


def make_segmenter(name: str, options: argparse.Namespace) -> Segmenter:
    """An untrained network of the benchmarks as a segmenter."""
    network, layers = NETWORKS[name]
    structures = get_layout("acdc").structures
    device = torch.device(options.device)
    model = build_network(network, len(structures) + 1, options.width, layers).eval().to(device)
    return Segmenter(model, SETTINGS, structures, options.size, options.points, device, PredictConfig())


@torch.inference_mode()
def forward_passes(segmenter: Segmenter, batches: list) -> None:
    """The network alone, on slices that lie ready."""
    for image, keypoints in batches:
        segmenter.network(image, keypoints)
    if segmenter.device.type == "cuda":
        torch.cuda.synchronize()


def ready_batches(segmenter: Segmenter, image: Path) -> list:
    """The slices of a volume as the network sees them, on its device."""
    volume = read_volume(Case(image.name, "", "", "", image))
    shape = store_shape(volume.image.shape[1:], volume.spacing_mm[1:], SETTINGS.spacing_mm)
    samples = list(segmenter._samples(to_8bit(volume.image, SETTINGS.clip, shape)))
    batches = [collate(samples[i : i + PREDICT_BATCH]) for i in range(0, len(samples), PREDICT_BATCH)]
    return [(z_score(b).to(segmenter.device), b.keypoints.to(segmenter.device)) for b in batches]


def part_rows(image: Path, folder: Path, options: argparse.Namespace) -> list[dict]:
    """Where the time goes beside the network."""
    case = Case(image.name, "", "", "", image)
    volume = read_volume(case)
    native = volume.image.shape[1:]
    shape = store_shape(native, volume.spacing_mm[1:], SETTINGS.spacing_mm)
    prepared = to_8bit(volume.image, SETTINGS.clip, shape)
    probabilities = torch.rand(len(prepared), 4, options.size, options.size).softmax(1)
    labels = to_native(probabilities, shape, native)
    parts = {"read the file": partial(read_volume, case),
             "clip, resample, 8 bit": partial(to_8bit, volume.image, SETTINGS.clip, shape),
             "find keypoints": partial(find_keypoints, prepared, "sift"),
             "back to the grid of the file": partial(to_native, probabilities, shape, native),
             "write the file": partial(write_labels, folder / "part.nii.gz", labels, case)}
    seconds = interleaved(parts, options.rounds)
    return [record.row(f"part: {name}", 1000 * min(seconds[name]), "ms") for name in parts]


def rows_of(image: Path, folder: Path, options: argparse.Namespace) -> list[dict]:
    """All rows of one volume."""
    segmenters = {name: make_segmenter(name, options) for name in NAMES}
    batches, steps = ready_batches(segmenters["KAF default"], image), {}
    for name, segmenter in segmenters.items():
        steps[f"{name}, forward passes"] = partial(forward_passes, segmenter, batches)
        steps[f"{name}, end to end"] = partial(segment, segmenter, image, folder / f"{name}.nii.gz", overwrite=True,
                                               progress=False)
    best = {name: min(times) for name, times in interleaved(steps, options.rounds).items()}
    rows = [record.row(name, seconds, "s") for name, seconds in best.items()]
    for name, base in READINGS:
        whole, alone = best[f"{name}, end to end"], best[f"{base}, forward passes"]
        rows.append(record.row(f"end to end, {name} / forward passes, {base}", whole, "s", whole / alone, "<= 1.6"))
    return rows + part_rows(image, folder, options)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image", type=Path, help="NIfTI file of one volume, for instance of ACDC")
    parser.add_argument("--data", default="given file", help="what to call that volume in the record")
    parser.add_argument("--size", type=int, default=224, help="side of the crop, pixels")
    parser.add_argument("--width", type=int, default=32, help="filters of the first block")
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    record.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        image = options.image
        if image is None:
            root = write_phantom(Path(folder) / "phantom", 1, progress=False)
            image = sorted(root.glob("patient001/*_frame*.nii.gz"))[0]
        slices = read_volume(Case("", "", "", "", image)).image.shape[0]
        rows = rows_of(image, Path(folder), options)
    data = "phantom" if options.image is None else options.data
    where = "" if options.device == "cpu" else f", {options.device}"  # the page on cost shows a processor
    record.finish(f"inference, {data}{where}", rows, options.record, data=data, slices=slices,
                  size=options.size, width=options.width, device=options.device)


if __name__ == "__main__":
    main()
