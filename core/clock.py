"""The one clock. Everything that needs "now" asks here, so that a simulation can drive the real code.

Instants are whole UTC milliseconds since 1970-01-01T00:00Z.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the product needs of time."""

    def now_ms(self) -> int: ...

    def monotonic_ns(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SimulatedClock:
    """A clock that moves only when it is told to, or when somebody sleeps."""

    def __init__(self, now_ms: int) -> None:
        self._now_ns = now_ms * 1_000_000

    def now_ms(self) -> int:
        return self._now_ns // 1_000_000

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        self.advance_ms(int(seconds * 1000))

    def advance_ms(self, milliseconds: int) -> None:
        assert milliseconds >= 0, "time does not run backwards"
        self._now_ns += milliseconds * 1_000_000


_clock: Clock = SystemClock()


def use(clock: Clock) -> Clock:
    """Put another clock in place; returns the one that was there, to be put back."""
    global _clock
    before, _clock = _clock, clock
    return before


def now_ms() -> int:
    return _clock.now_ms()


def monotonic_ns() -> int:
    return _clock.monotonic_ns()


def sleep(seconds: float) -> None:
    _clock.sleep(seconds)
