"""What the two training loops read: slices, pairs of neighbouring slices, and their order (chapter 5).

Both data sets are indexed by one whole number ``n = epoch * len(dataset) + item``, and everything
random about an item comes from ``(seed, epoch, item)``. :class:`EpochSampler` gives those numbers as
a pure function of the step. So resuming at a step, or another number of worker processes, changes nothing.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from kaf.data.store import SliceSample, Store
from kaf.keypoints import Keypoints
from kaf.keypoints import collate as stack_keypoints
from kaf.usage import count_cores

Matching = Callable[[Keypoints, Keypoints], Tensor]  # keypoints (K,) of two slices -> match (K,) int64


class PairSample(NamedTuple):
    """A slice and a neighbouring slice of the same volume, before augmentation."""

    image: Tensor  # (2, size, size) uint8
    keypoints: Keypoints  # (2, K)
    match: Tensor  # (K,) int64, index into the second slice's keypoints; -1 unmatched, -2 padding; (0,) not asked for
    position: Tensor  # (2,) float32, slice index / number of slices
    mean: Tensor  # (2,) float32
    std: Tensor  # (2,) float32


@dataclass(frozen=True)
class Window:
    """How far away a neighbouring slice may be: a fraction of the slices, but at least ``minimum`` slices."""

    fraction: float = 0.18  # .18 and 2 for ACDC, .05 and 1 for CHD, as in the paper
    minimum: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1 or self.minimum < (self.fraction > 0):
            raise ValueError("a window needs a fraction in 0..1 and at least 1 slice as minimum, or 0 and 0 for the "
                             f"slice itself, got {self}")

    def neighbours(self, slice_index: int, slices: int) -> list[int]:
        """The slices within the window, other than the slice itself; never empty for two slices or more.

        A window of nothing holds the slice itself: two views of one slice instead of a pair of neighbours.
        """
        if self.minimum == 0:
            return [slice_index]
        reach = max(int(self.fraction * slices + 1e-9), self.minimum)
        first, last = max(0, slice_index - reach), min(slices - 1, slice_index + reach)
        return [s for s in range(first, last + 1) if s != slice_index]


class SliceDataset(Dataset):
    """The slices of some volumes, each a :class:`SliceSample`: ``size`` pixels square, ``k`` keypoints.

    With ``labelled`` every volume must have labels; without, labels are left out everywhere, so that
    volumes with and without them can be mixed. Raises ``ValueError`` for no volumes or missing labels.
    """

    def __init__(self, store: Store, volumes: Sequence[int], size: int, k: int, labelled: bool = True):
        missing = [store.volumes[v].id for v in volumes if not store.volumes[v].labelled]
        if labelled and missing:
            raise ValueError(f"volumes without labels: {', '.join(missing)}; leave them out or "
                             "pass labelled=False")
        self.store, self.size, self.k, self.labelled = store, size, k, labelled
        self.items = _slices(store, volumes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> SliceSample:
        sample = self.store.sample(*self.items[n % len(self)], self.size, self.k)
        return sample if self.labelled else sample._replace(label=torch.empty((0, 0), dtype=torch.int64))


class PairDataset(Dataset):
    """Pairs of neighbouring slices of some volumes; item ``i`` is slice ``i`` with a random neighbour.

    The neighbour is uniform over the ``window``. ``matching`` finds the correspondences in the
    coordinates of the slices as stored, for instance
    ``functools.partial(match_keypoints, window=30)``; without it none are sought, for losses that do not look at
    them. Raises ``ValueError`` for no volumes, or for volumes of a single slice where the
    window looks for neighbours, of which they have none.
    """

    def __init__(self, store: Store, volumes: Sequence[int], size: int, k: int, window: Window,
                 matching: Matching | None = None, seed: int = 0):
        single = [store.volumes[v].id for v in volumes if store.volumes[v].shape[0] < 2]
        if single and window.minimum:  # a window of nothing holds the slice itself
            raise ValueError(f"volumes of a single slice have no neighbouring slices: {', '.join(single)}; "
                             "leave them out")
        self.store, self.size, self.k, self.window = store, size, k, window
        self.matching, self.seed = matching, seed
        self.items = _slices(store, volumes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> PairSample:
        epoch, item = divmod(n, len(self))
        rng = np.random.default_rng((self.seed, epoch, item))
        v, s = self.items[item]
        neighbours = self.window.neighbours(s, self.store.volumes[v].shape[0])
        other = neighbours[rng.integers(len(neighbours))]
        first, second = (self.store.sample(v, i, self.size, self.k) for i in (s, other))
        return PairSample(
            torch.stack([first.image, second.image]),
            stack_keypoints([first.keypoints, second.keypoints]),
            self.matching(first.keypoints, second.keypoints) if self.matching else torch.empty(0, dtype=torch.int64),
            torch.tensor([first.position, second.position]),
            torch.tensor([first.mean, second.mean]),
            torch.tensor([first.std, second.std]),
        )


class EpochSampler(Sampler[list[int]]):
    """Full batches from one random permutation of the items after another, without end.

    Every item comes once per permutation; a batch may cross from one permutation to the next, so
    that a data set smaller than a batch still fills it. Iterating gives the batches of steps ``start`` to ``stop``,
    or of each only the ``part`` that one of several processes computes; :func:`read_batches` reads them. Without
    ``stop`` there are ``steps``, by default as many as fit into the data set (at least 1).
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0, steps: int | None = None,
                 start: int = 0, stop: int | None = None, part: slice = slice(None)):
        if min(length, batch_size, 1 if steps is None else steps) < 1:
            raise ValueError("length, batch_size and steps must be at least 1, got "
                             f"{length}, {batch_size}, {steps}")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.steps = steps or max(1, length // batch_size)
        self.start, self.stop, self.part = start, self.steps if stop is None else stop, part
        self._order = (-1, np.empty(0, int))  # the permutation last used, so as not to draw it at every step

    def batches(self, step: int) -> list[int]:
        """The batch of ``step``, counted from 0 over all epochs: a function of seed and step alone.

        Index ``n`` means item ``n % length`` in the permutation number ``n // length``.
        """
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self._at(place) for place in places]

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batches(step)[self.part] for step in range(self.start, self.stop))

    def _at(self, place: int) -> int:
        turn, rest = divmod(place, self.length)
        if self._order[0] != turn:
            self._order = (turn, np.random.default_rng((self.seed, turn)).permutation(self.length))
        return turn * self.length + int(self._order[1][rest])


def flatten_pairs(batch: PairSample) -> tuple[Tensor, Keypoints]:
    """A batch of B pairs as 2B z-scored slices ``(2B, 1, H, W)`` with their keypoints, pair by pair."""
    shape = (*batch.mean.shape, 1, 1)
    image = (batch.image.float() - batch.mean.view(shape)) / batch.std.view(shape)
    return image.flatten(0, 1).unsqueeze(1), Keypoints(*(field.flatten(0, 1) for field in batch.keypoints))


def collate(samples: Sequence[SliceSample] | Sequence[PairSample]) -> SliceSample | PairSample:
    """A batch: the same container with a leading dimension ``B``; numbers become float32 or int64."""
    batch = default_collate(list(samples))  # keeps NamedTuples, nested ones too
    # Python floats have become float64.
    return batch._replace(**{name: getattr(batch, name).float() for name in ("mean", "std", "position")})


def read_batches(dataset: Dataset, sampler: EpochSampler, workers: int = 0,
                 device: torch.device | str = "cpu") -> DataLoader:
    """The batches of ``sampler``, collated; ``workers`` processes read ahead and change nothing in them.

    They lie on the CPU. For a GPU of NVIDIA as ``device`` their memory is pinned: from any other a copy to it waits
    until the GPU has finished what it was given before.
    """
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers,
                      worker_init_fn=_ignore_signals, pin_memory=torch.device(device).type == "cuda")


def usual_workers(device: torch.device | str, processes: int = 1) -> int:
    """How many ``workers`` read ahead for each of ``processes`` that train on one machine.

    None for a processor, which has no time to spare; for a GPU up to 8, but a core stays with each that trains.
    """
    if torch.device(device).type != "cuda":
        return 0
    return max(0, min(8, count_cores() // processes - 1))


def _ignore_signals(_: int) -> None:
    """Ctrl-C or a scheduler tells the processes that read as well, but the one that trains decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _slices(store: Store, volumes: Sequence[int]) -> list[tuple[int, int]]:
    items = [(v, s) for v in volumes for s in range(store.volumes[v].shape[0])]
    if not items:
        raise ValueError("there are no volumes to read from; check the selection of patients and frames")
    return items
