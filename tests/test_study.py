import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kaf import protocols, study
from kaf.config import plain, resolve
from kaf.data.phantom import write_phantom
from kaf.data.splits import paper_draw, paper_folds
from kaf.evaluate import COLUMNS
from kaf.pretrain import KINDS
from kaf.records import of_run


def tiny(dataset="phantom"):
    return resolve("smoke", dataset).changed(
        width=2, data__size=32, data__spacing_mm=6.0, data__points=8, kaf__dim=8, kaf__depth=1, kaf__hidden=4,
        pretrain__optim__steps=2, pretrain__optim__batch=2, finetune__optim__steps=2, finetune__optim__batch=2,
        selftrain__optim__steps=2, selftrain__optim__batch=2, selftrain__unlabelled=2)


@pytest.fixture(scope="module", params=["phantom", "phantom-ct"])
def here(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.PHANTOM_PATIENTS, "smoke", 5)
        yield study.open_study(tiny(request.param), output=tmp_path_factory.mktemp("home"), device="cpu")


def test_one_call_makes_the_phantom_its_store_and_the_fold(here):
    assert len(here.store.patients) == 5
    assert len(here.split.test) == 1 and not set(here.split.test) & set(here.split.train)


@pytest.mark.parametrize("method", ["unet", "kaf_pretrained", "unet_selftrained"])
def test_few_shot_scores_every_frame_of_the_test_patients(here, method):
    run, rows = here.few_shot(method, 2)
    assert list(rows.columns) == [*COLUMNS, "group"]
    expected = {(here.store.volumes[v].patient, here.store.volumes[v].frame, name)
                for v in here.store.select(patients=here.split.test) for name in here.store.structures.values()}
    assert set(rows[["patient", "frame", "structure"]].itertuples(index=False, name=None)) == expected
    assert set(rows["patient"]) == set(here.split.test) and rows["m"].unique() == [2]
    again, same = here.few_shot(method, 2)
    assert again.folder == run.folder and np.array_equal(rows["dice"], same["dice"], equal_nan=True)


def test_another_seed_is_another_training_for_the_same_patients(here):
    other = study.open_study(tiny(here.experiment.data.dataset).changed(seed=1), output=here.runs.parent, device="cpu")
    assert other.split == here.split and other.labelled(2) == here.labelled(2)
    first, second = (some.train("unet", 2).weights()["decoder.head.weight"] for some in (here, other))
    assert not np.array_equal(first, second)


@pytest.fixture
def scored(monkeypatch):
    """For whom scores were asked; none are computed, and test patients need not be in the store."""
    asked = []

    def evaluate(network, store, patients, *_):
        asked.append(patients)
        facts = {"frame": "ED", "structure": "LV", "dice": 0.5, "group": "1"}
        return pd.DataFrame([{**facts, "patient": name} for name in patients], columns=[*COLUMNS, "group"])

    monkeypatch.setattr(study, "evaluate", evaluate)
    monkeypatch.setattr(study.Study, "_tested", property(lambda self: "0" * len(self.split.test)))
    return asked


def test_patients_whose_names_look_like_numbers_are_scored_once(here, tmp_path, scored):
    other = replace(here, split=replace(here.split, test=("001", "1e5")), runs=tmp_path)
    first, second = (other.few_shot("unet", 2)[1] for _ in range(2))
    assert first["patient"].tolist() == ["001", "1e5"] and first["dice"].tolist() == [0.5, 0.5]
    assert second.equals(first) and scored == [("001", "1e5")]


def test_every_method_gets_the_same_labelled_patients_and_none_of_the_test_fold(here):
    patients = {method: here.few_shot(method, 2)[0].config["patients"] for method in ("unet", "kaf_pretrained")}
    assert patients["unet"] == patients["kaf_pretrained"] == list(here.labelled(2))
    assert not set(here.labelled(2)) & set(here.split.test)
    assert not set(here.pretrain().config["patients"]) & set(here.split.test)


def test_no_training_sees_the_scan_of_a_test_patient_under_another_name(here, monkeypatch):
    twin, tested = here.labelled(2)[0], here.split.test[0]
    scans = {v.patient: v.checksums["image.npy"] for v in here.store.volumes}
    volumes = tuple(replace(v, checksums={**v.checksums, "image.npy": scans[tested]}) if v.patient == twin else v
                    for v in here.store.volumes)
    monkeypatch.setattr(here.store, "volumes", volumes)
    monkeypatch.setattr(study, "prepare", lambda *_: here.store)
    dataset, output = here.experiment.data.dataset, here.runs.parent
    found = study.open_study(tiny(dataset), output=output, device="cpu")
    assert found.split.twins == (twin,) and found.split.test == here.split.test
    seen = {*found.pretrain().config["patients"], *found.labelled(2), *found.labelled(3)}
    assert twin not in seen and seen == set(found.split.train)
    assert not study.open_study(tiny(dataset), output=output, device="cpu", protocol="paper").split.twins


def test_self_training_goes_on_from_the_fine_tuned_network_and_sees_no_test_patient(here):
    run, _ = here.few_shot("unet_selftrained", 2)
    assert run.config["source"] == here.few_shot("unet", 2)[0].folder.name
    assert run.config["unlabelled"] == sorted(here.split.train)


def test_real_data_needs_its_folder(tmp_path):
    with pytest.raises(ValueError, match="needs data_root"):
        study.open_study(resolve("smoke", "acdc"), output=tmp_path)
    with pytest.raises(FileNotFoundError):
        study.open_study(resolve("smoke", "acdc"), tmp_path / "nowhere", tmp_path)


def test_a_fold_out_of_range_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="fold is 0 to 4, got 5"):
        study.open_study(tiny(), output=tmp_path / "new", fold=5)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_trained_is_refused_by_name(here):
    with pytest.raises(ValueError, match="self-training runs on one device: train unet on several first"):
        replace(here, devices=2).train("unet_selftrained", 2)
    with pytest.raises(ValueError, match="unknown kind of pretraining 'simlcr'.*did you mean 'simclr'"):
        here.pretrain(kind="simlcr")


def test_the_folder_of_the_data_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_phantom(tmp_path / "acdc", 5, size=48, slices=(3, 4), progress=False)
    here = study.open_study(tiny("acdc"), "~/acdc", tmp_path / "home", device="cpu")
    assert len(here.store.patients) == 5 and here.store.image(0).any()


def test_a_folder_may_have_a_number_for_a_name(tmp_path, monkeypatch):
    """As papermill hands on ``-p data_root 2023``."""
    monkeypatch.chdir(tmp_path)
    write_phantom(tmp_path / "2023", 5, size=48, slices=(3, 4), progress=False)
    here = study.open_study(tiny("acdc"), 2023, 2024, device="cpu")
    assert len(here.store.patients) == 5 and here.runs.parent.resolve() == tmp_path / "2024"
    with pytest.raises(FileNotFoundError, match="7 is no folder"):
        study.open_study(tiny("acdc"), 2023, 2024, protocol="external", test_root=7)
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="needs data_root"):
            study.open_study(tiny("acdc"), nothing, 2024)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_the_stores_may_lie_where_nothing_can_be_written():
    from tests.bad_input import accessible_folder, as_nobody

    with accessible_folder() as folder:
        root = write_phantom(folder / "acdc", 5, size=48, slices=(3, 4), progress=False)
        before = study.open_study(tiny("acdc"), root, folder / "made", device="cpu").store
        for path in (before.path / "volumes", before.path, before.path.parent):
            path.chmod(0o555)
        (folder / "home").mkdir()
        (folder / "home").chmod(0o777)
        (folder / "home" / "stores").symlink_to(before.path.parent)
        with as_nobody():
            here = study.open_study(tiny("acdc"), root, folder / "home", device="cpu")
        assert here.store.volumes == before.volumes and here.runs == folder / "home" / "runs"


def test_a_run_is_scored_for_every_fold_and_draw_that_labels_its_patients(here, monkeypatch):
    output = here.runs.parent
    other = study.open_study(here.experiment, output=output, fold=1, device="cpu")
    labelled = sorted(set(here.split.train) & set(other.split.train))[:2]
    monkeypatch.setattr(protocols, "labelled_draw", lambda *_: tuple(labelled))
    asked = [(here, 0), (here, 1), (other, 0)]
    runs, tables = zip(*(one.few_shot("unet", 2, draw) for one, draw in [*asked, *asked]), strict=True)
    assert len({run.folder for run in runs}) == 1
    for (one, draw), rows in zip([*asked, *asked], tables, strict=True):
        assert set(rows["patient"]) == set(one.split.test) and set(rows["draw"]) == {draw}
        assert set(rows["fold"]) == {one.fold}
    record = of_run(runs[0].folder)
    assert len(record.rows) == sum(map(len, tables[:3])) and len(record.runs) == 1


def test_patients_who_came_later_are_scored_too_and_nobody_twice(here, tmp_path, scored):
    few, all_of_them = (replace(here, split=replace(here.split, test=test), runs=tmp_path) for test in ("a", "ab"))
    assert few.few_shot("unet", 2)[1]["patient"].tolist() == ["a"]
    run, rows = all_of_them.few_shot("unet", 2)
    assert rows["patient"].tolist() == ["a", "b"] and len(of_run(run.folder).rows) == 2


def test_a_truth_that_was_corrected_is_scored_again(here, tmp_path, monkeypatch):
    study = replace(here, runs=tmp_path)
    _, before = study.few_shot("unet", 2)
    volumes, truth = list(here.store.volumes), here.store.truth
    place = next(n for n, v in enumerate(volumes) if v.patient in here.split.test)
    assert study.few_shot("unet", 2)[1].equals(before)
    volumes[place] = replace(volumes[place], checksums={**volumes[place].checksums, "truth.npy": "corrected"})
    monkeypatch.setattr(here.store, "volumes", tuple(volumes))
    monkeypatch.setattr(here.store, "verify", lambda *_: None)
    monkeypatch.setattr(here.store, "truth", lambda v: np.roll(truth(v), 2, axis=1) if v == place else truth(v))
    _, after = study.few_shot("unet", 2)
    own = (before["patient"] == volumes[place].patient) & (before["frame"] == volumes[place].frame)
    assert not after[own]["overlap_voxels"].equals(before[own]["overlap_voxels"])
    assert after[~own].equals(before[~own]) and len(after) == len(before)


def test_who_has_no_labels_is_neither_tested_nor_drawn_and_can_be_pretrained_with(tmp_path):
    root = write_phantom(tmp_path / "acdc", 5, size=48, slices=(3, 4), progress=False)
    for file in (root / "patient003").glob("*_gt.nii.gz"):
        file.unlink()
    for fold in range(4):
        here = study.open_study(tiny("acdc"), root, tmp_path / "home", fold, folds=4, device="cpu")
        assert "patient003" in here.split.train and len(here.split.test) == 1
        assert "patient003" not in here.labelled(3) and len(here.labelled(3)) == 3
    with pytest.raises(ValueError, match="4 patients cannot be split into 5 folds"):
        study.open_study(tiny("acdc"), root, tmp_path / "home", device="cpu")


def test_the_papers_protocol_pretrains_on_the_test_fold_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(study.PHANTOM_PATIENTS, "smoke", 5)
    here = study.open_study(tiny(), output=tmp_path, fold=1, device="cpu", protocol="paper")
    assert here.split == paper_folds(here.store.patients)[1]
    run, rows = here.few_shot("kaf_pretrained", 2)
    assert set(run.config["patients"]) == set(paper_draw(here.split.train, 2)) <= set(here.split.train)
    assert set(here.pretrain().config["patients"]) == set(here.store.patients)
    assert rows["protocol"].unique() == ["the paper's folds and draw, test patients in pretraining"]
    with pytest.raises(ValueError, match="one draw of labelled patients, draw 0, not 1"):
        here.labelled(2, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of other patients, 4 and 2."""
    home = tmp_path_factory.mktemp("two")
    write_phantom(home / "training", 4, size=48, slices=(3, 4), progress=False)
    write_phantom(home / "all", 6, size=48, slices=(3, 4), progress=False)
    for name in ("patient005", "patient006"):
        (home / "testing").mkdir(exist_ok=True)
        (home / "all" / name).rename(home / "testing" / name)
    return home


def external(folders, test="testing"):
    return study.open_study(tiny("acdc"), folders / "training", folders / f"home-{test}", device="cpu",
                            protocol="external", test_root=folders / test)


def test_an_external_test_set_is_scored_by_networks_that_saw_none_of_it(folders):
    here = external(folders)
    assert here.split.train == ("patient001", "patient002", "patient003", "patient004")
    run, rows = here.few_shot("kaf_pretrained", 2)
    assert set(here.pretrain().config["patients"]) == set(here.split.train) > set(here.labelled(2))
    expected = {(v.patient, v.frame, name) for v in here.test_store.volumes if v.labelled
                for name in here.store.structures.values()}
    assert set(rows[["patient", "frame", "structure"]].itertuples(index=False, name=None)) == expected
    assert set(rows["patient"]) == {"patient005", "patient006"}
    assert rows["protocol"].unique() == ["a test set of its own, no test patient in pretraining"]
    assert len(of_run(run.folder).rows) == len(rows)


@pytest.mark.parametrize("given, words", [
    ({"test_root": ""}, "come together; got protocol 'external' and test_root ''"),
    ({"protocol": "patient"}, "come together; got protocol 'patient'"),
    ({"fold": 1}, "fold is 0, got 1")])
def test_an_external_test_set_has_its_folder_its_protocol_and_one_fold(folders, given, words):
    arguments = {"protocol": "external", "test_root": folders / "testing", **given}
    with pytest.raises(ValueError, match=words):
        study.open_study(tiny("acdc"), folders / "training", folders / "new", **arguments)
    assert not (folders / "new").exists()


def test_a_patient_in_both_folders_is_found(folders):
    with pytest.raises(ValueError, match="patients on both sides of the split: patient001"):
        external(folders, "training")
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        external(folders, "nowhere")
    assert not any((folders / f"home-{name}" / "stores").exists() for name in ("training", "nowhere"))


def test_nobody_is_tested_without_labels(folders, tmp_path):
    silent = shutil.copytree(folders / "testing", tmp_path / "silent")
    for file in (silent / "patient006").glob("*_gt.nii.gz"):
        file.unlink()
    with pytest.raises(ValueError, match="has no labels of patient006"):
        study.open_study(tiny("acdc"), folders / "training", tmp_path / "home", device="cpu", protocol="external",
                         test_root=silent)


def test_an_unknown_protocol_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="unknown protocol 'nested'; choose one of patient, inner, paper, external"):
        study.open_study(tiny(), output=tmp_path / "new", protocol="nested")
    assert not (tmp_path / "new").exists()


def test_folds_that_a_protocol_has_not_are_refused_before_anything_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "prepare", lambda *_: pytest.fail("prepared"))
    with pytest.raises(ValueError, match="the paper has 5 folds, not 4"):
        study.open_study(tiny(), output=tmp_path, folds=4, device="cpu", protocol="paper")


@pytest.mark.parametrize("method", ["rotation", "gcl"])
def test_a_unet_may_come_from_its_own_kind_of_pretraining(here, method):
    run, rows = here.few_shot(method, 2)
    source = json.loads((here.runs / run.config["pretrained"] / "config.json").read_text())
    assert source["network"] == "unet" and rows["pretraining"].unique() == [method]
    expected = here.experiment.changed(**KINDS[method])
    assert source["experiment"]["pretrain"] == json.loads(json.dumps(plain(expected.pretrain)))
