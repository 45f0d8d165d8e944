"""The benchmark of inference runs at tiny sizes. What it measures depends on the machine and is not tested."""

import json

from benchmarks import inference, record
from kaf.data.phantom import write_phantom


def test_every_network_segments_a_volume_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "FILE", tmp_path / "cost.json")
    root = write_phantom(tmp_path / "phantom", 1, size=48, slices=(3, 3), progress=False)
    image = next(root.glob("patient001/*_frame01.nii.gz"))
    inference.main(["--image", str(image), "--data", "tiny", "--size", "32", "--width", "2", "--points", "8",
                    "--rounds", "1", "--record"])
    found = json.loads((tmp_path / "cost.json").read_text())["inference, tiny"]
    assert found["settings"]["slices"] == 3 and all(row["value"] > 0 for row in found["rows"])
    told = {row["what"] for row in found["rows"]}
    assert {f"{name}, end to end" for name in inference.NAMES} <= told
    assert "end to end, KAF default / forward passes, wide UNet" in capsys.readouterr().out


def test_a_gpu_is_recorded_beside_the_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FILE", tmp_path / "cost.json")
    monkeypatch.setattr(inference, "rows_of", lambda *_: [record.row("a", 1.0, "s")])
    root = write_phantom(tmp_path / "phantom", 1, size=48, slices=(3, 3), progress=False)
    image = next(root.glob("patient001/*_frame01.nii.gz"))
    for device in ("cpu", "cuda"):
        inference.main(["--image", str(image), "--data", "tiny", "--device", device, "--record"])
    assert list(json.loads((tmp_path / "cost.json").read_text())) == ["inference, tiny", "inference, tiny, cuda"]
