from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kaf import predict as module
from kaf.data.pairs import collate
from kaf.data.prepare import prepare
from kaf.data.store import StoreSettings
from kaf.finetune import make_network, z_score
from kaf.keypoints import collate as stack
from kaf.keypoints import from_arrays, pad
from kaf.networks import PRESETS
from kaf.predict import class_probabilities, evaluate, largest_components, predict, to_native
from tests.tiny import LAYERS, tiny_experiment

PAPER = replace(PRESETS["paper"], dim=8, depth=1, hidden=4)


@pytest.fixture(scope="module")
def native_store(acdc_root, tmp_path_factory):
    """The same patients in the grid of their files."""
    out = tmp_path_factory.mktemp("stores") / "native"
    return prepare("acdc", acdc_root, out, StoreSettings("acdc", None), workers=1, progress=False)


@pytest.mark.parametrize("asked", [{}, {"finetune__rotations_deg": (-10, 0, 10), "finetune__flips": ("vertical",)}],
                         ids=["once", "six times"])
@pytest.mark.parametrize("layers", [LAYERS, PAPER], ids=["default", "paper"])
def test_prediction_depends_on_neither_batch_mates_nor_batch_size(store, monkeypatch, layers, asked):
    torch.manual_seed(0)
    network = make_network(tiny_experiment(kaf=layers), store, "kaf_scratch")
    with torch.no_grad():  # a fresh network prefers one class everywhere: make it undecided
        network.decoder.head.weight -= network.decoder.head.weight.mean(1, keepdim=True)
    labels = []
    for size in (1, 3, 8):
        monkeypatch.setattr(module, "PREDICT_BATCH", size)
        labels.append(predict(network, store, 0, tiny_experiment(**asked)))
    assert labels[0].shape == store.volumes[0].native_shape and labels[0].dtype == np.uint8
    assert len(np.unique(labels[0])) > 1
    assert np.array_equal(labels[0], labels[1]) and np.array_equal(labels[0], labels[2])


def test_to_native_puts_a_label_map_back_exactly_where_the_grids_agree():
    labels = torch.randint(0, 4, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    one_hot = F.one_hot(labels, 4).movedim(-1, 1).float()
    assert np.array_equal(to_native(one_hot, (12, 12), (12, 12)), labels.numpy())
    # A crop smaller than the slice: background outside. A slice smaller than the crop: cut.
    wide = to_native(one_hot, (16, 15), (16, 15))
    assert np.array_equal(wide[:, 2:14, 2:14], labels.numpy())
    assert wide.sum() == labels.sum()
    assert np.array_equal(to_native(one_hot, (8, 10), (8, 10)), labels.numpy()[:, 2:10, 1:11])


def test_to_native_keeps_the_field_of_view():
    left = torch.zeros(1, 2, 8, 8)
    left[:, 1, :, :4], left[:, 0, :, 4:] = 1, 1
    for shape in ((8, 8), (16, 24), (5, 6)):
        labels = to_native(left, (8, 8), shape)[0]
        assert labels.shape == shape and labels[:, : shape[1] // 2].all() and not labels[:, shape[1] // 2 :].any()


class Oracle(nn.Module):
    """Knows the truth of every slice by the look of it."""

    def __init__(self, store, size):
        super().__init__()
        self.truth = {}
        for v in store.select(labelled=True):
            for s in range(store.volumes[v].shape[0]):
                batch = collate([store.sample(v, s, size, 4)])
                self.truth[z_score(batch)[0].numpy().tobytes()] = batch.label[0]

    def forward(self, image, keypoints):
        labels = torch.stack([self.truth[one.cpu().numpy().tobytes()] for one in image])
        return 20.0 * F.one_hot(labels, 4).movedim(-1, 1).float()


@pytest.mark.parametrize("size", [48, 64])
def test_an_oracle_scores_perfectly(native_store, size):
    e = tiny_experiment(data__size=size, data__points=4, data__spacing_mm=None)
    rows = evaluate(Oracle(native_store, size), native_store, ["patient003", "patient005"], e)
    assert len(rows) == 2 * 2 * 3 and set(rows["frame"]) == {"ED", "ES"}
    assert set(rows["patient"]) == {"patient003", "patient005"} and set(rows["group"]) == {"DCM", "NOR"}
    assert (rows["dice"] == 1).all() and (rows["hd95_mm"] == 0).all() and (rows["assd_mm"] == 0).all()


def test_an_oracle_that_sees_only_a_crop_misses_the_rest(native_store):
    e = tiny_experiment(data__size=16, data__points=4)
    rows = evaluate(Oracle(native_store, 16), native_store, ["patient003"], e)
    assert (rows["dice"] < 1).any() and (rows["predicted_voxels"] <= rows["true_voxels"]).all()


def test_only_the_largest_piece_of_each_structure_is_kept():
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[0, 1:3, 1:3], labels[1, 3, 3] = 1, 1  # one piece: they share a corner, across slices
    labels[2, 6, 6] = 1
    labels[0, 5, 0:2], labels[0, 7, 0:3] = 2, 2
    kept = largest_components(labels)
    expected = labels.copy()
    expected[2, 6, 6], expected[0, 5] = 0, 0
    assert np.array_equal(kept, expected) and kept.dtype == labels.dtype
    assert not largest_components(np.zeros_like(labels)).any()


def test_scores_are_those_of_the_pieces_that_are_kept(native_store):
    class Spotted(Oracle):  # adds a far spot to the right ventricle of every slice
        def forward(self, image, keypoints):
            logits = super().forward(image, keypoints)
            logits[:, 1, :2, 8:10] = 99.0
            return logits

    e = tiny_experiment(data__size=48, data__points=4, data__spacing_mm=None)
    everything, largest = (evaluate(Spotted(native_store, 48), native_store, ["patient003"],
                                    e.changed(finetune__components=kept)) for kept in ("all", "largest"))
    assert everything["dice"].min() < 1 and (largest["dice"] == 1).all()


class AtPoints(nn.Module):
    """Class 1 at the keypoints and nowhere else, class 2 where the image is bright."""

    def forward(self, image, keypoints):
        logits = torch.zeros(len(image), 3, *image.shape[2:])
        x, y = keypoints.xy.round().long().clamp(0, image.shape[-1] - 1).unbind(-1)
        for i, valid in enumerate(keypoints.valid):
            logits[i, 1, y[i, valid], x[i, valid]] = 40.0
        logits[:, 2] = 20.0 * image[:, 0]
        return logits


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
def test_a_turned_prediction_lies_where_the_straight_one_does(angle):
    image = torch.zeros(1, 1, 16, 16)
    image[..., 2:5, 9:14] = 1.0
    points = stack([pad(from_arrays(np.array([[3.0, 5.0], [12.0, 7.0]])), 3)])
    straight = class_probabilities(AtPoints(), image, points)
    turned = class_probabilities(AtPoints(), image, points, (angle,))
    assert straight[0, 1, 5, 3] > 0.9 and straight[0, 1, 7, 12] > 0.9 and straight[0, 2, 3, 10] > 0.9
    torch.testing.assert_close(turned, straight, atol=1e-3, rtol=0)


def test_probabilities_are_the_mean_over_the_turned_images():
    image, points = torch.randn(2, 1, 32, 32), stack([pad(from_arrays(np.full((2, 2), 9.0)), 3)] * 2)
    one_by_one = [class_probabilities(AtPoints(), image, points, (angle,)) for angle in (-10.0, 0.0, 10.0)]
    mean = class_probabilities(AtPoints(), image, points, (-10.0, 0.0, 10.0))
    inside = (..., slice(6, 26), slice(6, 26))  # which no turn moves out of the image
    torch.testing.assert_close(mean[inside], sum(one_by_one)[inside] / 3)
    torch.testing.assert_close(mean.sum(1), torch.ones(2, 32, 32))
    assert not torch.allclose(one_by_one[0], one_by_one[1], atol=0.1)


@pytest.mark.parametrize("flips, views", [(("horizontal",), [(), (3,)]),
                                          (("horizontal", "vertical"), [(), (2,), (3,), (2, 3)])])
def test_flips_ask_about_every_mirror_image(flips, views):
    class Leaning(nn.Module):  # says class 1 in the upper left of whatever it sees, as bright as the image
        def forward(self, image, keypoints):
            logits = torch.zeros(len(image), 2, *image.shape[2:])
            logits[:, 1, :5, :3] = 1.0 + image[:, 0, :5, :3]
            return logits

    image, points = torch.randn(2, 1, 16, 16), stack([pad(from_arrays(np.full((2, 2), 9.0)), 3)] * 2)
    expected = sum(Leaning()(image.flip(axes), points).softmax(1).flip(axes) for axes in views) / len(views)
    torch.testing.assert_close(class_probabilities(Leaning(), image, points, (0.0,), flips), expected,
                               atol=1e-4, rtol=0)


def test_what_a_turn_moves_out_of_the_image_has_no_say_there():
    image, points = torch.ones(1, 1, 16, 16), stack([pad(from_arrays(np.zeros((0, 2))), 3)])
    straight = class_probabilities(AtPoints(), image, points)
    torch.testing.assert_close(class_probabilities(AtPoints(), image, points, (-20.0, 0.0, 20.0)), straight,
                               atol=1e-3, rtol=0)


def test_what_lay_outside_every_turned_image_is_background():
    image, points = torch.ones(1, 1, 16, 16), stack([pad(from_arrays(np.zeros((0, 2))), 3)])
    found = class_probabilities(AtPoints(), image, points, (45.0,))
    assert found[0, 2, 8, 8] > 0.9 and found[0, 0, 0, 0] > 0.9


def test_a_network_that_was_moved_to_predict_can_be_trained_on(store):
    class Moving(nn.Conv2d):
        def to(self, device):
            """As onto a GPU: parameters become new tensors."""
            self.weight = nn.Parameter(self.weight.detach().clone())
            return self

        def forward(self, image, keypoints):
            return super().forward(image)

    network = Moving(1, 4, 1)
    predict(network, store, 0, tiny_experiment())
    network(torch.ones(1, 1, 2, 2), None).sum().backward()
    assert network.weight.grad is not None
