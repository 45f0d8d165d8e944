"""Values to choose from: what is no name of a list, or of no type that a field declares, is refused in one way."""

import math
from collections.abc import Collection
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def check_choice(what: str, value: Any, allowed: Collection[str]) -> None:
    """Raises ``ValueError`` unless ``value`` is one of ``allowed``, naming all of them and the one probably meant."""
    if value not in allowed:
        names = {str(name).lower(): name for name in allowed}  # a table writes UNet for unet
        close = get_close_matches(str(value).lower(), list(names), 1)
        hint = f"; did you mean {names[close[0]]!r}?" if close else ""
        raise ValueError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}{hint}")


def check_multiple(what: str, value: int, of: str, divisor: int) -> None:
    """Raises ``ValueError`` unless ``value`` is a multiple of ``divisor``."""
    if value % divisor:
        raise ValueError(f"{what} {value} must be a multiple of {of} {divisor}")


def check_types(config: Any) -> None:
    """Raises ``ValueError`` for the first field of a dataclass that holds something of another type than it declares.

    Whole numbers pass for numbers, those of NumPy too; None passes for a part, which was left out.
    """
    kind = type(config)
    for name, hint in _hints(kind).items():
        value = getattr(config, name)
        if not _fits(value, hint):
            raise ValueError(f"{kind.__name__} has {name} = {value!r}; it must be {_said(hint)}")


def settle_types(config: Any) -> None:
    """:func:`check_types`, after which whole numbers are floats where a field declares these, in tuples too.

    So 2 and 2.0 are one configuration with one fingerprint. For ``__post_init__`` of a frozen dataclass.
    """
    check_types(config)
    for name, hint in _hints(type(config)).items():
        object.__setattr__(config, name, _settled(getattr(config, name), hint))


def _settled(value: Any, hint: Any) -> Any:
    """A value that :func:`_fits` a type, written as this declares."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _settled(value, next(one for one in inner if _fits(value, one)))
    if origin is tuple:
        return tuple(map(_settled, value, inner[:1] * len(value) if inner[-1] is Ellipsis else inner))
    return float(value) if hint is float else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field declares; a part that was left out is None."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) or (is_dataclass(hint) and value is None)


def _said(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", type(None): "None"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_said, inner))
    if origin is tuple:
        many = inner[-1] is Ellipsis
        return f"a tuple ({f'entries of {_said(inner[0])}' if many else ', '.join(map(_said, inner))})"
    return words.get(hint, getattr(hint, "__name__", str(hint)))
