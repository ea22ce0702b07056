"""The process that decodes a group: takes the group's lock, decodes what the members' journals hold, commits in time.

Each member's `collect run` tries to be it, and takes over when the one before has ended, however it ended; `collect decode`
is it without receiving. Writes `run/group-NAME.json`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

from collector.disk import DecodePause
from collector.group import GroupWorker
from collector.settings import Collector, Group, of_home
from core import clock
from core.errors import Locked, RatemillError
from core.periods import format_instant
from runtime import log
from runtime.jobs import process_started
from runtime.locks import only_one
from storage import files
from storage.home import Home

IDLE_SECONDS = 0.05
TROUBLE_SECONDS = 5
"""Pause before decoding is tried again after the disk or the database refused."""
PATIENCE_SECONDS = 30
STATUS_NS = 1_000_000_000


class GroupDecoding:
    """Decodes for a group whenever nobody else does."""

    def __init__(self, home: Home, group: Group, settings: Collector, pause: DecodePause) -> None:
        self._home, self._group, self._settings, self._pause = home, group, settings, pause
        self._lock = ExitStack()
        self._holds_lock = False
        self._worker: GroupWorker | None = None
        self._retry_ns = self._looked_ns = self._written_ns = 0
        self._committed_ns = clock.monotonic_ns()
        self._trouble = ""

    @property
    def decodes(self) -> bool:
        """Whether this process is the one."""
        return self._holds_lock

    @property
    def trouble(self) -> str:
        return self._trouble or self._pause.trouble

    def step(self) -> int:
        """Decode what is there for a moment; commit when it is time. Returns how many bodies were decoded."""
        now = clock.monotonic_ns()
        if now - self._looked_ns >= STATUS_NS:
            self._looked_ns = now
            if self._pause.look():
                self.commit()
        if self._pause.trouble:
            return 0
        if self._worker is None and now >= self._retry_ns:
            self._begin()
        count = 0
        if self._worker is not None:
            try:
                count = self._worker.pump(16)
            except RatemillError as error:
                self._give_up_for_now(error)
        if now - self._committed_ns >= self._settings.segment_seconds * 1_000_000_000:
            self.commit()
        if self._worker is not None and now - self._written_ns >= STATUS_NS:
            self._write_status("running")
        return count

    def _begin(self, patience_seconds: float = 0.0) -> None:
        try:
            if not self._holds_lock:
                name = self._group.name
                self._lock.enter_context(only_one(self._home, f"decoder-{name}", f"decoding the group '{name}'",
                                                  patience_seconds=patience_seconds))
                self._holds_lock = True
                log.info("decoder", "decodes for the group", group=self._group.name)
            self._worker = GroupWorker(self._home, self._group)
            self._trouble = ""
        except Locked:
            self._retry_ns = clock.monotonic_ns() + STATUS_NS  # another process decodes: as it should
        except RatemillError as error:
            self._give_up_for_now(error)

    def commit(self) -> None:
        self._committed_ns = clock.monotonic_ns()
        if self._worker is None:
            return
        try:
            self._worker.commit()
        except RatemillError as error:
            self._give_up_for_now(error)

    def _give_up_for_now(self, error: RatemillError) -> None:
        """What is not committed is decoded again from the journals, later, by whoever is first."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._release()
        if error.message != self._trouble:
            log.error("decoder", error.message, hint=error.hint, again_in_seconds=TROUBLE_SECONDS)
        self._trouble = error.message
        self._retry_ns = clock.monotonic_ns() + TROUBLE_SECONDS * 1_000_000_000

    def _release(self) -> None:
        self._lock.close()
        self._lock, self._holds_lock = ExitStack(), False

    def finish(self, stopped: str = "") -> None:
        """Decode the rest and let go. While another member still receives, what waits for it is left to it; `stopped` is the
        member whose receiver this process has ended."""
        if not self._others_receive(stopped):
            if self._worker is None and not self.trouble:
                self._begin(PATIENCE_SECONDS)  # whoever decoded until now is about to end
            if self._worker is not None:
                self._worker.finish_without_waiting()
        while self.step():
            pass
        self.commit()
        if self._worker is not None:
            self._write_status("stopped")
            self._worker.close()
            self._worker = None
        self._release()

    def _others_receive(self, stopped: str) -> bool:
        for name in self._group.members:
            if name == stopped:
                continue
            try:
                with only_one(self._home, f"receiver-{name}", f"receiving as '{name}'"):
                    pass
            except Locked:
                return True
        return False

    def _write_status(self, state: str) -> None:
        assert self._worker is not None, "a worker has figures"
        self._written_ns = clock.monotonic_ns()
        status = {"group": self._group.name, "state": state, "pid": os.getpid(), "pid_started": process_started(os.getpid()),
                  "host": socket.gethostname(), "members": self._worker.figures(), "trouble": self.trouble,
                  "at": format_instant(clock.now_ms())}
        try:
            files.write_whole(_path(self._home, self._group.name), json.dumps(status, indent=1).encode())
        except RatemillError as error:
            log.warning("decoder", error.message)


def _path(home: Home, group: str) -> Path:
    return home.folder("run") / f"group-{group}.json"


def run(home: Home, name: str) -> int:
    """Decode a group until SIGTERM or SIGINT, without receiving. Returns the exit code. Raises UsageError, Locked."""
    from collector import counters
    from collector.service import warm_up
    from core.errors import UsageError

    settings = of_home(home)
    group = next((group for group in settings.groups if group.name == name), None)
    if group is None:
        names = ", ".join(group.name for group in settings.groups) or "none"
        raise UsageError(f"there is no group '{name}'", f"ratemill.toml has [[collector_group]] for: {names}")
    with only_one(home, f"decode-{name}", f"`collect decode {name}`"):
        warm_up(settings)
        pause = DecodePause(home.folder("segments"), home.document, counters.open_counters(home, group.members[0]))
        decoding = GroupDecoding(home, group, settings.collector, pause)
        stopping = []
        before = [signal.signal(number, lambda *_: stopping.append(True)) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            while not stopping:
                if not decoding.step():
                    clock.sleep(IDLE_SECONDS)
            decoding.finish()
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
                signal.signal(number, handler)
    return 1 if decoding.trouble else 0
