"""The one source of randomness: names of temporary files, jitter, seeds. A simulation seeds it."""

from __future__ import annotations

import random
import secrets
from typing import Protocol


class Source(Protocol):
    def token(self, size: int) -> str: ...

    def integer(self, below: int) -> int: ...


class SystemSource:
    def token(self, size: int) -> str:
        return secrets.token_hex(size)

    def integer(self, below: int) -> int:
        return secrets.randbelow(below)


class SeededSource:
    """The same numbers for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> str:
        return self._random.randbytes(size).hex()

    def integer(self, below: int) -> int:
        return self._random.randrange(below)


_source: Source = SystemSource()


def use(source: Source) -> Source:
    """Put another source in place; returns the one that was there."""
    global _source
    before, _source = _source, source
    return before


def token(size: int = 8) -> str:
    """`size` random bytes as hexadecimal text."""
    return _source.token(size)


def integer(below: int) -> int:
    """A random whole number from 0 to `below` - 1."""
    return _source.integer(below)
