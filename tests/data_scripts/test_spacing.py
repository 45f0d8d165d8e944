"""The option for the spacing of a store."""

import pytest

import kaf.data.phantom as phantom
from kaf.data.store import Store


@pytest.mark.parametrize(("kind", "given", "spacing"), [("mr", "native", None), ("mr", "2", 2.0), ("ct", "3", 3.0)])
def test_the_spacing_of_a_phantom_can_be_chosen(script, tmp_path, monkeypatch, kind, given, spacing):
    monkeypatch.setattr(phantom, "DEFAULTS", {key: {"size": 64, "slices": (2, 2)} for key in ("mr", "ct")})
    options = ("--kind", kind, "--data", tmp_path / "files", "--store", tmp_path / "s", "--workers", 1)
    script("phantom", *options, "--patients", 2, "--spacing", given)
    assert Store.open(tmp_path / "s").settings.spacing_mm == spacing


@pytest.mark.parametrize(("name", "usual"), [
    ("acdc", "1.25 mm"), ("chd", "native"), ("phantom", "1.25 mm for mr, native for ct"), ("hvsmr", "native"),
    ("sunnybrook", "1.25 mm")])
def test_help_says_the_spacing_that_is_taken(script, capsys, name, usual):
    with pytest.raises(SystemExit):
        script(name, "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert f"mm in plane, or native: as in the files (default: {usual})" in said


def test_a_spacing_is_a_number_or_native(script, capsys):
    with pytest.raises(SystemExit):
        script("phantom", "--spacing", "fine")
    assert "argument --spacing: mm in plane such as 1.5, or native, got 'fine'" in capsys.readouterr().err
