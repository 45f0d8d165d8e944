"""Configuration: frozen dataclasses, the three scales, the two recipes, and what a notebook may set.

``resolve`` turns what a person chooses (a data set, a scale, a recipe) into an :class:`Experiment`, in
which every number that decides a result is written out.
"""

import ast
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import kaf
from kaf.choices import check_choice
from kaf.data.augment import PRESETS as AUGMENT
from kaf.data.augment import AugmentConfig
from kaf.data.cases import LAYOUTS, get_layout
from kaf.data.pairs import Window
from kaf.fields import AFTER, LATER, change, digest, plain  # noqa: F401  part of this module's interface
from kaf.networks import PRESETS as KAF
from kaf.networks import KAFConfig
from kaf.parameters import Checked


@dataclass(frozen=True)
class DataConfig(Checked):
    """What a network sees."""

    dataset: str
    spacing_mm: float | None  # in-plane spacing of the store; None: as in the files
    size: int  # the network sees the central size x size pixels
    points: int  # K, the strongest keypoints of a slice
    detector: str = "sift"


@dataclass(frozen=True)
class OptimConfig(Checked):
    """One optimisation: linear warm-up, then a cosine to ``final`` times the learning rate."""

    steps: int  # batches; ignored where ``epochs`` is set
    batch: int
    epochs: int = 0  # passes over the data, as the paper counts; 0: count steps
    name: str = "adamw"  # or "adam", "sgd" (momentum .9)
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05  # fraction of the steps
    final: float = 0.0
    clip: float | None = 1.0  # largest norm of the gradient; None: not clipped

    def total(self, items: int) -> int:
        """Number of steps for a data set of ``items``."""
        return self.epochs * max(1, items // self.batch) if self.epochs else self.steps


@dataclass(frozen=True)
class PretrainConfig(Checked):
    """Pretraining without labels (sections 3.2 and 3.3)."""

    optim: OptimConfig
    # Of L_pcl, L_global, L_local. The paper gives the sum over all terms of L_local .01; ours is their mean.
    weights: tuple[float, float, float] = (1.0, 1.0, 0.1)
    threshold: float = 0.35  # positives lie closer than this in relative slice position
    temperature: float = 0.1
    match_px: float = 30.0  # Manhattan distance within which keypoints may correspond, pixels of the store
    match_rule: str = "mutual"
    local_reduction: str = "mean"
    head_norm: bool = True  # batch norm in the head of L_pcl; the paper has none
    # Window of neighbouring slices: fraction of the stack, at least; (0, 0) takes the slice itself twice.
    neighbour: tuple[float, int] = (0.18, 2)
    augment: AugmentConfig = AUGMENT["default"]
    task: str = field(default="contrast", metadata=LATER)  # or "rotation" (quarter turns), "restoration" (masked cells)
    mask_cell: int = field(default=8, metadata=LATER)  # side of a cell to restore, pixels
    mask_share: float = field(default=0.5, metadata=LATER)  # probability that a cell is masked
    parts: int = field(default=0, metadata=LATER)  # positives lie in the same of so many parts instead; 0: no parts
    frames: tuple[str, ...] = field(default=(), metadata=LATER)  # such as ("ED", "ES"); (): every frame

    def __post_init__(self) -> None:
        super().__post_init__()
        Window(*self.neighbour)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Checked):
    """How a trained network labels a volume."""

    components: str = field(default="all", metadata=AFTER)  # of a predicted structure; or the "largest" alone
    # Angles by which a slice is turned to be predicted; probabilities are turned back, and their mean is taken.
    rotations_deg: tuple[float, ...] = field(default=(0.0,), metadata=AFTER)
    flips: tuple[str, ...] = field(default=(), metadata=AFTER)  # mirrored so, a slice is predicted as well

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rotations_deg:
            raise ValueError("rotations_deg is (); it must hold one angle or more, such as (0.0,)")


@dataclass(frozen=True)
class FinetuneConfig(PredictConfig):
    """Supervised training with few labels (section 4)."""

    optim: OptimConfig
    loss: str = "dice_ce"  # or "ce", the paper's
    augment: AugmentConfig = AUGMENT["default"]
    # Decay of the running mean of weights to keep, at most: it is less in the first steps. 0: the last weights.
    ema: float = field(default=0.0, metadata=LATER)


@dataclass(frozen=True)
class SelftrainConfig(Checked):
    """Self-training with a mean teacher; augmentation and loss on labelled slices are those of fine-tuning."""

    optim: OptimConfig = OptimConfig(100, 4)  # its batch counts labelled slices
    unlabelled: int = 8  # slices without labels in a batch
    decay: float = 0.99  # of the running mean that is the teacher
    threshold: float = 0.8  # a pixel counts where the teacher's most probable class is at least so probable
    weight: float = 1.0  # of the loss on slices without labels
    ramp: float = 0.1  # fraction of the steps in which that weight grows from 0


@dataclass(frozen=True)
class Experiment(Checked):
    """Everything that decides a result, apart from the patients chosen."""

    data: DataConfig
    width: int  # filters f of the first block
    kaf: KAFConfig
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    scale: str = ""
    recipe: str = ""
    seed: int = 0
    selftrain: SelftrainConfig = field(default=SelftrainConfig(), metadata=LATER)
    norm: str = field(default="batch", metadata=LATER)  # behind convolutions, a name in kaf.fusion.NORMS
    init: str = field(default="he", metadata=LATER)  # of weights, a name in kaf.parameters.INITS
    precision: str = field(default="auto", metadata=LATER)  # of training, see kaf.loop.make_fabric

    def changed(self, **changes: Any) -> "Experiment":
        """A copy with some fields replaced; ``pretrain__optim__steps=10`` reaches into the parts."""
        return change(self, changes)


SCALES = ("smoke", "laptop", "full")
RECIPES = ("default", "paper")
SELFTRAIN = {"smoke": SelftrainConfig(), "laptop": SelftrainConfig(OptimConfig(800, 4)),
             "full": SelftrainConfig(OptimConfig(4000, 8), unlabelled=16)}


def resolve(scale: str, dataset: str = "phantom", recipe: str = "default", seed: int = 0, **changes: Any) -> Experiment:
    """The experiment of a data set at a scale.

    ``scale`` is ``smoke`` (a few minutes on two cores), ``laptop`` (an hour or two) or ``full`` (a GPU).
    ``recipe="paper"`` takes the paper's block, readings of gather and scatter, optimisers and loss; at
    scale ``full`` it is the published experiment of KAF. Other methods were published with recipes of their own, such
    as PCL with a rate of .1 over 300 epochs. ``changes`` as in :meth:`Experiment.changed`.
    ``dataset`` is any name in ``LAYOUTS`` of :mod:`kaf.data.cases`: one without a spacing of its own is treated as CHD
    is, others as ACDC. Raises ``ValueError`` for unknown names.
    """
    check_choice("scale", scale, SCALES)
    check_choice("dataset", dataset, LAYOUTS)
    check_choice("recipe", recipe, RECIPES)
    ct = get_layout(dataset).spacing_mm is None
    data, width, layers, pretraining, finetuning = _size(scale, dataset, ct)
    match_px = (20.0 if ct else 30.0) * _pixel_ratio(data, ct)
    pretrain = PretrainConfig(pretraining, threshold=0.1 if ct else 0.35, match_px=round(match_px, 1),
                              neighbour=(0.05, 1) if ct else (0.18, 2))
    experiment = Experiment(data, width, layers, pretrain, FinetuneConfig(finetuning), scale, recipe, seed,
                            SELFTRAIN[scale])
    return (_as_in_the_paper(experiment, ct) if recipe == "paper" else experiment).changed(**changes)


def _size(scale: str, dataset: str, ct: bool) -> tuple[DataConfig, int, KAFConfig, OptimConfig, OptimConfig]:
    """Data, width, KAF layers, optimisation of pretraining and of fine-tuning."""
    if scale == "smoke":
        layers = KAFConfig(dim=32, depth=2, hidden=16)
        optim = OptimConfig(150, 8, lr=3e-3)  # few steps, so long ones
        return DataConfig(dataset, 2.5, 80, 96), 6, layers, replace(optim, steps=60), optim
    if scale == "laptop":
        layers = KAFConfig(dim=64, depth=4, hidden=32)
        data = DataConfig(dataset, 2.0 if ct else 1.5, 144, 160)
        return data, 12, layers, OptimConfig(400, 12), OptimConfig(500, 8, lr=2e-3)
    data = DataConfig(dataset, None if ct else 1.25, 512 if ct else 224, 300)
    return data, 32, KAF["default"], OptimConfig(2000, 32), OptimConfig(4000, 10)


def _pixel_ratio(data: DataConfig, ct: bool) -> float:
    """Distances in the paper are pixels of its own grid: 1.25 mm for ACDC, about .5 mm for CHD."""
    return 1.0 if data.spacing_mm is None else (0.5 if ct else 1.25) / data.spacing_mm


def _as_in_the_paper(experiment: Experiment, ct: bool) -> Experiment:
    full = experiment.scale == "full"
    layers = replace(KAF["paper"], depth=16 if full else experiment.kaf.depth, dim=experiment.kaf.dim,
                     hidden=experiment.kaf.hidden)
    e = experiment.changed(
        kaf=layers,
        pretrain__optim__name="sgd", pretrain__optim__lr=0.002, pretrain__optim__weight_decay=1e-5,
        pretrain__optim__warmup=0.0, pretrain__optim__clip=None,
        pretrain__weights=(1.0, 1.0, 0.01), pretrain__local_reduction="released", pretrain__head_norm=False,
        pretrain__augment=AUGMENT["paper"],
        finetune__optim__name="adam", finetune__optim__lr=5e-5 if ct else 5e-4, finetune__optim__final=0.1,
        finetune__optim__weight_decay=0.0, finetune__optim__warmup=0.0, finetune__optim__clip=None,
        finetune__loss="ce", finetune__augment=AUGMENT["paper"])
    if full:
        e = e.changed(width=32 if ct else 48, data__size=512 if ct else 352, pretrain__optim__epochs=51,
                      finetune__optim__epochs=101 if ct else 201)
    return e


def without(experiment: Experiment, *parts: str) -> dict[str, Any]:
    """:func:`plain` with None for the ``parts`` that play no role in a run; parts that came later are left out."""
    later = {f.name for f in fields(experiment) if f.metadata.get("later")}
    return {name: None if name in parts else value for name, value in plain(experiment).items()
            if name not in later.intersection(parts)}


def used_by(what: str, experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides a run of ``pretrain``, ``finetune`` or ``selftrain``, as its folder keeps it."""
    if what == "selftrain":
        return {**without(experiment, "pretrain"), "selftrain": plain(experiment.selftrain)}
    return without(experiment, *({"pretrain", "finetune", "selftrain"} - {what}))


def training_part(used: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`used_by` gave, without what decides only how the trained network is used afterwards."""
    after = {f.name for f in fields(FinetuneConfig) if f.metadata.get("after")}
    finetune = used["finetune"] and {name: value for name, value in used["finetune"].items() if name not in after}
    return {**used, "finetune": finetune}


def describe(config: Any) -> str:
    """A configuration as indented JSON (:func:`plain`): what notebooks print."""
    return json.dumps(plain(config), indent=2)


def restore(found: Mapping[str, Any], kind: type = Experiment) -> Any:
    """The configuration that :func:`plain` and JSON gave; a part that was left out stays None.

    Raises ``ValueError`` where it has fields that this version does not know.
    """
    types, values = get_type_hints(kind), {}
    for name, value in found.items():
        if name not in types:
            raise ValueError(f"{kind.__name__} has no field {name!r}: another version of kaf made this configuration")
        values[name] = restore(value, types[name]) if isinstance(value, dict) else as_tuples(value)
    return kind(**values)


def as_tuples(value: Any) -> Any:
    """Lists as tuples, at any depth: what configurations hold, of what JSON, YAML and papermill give."""
    if isinstance(value, dict):
        return {name: as_tuples(v) for name, v in value.items()}
    return tuple(as_tuples(v) for v in value) if isinstance(value, list) else value


def parse_changes(text: str) -> dict[str, Any]:
    """Changes of an :class:`Experiment` in words, such as ``"kaf__mixer=graph, pretrain__weights=(1, 0, 0)"``.

    Numbers and tuples are read as Python writes them, anything else is text. Raises ``ValueError`` where a name or a
    value is missing, a name stands twice, or a change is asked for that has a parameter of its own.
    """
    changes: dict[str, Any] = {}
    for words in re.split(r"[,\s]+(?=\w+\s*=)", text.strip().strip(",")) if text.strip() else []:
        name, _, value = (part.strip() for part in words.partition("="))
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found = value if len(value.split()) == 1 else ""
        if not name or found == "":
            raise ValueError(f"a change is NAME=VALUE, such as kaf__mixer=graph, got {words!r}")
        if name in ("scale", "recipe", "seed"):
            raise ValueError(f"{name} decides more than itself: give {name} {value} by its own name, not as a change")
        if name in changes:
            raise ValueError(f"{name} is changed twice: {text}")
        changes[name] = found
    return changes


def workspace() -> Path:
    """Where stores and runs go unless told otherwise: ``$KAF_HOME``, else the checkout, else here."""
    if os.environ.get("KAF_HOME"):
        return Path(os.environ["KAF_HOME"]).expanduser()
    checkout = Path(kaf.__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def refuse_unknown(namespace: Mapping[str, Any], known: tuple[str, ...] | list[str]) -> None:
    """Stop if a notebook holds a parameter that it does not know; papermill itself only warns.

    ``namespace`` is ``globals()`` of a notebook that so far has only imported modules and set parameters.
    Raises ``ValueError`` naming the parameter and the one probably meant.
    """
    front_end = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    given = {n for n, v in namespace.items() if not (n.startswith("_") or n in front_end
                                                     or isinstance(v, ModuleType) or callable(v))}
    for name in sorted(given - set(known)):
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ValueError(f"unknown parameter {name!r}; {hint}")
