from kaf.config import plain, resolve
from kaf.fields import differences


def test_differences_are_named_down_to_the_field():
    e = resolve("smoke")
    other = e.changed(pretrain__optim__steps=7, data__spacing_mm=3.0, precision="bf16")
    assert differences(plain(e), plain(other)) == ["data.spacing_mm", "pretrain.optim.steps", "precision"]
    assert differences(plain(e), plain(e), plain(other)) == differences(plain(other), plain(e))
    assert differences(plain(e), plain(resolve("smoke"))) == [] == differences(plain(e))


def test_a_field_that_only_one_has_differs():
    assert differences({"a": {"b": 1}, "c": None}, {"a": {}, "c": None}) == ["a.b", "a"]
    assert differences({"a": None}, {}) == ["a"]
