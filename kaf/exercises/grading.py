"""Checks an exercise step by step and shows the hint of the first step that fails.

How to add an exercise ``NN.name``: write into ``kaf/exercises/chapterNN.py`` ::

    from kaf.exercises.grading import Exercise, step

    def _shape(student):
        return student(torch.zeros(2, 3)).shape == (2, 3)

    def _value(student):
        x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(student(x), kaf_function(x))
        return True

    EXERCISES = {
        "NN.name": Exercise(stars=2, steps=(
            step("shape", "The output has one row per keypoint.", _shape),
            step("value", "Divide by the stride before rounding.", _value),
        )),
    }

and call ``grade("NN.name", name)`` in the chapter. The function of a step gets what the reader wrote and
returns True where it is right; False or any exception fails it, and the message of the exception is shown.
Expected values come from ``kaf`` or a closed form, never from the solution. Steps go from coarse to fine:
shape, value, gradient, invariance.
"""

import difflib
import dis
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

WIDTH = 88  # characters of a line, so that no page scrolls sideways
MESSAGE_LINES = 6  # of an exception


class Step(NamedTuple):
    """One thing that must hold: ``check(student)`` is True, or ``hint`` is shown."""

    name: str
    hint: str
    check: Callable[[Any], bool]


def step(name: str, hint: str, check: Callable[[Any], bool]) -> Step:
    """A step of an exercise. Raises ``ValueError`` without a name or a hint."""
    if not name or not hint:
        raise ValueError(f"a step needs a name and a hint, got {name!r} and {hint!r}")
    return Step(name, hint, check)


@dataclass(frozen=True)
class Exercise:
    """What ``grade`` checks: ``stars`` 1 (a minute) to 3 (think), and the ``steps`` in their order."""

    stars: int
    steps: tuple[Step, ...]

    def __post_init__(self):
        names = [s.name for s in self.steps]
        if self.stars not in (1, 2, 3) or not names or len(set(names)) < len(names):
            raise ValueError("an exercise has 1 to 3 stars and steps with different names, "
                             f"got {self.stars} and {names}")


@dataclass(frozen=True, repr=False)
class Grade:
    """What came out: names of the steps ``done`` and the one that ``failed`` (None: all passed)."""

    key: str
    done: tuple[str, ...]
    failed: str | None
    started: bool = True

    @property
    def passed(self) -> bool:
        return self.failed is None

    def __repr__(self) -> str:
        return f"<{self.key}: {'passed' if self.passed else 'not passed'}>"

    def _ipython_display_(self) -> None:
        """Nothing: ``grade`` has printed already, also where it is the last line of a cell."""


def grade(key: str, student: Any) -> Grade:
    """Check what the reader wrote for exercise ``key`` (``"02.gather"``) and print a line per step.

    Stops at the first step that fails and shows its hint. What is still the stub counts as not started: a function
    without code of its own or that raises an empty ``NotImplementedError``, or a value that is None or ``...``. One
    that has code and returned None whenever called fails, and is asked for its ``return``.
    Nothing that the student's code does raises here, and the random numbers of torch and NumPy are left as they were.
    Raises ``ValueError`` for a key that does not exist.
    """
    exercise = find(key)
    print(f"{key} {'★' * exercise.stars}")
    watched = _Watched(student) if inspect.isroutine(student) else student
    done: list[str] = []
    for name, hint, check in exercise.steps:
        right, message = _run(check, watched)
        if not done and _untouched(watched):
            print("not started")
            _show("hint", hint)
            return Grade(key, (), name, started=False)
        if isinstance(watched, _Watched) and watched.mute:
            right, message = False, "the function returned None: is a `return` missing?"
        print(f"{'✓' if right else '✗'} {name}")
        if not right:
            if message:
                _show("message", message, MESSAGE_LINES)
            _show("hint", hint)
            return Grade(key, tuple(done), name)
        done.append(name)
    print("passed: every step" if len(done) > 1 else "passed")
    return Grade(key, tuple(done), None)


def find(key: str) -> Exercise:
    """The exercise ``key`` of ``kaf/exercises/chapterNN.py``. Raises ``ValueError`` with the closest key."""
    chapter = f"chapter{key.partition('.')[0]}"
    exercises = _exercises(chapter) if chapter in _chapters() else {}
    if key in exercises:
        return exercises[key]
    known = list(exercises) or [k for name in _chapters() for k in _exercises(name)]
    close = difflib.get_close_matches(key, known, 1, 0.4)
    advice = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
    raise ValueError(f"there is no exercise {key!r}; {advice}")


def _chapters() -> list[str]:
    """Names of the modules with exercises: chapter00, chapter01, ..."""
    package = importlib.import_module("kaf.exercises")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("chapter"))


def _exercises(chapter: str) -> dict[str, Exercise]:
    return importlib.import_module(f"kaf.exercises.{chapter}").EXERCISES


class _Watched:
    """The student's function, which remembers whether it has ever returned anything."""

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self.calls, self.none, self.refused = 0, 0, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        try:
            result = self.__wrapped__(*args, **kwargs)
        except NotImplementedError as error:
            self.refused += not error.args  # torch raises this too, with a message, for what it cannot do
            raise
        self.none += result is None
        return result

    @property
    def mute(self) -> bool:
        """Whether it was called and returned None every time."""
        return self.calls == self.none > 0


def _does_nothing(function: Callable) -> bool:
    """Whether a function has no code of its own; True for one whose code cannot be seen.

    What remains of a docstring, of ``...`` and of ``pass`` returns a constant, in one instruction or two.
    """
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        return True
    work = [i.opname for i in dis.get_instructions(function.__code__) if i.opname not in ("RESUME", "NOP")]
    return work in (["LOAD_CONST", "RETURN_VALUE"], ["RETURN_CONST"])


def _untouched(student: Any) -> bool:
    """Whether this is still the stub: None, ``...``, or a function that gave nothing and that does nothing."""
    if isinstance(student, _Watched):
        gave_nothing = student.calls == student.none + student.refused > 0
        return gave_nothing and (not student.none or _does_nothing(student.__wrapped__))
    return student is None or student is ...


def _run(check: Callable[[Any], bool], student: Any) -> tuple[bool, str]:
    """Whether a check holds, always with the same random numbers, and the message of its exception if any."""
    state = np.random.get_state()  # noqa: NPY002  the global generator is what a student may draw from
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002
            return bool(check(student)), ""
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _show(label: str, text: str, limit: int | None = None) -> None:
    """Print an indented text, at most ``limit`` lines, without addresses: they differ between runs."""
    lines = [line.strip() for line in re.sub(r" at 0x[0-9a-f]+", "", text).splitlines() if line.strip()]
    wrapped = [part for i, line in enumerate(lines)
               for part in textwrap.wrap(line, WIDTH, initial_indent="    " if i else f"  {label}: ",
                                         subsequent_indent="    ")]
    print("\n".join([*wrapped[:limit], *(["    ..."] if wrapped[limit or len(wrapped):] else [])]))
