"""Who does something, and why: every change is recorded with both."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or a process; `reason` is what they gave with --reason, or the command itself."""

    name: str
    reason: str


def current(reason: str) -> Actor:
    """The actor of this process: RATEMILL_ACTOR, else the user of the operating system."""
    name = os.environ.get("RATEMILL_ACTOR", "")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a container without a passwd entry
            name = f"uid {os.getuid()}"
    return Actor(name, reason)
