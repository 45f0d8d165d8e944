from dataclasses import replace

import pytest

from kaf.config import parse_changes, plain, resolve
from kaf.data.augment import PRESETS
from kaf.fields import differences


@pytest.mark.parametrize("text", [
    "finetune__augment=strong, finetune__augment__rotation_deg=5",
    "finetune__augment__rotation_deg=5, finetune__augment=strong"])
def test_fields_of_a_preset_may_be_changed_in_any_order(text):
    found = resolve("smoke", **parse_changes(text)).finetune.augment
    assert found == replace(PRESETS["strong"], rotation_deg=5.0)


def test_a_preset_that_there_is_not_is_named_also_where_its_fields_are_changed():
    with pytest.raises(ValueError, match="unknown augment 'storng'.*did you mean 'strong'"):
        resolve("smoke", finetune__augment="storng", finetune__augment__rotation_deg=5)


def test_differences_are_named_down_to_the_field():
    e = resolve("smoke")
    other = e.changed(pretrain__optim__steps=7, data__spacing_mm=3.0, precision="bf16")
    assert differences(plain(e), plain(other)) == ["data.spacing_mm", "pretrain.optim.steps", "precision"]
    assert differences(plain(e), plain(e), plain(other)) == differences(plain(other), plain(e))
    assert differences(plain(e), plain(resolve("smoke"))) == [] == differences(plain(e))


def test_a_field_that_only_one_has_differs():
    assert differences({"a": {"b": 1}, "c": None}, {"a": {}, "c": None}) == ["a.b", "a"]
    assert differences({"a": None}, {}) == ["a"]
