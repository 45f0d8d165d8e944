"""Configurations as data: changed by the names of their fields, as plain values, fingerprinted."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

LATER = {"later": True}  # metadata of a field, see plain
AFTER = {"later": True, "after": True}  # that of one which decides only how a trained network is used


def change(part: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a dataclass with some fields replaced; ``part__name=value`` reaches into a part.

    A part may be given by the name of a preset and some of its fields be changed beside that, in any order.
    Raises ``ValueError`` for an unknown field, naming the one probably meant.
    """
    flat, nested, fields = {}, {}, getattr(part, "__dataclass_fields__", ())
    for name, value in changes.items():
        head, _, rest = name.partition("__")
        if head not in fields:
            close = get_close_matches(head, fields, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(fields) or 'none'}"
            raise ValueError(f"{type(part).__name__} has no field {head!r}{hint}")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            flat[head] = value
    for head, inner in nested.items():
        before = flat.get(head, getattr(part, head))
        if head in flat and not is_dataclass(before):  # the name of a preset, which only the part itself can look up
            before = getattr(replace(part, **{head: before}), head)
        flat[head] = change(before, inner)
    return replace(part, **flat)


def plain(config: Any) -> Any:
    """A configuration as dictionaries and plain values: what run folders keep and fingerprints are taken of.

    A field whose metadata call it ``later`` came into a configuration when there were runs already. It is left out
    where it has its default, so that those runs are found again.
    """
    if isinstance(config, np.generic):  # which JSON does not know
        return config.item()
    if isinstance(config, tuple):
        return tuple(map(plain, config))
    if not is_dataclass(config):
        return config
    return {f.name: plain(getattr(config, f.name)) for f in fields(config)
            if not (f.metadata.get("later") and getattr(config, f.name) == f.default)}


def digest(*parts: Any) -> str:
    """A short fingerprint of configurations and plain values."""
    return hashlib.sha256(json.dumps([plain(p) for p in parts], sort_keys=True).encode()).hexdigest()[:8]


def differences(*configs: Mapping[str, Any]) -> list[str]:
    """The names of the fields in which configurations, as :func:`plain` gives them, are not all the same.

    Parts are written with dots, such as ``pretrain.optim.steps``. A field that only some have differs, too.
    """
    flat = [dict(_flat(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    missing = object()
    return [name for name in names if any(one.get(name, missing) != flat[0].get(name, missing) for one in flat)]


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
