import numpy as np
import pytest
import torch

from kaf.keypoints import detect_superpoint, prepare
from kaf.superpoint import VARIABLE, SuperPoint, load_superpoint
from tests.test_keypoints import textured

transformers = pytest.importorskip("transformers", reason="the extra superpoint is not installed")


@pytest.fixture(scope="module")
def model():
    """Random weights: places and order mean nothing, but all the rest of the way is that of real ones."""
    torch.manual_seed(0)
    found = transformers.SuperPointForKeypointDetection(transformers.SuperPointConfig(keypoint_threshold=0.001))
    return found.eval()


def test_points_are_those_of_the_model_in_pixels(model):
    image = textured(80, 96)
    points = SuperPoint(model)(image)
    with torch.no_grad():
        theirs = model(torch.from_numpy(image).float()[None, None].div(255).expand(1, 3, -1, -1))
    assert len(points.xy) == int(theirs.mask.sum()) > 20
    expected = {(round(x * 96), round(y * 80)) for x, y in theirs.keypoints[0].tolist()}
    assert {(round(x), round(y)) for x, y in points.xy.tolist()} == expected
    assert (points.score[:-1] >= points.score[1:]).all() and points.score.max() == theirs.scores.max()


def test_descriptors_keep_the_order_of_their_distances(model):
    points = SuperPoint(model)(textured(80, 96))
    assert points.descriptor.dtype == torch.uint8 and points.descriptor.shape[1] == 256
    unit = points.descriptor.float() / 127.5 - 1
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(len(unit)), atol=0.05, rtol=0)


def test_sides_need_not_be_multiples_of_the_cell(model):
    image = textured(77, 91)
    points = SuperPoint(model)(image)
    assert len(points.xy) and (points.xy < torch.tensor([91.0, 77.0])).all()
    assert prepare(points, 500).valid.sum() <= len(points.xy)


def test_weights_of_a_folder_are_found_by_the_variable(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    image = textured(80, 96)
    assert torch.equal(detect_superpoint(image).xy, SuperPoint(model)(image).xy)
    assert load_superpoint() is load_superpoint(str(tmp_path))  # read once


def test_another_folder_in_the_variable_is_noticed(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "one")
    torch.manual_seed(1)
    other = transformers.SuperPointForKeypointDetection(model.config).eval()
    other.save_pretrained(tmp_path / "two")
    image = textured(80, 96)
    for name, weights in (("one", model), ("two", other), ("one", model)):
        monkeypatch.setenv(VARIABLE, str(tmp_path / name))
        assert torch.equal(detect_superpoint(image).xy, SuperPoint(weights)(image).xy), name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "two")
    assert load_superpoint() is load_superpoint(str(tmp_path / "two"))
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(FileNotFoundError, match=f"no SuperPoint model in ''; .* set {VARIABLE}"):
        load_superpoint()


def test_missing_weights_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fetch magic-leap-community/superpoint from"):
        detect_superpoint(np.zeros((40, 40), np.uint8))
