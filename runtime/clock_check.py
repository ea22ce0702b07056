"""Whether the machine's clock is kept by NTP: the kernel says so (adjtimex(2)), whichever program disciplines it.

Arrival times decide whose an address was and which tariff holds. A clock that nobody keeps drifts by seconds a day.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from runtime import log

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


class _Timex(ctypes.Structure):
    """struct timex of Linux; only what is read has a name of its own."""

    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
                ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_byte * 160))


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel knows of its clock."""

    synchronised: bool
    error_us_max: int
    """The most that it may be off, by the kernel's own account; it grows while nothing disciplines it."""


def clock_state() -> ClockState | None:
    """None where the kernel does not tell (no Linux, or a sandbox that forbids to ask)."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    told = _Timex()
    code = int(ask(ctypes.byref(told)))
    if code < 0:
        return None
    return ClockState(code != _TIME_ERROR and not told.status & _STA_UNSYNC, int(told.maxerror))


def warn_if_unsynchronised(source: str) -> None:
    """One line in the log of a process that stamps what it receives."""
    state = clock_state()
    if state is not None and not state.synchronised:
        log.warning(source, "the clock of this machine is not synchronised: times of arrival may be wrong",
                    hint="run an NTP client (chrony, systemd-timesyncd, ntpd)")
