"""What the fields of a configuration may hold, looked at when it is made and so before any work.

A configuration inherits :class:`Checked`: the types of its fields are those it declares, and rules for their values
stand here, by the name of the field.
"""

from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any

from kaf.choices import check_choice, settle_types
from kaf.correspondence import REDUCTIONS, RULES
from kaf.data.augment import PRESETS as AUGMENT
from kaf.data.cases import LAYOUTS
from kaf.data.warp import FLIPS
from kaf.fusion import FUSIONS, GATHERS, NORMS, SCATTERS
from kaf.keypoints import DETECTORS
from kaf.mixers import BLOCKS

PRECISIONS = ("auto", "32", "bf16", "fp16")
#: What weights begin with: ``he``, the paper's (:func:`kaf.networks.initialise`), or ``torch``, what torch's own layers
#: begin with; in a convolution that is 2.4 times smaller. Behind a norm the size of weights changes no output, but how
#: far a step of the optimiser turns them.
INITS = ("he", "torch")
CHOICES: dict[str, Collection[str]] = {
    "dataset": LAYOUTS,
    "detector": DETECTORS,
    "mixer": ChainMap({"none": None}, BLOCKS),  # a view: knows blocks that are entered later, as DETECTORS does
    "gather": GATHERS,
    "scatter": SCATTERS,
    "fusion": FUSIONS,
    "norm": NORMS,
    "init": INITS,
    "position_norm": ("layer", "batch"),
    "match_rule": RULES,
    "local_reduction": REDUCTIONS,
    "loss": ("dice_ce", "ce"),
    "components": ("all", "largest"),
    "precision": PRECISIONS,
    "name": ("adamw", "adam", "sgd"),
}
#: Parts that may be given by the name of a preset.
NAMED: dict[str, Mapping[str, Any]] = {"augment": AUGMENT}
SAID = {"name": "optimiser", "init": "initialisation", "match_rule": "matching rule", "local_reduction": "reduction",
        "position_norm": "norm of positions"}  # else the field's name
POSITIVE = ("positive", lambda value: value > 0)
NOT_NEGATIVE = ("0 or more", lambda value: value >= 0)
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "size": ("a positive multiple of 16", lambda value: value > 0 and value % 16 == 0),
    **dict.fromkeys(("spacing_mm", "points", "width", "steps", "batch", "dim", "heads", "hidden", "clip",
                     "temperature", "match_px", "mask_cell", "unlabelled"), POSITIVE),
    **dict.fromkeys(("epochs", "lr", "weight_decay", "final", "threshold", "depth", "parts", "seed",
                     "weight"), NOT_NEGATIVE),
    **dict.fromkeys(("warmup", "decay", "ramp"), ("a share between 0 and 1", lambda value: 0 <= value <= 1)),
    "ema": ("0 or more and below 1", lambda value: 0 <= value < 1),
    "flips": (f"names among {', '.join(FLIPS)}, each once", lambda names: sorted(names) == sorted({*names} & {*FLIPS})),
    "mask_share": ("a share above 0 and below 1", lambda value: 0 < value < 1),
    "weights": ("0 or more each, and not all 0", lambda values: min(values) >= 0 < max(values)),
}


class Checked:
    """A frozen dataclass that raises ``ValueError`` for fields of another type or with an impossible value.

    A whole number in a field for any number becomes a float: configurations that are equal have one fingerprint.
    """

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name in CHOICES):
            if str(value := getattr(self, name)) in CHOICES[name]:  # in YAML and JSON, precision: 32 is a number
                object.__setattr__(self, name, str(value))
        for name, presets in NAMED.items():
            if isinstance(value := getattr(self, name, None), str):
                check_choice(name, value, presets)
                object.__setattr__(self, name, presets[value])
        settle_types(self)
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if name in CHOICES:
                check_choice(SAID.get(name, name), value, CHOICES[name])
            words, holds = RANGES.get(name, ("", lambda _: True))
            if value is not None and not holds(value):
                raise ValueError(f"{type(self).__name__} has {name} = {value!r}; it must be {words}")
