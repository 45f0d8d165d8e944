import json
import string
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaf.config import DataConfig, Experiment, OptimConfig, plain, resolve, restore
from kaf.keypoints import DETECTORS
from kaf.mixers import BLOCKS
from kaf.networks import KAFConfig
from kaf.parameters import CHOICES, RANGES, Checked

EXPERIMENT = resolve("smoke")
WHOLE = st.integers(1, 10_000)
SHARE = st.floats(0, 1)


def leaves(part=EXPERIMENT, before=()):
    """Every field of an experiment that holds no further fields, by its name for ``changed``, with its value."""
    for f in fields(part):
        value, path = getattr(part, f.name), (*before, f.name)
        if is_dataclass(value):
            yield from leaves(value, path)
        else:
            yield "__".join(path), value


@dataclass(frozen=True)
class Example(Checked):
    width: int = 1
    rates: tuple[float, ...] = ()
    window: tuple[float, int] = (0.5, 1)
    clip: float | None = None
    word: str = ""
    flag: bool = False
    part: OptimConfig | None = None


@pytest.mark.parametrize("change, message", [
    ({"width": 2.5}, r"Example has width = 2.5; it must be a whole number"),
    ({"width": True}, "a whole number"),
    ({"width": 0}, "Example has width = 0; it must be positive"),
    ({"rates": 0.5}, r"it must be a tuple \(entries of a number\)"),
    ({"rates": [0.5]}, "a tuple"),
    ({"rates": (0.5, "x")}, "a tuple"),
    ({"window": (0.5,)}, r"a tuple \(a number, a whole number\)"),
    ({"window": (0.5, 0.5)}, "a tuple"),
    ({"clip": "x"}, "a number or None"),
    ({"clip": float("nan")}, "a number or None"),
    ({"clip": -1.0}, "positive"),
    ({"word": 3}, "a word"),
    ({"flag": 1}, "True or False"),
    ({"part": 3}, "OptimConfig or None"),
])
def test_fields_of_another_type_or_without_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Example(**change)


def test_numbers_of_numpy_are_numbers():
    Example(width=np.int64(3), rates=(np.float32(0.5), 1), clip=np.float64(2))


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_choice_belongs_to_a_field_and_is_made_from_a_list(name):
    paths = [path for path, _ in leaves() if path.split("__")[-1] == name]
    assert paths
    for path in paths:
        with pytest.raises(ValueError, match=r"unknown \w.* 'nonsense'; choose one of "):
            EXPERIMENT.changed(**{path: "nonsense"})
        for value in CHOICES[name]:
            EXPERIMENT.changed(**{path: value})


@pytest.mark.parametrize("known, path", [(BLOCKS, "kaf__mixer"), (DETECTORS, "data__detector")])
def test_what_is_entered_later_can_be_chosen(monkeypatch, known, path):
    with pytest.raises(ValueError, match="'mine'"):
        EXPERIMENT.changed(**{path: "mine"})
    monkeypatch.setitem(known, "mine", next(iter(known.values())))
    EXPERIMENT.changed(**{path: "mine"})
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        EXPERIMENT.changed(**{path: "mime"})


@pytest.mark.parametrize("name", sorted(RANGES))
def test_every_range_belongs_to_a_field_and_can_be_left(name):
    paths = [(path, value) for path, value in leaves() if path.split("__")[-1] == name]
    assert paths
    for path, value in paths:
        bad = (-1.0,) * len(value) if isinstance(value, tuple) else -1 if isinstance(value, int) else -1.0
        bad = ("sideways",) if name == "flips" else bad
        with pytest.raises(ValueError, match=f"{name} = "):
            EXPERIMENT.changed(**{path: bad})


@given(path=st.sampled_from([path for path, _ in leaves()]), typo=st.text(string.ascii_lowercase, min_size=1))
def test_a_field_that_there_is_not_is_named(path, typo):
    *before, last = path.split("__")
    with pytest.raises(ValueError, match=f"has no field '{last}{typo}'"):
        EXPERIMENT.changed(**{"__".join([*before, last + typo]): 1})


@given(path=st.sampled_from([path for path, _ in leaves()]),
       value=st.one_of(st.none(), st.text(), st.booleans(), st.floats(), st.integers(), st.tuples(st.text())))
def test_any_value_is_kept_as_it_is_or_refused_with_the_name_of_its_field(path, value):
    name = path.split("__")[-1]
    try:
        kept, said = dict(leaves(EXPERIMENT.changed(**{path: value})))[path], None
    except ValueError as error:
        kept, said = None, str(error)
    if said is None:
        assert kept == value
    else:
        assert any(word in said for word in (name, "unknown ", "token width", "window"))


@given(size=st.integers(1, 40).map(lambda n: 16 * n), points=WHOLE, width=WHOLE, steps=WHOLE, batch=WHOLE, lr=SHARE,
       warmup=SHARE, spacing=st.none() | st.floats(0.1, 9), levels=st.sets(st.integers(0, 3)).map(tuple),
       heads=st.integers(1, 8), seed=st.integers(0, 2**40))
def test_what_makes_sense_is_accepted_and_comes_back_from_json(size, points, width, steps, batch, lr, warmup, spacing,
                                                               levels, heads, seed):
    optim = OptimConfig(steps, batch, lr=lr, warmup=warmup)
    changed = EXPERIMENT.changed(
        data=DataConfig("acdc", spacing, size, points), width=width, seed=seed, pretrain__optim=optim,
        finetune__optim=optim, kaf=KAFConfig(levels=levels, dim=8 * heads, heads=heads))
    assert restore(json.loads(json.dumps(plain(changed))), Experiment) == changed
