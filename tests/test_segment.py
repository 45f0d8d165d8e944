import json

import nibabel as nib
import numpy as np
import pytest

from kaf.config import plain, resolve, restore
from kaf.data.cases import find_cases
from kaf.finetune import finetune, load_network
from kaf.predict import predict
from kaf.pretrain import pretrain
from kaf.segment import Segmenter, main, segment
from tests.tiny import tiny_experiment

PATIENTS = ("patient001", "patient002")


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    """Two finished runs, with keypoints and without."""
    folder = tmp_path_factory.mktemp("runs")
    return {m: finetune(tiny_experiment(), store, PATIENTS, folder, m, device="cpu") for m in ("kaf_scratch", "unet")}


@pytest.fixture(scope="module")
def segmenter(runs):
    return Segmenter.load(runs["kaf_scratch"].folder, "cpu")


@pytest.fixture
def image(acdc_root):
    return acdc_root / "patient003" / "patient003_frame02.nii.gz"


@pytest.mark.parametrize("method, how", [("kaf_scratch", {}), ("unet", {}), ("unet", {"components": "largest"}),
                                         ("kaf_scratch", {"rotations_deg": (-20.0, 0.0), "flips": ("horizontal",)})])
def test_files_get_what_stored_volumes_get(store, runs, acdc_root, tmp_path, method, how):
    e, seen = tiny_experiment(**{f"finetune__{name}": value for name, value in how.items()}), set()
    run = finetune(e, store, PATIENTS, runs[method].folder.parent, method, device="cpu")
    network, own = load_network(run, e, store, method), Segmenter.load(run.folder, "cpu")
    cases = {case.id: case for case in find_cases("acdc", acdc_root)}
    for number, record in enumerate(store.volumes):
        case = cases[record.id]
        labels = segment(own, case.image, tmp_path / f"{case.id}.nii.gz", case.frame_index, progress=False)
        assert np.array_equal(labels, predict(network, store, number, e))
        seen |= set(np.unique(labels))
    assert len(seen) > 1, "a network that says background everywhere would prove nothing"


@pytest.mark.parametrize("change, said", [
    (lambda array, affine: (array[::-1], np.diag([-1, 1, 1, 1]) @ affine), "the network was trained on"),
    (lambda array, affine: (array, np.diag([1, 3, 1, 1]) @ affine), "unequal in plane; check that its slices lie")])
def test_an_image_unlike_those_of_the_training_is_warned_of(segmenter, image, tmp_path, change, said):
    source = nib.load(image)
    array, affine = change(np.asarray(source.dataobj), source.affine)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "other.nii.gz")
    with pytest.warns(UserWarning, match=said):
        segment(segmenter, tmp_path / "other.nii.gz", tmp_path / "labels.nii.gz", progress=False)
    assert (tmp_path / "labels.nii.gz").is_file()


def test_labels_lie_on_the_image(segmenter, image, tmp_path):
    out = tmp_path / "labels.nii.gz"
    labels = segment(segmenter, image, out, progress=False)
    source, written = nib.load(image), nib.load(out)
    assert written.get_data_dtype() == np.uint8 and written.shape == source.shape
    assert np.array_equal(np.asarray(written.dataobj).transpose(2, 1, 0), labels)
    for form in ("qform", "sform"):
        ours, theirs = (getattr(file, f"get_{form}")(coded=True) for file in (written, source))
        assert np.allclose(ours[0], theirs[0]) if theirs[1] else True
        assert not theirs[1] or ours[1] == theirs[1]
    assert np.allclose(written.affine, source.affine)
    assert [p.name for p in tmp_path.iterdir()] == ["labels.nii.gz"]


def test_nothing_is_overwritten_unless_asked(segmenter, image, tmp_path):
    out = tmp_path / "labels.nii"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        segment(segmenter, image, out)
    assert out.read_text() == "mine"
    segment(segmenter, image, out, overwrite=True, progress=False)
    assert nib.load(out).shape == nib.load(image).shape
    copy = tmp_path / "image.nii.gz"
    copy.write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match="the image itself"):
        segment(segmenter, copy, copy, overwrite=True)


def test_a_failure_while_writing_leaves_nothing(segmenter, image, tmp_path, monkeypatch):
    def fail(path, *_):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("kaf.segment.write_labels", fail)
    with pytest.raises(OSError, match="disk full"):
        segment(segmenter, image, tmp_path / "labels.nii.gz", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, words", [("labels.mha", "must end in .nii.gz"), ("no/labels.nii", "no folder")])
def test_bad_names_are_refused(segmenter, image, tmp_path, name, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        segment(segmenter, image, tmp_path / name)


def test_a_cine_file_needs_a_frame(segmenter, acdc_root, tmp_path):
    cine = acdc_root / "patient002" / "patient002_4d.nii.gz"
    with pytest.raises(ValueError, match="4 axes, expected 3; of a 4-D file one frame must be chosen"):
        segment(segmenter, cine, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="has the frames 0 to .*, not 99"):
        segment(segmenter, cine, tmp_path / "a.nii.gz", frame=99)


def test_the_command(runs, image, tmp_path, capsys):
    words = [str(runs["kaf_scratch"].folder), str(image), str(tmp_path / "a.nii.gz"), "--device", "cpu"]
    main(words)
    assert "a.nii.gz: voxels of RV " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(words)
    assert "exists; choose another name, or pass --overwrite" in capsys.readouterr().err
    main([*words, "--overwrite"])


def test_other_folders_are_refused(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        Segmenter.load(tmp_path)
    run = pretrain(tiny_experiment(pretrain__optim__steps=1), store, PATIENTS, tmp_path, device="cpu")
    with pytest.raises(ValueError, match="is a pretraining run"):
        Segmenter.load(run.folder)


def test_runs_without_data_json_used_the_usual_settings(store, runs, segmenter):
    folder = runs["unet"].folder
    (folder / "data.json").rename(folder / "away.json")
    try:
        old = Segmenter.load(folder, "cpu")
    finally:
        (folder / "away.json").rename(folder / "data.json")
    assert old.settings == segmenter.settings == store.settings and old.structures == store.structures


def test_a_configuration_is_restored():
    e = resolve("full", "acdc", "paper")
    assert restore(json.loads(json.dumps(plain(e)))) == e
    with pytest.raises(ValueError, match="DataConfig has no field 'colour'"):
        restore({"data": {"colour": 1}})


def test_an_image_with_holes_is_refused(segmenter):
    pixels = np.ones((2, 40, 40))
    pixels[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="has 1 values that are not finite"):
        segmenter(pixels, (10.0, 1.25, 1.25))
