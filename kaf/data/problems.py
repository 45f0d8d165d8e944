"""What can be wrong with the files of a data set, said in one way (chapter 0).

A rule is written once, as a call ``report(Problem(...))``. With :func:`stop` as ``report`` the first error is
raised, which is what reading does; with ``problems.append`` all are collected, which is what
:mod:`kaf.data.check` does.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RULES_TO_ALLOW = ("geometry", "size", "spacing")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    file: Path  # or folder
    what: str  # reads on from the name of the file, such as "is empty"
    remedy: str
    kind: type[Exception] = ValueError  # what is raised
    warning: bool = False  # worth a look, but the data can be used

    def __str__(self) -> str:
        return f"{self.file} {self.what}; {self.remedy}"


Report = Callable[[Problem], None]


def stop(problem: Problem) -> None:
    """Raise an error and pass over a warning."""
    if not problem.warning:
        raise problem.kind(str(problem))


def allowed(rule: str) -> bool:
    """Whether ``$KAF_ALLOW``, a list of rules such as ``geometry,size``, turns errors of a rule into warnings.

    Raises ``ValueError`` where it names a rule that there is not.
    """
    names = [name.strip() for name in os.environ.get("KAF_ALLOW", "").split(",") if name.strip()]
    for name in names:
        if name not in RULES_TO_ALLOW:
            raise ValueError(f"KAF_ALLOW names the unknown rule {name!r}; it may hold {', '.join(RULES_TO_ALLOW)}")
    return rule in names
