"""What the explorers carry equals what kaf computes; frame, size and independence of the network."""

import base64
import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.display import HTML

from kaf.correspondence import match_keypoints
from kaf.evaluate import summarise
from kaf.explorers import explore_attention, explore_keypoints, explore_labels, explore_matches, page
from kaf.explorers.corruption import explore_corruption
from kaf.keypoints import deduplicate, detect_sift, prepare
from kaf.monitors import attention_entropy, background_share
from kaf.predict import predict_slices
from kaf.robustness import corrupted_slices
from tests.scenes import attention_maps, corruption_explorer, few_shot_rows, published, slices, worse_slice


@pytest.fixture(scope="module")
def pair():
    return slices()


@pytest.fixture(scope="module")
def points(pair):
    """Of both slices, padded: 60 places, fewer points."""
    sets = [prepare(detect_sift(image), 300) for image in pair]
    return [p.select(slice(int(p.valid.sum()) + 5)) for p in sets]


@pytest.fixture(scope="module")
def maps(points):
    return attention_maps(points[0], ("level 0", "level 3"))


@pytest.fixture(scope="module")
def shown(pair, points, maps, store):
    """The explorers by their kind."""
    return {"keypoints": explore_keypoints(pair[0]), "attention": explore_attention(pair[0], points[0], maps),
            "matches": explore_matches(*pair, *points), "labels": explore_labels(few_shot_rows(), published()),
            "corruption": corruption_explorer(store)}


KINDS = ("keypoints", "attention", "matches", "labels", "corruption")


def read(explorer):
    """The data of an explorer, as its script reads them."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', explorer.data, re.S)[1])


def unpack(url):
    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("kind", KINDS)
def test_is_one_piece_of_html_that_needs_no_network(shown, kind):
    text = shown[kind].data
    assert isinstance(shown[kind], HTML) and len(text) < page.LARGEST
    assert text.startswith(f'<div class="kaf-explorer" data-kind="{kind}"') and text.endswith("</div>")
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}  # the name of SVG
    assert not re.search(r"\b(src|href)=|@import|\bfetch\(|\bimport\b|XMLHttpRequest", text.replace("{ href,", ""))
    assert "needs JavaScript" in text and 'aria-label="Choose' in text and ' id="' not in text


@pytest.mark.parametrize("kind", KINDS)
def test_data_are_one_line_that_checks_of_notebooks_can_replace(shown, kind):
    lines = [line for line in shown[kind].data.split("\n") if "application/json\">" in line]
    assert len(lines) == 1 and lines[0].startswith("<script") and lines[0].endswith("</script>")


def test_equal_input_gives_equal_html(pair, points, maps, shown):
    assert explore_keypoints(pair[0]).data == shown["keypoints"].data
    assert explore_attention(pair[0], points[0], maps).data == shown["attention"].data
    assert explore_matches(*pair, *points).data == shown["matches"].data
    assert explore_matches(*pair[::-1], *points[::-1]).data != shown["matches"].data
    assert explore_labels(few_shot_rows(), published()).data == shown["labels"].data


def test_names_cannot_break_out_of_the_script():
    rows = few_shot_rows().replace({"UNet": "</script><b>UNet"})
    text = explore_labels(rows).data
    assert "</script><b>" not in text and read(explore_labels(rows))["methods"][0] == "</script><b>UNet"


def test_too_large_explorers_are_refused(monkeypatch, pair):
    monkeypatch.setattr(page, "LARGEST", 1000)
    with pytest.raises(ValueError, match="smaller image"):
        explore_keypoints(pair[0])


def test_pictures_keep_every_grey_value_while_they_are_small(pair, monkeypatch):
    assert np.array_equal(unpack(page.picture(pair[0])), pair[0])
    assert np.array_equal(unpack(page.picture(pair[0] / 255.0 - 3)), page.to_grey(pair[0] / 255.0))
    monkeypatch.setattr(page, "LARGEST_PNG", 10)
    url = page.picture(pair[0])
    seen = unpack(url)
    seen = seen if seen.ndim == 2 else seen[..., 0]
    assert url.startswith("data:image/webp") and np.abs(seen.astype(int) - pair[0]).mean() < 4


@pytest.mark.parametrize("wrong", [np.zeros((3, 4, 5)), np.zeros((0, 4)), np.array([[np.nan]])])
def test_pictures_of_something_else_are_refused(wrong):
    with pytest.raises(ValueError, match=r"one slice|finite"):
        page.picture(wrong)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
@pytest.mark.parametrize("threshold", [0.005, 0.04, 0.12])
def test_keypoints_are_those_that_kaf_detects(pair, shown, sigma, threshold):
    data = read(shown["keypoints"])
    layer, bit = data["layers"][data["blurs"].index(sigma)], data["thresholds"].index(threshold)
    on = [i for i, bits in enumerate(layer["at"]) if bits >> bit & 1]
    blurred = cv2.GaussianBlur(pair[0], (0, 0), sigma) if sigma else pair[0]
    expected = deduplicate(detect_sift(blurred, contrast=threshold))
    assert len(on) == len(expected.valid)
    places, xy = np.array(layer["xy"]).reshape(-1, 2)[on], np.round(expected.xy.double().numpy(), 1)
    assert np.allclose(places[np.lexsort(places.T)], xy[np.lexsort(xy.T)])
    if on:
        batch = expected.__class__(*(field[None] for field in expected))
        share = background_share(torch.from_numpy(pair[0]).float()[None, None], batch)
        assert np.mean([layer["dark"][i] for i in on]) == pytest.approx(share)


def test_keypoints_need_eight_bits(pair):
    with pytest.raises(TypeError, match="8-bit"):
        explore_keypoints(pair[0].astype(float))


def test_attention_links_entropy_and_distance(points, maps, shown):
    data, valid = read(shown["attention"]), points[0].valid
    count = int(valid.sum())
    assert len(data["xy"]) == 2 * count and [m["name"] for m in data["maps"]] == list(maps)
    for shown_map, weights in zip(data["maps"], maps.values()):
        coded = np.frombuffer(base64.b64decode(shown_map["links"]), np.uint8).reshape(count, data["links"], 3)
        partner, share = coded[..., 0] + 256 * coded[..., 1].astype(int), coded[..., 2] / 255
        exact = weights[valid][:, valid].numpy()
        seen = np.array(shown_map["top"])[:, None] * share
        assert np.abs(seen - np.take_along_axis(exact, partner, 1)).max() < 0.003
        assert np.allclose(np.sort(exact, 1)[:, ::-1][:, 0], shown_map["top"], atol=1e-5)
        mean = attention_entropy(weights[None, None], valid[None])
        assert np.mean(shown_map["entropy"]) == pytest.approx(mean, abs=1e-3)
        apart = torch.cdist(points[0].xy[valid], points[0].xy[valid])[3].numpy()
        assert shown_map["distance"][3] == pytest.approx((exact[3] * apart).sum(), abs=0.06)


def test_attention_refuses_what_is_no_map(pair, points, maps):
    name, weights = next(iter(maps.items()))
    for wrong in (weights[:-1], 2 * weights, weights - 0.1):
        with pytest.raises(ValueError, match=name):
            explore_attention(pair[0], points[0], {name: wrong})
    with pytest.raises(ValueError, match="a map"):
        explore_attention(pair[0], points[0], {})
    with pytest.raises(ValueError, match="fewer maps"):
        explore_attention(pair[0], points[0], {str(i): weights for i in range(500)})


@pytest.mark.parametrize("window", [5, 20, 21, 60])
def test_matches_are_those_of_the_matching_rule(points, shown, window):
    data, (a, b) = read(shown["matches"]), points
    expected = match_keypoints(a, b, window)[a.valid].tolist()
    w = data["windows"].index(window)
    found = [[p for start, p in zip(runs[::2], runs[1::2]) if start <= w][-1] for runs in data["partners"]]
    assert found == expected and (np.array(found) >= 0).sum() > 3
    # The page counts candidates from rounded places: rounding must not change who is one.
    xy, to = np.array(data["a"]).reshape(-1, 2), np.array(data["b"]).reshape(-1, 2)
    near = np.abs(xy[:, None] - to[None]).sum(2) < window
    assert np.array_equal(near, (torch.cdist(a.xy[a.valid], b.xy[b.valid], p=1) < window).numpy())


def test_matches_skip_padding_in_the_middle(pair, points):
    a, b = points
    hole = b._replace(valid=b.valid & (torch.arange(len(b.valid)) != 2))
    data = read(explore_matches(*pair, a, hole, windows_px=[30]))
    match = match_keypoints(a, hole, 30)[a.valid].tolist()
    assert [runs[1] for runs in data["partners"]] == [max(m - (m > 2), -1) for m in match]
    assert len(data["b"]) == 2 * int(hole.valid.sum())


def test_matches_need_slices_of_one_shape(pair, points):
    with pytest.raises(ValueError, match="one shape"):
        explore_matches(pair[0], pair[1][:-1], *points)


def test_curves_are_means_over_patients_with_their_intervals():
    rows = few_shot_rows()
    data = read(explore_labels(rows, published()))
    assert data["structures"] == ["mean of the structures", "RV", "MYO", "LV"]
    for s, part in enumerate((rows, rows[rows["structure"] == "RV"])):
        for i, method in enumerate(data["methods"]):
            table = summarise(part[part["method"] == method], ["m"], ["dice"])
            expected = table[["m", "dice", "dice_low", "dice_high", "patients"]].to_numpy()
            assert np.allclose(data["curves"][s][i], expected, atol=1e-4)


def test_paper_values_stand_beside_without_ablations():
    data = read(explore_labels(few_shot_rows(), published()))
    assert data["paper"] == [{"name": "KAF", "dataset": "ACDC", "points": [[2, 0.741, 0.034], [6, 0.873, None]]}]
    assert read(explore_labels(few_shot_rows()))["paper"] == []
    mixed = pd.concat([published(), published().assign(dataset="chd")])
    with pytest.raises(ValueError, match="select one"):
        explore_labels(few_shot_rows(), mixed)
    own = read(explore_labels(few_shot_rows().assign(dataset="chd"), mixed))
    assert {p["dataset"] for p in own["paper"]} == {"CHD"}


def test_methods_are_chosen_that_are_drawn_at_first():
    assert read(explore_labels(few_shot_rows(), published()))["shown"] == ["KAF", "UNet"]
    assert read(explore_labels(few_shot_rows(), published(), ["UNet"]))["shown"] == ["UNet"]
    with pytest.raises(ValueError, match="unknown method 'unet'; choose one of KAF, UNet"):
        explore_labels(few_shot_rows(), published(), ["unet"])


def test_methods_drawn_at_first_look_as_in_a_figure_of_them_alone():
    rows = pd.concat([few_shot_rows().assign(method=f"method {n}") for n in range(10)])
    data = read(explore_labels(rows, published(), ["KAF", "method 9", "method 1"]))
    assert data["looks"][:3] == ["method 1", "method 9", "KAF"], "in the order of the rows, then of the paper"
    assert sorted(data["looks"]) == sorted([*data["methods"], "KAF"])
    assert read(explore_labels(rows))["looks"] == data["methods"]


def test_one_patient_has_no_interval_and_origin_is_said():
    rows = few_shot_rows()
    data = read(explore_labels(rows[rows["patient"] == "p0"]))
    assert data["curves"][0][0][0][2:] == [None, None, 1]
    assert data["about"] == "phantom; scale smoke; seeds 0, 1; cpu"


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows: rows.drop(columns="m"), "lack"), (lambda rows: rows[:0], "no rows"),
    (lambda rows: rows.assign(dataset=["a", "b"] * (len(rows) // 2)), "mix")])
def test_rows_that_make_no_curve_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        explore_labels(change(few_shot_rows()))


@pytest.mark.parametrize(("kind", "step"), [("blur", 0), ("noise", 1)])
def test_worse_slices_are_those_of_kaf(shown, store, kind, step):
    data, given = read(shown["corruption"]), worse_slice(store)
    part = next(part for part in data["kinds"] if part["name"] == kind)
    sample = list(corrupted_slices(store, given["volume"], 32, 12, kind, part["levels"][step]))[given["s"]]
    frame, valid = part["frames"][step], sample.keypoints.valid
    assert part["unit"] == {"blur": "px", "noise": "of the range"}[kind]
    assert np.array_equal(unpack(frame["image"]), sample.image.numpy())
    assert np.allclose(np.array(frame["xy"]).reshape(-1, 2), sample.keypoints.xy[valid], atol=0.06)
    assert len(frame["old"]) == int(valid.sum()) and data["clean"]["again"] == 1 and all(data["clean"]["old"])
    labels = predict_slices(given["networks"]["kaf_scratch"], [sample], (32, 32), (32, 32))[0]
    for label, lines in zip(store.structures, frame["predicted"][1]["contours"], strict=True):
        places = [np.array(line).reshape(-1, 1, 2) for line in lines]
        filled = np.zeros((32, 32), np.uint8)  # every second contour is a hole
        cv2.fillPoly(filled, [np.round(place).astype(int) for place in places], 1)
        assert np.mean(filled.astype(bool) != (labels == label)) < 0.15


def test_worse_slices_need_a_network_structures_and_equal_levels(store):
    given = worse_slice(store)
    for wrong in ({"networks": {}}, {"levels": {"blur": (1.0, 2.0), "noise": (0.1,)}}):
        with pytest.raises(ValueError, match="equally many levels"):
            explore_corruption(**given | wrong)
