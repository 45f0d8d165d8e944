"""Named grids of experiments: from a few lines of ``grids.yaml`` to single jobs.

A grid is a list of blocks. Each block is the product of its methods, settings, numbers ``m`` of labelled patients,
draws, folds and seeds; blocks stand in the order in which they are to be run.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from kaf.choices import check_choice
from kaf.config import Experiment, as_tuples, digest, resolve
from kaf.fields import differences
from kaf.finetune import get_method
from kaf.protocols import PROTOCOLS, check_fold
from kaf.records import SAME
from kaf.robustness import LEVELS
from kaf.study import configurations, store_name

FILE = Path(__file__).with_name("grids.yaml")


@dataclass(frozen=True)
class Job:
    """One fine-tuning run with its evaluation."""

    method: str  # a key of kaf.finetune.METHODS
    m: int
    draw: int = 0
    fold: int = 0
    seed: int = 0
    dataset: str = "phantom"
    scale: str = "smoke"
    recipe: str = "default"
    protocol: str = "patient"
    setting: str = ""  # names ``changes``; empty for the method as it is
    changes: tuple[tuple[str, Any], ...] = ()  # of the experiment, as Experiment.changed takes them

    @cached_property
    def experiment(self) -> Experiment:
        return resolve(self.scale, self.dataset, self.recipe, self.seed, **dict(self.changes))

    @cached_property
    def key(self) -> str:
        """Name of the job: what it is, and a fingerprint of the configurations of its runs."""
        return job_key(asdict(self), configurations(self.experiment, self.method))

    @cached_property
    def pretraining_key(self) -> str | None:
        """Name of the pretraining it starts from; None without one."""
        method = get_method(self.method)
        if method.pretraining == "none":
            return None
        configuration = configurations(self.experiment, self.method)[-1]
        fold = "all" if self.protocol == "paper" else self.fold  # the paper pretrains with everybody, once
        return (f"{self.dataset}-{self.scale}-{self.protocol}-{method.network}-{method.pretraining}-fold{fold}"
                f"-seed{self.seed}-{digest(configuration)}")

    @property
    def source(self) -> "Job | None":
        """The job whose network this one goes on from, by self-training."""
        method = get_method(self.method).selftrained
        return replace(self, method=method) if method else None

    @cached_property
    def store_key(self) -> str:
        """Name of the prepared data."""
        return f"{self.dataset}-{store_name(self.experiment)}"

    def parameters(self) -> dict[str, Any]:
        """For the notebooks."""
        return {**asdict(self), "changes": _lists(dict(self.changes))}


def job_key(what: Mapping[str, Any], runs: list[dict[str, Any]]) -> str:
    """Name of a job, of its axes and the configurations of its runs, whether just made or read from a record."""
    axes = ("dataset", "scale", "protocol", "method")
    numbers = (f"{name}{what[name]}" for name in ("m", "draw", "fold", "seed"))
    return "-".join([*(what[name] for name in axes), *numbers, digest(*runs)])


def load_grids(file: str | Path = FILE) -> dict[str, dict[str, Any]]:
    """The grids of a file by name.

    Raises ``ValueError`` for a file without any and for a grid with other parts than ``runs`` and ``levels``,
    ``FileNotFoundError`` without a file.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}; give one with grids, as workflow/grids.yaml has them")
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8 ({error}); save it in this encoding") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(g, dict) and "runs" in g for g in found.values()):
        raise ValueError(f"{file} is no file of grids: each needs a name and a list of blocks named runs")
    for name, grid in found.items():
        if not isinstance(name, str):
            raise ValueError(f"a name of a grid in {file} is text, but YAML reads {name!r}: put it in quotes")
        if not isinstance(blocks := grid["runs"], list) or not all(isinstance(block, dict) for block in blocks):
            raise ValueError(f"runs of the grid {name} in {file} are a list of blocks, each beginning with a dash; got "
                             f"{blocks!r}")
        try:
            _check_parts(grid)
        except ValueError as error:
            raise ValueError(f"the grid {name} in {file}: {error}") from None
    return found


def _check_parts(grid: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` for another part than ``runs`` and ``levels``, and for levels that no corruption has."""
    for part in grid:
        check_choice("part of a grid", part, ("runs", "levels"))
    if "levels" not in grid:
        return
    levels = grid["levels"]
    if not isinstance(levels, dict) or not levels:
        raise ValueError(f"levels are corruptions with their levels, such as {{blur: [1.0, 2.0]}}; got {levels!r}")
    for kind, given in levels.items():
        check_choice("corruption", kind, LEVELS)
        if not isinstance(given, list) or not given or not all(
                type(one) in (int, float) and 0 < one < math.inf for one in given):
            raise ValueError(f"levels of {kind} are a list of positive numbers such as [1.0, 2.0], got {given!r}")


def get_grid(name: str, file: str | Path = FILE) -> dict[str, Any]:
    """A grid of a file. Raises ``ValueError`` for an unknown one."""
    grids = load_grids(file)
    check_choice("grid", name, grids)
    return grids[name]


def expand(grid: Mapping[str, Any]) -> list[Job]:
    """The jobs of a grid, each once, in the order of its blocks.

    Raises ``ValueError`` for an unknown key, method, protocol, fold or field of the experiment, for values of another
    kind than a block has, where two settings are the same experiment, and where one setting is two.
    """
    _check_parts(grid)
    jobs: dict[str, Job] = {}
    for block in grid["runs"]:
        for job in _expand_block(block):
            other = jobs.setdefault(job.key, job)
            if other.setting != job.setting:
                raise ValueError(f"settings {other.setting!r} and {job.setting!r} are the same experiment: {job.key}")
    _check_settings(with_sources(jobs.values()))
    return list(jobs.values())


def _check_settings(jobs: Iterable[Job]) -> None:
    """Raises ``ValueError`` for two jobs whose rows would take each other's place in a record, over and over."""
    known: dict[tuple[Any, ...], Job] = {}
    for job in jobs:
        other = known.setdefault(tuple(getattr(job, name) for name in SAME), job)
        if other.key != job.key:
            pairs = zip(*(configurations(one.experiment, one.method) for one in (other, job)), strict=True)
            differ = dict.fromkeys(name for pair in pairs for name in differences(*pair))
            raise ValueError(f"the setting {job.setting!r} is two experiments, {other.key} and {job.key}, which differ "
                             f"in {', '.join(differ)}: a record has room for one; name one under settings")


EXAMPLES = {"settings": '{"level 1": {kaf__levels: [0]}}', "changes": "{width: 8}"}
AXES = {"folds": "fold", "draws": "draw", "seeds": "seed", "m": "m", "methods": "method"}
SINGLE = {"dataset", "scale", "recipe", "protocol"}
# What changes may not name, for it decides more than a field of the experiment, and where it stands instead.
ELSEWHERE = {"scale": "scale", "recipe": "recipe", "seed": "seeds", "dataset": "dataset", "data__dataset": "dataset"}


def _expand_block(block: Mapping[str, Any]) -> Iterable[Job]:
    _check_block(block)
    common = {name: block[name] for name in SINGLE & set(block)}
    axes = {name: block.get(axis, [0]) for axis, name in AXES.items()}
    for setting, changes in block.get("settings", {"": {}}).items():
        changes = as_tuples({**block.get("changes", {}), **(changes or {})})
        for values in itertools.product(*axes.values()):
            given = dict(zip(axes, values, strict=True))
            yield Job(**given, setting=setting, changes=tuple(changes.items()), **common)


def _check_block(block: Mapping[str, Any]) -> None:
    if unknown := set(block) - SINGLE - set(AXES) - {"settings", "changes"}:
        raise ValueError(f"a block has no {', '.join(sorted(map(str, unknown)))}; it has {', '.join(sorted(SINGLE))}, "
                         f"{', '.join(AXES)}, settings, changes")
    for name in SINGLE & set(block):
        if not isinstance(block[name], str):
            raise ValueError(f"{name} of a block is a word, got {block[name]!r}")
    for axis in sorted({"m", "methods"} | set(AXES) & set(block)):
        kind = str if axis == "methods" else int
        if not isinstance(given := block.get(axis), list) or not given or not all(type(one) is kind for one in given):
            words = "methods" if axis == "methods" else "whole numbers"
            raise ValueError(f"a block needs {axis}, a list of {words} such as [{'unet' if kind is str else 2}], got "
                             f"{given!r}")
        least = 1 if axis == "m" else 0
        if kind is int and axis != "folds" and min(given) < least:
            raise ValueError(f"{axis} of a block are numbers from {least} on, got {min(given)}")
    for fold in block.get("folds", [0]):
        check_fold(fold)
    _check_protocol(block.get("protocol", "patient"), block.get("draws", [0]))
    for name in ("settings", "changes"):
        given = block.get(name, {"": {}})
        fits = isinstance(given, dict) and given and (name == "changes" or all(
            isinstance(one, dict | None) for one in given.values()))
        if not fits:
            raise ValueError(f"{name} of a block are names with values, such as {EXAMPLES[name]}; got {given!r}")
    for setting in block.get("settings", {}):
        if not isinstance(setting, str):  # a record reads its settings as text and would not know this one again
            raise ValueError(f"a name of settings is text, but YAML reads {setting!r}: put it in quotes")
    for changes in (block.get("changes", {}), *block.get("settings", {}).values()):
        _check_changes(changes or {})


def _check_protocol(protocol: str, draws: list[int]) -> None:
    check_choice("protocol", protocol, PROTOCOLS)
    if protocol == "external":
        raise ValueError("a grid has one folder for each data set, so no protocol external; python -m kaf.train has it")
    if protocol == "paper" and any(draws):
        raise ValueError(f"the paper has one draw of labelled patients, draw 0, not {max(draws)}")


def _check_changes(changes: Mapping[Any, Any]) -> None:
    """Raises ``ValueError`` for names that no field of an experiment can have; :class:`Job` tells the unknown ones."""
    for name in changes:
        if not isinstance(name, str):
            raise ValueError(f"changes name fields of the experiment, such as {EXAMPLES['changes']}; got {name!r}")
        if name in ELSEWHERE:
            raise ValueError(f"{name} decides more than itself: give it as {ELSEWHERE[name]} of the block, not as a "
                             "change")


def with_sources(jobs: Iterable[Job]) -> list[Job]:
    """Jobs and those that they go on from, each once; a job of the grid keeps the setting that it has there."""
    jobs = list(jobs)
    found = {job.key: job for job in jobs}
    for source in (job.source for job in jobs if job.source):
        found.setdefault(source.key, source)
    return list(found.values())


def find(jobs: Iterable[Job], key: str, what: str) -> Job:
    """The job whose ``key``, ``pretraining_key`` or ``store_key`` (``what``) is ``key``. Raises ``ValueError``."""
    for job in jobs:
        if getattr(job, what) == key:
            return job
    raise ValueError(f"the grid has no job with {what} {key!r}: `snakemake --dry-run` lists those it has. While one "
                     "runs its file must stay as it is")


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(v) for name, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, tuple) else value
