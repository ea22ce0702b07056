"""`collect status --watch` as it is used: in a terminal until q or Ctrl-C, and piped."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from harness import ROOT, rows, run_cli

PATIENCE_SECONDS = 120


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "ratemill.toml").write_text("")
    return tmp_path


class Terminal:
    """`collect status --watch` in a terminal of 80 columns."""

    def __init__(self, home: Path, term: str = "xterm-256color") -> None:
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self.before = termios.tcgetattr(self.theirs)
        self.said = ""
        command = [sys.executable, "-m", "cli", "--home", str(home), "collect", "status", "--watch", "--interval", "0.2"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs,
                                        env={**os.environ, "TERM": term}, start_new_session=True, preexec_fn=self._own)

    def _own(self) -> None:
        import fcntl

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it as a signal

    def read_until(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.said.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} was not said: {self.said!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self.said += os.read(self.ours, 65536).decode()

    def press(self, key: bytes) -> int:
        """Press a key; the exit code."""
        os.write(self.ours, key)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"{key!r} does not end it"
            if select.select([self.ours], [], [], 0.05)[0]:
                self.said += os.read(self.ours, 65536).decode()
        while select.select([self.ours], [], [], 0.05)[0]:
            self.said += os.read(self.ours, 65536).decode()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"])
def test_a_key_ends_it_and_leaves_the_terminal_as_it_was(home: Path, key: bytes) -> None:
    terminal = Terminal(home)
    try:
        terminal.read_until("no collector has run in this home", times=2)
        assert "\x1b[?1049h" in terminal.said, "a screen of its own"
        assert terminal.press(key) == 0
        assert terminal.said.rindex("\x1b[?1049l") > terminal.said.rindex("\x1b[?1049h"), "and back"
        assert "\x1b[?25h" in terminal.said, "with its cursor"
        assert termios.tcgetattr(terminal.theirs) == terminal.before
        assert "Traceback" not in terminal.said
    finally:
        terminal.close()


def test_other_keys_do_nothing(home: Path) -> None:
    terminal = Terminal(home)
    try:
        terminal.read_until("no collector has run")
        os.write(terminal.ours, b"x\x1b[A \n")
        seen = terminal.said.count("no collector has run")
        terminal.read_until("no collector has run", times=seen + 2)
        assert terminal.press(b"q") == 0
    finally:
        terminal.close()


def test_a_terminal_that_can_not_move_its_cursor_gets_lines(home: Path) -> None:
    terminal = Terminal(home, term="dumb")
    try:
        terminal.read_until("no collector has run", times=3)
        assert "\x1b" not in terminal.said
        assert terminal.press(b"\x03") == 0
    finally:
        terminal.close()


def test_piped_it_writes_lines_or_objects(home: Path) -> None:
    words = ("collect", "status", "--watch", "--interval", "0.2", "--count", "3")
    lines = run_cli(*words, home=home).stdout.splitlines()
    assert len(lines) == 3
    assert all("no collector has run" in line and "\x1b" not in line for line in lines)
    found = rows(run_cli(*words, "--json", home=home))
    assert [one["seconds"] is None for one in found] == [True, False, False]
    assert all(one["collectors"] == [] and one["exporters"] == [] for one in found)
    assert json.dumps(found)
    refused = run_cli(*words, "-o", "csv", home=home, check=2)
    assert "--watch" in refused.stderr
