"""The store: a data set prepared once, read slice by slice ever after (chapter 0).

A folder with ``manifest.json`` and, per volume, ``volumes/<id>/`` with ``image.npy`` (8 bit),
``label.npy`` (store grid), ``truth.npy`` (native grid, only where the grids differ) and ``keypoints.npy``.
Write one with :func:`kaf.data.prepare.prepare`.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kaf.choices import settle_types
from kaf.data.arrays import open_array
from kaf.data.cases import get_layout
from kaf.data.grid import crop, crop_keypoints, uncrop  # noqa: F401  part of this module's interface
from kaf.files import digest_once, read_json
from kaf.keypoints import DETECTOR_VERSIONS, Keypoints, get_detector, pad, top_k

VERSION = 3  # raise it whenever prepare would give other content; for one detector its DETECTOR_VERSIONS is enough


@dataclass(frozen=True)
class StoreSettings:
    """Everything that decides what a store holds; two stores agree if and only if these do."""

    dataset: str  # a name in kaf.data.cases.LAYOUTS
    spacing_mm: float | None = None  # in-plane spacing of the store, None: as in the files
    clip: tuple[float, float] = (1.0, 99.0)  # percentiles of the volume that become 0 and 255
    detector: str = "sift"  # a name in kaf.keypoints.DETECTORS

    def __post_init__(self):
        get_layout(self.dataset)
        object.__setattr__(self, "clip", tuple(self.clip))
        settle_types(self)
        if self.spacing_mm is not None and not self.spacing_mm > 0:
            raise ValueError(f"spacing_mm must be positive or None, got {self.spacing_mm}")
        if not 0 <= self.clip[0] < self.clip[1] <= 100:
            raise ValueError(f"clip must be two rising percentiles between 0 and 100, got {self.clip}")
        get_detector(self.detector)

    @classmethod
    def usual(cls, dataset: str, **changes) -> "StoreSettings":
        """The settings usual for a data set (ACDC: 1.25 mm; CHD-68: native), with ``changes``."""
        return cls(**{"dataset": dataset, "spacing_mm": get_layout(dataset).spacing_mm, **changes})

    @property
    def digest(self) -> str:
        """Fingerprint of the settings and of the versions of the file format and of the detector."""
        return _fingerprint(asdict(self))


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """:attr:`StoreSettings.digest` of settings as they stand in a manifest."""
    content = {"version": VERSION, **settings}
    if settings["detector"] in DETECTOR_VERSIONS:  # else left out: stores of other detectors stay what they were
        content["detector_version"] = DETECTOR_VERSIONS[settings["detector"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class VolumeRecord:
    """What the manifest says about one volume."""

    id: str
    patient: str
    frame: str
    group: str
    labelled: bool
    shape: tuple[int, int, int]  # (S, H, W) in the store
    native_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]  # (slice, row, col) in the store, exact for its shape
    native_spacing_mm: tuple[float, float, float]
    mean: float  # of the 8-bit volume in the store
    std: float  # of the same; 1 for a flat volume, so that dividing by it is safe
    orientation: str  # where the axes i, j, k of the file point to, such as "RAS"
    source: str  # image file, relative to the root of the data set
    keypoints: tuple[int, ...]  # number of keypoints in each slice
    source_bytes: dict[str, int]  # size of each file read
    checksums: dict[str, str]  # sha256 of each file read and each file written

    @classmethod
    def from_json(cls, entry: dict) -> "VolumeRecord":
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


class SliceSample(NamedTuple):
    """One slice, centre-cropped or zero-padded to ``size``; the network sees ``(image - mean) / std``."""

    image: Tensor  # (size, size) uint8
    label: Tensor  # (size, size) int64, (0, 0) for an unlabelled volume
    keypoints: Keypoints  # the K strongest inside the crop, padded
    mean: float
    std: float
    position: float  # slice index / number of slices
    volume: int
    slice: int


class Store:
    """A prepared data set. Open it with :meth:`Store.open`; volumes are numbered, sorted by id."""

    def __init__(self, path: Path, manifest: dict):
        self.path = path
        self.settings = StoreSettings(**manifest["settings"])
        self.structures = {int(value): name for value, name in manifest["structures"].items()}
        self.volumes = tuple(VolumeRecord.from_json(entry) for entry in manifest["volumes"])
        self.patients = dict(sorted((v.patient, v.group) for v in self.volumes))
        self._first = [np.concatenate([[0], np.cumsum(v.keypoints)]) for v in self.volumes]

    @classmethod
    def open(cls, path: str | Path, settings: StoreSettings | None = None) -> "Store":
        """Open a finished store; with ``settings``, only one that was made with them.

        Raises ``FileNotFoundError`` if there is none; ``ValueError`` if it is unfinished, of another
        format version, or made with other settings.
        """
        path = Path(path)
        manifest = read_manifest(path, settings)
        if not manifest["complete"]:
            raise ValueError(f"the store {path} is unfinished; run prepare again, it continues")
        return cls(path, manifest)

    def __reduce__(self):
        return Store.open, (self.path,)  # worker processes read the manifest themselves

    def __repr__(self) -> str:
        labelled = sum(v.labelled for v in self.volumes)
        return (
            f"Store({self.settings.dataset}: {len(self.patients)} patients, {len(self.volumes)} volumes, "
            f"{labelled} labelled, {sum(v.shape[0] for v in self.volumes)} slices)"
        )

    @property
    def labelled_patients(self) -> set[str]:
        """Who can be trained with and tested: the patients with labels of at least one frame."""
        return {v.patient for v in self.volumes if v.labelled}

    def image(self, v: int) -> np.ndarray:
        """Volume ``v`` as 8-bit memory map ``(S, H, W)``."""
        return self._array(v, "image")

    def label(self, v: int) -> np.ndarray:
        """Labels of volume ``v`` in the grid of the store: uint8 ``(S, H, W)``."""
        self._check_labelled(v)
        return self._array(v, "label")

    def truth(self, v: int) -> np.ndarray:
        """Labels of volume ``v`` in the grid of its file: what predictions are scored against."""
        self._check_labelled(v)
        return self._array(v, "truth" if "truth.npy" in self.volumes[v].checksums else "label")

    def keypoints(self, v: int, s: int) -> Keypoints:
        """All keypoints of slice ``s`` of volume ``v``, in pixels of the store; no batch dimension.

        Raises ``IndexError`` for a slice that there is not.
        """
        self._check_slice(v, s)
        table = np.array(self._rows(v, "keypoints", *self._first[v][s : s + 2]))  # a copy that may be changed
        columns = (torch.from_numpy(np.ascontiguousarray(table[name])) for name in table.dtype.names)
        return Keypoints(*columns, torch.ones(len(table), dtype=torch.bool))

    def select(
        self,
        patients: Collection[str] | None = None,
        frames: Collection[str] | None = None,
        labelled: bool | None = None,
    ) -> list[int]:
        """Numbers of the volumes that meet all conditions. Raises ``ValueError`` for an unknown patient."""
        unknown = sorted(set(patients or ()) - set(self.patients))
        if unknown:
            raise ValueError(f"the store {self.path} has no patient {', '.join(unknown)}")
        return [
            number
            for number, v in enumerate(self.volumes)
            if (patients is None or v.patient in patients)
            and (frames is None or v.frame in frames)
            and (labelled is None or v.labelled == labelled)
        ]

    def sample(self, v: int, s: int, size: int, k: int) -> SliceSample:
        """Slice ``s`` of volume ``v`` cropped to ``size`` with its ``k`` strongest keypoints there.

        Raises ``IndexError`` for a slice that there is not.
        """
        self._check_slice(v, s)
        record = self.volumes[v]
        image, points = cut(self._rows(v, "image", s, s + 1)[0], self.keypoints(v, s), size, k)
        label = torch.empty((0, 0), dtype=torch.int64)
        if record.labelled:
            label = torch.from_numpy(crop(self._rows(v, "label", s, s + 1)[0], size)).long()
        return SliceSample(image, label, points, record.mean, record.std, s / record.shape[0], v, s)

    def verify(self, volumes: Iterable[int] | None = None) -> None:
        """Read every array of some volumes, or of all, and compare its checksum; once in the life of a process.

        Raises ``ValueError`` for the first that differs.
        """
        for v in self.volumes if volumes is None else (self.volumes[number] for number in volumes):
            for name in (n for n in v.checksums if n.endswith(".npy")):
                file = self.path / "volumes" / v.id / name
                if not file.is_file() or digest_once(file) != v.checksums[name]:
                    raise ValueError(f"{file} is damaged; delete its folder and run prepare again")

    def _array(self, v: int, name: str) -> np.ndarray:
        return np.load(self.path / "volumes" / self.volumes[v].id / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def _rows(self, v: int, name: str, first: int, last: int) -> np.ndarray:
        """Entries ``first`` to ``last`` of an array, read-only."""
        record = self.volumes[v]
        file = self.path / "volumes" / record.id / f"{name}.npy"
        return open_array(str(file), record.checksums[f"{name}.npy"]).rows(int(first), int(last))

    def _check_slice(self, v: int, s: int) -> None:
        last = self.volumes[v].shape[0] - 1
        if not 0 <= s <= last:  # else its file would seem to be cut short
            raise IndexError(f"volume {self.volumes[v].id} has the slices 0 to {last}, not {s}; choose one of these")

    def _check_labelled(self, v: int) -> None:
        if not self.volumes[v].labelled:
            raise ValueError(f"volume {self.volumes[v].id} has no labels; choose with select(labelled=True)")


def cut(image: np.ndarray, points: Keypoints, size: int, k: int) -> tuple[Tensor, Keypoints]:
    """The central ``size`` pixels of a slice ``(H, W)`` and its ``k`` strongest keypoints there, padded."""
    seen = crop_keypoints(points, image.shape, size)
    return torch.from_numpy(crop(image, size)), pad(top_k(seen, k), k)


def read_manifest(path: Path, settings: StoreSettings | None = None) -> dict:
    """The manifest of a store, checked against this version and, if given, against ``settings``."""
    file = path / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is no store, it has no manifest.json; kaf.data.prepare makes one")
    manifest = read_json(file, "delete the store and run prepare again")
    found = manifest.get("version")
    if found != VERSION:
        raise ValueError(f"the store {path} has format version {found}, not {VERSION}; prepare it anew")
    made_with = StoreSettings(**manifest["settings"])
    if settings is not None and settings != made_with:
        theirs, ours = asdict(made_with), asdict(settings)
        differences = ", ".join(f"{n} {theirs[n]!r}, not {ours[n]!r}" for n in ours if ours[n] != theirs[n])
        raise ValueError(f"store {path} was made with other settings ({differences}); choose another folder")
    if manifest["digest"] != _fingerprint(manifest["settings"]):  # old stores have 2 for 2.0 in both
        raise ValueError(f"the store {path} was made with an earlier version of the detector {made_with.detector!r}; "
                         "delete it and prepare it anew")
    return manifest
