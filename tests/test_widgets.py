"""Widgets without a browser: controls, what they say, and a picture that follows."""

import base64
import re

import pandas as pd
import pytest

from kaf.keypoints import detect_sift, prepare
from kaf.widgets import attention_widget, keypoint_widget, loss_weight_widget, match_widget, points_widget
from tests.scenes import attention_maps, slices

FIRST, SECOND = slices()
A, B = (prepare(detect_sift(image), 60) for image in (FIRST, SECOND))
HISTORY = pd.DataFrame({"step": [0, 10, 20], "pcl": [3.0, 2.5, 2.0], "global": [3.0, 2.0, 1.0], "local": [2.0] * 3})
MAKE = {
    "keypoints": (lambda: keypoint_widget(FIRST), {"contrast": 0.15}),
    "points": (lambda: points_widget(FIRST), {"k": 5}),
    "attention": (lambda: attention_widget(FIRST, A, attention_maps(A, ("one", "other"))), {"query": 7}),
    "matches": (lambda: match_widget(FIRST, SECOND, A, B), {"window": 60}),
    "losses": (lambda: loss_weight_widget(HISTORY), {"local": 2.0}),
}


@pytest.fixture(params=MAKE)
def made(request):
    make, change = MAKE[request.param]
    return make(), change


def picture(widget):
    """The picture of a widget as bytes, and its text for those who cannot see it."""
    found = re.fullmatch(r'<img src="data:image/png;base64,(.*)" alt="(.*)" style="[^"]*">', widget.picture.value)
    return base64.b64decode(found[1]), found[2]


def test_picture_and_words_follow_a_control(made):
    widget, change = made
    before, words = picture(widget)
    assert before.startswith(b"\x89PNG") and len(before) < 200_000
    for name, value in change.items():
        widget.controls[name].value = value
    assert picture(widget)[0] != before and picture(widget)[1] != words


def test_the_picture_has_the_words_that_stand_below_it(made):
    widget, _ = made
    assert picture(widget)[1] == widget.text.value and len(widget.text.value) > 20


def test_every_control_has_a_name(made):
    widget, _ = made
    assert all(control.description for control in widget.controls.values())


def test_losses_at_the_last_step_add_up():
    widget = loss_weight_widget(HISTORY)
    assert "Total at the last step: 3.200, made of pcl 62%, global 31%, local 6%" in widget.text.value


def test_a_loss_without_a_weight_has_no_slider():
    widget = loss_weight_widget(HISTORY.drop(columns="global"))
    assert [*widget.controls] == ["pcl", "local"] and "made of pcl 91%, local 9%" in widget.text.value


@pytest.mark.parametrize(("history", "message"), [
    (HISTORY.drop(columns="step"), "has no step, or none of pcl, global, local"),
    (HISTORY[["step"]].assign(rotation=1.0), "has no step, or none of pcl"),
    (HISTORY.assign(local=float("nan")), "no step of the history has all of pcl, global, local"),
])
def test_a_run_with_other_losses_is_refused(history, message):
    with pytest.raises(ValueError, match=message):
        loss_weight_widget(history)


def test_attention_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="1 maps, .*wide.* of another shape"):
        attention_widget(FIRST, A, {"wide": attention_maps(B, ("x",))["x"][:, :3]})
