"""The grader: what it prints for right, wrong, broken and untouched answers, and that it never raises."""

import contextlib
import io
import random
import sys
import types

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from kaf.exercises import Exercise, grade, grading, step


def _value(student):
    torch.testing.assert_close(student(torch.tensor([1.0, 2.0])), torch.tensor([2.0, 4.0]))
    return True


DOUBLE = Exercise(1, (
    step("shape", "Keep the shape.", lambda student: student(torch.zeros(3)).shape == (3,)),
    step("value", "Multiply by two.", _value),
    step("gradient", "Do not detach.", lambda student: student(torch.ones(1, requires_grad=True)).requires_grad),
))  # fmt: skip
NUMBER = Exercise(2, (step("value", "Count again.", lambda student: student == 9),))


@pytest.fixture(autouse=True)
def _chapter(monkeypatch):
    """A chapter 99 with two exercises that stands nowhere on the disk."""
    module = types.ModuleType("kaf.exercises.chapter99")
    module.EXERCISES = {"99.double": DOUBLE, "99.number": NUMBER}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(grading, "_chapters", lambda: ["chapter99"])


def graded(key, student):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        result = grade(key, student)
    return result, out.getvalue()


def test_right_answer_passes_every_step():
    result, text = graded("99.double", lambda x: 2 * x)
    assert result.passed and result.done == ("shape", "value", "gradient")
    assert text == "99.double ★\n✓ shape\n✓ value\n✓ gradient\npassed: every step\n"


def test_stops_at_the_first_failing_step_with_its_hint_only():
    result, text = graded("99.double", lambda x: 2 * x.detach())
    assert not result.passed and result.failed == "gradient" and result.done == ("shape", "value")
    assert text == "99.double ★\n✓ shape\n✓ value\n✗ gradient\n  hint: Do not detach.\n"
    result, text = graded("99.double", lambda x: x[:1])
    assert result.failed == "shape" and "value" not in text and "Multiply" not in text


def test_message_of_an_exception_is_shown_without_addresses_and_in_few_lines():
    def student(x):
        raise KeyError(f"{object()}\n" * 50)

    result, text = graded("99.double", student)
    assert not result.passed and result.started and "KeyError" in text and "0x" not in text
    assert len(text.splitlines()) == 10
    assert text.splitlines()[-2] == "    ..."
    assert all(len(line) <= grading.WIDTH for line in text.splitlines())


def test_failed_comparison_says_what_differs():
    _, text = graded("99.double", lambda x: 3 * x)
    assert "not close" in text and "Mismatched elements: 2 / 2" in text
    assert text.endswith("  hint: Multiply by two.\n")


def stub(x):
    """Twice x, same shape."""
    ...  # noqa: PIE790 (as the chapters write it)


def passing(x):
    pass


def bare(x):
    """Twice x."""


def empty(x):
    raise NotImplementedError


def planned(x):
    size = len(x)
    raise NotImplementedError(*[] * size)


@pytest.mark.parametrize("student", [stub, passing, bare, empty, planned, [].append])
def test_untouched_stub_is_not_started_and_shows_the_first_hint(student):
    result, text = graded("99.double", student)
    assert not result.passed and not result.started
    assert text == "99.double ★\nnot started\n  hint: Keep the shape.\n"


def without_return(x):
    2 * x


@pytest.mark.parametrize("student", [without_return, lambda x: 2 * x if len(x) > 5 else None])
def test_a_function_without_a_return_is_started_and_told_so(student):
    result, text = graded("99.double", student)
    assert result.started and result.failed == "shape"
    assert text == ("99.double ★\n✗ shape\n  message: the function returned None: is a `return` missing?\n"
                    "  hint: Keep the shape.\n")


def test_a_return_that_is_missing_in_some_calls_only_shows_what_was_found():
    result, text = graded("99.double", lambda x: 2 * x if len(x) == 3 else None)
    assert result.done == ("shape",) and result.failed == "value" and "is a `return` missing" not in text


@pytest.mark.parametrize("student", [None, ...])
def test_untouched_value_is_not_started(student):
    assert "not started" in graded("99.number", student)[1]


def test_stub_does_not_pass_a_careless_check():
    careless = Exercise(1, (step("any", "Write something.", lambda student: student(1) or True),))
    sys.modules["kaf.exercises.chapter99"].EXERCISES["99.careless"] = careless
    assert not graded("99.careless", stub)[0].passed and not graded("99.careless", lambda x: print(end=""))[0].passed


def test_what_torch_cannot_do_is_an_error_and_not_a_stub():
    def student(x):
        raise NotImplementedError('"op" not implemented for Long')

    result, text = graded("99.double", student)
    assert result.started and "not implemented for Long" in text


def test_values_and_classes_can_be_answers():
    assert graded("99.number", 9)[0].passed
    assert not graded("99.number", 8)[0].passed
    assert not graded("99.double", "no function")[0].passed


def test_check_that_forgets_to_return_fails():
    sys.modules["kaf.exercises.chapter99"].EXERCISES["99.mute"] = Exercise(1, (step("a", "b", lambda s: None),))
    assert not graded("99.mute", 3)[0].passed


def test_random_answers_are_graded_alike_and_leave_the_generator_alone():
    torch.manual_seed(random.randrange(1000))
    state = torch.get_rng_state()
    texts = {graded("99.double", lambda x: torch.rand(3) * len(x))[1] for _ in range(3)}
    assert len(texts) == 1 and torch.equal(torch.get_rng_state(), state)


def test_random_answers_of_numpy_are_graded_alike_and_leave_the_generator_alone():
    np.random.seed(random.randrange(1000))  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    texts = {graded("99.double", lambda x: torch.from_numpy(np.random.rand(3)) * len(x))[1]  # noqa: NPY002
             for _ in range(3)}
    assert len(texts) == 1 and np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.parametrize(("key", "near"), [("99.duble", "'99.double'"), ("99.zzzzzzzzzz", "99.double, 99.number"),
                                           ("98.double", "'99.double'"), ("", "99.double, 99.number")])
def test_unknown_key_names_a_near_one(key, near):
    with pytest.raises(ValueError, match=near):
        grade(key, stub)


def test_last_line_of_a_cell_shows_nothing_but_what_was_printed():
    result, _ = graded("99.number", 9)
    assert InteractiveShell.instance().display_formatter.format(result) == ({}, {})
    assert repr(graded("99.number", 8)[0]) == "<99.number: not passed>"


@pytest.mark.parametrize("wrong", [dict(stars=4, steps=DOUBLE.steps), dict(stars=1, steps=()),
                                   dict(stars=1, steps=(*DOUBLE.steps, DOUBLE.steps[0]))])
def test_exercise_refuses_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match="stars"):
        Exercise(**wrong)


def test_step_needs_a_hint():
    with pytest.raises(ValueError, match="hint"):
        step("value", "", bool)


def test_a_stub_under_a_decorator_is_a_stub_still():
    text = graded("99.double", torch.no_grad()(stub))[1]
    assert "not started" in text
