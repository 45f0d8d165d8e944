import json
import math
from pathlib import Path

import numpy as np
import pytest

import kaf
from kaf.config import (
    RECIPES,
    SCALES,
    describe,
    digest,
    parse_changes,
    plain,
    refuse_unknown,
    resolve,
    restore,
    training_part,
    used_by,
    workspace,
)
from kaf.data.augment import PRESETS
from kaf.data.cases import LAYOUTS
from kaf.networks import build_network, parameter_count


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dataset", LAYOUTS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_combination_is_complete(scale, dataset, recipe):
    e = resolve(scale, dataset, recipe, seed=3)
    assert (e.scale, e.data.dataset, e.recipe, e.seed) == (scale, dataset, recipe, 3)
    assert e.data.size % 16 == 0 and e.kaf.dim % e.kaf.heads == 0
    assert restore(json.loads(describe(e))) == e


@pytest.mark.parametrize("names, message", [
    (("tiny",), "unknown scale 'tiny'; choose one of smoke, laptop, full"),
    (("smoke", "acdcc"), "unknown dataset 'acdcc'; choose one of acdc, chd"),
    (("smoke", "acdc", "papers"), "unknown recipe 'papers'; choose one of default, paper"),
])
def test_unknown_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        resolve(*names)


@pytest.mark.parametrize("dataset, width, size, rate, epochs, threshold, window, neighbour, millions", [
    ("acdc", 48, 352, 5e-4, 201, 0.35, 30.0, (0.18, 2), 106.8),
    ("chd", 32, 512, 5e-5, 101, 0.1, 20.0, (0.05, 1), 71.7),
])
def test_the_paper_recipe_at_full_scale_has_the_published_numbers(
        dataset, width, size, rate, epochs, threshold, window, neighbour, millions):
    e = resolve("full", dataset, "paper")
    assert (e.width, e.data.size, e.data.points) == (width, size, 300)
    assert e.data.spacing_mm == (1.25 if dataset == "acdc" else None)
    assert (e.kaf.depth, e.kaf.dim, e.kaf.heads, e.kaf.hidden, e.kaf.mixer) == (16, 256, 4, 64, "paper")
    assert (e.kaf.gather, e.kaf.scatter, e.kaf.fusion) == ("nearest", "overwrite", "concat")
    pre, fine = e.pretrain.optim, e.finetune.optim
    assert (pre.name, pre.lr, pre.weight_decay, pre.batch, pre.epochs) == ("sgd", 0.002, 1e-5, 32, 51)
    assert (fine.name, fine.lr, fine.batch, fine.epochs, fine.final) == ("adam", rate, 10, epochs, 0.1)
    assert pre.clip is fine.clip is None and pre.warmup == fine.warmup == 0
    assert e.pretrain.weights == (1.0, 1.0, 0.01) and e.pretrain.temperature == 0.1
    assert (e.pretrain.threshold, e.pretrain.match_px, e.pretrain.neighbour) == (threshold, window, neighbour)
    assert e.finetune.loss == "ce" and not e.pretrain.head_norm and e.finetune.augment == PRESETS["paper"]
    network = build_network("kaf_unet", 4 if dataset == "acdc" else 8, e.width, e.kaf)
    assert math.isclose(parameter_count(network) / 1e6, millions, abs_tol=0.35)  # .26 of it is never used


def test_epochs_count_whole_batches_and_replace_steps():
    optim = resolve("full", "acdc", "paper").pretrain.optim
    assert optim.total(1000) == 51 * 31 and optim.total(7) == 51
    assert resolve("smoke").pretrain.optim.total(1000) == 60


def test_distances_of_matches_are_scaled_to_the_store():
    assert resolve("laptop", "acdc").pretrain.match_px == 25.0  # 37.5 mm
    assert resolve("full", "acdc").pretrain.match_px == 30.0


def test_changes_reach_into_the_parts_and_leave_the_rest():
    before = resolve("smoke")
    after = resolve("smoke", pretrain__optim__lr=0.5, width=9)
    assert (after.pretrain.optim.lr, after.width) == (0.5, 9)
    assert after.changed(pretrain__optim__lr=before.pretrain.optim.lr, width=before.width) == before


@pytest.mark.parametrize("name, message", [
    ("widht", "Experiment has no field 'widht'; did you mean 'width'"),
    ("pretrain__optim__rate", "OptimConfig has no field 'rate'"),
    ("width__x", "int has no field 'x'"),
])
def test_unknown_fields_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        resolve("smoke", **{name: 1})


def test_the_digest_tells_configurations_apart_and_is_the_same_for_equal_ones():
    e = resolve("smoke")
    others = [e, e.changed(seed=1), e.changed(pretrain__augment__blur_p=0.21), e.changed(kaf__levels=(0, 1))]
    assert len({digest(x) for x in others}) == 4
    assert digest(e, [1, "a"]) == digest(resolve("smoke"), (1, "a")) and len(digest(e)) == 8


def test_a_later_field_tells_runs_apart_only_where_it_is_used():
    e = resolve("smoke")
    assert digest(e) == "79be2a14", "the fingerprint of the runs that were made before there was such a field"
    assert "parts" not in plain(e)["pretrain"]
    used = e.changed(pretrain__parts=4, pretrain__frames=("ED",))
    assert plain(used)["pretrain"] | {"frames": ("ED",), "parts": 4} == plain(used)["pretrain"]
    assert digest(used) != digest(e) and restore(json.loads(describe(used))) == used


def test_what_is_done_after_training_is_no_part_of_it():
    plainly = resolve("smoke")
    after = plainly.changed(finetune__components="largest", finetune__rotations_deg=(-10, 0, 10),
                            finetune__flips=("horizontal",))
    used = used_by("finetune", after)
    assert used["finetune"]["rotations_deg"] == (-10.0, 0.0, 10.0) and used != used_by("finetune", plainly)
    assert training_part(used) == used_by("finetune", plainly) == training_part(used_by("finetune", plainly))
    assert training_part(used_by("pretrain", after)) == used_by("pretrain", plainly)
    other = after.changed(finetune__optim__lr=0.5)
    assert training_part(used_by("finetune", other)) != used_by("finetune", plainly)
    with pytest.raises(ValueError, match=r"rotations_deg is \(\); it must hold one angle or more"):
        plainly.changed(finetune__rotations_deg=())
    for wrong in (("sideways",), ("vertical", "vertical")):
        with pytest.raises(ValueError, match="must be names among horizontal, vertical, transpose, each once"):
            plainly.changed(finetune__flips=wrong)


def test_a_mean_of_weights_is_another_training_and_none_is_as_before_there_were_any():
    plainly = resolve("smoke")
    mean = plainly.changed(finetune__ema=0.99)
    assert "ema" not in used_by("finetune", plainly)["finetune"]
    assert training_part(used_by("finetune", mean)) != training_part(used_by("finetune", plainly))


def test_refuse_unknown_names_the_typo_and_what_was_meant():
    namespace = {"scale": "smoke", "datset": "acdc", "math": math, "Path": Path, "_private": 1, "In": []}
    with pytest.raises(ValueError, match="unknown parameter 'datset'; did you mean 'dataset'"):
        refuse_unknown(namespace, ["scale", "dataset"])
    with pytest.raises(ValueError, match="unknown parameter 'xyz'; known are scale, dataset"):
        refuse_unknown({"xyz": 1}, ("scale", "dataset"))
    del namespace["datset"]
    refuse_unknown(namespace, ["scale", "dataset"])


@pytest.mark.parametrize(("text", "found"), [
    ("", {}),
    ("a__b=4", {"a__b": 4}),
    ("a__b=4, c=(1.0, 0, 0), finetune__loss=ce,", {"a__b": 4, "c": (1.0, 0, 0), "finetune__loss": "ce"}),
    ("  a = 1e-3\n d=None  e=largest", {"a": 1e-3, "d": None, "e": "largest"}),
])
def test_changes_are_read_as_python_writes_them(text, found):
    assert parse_changes(text) == found


@pytest.mark.parametrize(("text", "message"), [
    ("batch", "NAME=VALUE, such as .*, got 'batch'"),
    ("a=1, b=", "got 'b='"),
    ("=3", "got '=3'"),
    ("a=1 b", "got 'a=1 b'"),
    ("a=1, a=2", "a is changed twice"),
    ("scale=full", "give scale full by its own name"),
])
def test_changes_that_cannot_be_read_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        resolve("smoke", **parse_changes(text))


def test_the_workspace_is_the_variable_or_the_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("KAF_HOME", raising=False)
    assert workspace() == Path(kaf.__file__).resolve().parents[1]
    monkeypatch.setenv("KAF_HOME", str(tmp_path))
    assert workspace() == tmp_path


def test_what_came_later_leaves_the_fingerprints_of_smoke_runs_as_they_were():
    assert not {"selftrain", "precision"} & plain(resolve("smoke")).keys()
    assert resolve("smoke").changed(selftrain__weight=0.5, precision="bf16").selftrain.weight == 0.5
    assert resolve("laptop").selftrain.optim.steps < resolve("full").selftrain.optim.steps
    assert not any(resolve(scale).kaf.zero_start for scale in ("smoke", "laptop", "full"))


@pytest.mark.parametrize("name, whole, number", [
    ("data__spacing_mm", 2, 2.0), ("pretrain__weights", (1, 1, 0.1), (1.0, 1.0, 0.1)),
    ("finetune__optim__clip", 1, 1.0), ("finetune__optim__final", 0, 0.0), ("selftrain__weight", 1, 1.0),
    ("pretrain__augment__scale", (1, 2), (1.0, 2.0)),
])
def test_whole_numbers_for_numbers_are_the_same_configuration(name, whole, number):
    mine, theirs = (resolve("smoke", selftrain__decay=0.5, **{name: value}) for value in (whole, number))
    assert mine == theirs and describe(mine) == describe(theirs) and digest(mine) == digest(theirs)


def test_an_augmentation_may_be_given_by_its_name():
    assert resolve("smoke").changed(finetune__augment="strong").finetune.augment == PRESETS["strong"]
    assert resolve("smoke", finetune__augment="default") == resolve("smoke")
    with pytest.raises(ValueError, match="unknown augment 'storng'; choose one of .*; did you mean 'strong'"):
        resolve("smoke").changed(pretrain__augment="storng")


def test_a_precision_may_be_given_as_a_number():
    """As YAML, JSON and --set read it."""
    assert resolve("smoke").changed(precision=32) == resolve("smoke").changed(precision="32")
    with pytest.raises(ValueError, match="precision"):
        resolve("smoke").changed(precision=16)


def test_whole_numbers_stay_whole_where_they_must_be():
    e = resolve("smoke", pretrain__neighbour=(0, 2), kaf__levels=(0, 1), data__spacing_mm=None)
    assert json.dumps(plain(e)["pretrain"]["neighbour"]) == "[0.0, 2]" and e.data.spacing_mm is None
    assert json.dumps(plain(e)["kaf"]["levels"]) == "[0, 1]" and isinstance(e.finetune.optim.steps, int)


def test_numbers_of_numpy_are_those_of_python():
    mine, plain_ = (resolve("smoke", seed=kind(1), pretrain__frames=(), finetune__augment__scale=(kind(1), 1.5))
                    for kind in (np.int64, int))
    assert digest(mine) == digest(plain_)
