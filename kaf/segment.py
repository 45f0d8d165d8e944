"""Segment a volume of your own with a trained network: NIfTI in, NIfTI out.

Command: ``python -m kaf.segment RUN IMAGE.nii.gz OUT.nii.gz [--device cpu] [--frame N] [--overwrite]``.

RUN is the folder of a finished fine-tuning run; it says how its images were prepared. The volume is prepared in
the same way, keypoints included, and predicted slice by slice, so the result is that of
:func:`kaf.predict.predict` for the same volume in a store. It must look like what the network was trained on: the
same kind of image, slices along the last axis, in-plane axes pointing the same way.
"""

import argparse
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from kaf.config import PredictConfig, restore
from kaf.data.cases import Case, check_headers, get_layout, read_volume, write_labels
from kaf.data.grid import store_shape
from kaf.data.prepare import detect, statistics, to_8bit
from kaf.data.problems import Problem, stop
from kaf.data.store import SliceSample, StoreSettings, cut
from kaf.files import make_writable, read_json, replacing
from kaf.finetune import load_network
from kaf.keypoints import from_arrays
from kaf.loop import make_fabric
from kaf.predict import predict_slices
from kaf.progress import progress_bar
from kaf.runs import Run
from kaf.usage import count_cores

MAX_THREADS = 4  # that look for keypoints while the network works


class Segmenter(NamedTuple):
    """A trained network with what it takes to prepare an image as in its training."""

    network: nn.Module
    settings: StoreSettings
    structures: dict[int, str]  # label value -> name
    size: int  # the network sees the central size x size pixels
    points: int  # K, the strongest keypoints there
    device: torch.device
    how: PredictConfig
    orientations: tuple[str, ...] = ()  # of the images that it was trained on, such as "RAS"; (): not known

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "Segmenter":
        """The network of a finished fine-tuning run.

        Raises ``FileNotFoundError`` where ``folder`` is no run, ``ValueError`` for another kind of run or an
        unfinished one.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is no run folder, it has no config.json; trained ones are in the folder "
                                    "runs of the output, finetune-... or selftrain-...")
        config = read_json(folder / "config.json")
        if "method" not in config:
            raise ValueError(f"{folder} is a pretraining run, which segments nothing; give one of fine-tuning")
        experiment, run = restore(config["experiment"]), Run(folder, config)
        data = DataFacts.of(folder, experiment)
        network = load_network(run, experiment, data, config["method"])
        device = make_fabric(device).device
        return cls(network.to(device), data.settings, data.structures, experiment.data.size, experiment.data.points,
                   device, experiment.finetune, data.orientations)

    def __call__(self, image: np.ndarray, spacing_mm: tuple[float, float, float], progress: bool = False) -> np.ndarray:
        """Labels ``(S, H, W)`` uint8 of a volume ``(S, H, W)`` with the spacing (slice, row, col).

        Raises ``ValueError`` for values that are not finite, which would leave nothing of all others.
        """
        if not np.isfinite(image).all():
            raise ValueError(f"the image has {np.count_nonzero(~np.isfinite(image))} values that are not finite; give "
                             "them a number, such as the smallest of the others")
        shape = store_shape(image.shape[1:], spacing_mm[1:], self.settings.spacing_mm)
        prepared = to_8bit(image, self.settings.clip, shape)
        slices = progress_bar(self._samples(prepared), quiet=not progress, total=len(prepared), unit="slice")
        return predict_slices(self.network, slices, shape, image.shape[1:], self.how, self.device)

    def _samples(self, image: np.ndarray) -> Iterator[SliceSample]:
        """The slices of a prepared volume; keypoints of the next ones are found while the network works."""
        mean, std = statistics(image)
        threads = max(1, min(MAX_THREADS, count_cores() - 1))
        with ThreadPoolExecutor(threads) as pool:
            found = repeat(from_arrays(np.zeros((0, 2))))
            if self.network.uses_keypoints:
                found = pool.map(detect, image, repeat(self.settings.detector))
            for s, points in zip(range(len(image)), found, strict=False):
                pixels, points = cut(image[s], points, self.size, self.points)
                none = torch.empty((0, 0), dtype=torch.int64)
                yield SliceSample(pixels, none, points, mean, std, s / len(image), 0, s)


class DataFacts(NamedTuple):
    """What a run knows about its data besides its experiment."""

    settings: StoreSettings
    structures: dict[int, str]
    orientations: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, experiment) -> "DataFacts":
        """From ``data.json`` in a run folder; runs older than that file used the usual settings."""
        if (folder / "data.json").is_file():
            found = read_json(folder / "data.json")
            return cls(StoreSettings(**found["settings"]), {int(k): v for k, v in found["structures"].items()},
                       tuple(found.get("orientations", ())))
        data = experiment.data
        settings = StoreSettings(data.dataset, data.spacing_mm, detector=data.detector)
        return cls(settings, get_layout(data.dataset).structures)


def segment(segmenter: Segmenter, image: str | Path, out: str | Path, frame: int | None = None,
            overwrite: bool = False, progress: bool = True) -> np.ndarray:
    """Segment the NIfTI file ``image`` into the NIfTI file ``out``, in the grid of ``image``; returns the labels.

    ``frame`` is the index into the last axis of a 4-D file. ``out`` appears whole or not at all. Raises
    ``FileExistsError`` where it is there and ``overwrite`` is not set, ``FileNotFoundError`` for a missing image
    or folder, ``ValueError`` for an image that cannot be read or a name that is not NIfTI's. Warns of an image that
    can be read but looks as if its axes or its spacing were not those of the training images.
    """
    image, out = Path(image), Path(out)
    case = _check(image, out, frame, overwrite)
    volume = read_volume(case)
    if segmenter.orientations and volume.orientation not in segmenter.orientations:
        known = ", ".join(segmenter.orientations)
        _tell(Problem(image, f"has the orientation {volume.orientation}, the network was trained on {known}",
                      "turn the image that way, or the labels may be wrong", warning=True))
    labels = segmenter(volume.image, volume.spacing_mm, progress)
    with replacing(out) as draft:
        write_labels(draft, labels, case)
    return labels


def _check(image: Path, out: Path, frame: int | None, overwrite: bool) -> Case:
    """What can be wrong with the two files; the image as a case."""
    if not image.is_file():
        raise FileNotFoundError(f"there is no file {image}; give a NIfTI file of one volume")
    if not out.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{out} must end in .nii.gz or .nii")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into; make it first")
    make_writable(out.parent)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name, or pass --overwrite (overwrite=True)")
    if out.exists() and out.samefile(image):
        raise ValueError(f"{out} is the image itself; choose another name for the labels")
    case = Case(image.name, "", "", "", image, frame_index=frame)
    check_headers(case, _tell)
    return case


def _tell(problem: Problem) -> None:
    """Raise an error, and warn of what may only be strange."""
    stop(problem)
    warnings.warn(str(problem), stacklevel=4)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m kaf.segment", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished fine-tuning run")
    parser.add_argument("image", type=Path, help="NIfTI file of one volume")
    parser.add_argument("out", type=Path, help="NIfTI file for the labels")
    parser.add_argument("--device", default="auto", help="auto (default: cuda, else cpu), cpu, cuda or mps")
    parser.add_argument("--frame", type=int, help="frame of a 4-D file, from 0")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    a = parser.parse_args(arguments)
    try:
        _check(a.image, a.out, a.frame, a.overwrite)  # before the network is loaded
        segmenter = Segmenter.load(a.run, a.device)
        labels = segment(segmenter, a.image, a.out, a.frame, a.overwrite)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    counts = ", ".join(f"{name} {(labels == value).sum()}" for value, name in segmenter.structures.items())
    print(f"{a.out}: voxels of {counts}")


if __name__ == "__main__":
    main()
