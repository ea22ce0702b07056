"""What the kernel says of its clock."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from runtime import clock_check
from runtime.clock_check import ClockState, clock_state, warn_if_unsynchronised


class Kernel:
    """libc with an adjtimex that tells what it was given."""

    def __init__(self, code: int, status: int = 0, error: int = 0) -> None:
        self.told = code, status, error

    def adjtimex(self, pointer: Any) -> int:
        code, status, error = self.told
        told = ctypes.cast(pointer, ctypes.POINTER(clock_check._Timex)).contents
        assert told.modes == 0, "it only asks"
        told.status, told.maxerror = status, error
        return code


@pytest.mark.parametrize(("kernel", "expected"), [
    (Kernel(0, 0x2001, 1500), ClockState(True, 1500)), (Kernel(5, 0x40, 16_000_000), ClockState(False, 16_000_000)),
    (Kernel(0, 0x40, 7), ClockState(False, 7)), (Kernel(1, 0x11, 7), ClockState(True, 7)), (Kernel(-1), None),
    (object(), None)])
def test_what_the_kernel_tells(kernel: object, expected: ClockState | None, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    assert clock_state() == expected
    warn_if_unsynchronised("collector")
    assert ("not synchronised" in capsys.readouterr().err) == (expected is not None and not expected.synchronised)


def test_the_real_kernel_answers() -> None:
    state = clock_state()
    assert state is None or state.error_us_max >= 0
    assert ctypes.sizeof(clock_check._Timex) >= 208, "at least as large as struct timex, or the kernel writes behind it"
