"""Slices, pairs and their order: unbiased, reproducible, independent of workers and restarts."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from kaf.data.pairs import EpochSampler, PairDataset, SliceDataset, Window, collate, read_batches, usual_workers
from kaf.data.store import SliceSample
from kaf.keypoints import Keypoints

SIZE, K, ACDC = 6, 4, Window(0.18, 2)


class FakeStore:
    """Volumes whose pixels hold 10 * volume + slice; volume ``v`` has ``slices[v]`` of them."""

    def __init__(self, slices, labelled=True):
        flags = [labelled] * len(slices) if isinstance(labelled, bool) else labelled
        self.volumes = [SimpleNamespace(id=f"vol{v}", shape=(n, 9, 9), labelled=flag)
                        for v, (n, flag) in enumerate(zip(slices, flags, strict=True))]

    def sample(self, v, s, size, k):
        value = 10 * v + s
        points = Keypoints(torch.full((k, 2), float(value)), torch.ones(k), torch.ones(k),
                           torch.zeros(k, 128, dtype=torch.uint8), torch.arange(k) < k - 1)
        shape = (size, size) if self.volumes[v].labelled else (0, 0)
        image = torch.full((size, size), value, dtype=torch.uint8)
        label = torch.ones(shape, dtype=torch.int64)
        return SliceSample(image, label, points, 1.5, 2.5, s / self.volumes[v].shape[0], v, s)


def identity_match(a, b):
    assert a.valid.shape == b.valid.shape == (K,)  # single slices, not a batch
    return torch.where(a.valid, torch.arange(K), -2)


def pairs(slices, window=ACDC, seed=0):
    store = FakeStore(slices)
    return PairDataset(store, range(len(slices)), SIZE, K, window, identity_match, seed)


def chosen(dataset, n):
    """The two slice values of pair n."""
    return tuple(dataset[n].image[:, 0, 0].tolist())


def test_without_a_matching_no_correspondences_are_given():
    sample = PairDataset(FakeStore([5]), [0], SIZE, K, ACDC)[3]
    assert sample.match.shape == (0,) and sample.match.dtype == torch.int64
    assert collate([sample, sample]).match.shape == (2, 0)


@pytest.mark.parametrize("slices", [2, 3, 5, 10])
def test_neighbours_are_uniform_over_the_window(slices):
    dataset = pairs([slices])
    for s in range(slices):
        allowed = [i for i in range(slices) if i != s and abs(i - s) <= 2]
        counts = Counter(chosen(dataset, epoch * slices + s)[1] for epoch in range(600))
        assert set(counts) == set(allowed)
        expected = 600 / len(allowed)
        assert sum((counts[i] - expected) ** 2 / expected for i in allowed) < 20  # chi-square, up to 3 d.o.f.


def test_window_is_the_larger_of_fraction_and_minimum():
    assert Window(0.18, 2).neighbours(5, 10) == [3, 4, 6, 7]
    assert Window(0.18, 2).neighbours(0, 20) == [1, 2, 3]  # 18 % of 20 slices is 3.6
    assert Window(0.05, 1).neighbours(50, 100) == [45, 46, 47, 48, 49, 51, 52, 53, 54, 55]
    assert Window(0.29, 1).neighbours(0, 100)[-1] == 29  # .29 * 100 is 28.999... in floating point
    assert Window(0.05, 1).neighbours(1, 2) == [0]
    assert Window(0.0, 0).neighbours(3, 9) == [3], "the slice itself"
    with pytest.raises(ValueError, match="minimum"):
        Window(0.1, 0)


def test_single_slice_volumes_are_refused_by_name():
    with pytest.raises(ValueError, match="vol1, vol3"):
        pairs([4, 1, 2, 1])
    with pytest.raises(ValueError, match="no volumes"):
        pairs([])


def test_two_views_need_no_neighbour():
    assert len(pairs([1, 1], Window(0.0, 0))) == 2


def test_a_pair_stays_in_its_volume_and_carries_both_slices():
    dataset = pairs([4, 7])
    assert len(dataset) == 11
    for n in range(len(dataset)):
        sample = dataset[n]
        a, b = chosen(dataset, n)
        assert a // 10 == b // 10 and a != b
        count = 4 if a < 10 else 7
        torch.testing.assert_close(sample.position, torch.tensor([a % 10 / count, b % 10 / count]))
        assert sample.keypoints.xy[:, 0, 0].tolist() == [a, b]
        assert sample.match.tolist() == [0, 1, 2, -2]
    assert [chosen(dataset, n)[0] for n in range(11)] == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16]


def test_pairs_depend_on_seed_epoch_and_item_only():
    one, other = pairs([10, 10]), pairs([10, 10], seed=1)
    epoch = [[chosen(one, e * 20 + i) for i in range(20)] for e in range(2)]
    assert epoch[0] != epoch[1]
    assert [chosen(one, i) for i in reversed(range(20))] == epoch[0][::-1]  # reading order does not matter
    assert [chosen(other, i) for i in range(20)] != epoch[0]


def test_workers_change_nothing():
    dataset = pairs([10, 8])
    batches = {}
    for workers in (0, 2):
        sampler = EpochSampler(len(dataset), 4, seed=3, stop=6)
        batches[workers] = torch.stack([batch.image for batch in read_batches(dataset, sampler, workers)])
    assert torch.equal(batches[0], batches[2])


@pytest.mark.parametrize("device, pinned", [("cpu", False), ("mps", False), ("cuda", True)])
def test_memory_is_pinned_for_a_gpu_alone(device, pinned):
    sampler = EpochSampler(4, 2)
    assert read_batches(pairs([4]), sampler, device=torch.device(device)).pin_memory is pinned


def test_a_gpu_is_read_ahead_for_and_every_process_keeps_a_core(monkeypatch):
    monkeypatch.setattr("kaf.data.pairs.count_cores", lambda: 16)
    assert [usual_workers("cuda", processes) for processes in (1, 2, 4, 8, 16, 32)] == [8, 7, 3, 1, 0, 0]
    assert usual_workers("cpu") == usual_workers(torch.device("mps")) == 0


def test_collate_keeps_containers_and_types():
    batch = collate([pairs([5])[i] for i in range(3)])
    assert isinstance(batch.keypoints, Keypoints)
    assert batch.image.shape == (3, 2, SIZE, SIZE) and batch.image.dtype == torch.uint8
    descriptor = batch.keypoints.descriptor
    assert descriptor.shape == (3, 2, K, 128) and descriptor.dtype == torch.uint8
    assert batch.keypoints.valid.dtype == torch.bool and batch.match.dtype == torch.int64
    slices = SliceDataset(FakeStore([5]), [0], SIZE, K)
    batch = collate([slices[i] for i in range(3)])
    assert isinstance(batch, SliceSample) and isinstance(batch.keypoints, Keypoints)
    assert batch.mean.dtype == batch.std.dtype == batch.position.dtype == torch.float32
    assert batch.label.shape == (3, SIZE, SIZE) and batch.slice.tolist() == [0, 1, 2]


def test_slices_with_and_without_labels():
    store = FakeStore([3, 2], labelled=[True, False])
    with pytest.raises(ValueError, match="vol1"):
        SliceDataset(store, [0, 1], SIZE, K)
    mixed = SliceDataset(store, [0, 1], SIZE, K, labelled=False)
    assert collate([mixed[n] for n in range(5)]).label.shape == (5, 0, 0)
    assert mixed[5].image[0, 0] == mixed[0].image[0, 0]  # the second epoch


@pytest.mark.parametrize("length, batch", [(10, 3), (8, 4), (3, 10), (1, 2)])
def test_sampler_gives_full_batches_and_every_item_once_per_permutation(length, batch):
    sampler = EpochSampler(length, batch, seed=5)
    steps = [sampler.batches(step) for step in range(40)]
    assert all(len(b) == batch for b in steps)
    stream = [n for b in steps for n in b]
    for turn in range(len(stream) // length):
        first, last = turn * length, (turn + 1) * length
        assert sorted(stream[first:last]) == list(range(first, last))


def test_sampler_resumes_at_any_step():
    whole = list(EpochSampler(11, 4, seed=2, stop=30))
    assert list(EpochSampler(11, 4, seed=2, start=17, stop=30)) == whole[17:]
    assert EpochSampler(11, 4, seed=2).batches(23) == whole[23]
    assert list(EpochSampler(11, 4, seed=9, stop=30)) != whole
    assert len(EpochSampler(11, 4, start=17, stop=30)) == 13


def test_a_sampler_stops_after_as_many_batches_as_fit_or_as_it_is_told():
    assert len(list(EpochSampler(11, 4))) == 2
    assert len(list(EpochSampler(3, 4))) == 1
    assert len(list(EpochSampler(3, 4, steps=5))) == 5
    with pytest.raises(ValueError, match="at least 1"):
        EpochSampler(0, 4)


def test_processes_share_every_batch():
    whole = list(EpochSampler(11, 6, seed=2, stop=9))
    parts = [list(EpochSampler(11, 6, seed=2, stop=9, part=slice(3 * r, 3 * r + 3))) for r in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
