"""What the global options of the command line say, for the command that runs in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.errors import UsageError

if TYPE_CHECKING:
    from storage.home import Home

FORMATS = ("table", "json", "csv", "parquet")


@dataclass
class Options:
    """The global options; they are understood before the noun and after the verb alike."""

    home: str | None = None
    format: str | None = None  # None: a table on a terminal, JSON lines when piped
    debug: bool = False
    words: list[str] = field(default_factory=list)


options = Options()


def extract(arguments: list[str]) -> Options:
    """Take the global options out of the arguments; what remains is `words`. Raises UsageError."""
    found = Options()
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--":
            found.words += [word, *rest]
        elif word == "--json":
            found.format = "json"
        elif word == "--debug":
            found.debug = True
        elif name in ("--home", "-o", "--output"):
            if not equals:
                value = next(rest, "")
            if not value:
                raise UsageError(f"{name} needs a value", "for example --home DIR or -o csv")
            if name == "--home":
                found.home = value
            else:
                found.format = _checked_format(value)
        else:
            found.words.append(word)
    return found


def _checked_format(value: str) -> str:
    if value not in FORMATS:
        raise UsageError(f"-o {value} is not a format", f"the formats are {', '.join(FORMATS)}")
    return value


def home() -> Home:
    """The home that this command works on."""
    from storage.home import open_home

    return open_home(options.home)
