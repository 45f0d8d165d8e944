"""Named grids of experiments: from a few lines of ``grids.yaml`` to single jobs.

A grid is a list of blocks. Each block is the product of its methods, settings, numbers ``m`` of labelled patients,
draws, folds and seeds; blocks stand in the order in which they are to be run.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from kaf.choices import check_choice
from kaf.config import Experiment, as_tuples, digest, resolve
from kaf.finetune import get_method
from kaf.protocols import PROTOCOLS, check_fold
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
    """The grids of a file by name. Raises ``ValueError`` for a file without any, ``FileNotFoundError`` without one."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}; give one with grids, as workflow/grids.yaml has them")
    try:
        found = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(g, dict) and "runs" in g for g in found.values()):
        raise ValueError(f"{file} is no file of grids: each needs a name and a list of blocks named runs")
    for name, grid in found.items():
        if not isinstance(blocks := grid["runs"], list) or not all(isinstance(block, dict) for block in blocks):
            raise ValueError(f"runs of the grid {name} in {file} are a list of blocks, each beginning with a dash; got "
                             f"{blocks!r}")
    return found


def get_grid(name: str, file: str | Path = FILE) -> dict[str, Any]:
    """A grid of a file. Raises ``ValueError`` for an unknown one."""
    grids = load_grids(file)
    check_choice("grid", name, grids)
    return grids[name]


def expand(grid: Mapping[str, Any]) -> list[Job]:
    """The jobs of a grid, each once, in the order of its blocks.

    Raises ``ValueError`` for an unknown key, method, protocol, fold or field of the experiment, for values of another
    kind than a block has, and where two settings are the same experiment.
    """
    jobs: dict[str, Job] = {}
    for block in grid["runs"]:
        for job in _expand_block(block):
            other = jobs.setdefault(job.key, job)
            if other.setting != job.setting:
                raise ValueError(f"settings {other.setting!r} and {job.setting!r} are the same experiment: {job.key}")
    return list(jobs.values())


EXAMPLES = {"settings": '{"level 1": {kaf__levels: [0]}}', "changes": "{width: 8}"}
AXES = {"folds": "fold", "draws": "draw", "seeds": "seed", "m": "m", "methods": "method"}


def _expand_block(block: Mapping[str, Any]) -> Iterable[Job]:
    single = {"dataset", "scale", "recipe", "protocol"}
    if unknown := set(block) - single - set(AXES) - {"settings", "changes"}:
        raise ValueError(f"a block has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(single))}, "
                         f"{', '.join(AXES)}, settings, changes")
    for name in single & set(block):
        if not isinstance(block[name], str):
            raise ValueError(f"{name} of a block is a word, got {block[name]!r}")
    for axis in sorted({"m", "methods"} | set(AXES) & set(block)):
        kind = str if axis == "methods" else int
        if not isinstance(given := block.get(axis), list) or not given or not all(type(one) is kind for one in given):
            words = "methods" if axis == "methods" else "whole numbers"
            raise ValueError(f"a block needs {axis}, a list of {words} such as [{'unet' if kind is str else 2}], got "
                             f"{given!r}")
    for name in ("settings", "changes"):
        given = block.get(name, {"": {}})
        fits = isinstance(given, dict) and given and (name == "changes" or all(
            isinstance(one, dict | None) for one in given.values()))
        if not fits:
            raise ValueError(f"{name} of a block are names with values, such as {EXAMPLES[name]}; got {given!r}")
    for fold in block.get("folds", [0]):
        check_fold(fold)
    common = {name: block[name] for name in single & set(block)}
    check_choice("protocol", common.get("protocol", "patient"), PROTOCOLS)
    if common.get("protocol") == "external":
        raise ValueError("a grid has one folder for each data set, so no protocol external; python -m kaf.train has it")
    axes = {name: block.get(axis, [0]) for axis, name in AXES.items()}
    for setting, changes in block.get("settings", {"": {}}).items():
        changes = as_tuples({**block.get("changes", {}), **(changes or {})})
        for values in itertools.product(*axes.values()):
            given = dict(zip(axes, values, strict=True))
            yield Job(**given, setting=setting, changes=tuple(changes.items()), **common)


def with_sources(jobs: Iterable[Job]) -> list[Job]:
    """Jobs and those that they go on from, each once."""
    jobs = list(jobs)
    return list({job.key: job for job in [*jobs, *(job.source for job in jobs if job.source)]}.values())


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
