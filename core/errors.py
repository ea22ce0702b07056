"""The exception tree and the shape of a problem in an imported file.

    RatemillError (1)
    ├── UsageError (2)            the command line is wrong
    ├── PartlyDone (3)            some of the work was done; the list says what was not
    ├── Denied (4)                the actor has no right to do this
    ├── NotFound (5)              no such service, invoice, plan …
    ├── Locked (6)                somebody else holds the home or the job; says who
    ├── BalanceOpen (7)           a balance does not close, or a verification differs
    ├── DependencyDown (8)        a database or a peer does not answer
    ├── Interrupted (130)         stopped by the user; the same command goes on
    ├── SettingsError (1)         ratemill.toml is wrong
    ├── ImportRefused (1)         an import has errors; carries all of them
    ├── DamagedFile (1)           a stored file does not match its digest
    └── FlowsForgotten (1)        flows were truncated or deleted as [retention] says

The number is the exit code. A mistake of the programmer is an `assert`; a mistake of the world in bulk (a bad packet,
an unknown address) is a counted row, never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RatemillError(Exception):
    """An operation can't go on. `message` says what and where, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(RatemillError):
    exit_code = 2


class PartlyDone(RatemillError):
    exit_code = 3


class Denied(RatemillError):
    exit_code = 4


class NotFound(RatemillError):
    exit_code = 5


class Locked(RatemillError):
    exit_code = 6


class BalanceOpen(RatemillError):
    exit_code = 7


class DependencyDown(RatemillError):
    exit_code = 8


class Interrupted(RatemillError):
    exit_code = 130


class SettingsError(RatemillError):
    pass


class DamagedFile(RatemillError):
    pass


class FlowsForgotten(RatemillError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file that was to be imported."""

    file: str
    line: int
    column: str
    problem: str
    hint: str = ""


class ImportRefused(RatemillError):
    """Nothing of the file was taken; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an import is refused for a reason"
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{len(problems)} {noun}, nothing was imported", "correct the file and import it again")
        self.problems = tuple(problems)
