"""The receivers that are compared: the counting loop, ours (the receiver alone, and all of it), nfcapd and nfacctd."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import loops, processes
from collector import counters
from storage.home import Home

BUFFER = 32 << 20
"""Octets of receive buffer for everyone; the kernel counts twice as much."""


class Receiver:
    """A process that receives at a port of 127.0.0.1, on the receivers' core, and writes into a folder."""

    name = ""

    def __init__(self, work: Path, buffer: int = BUFFER) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self.process, self.port = self._start()
        try:
            self.socket = processes.wait_for(f"{self.name} listening",
                                             lambda: processes.socket_of(self.process.pid, self.port))  # fmt: skip
            self.granted = processes.set_buffer(self.socket, buffer)
            self._drops_before = processes.drops_and_queue(self.socket)[0]
        except BaseException:
            processes.end(self.process)
            raise

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        raise NotImplementedError

    def pids(self) -> list[int]:
        return processes.tree(self.process.pid)

    def drops(self) -> int:
        """Datagrams dropped by the kernel at its socket."""
        return processes.drops_and_queue(self.socket)[0] - self._drops_before

    def is_done(self) -> bool:
        """Whether all that was sent has been taken from the socket, as far as it can be seen from outside."""
        return processes.drops_and_queue(self.socket)[1] == 0

    def cpu(self) -> float:
        return processes.cpu_seconds(self.pids())

    def memory(self) -> int:
        return processes.high_water(self.pids())

    def stop(self) -> None:
        self.socket.close()
        processes.end(self.process, patience=90)

    def flows(self) -> int:
        """Flows on disk, after `stop`."""
        raise NotImplementedError

    def octets_of_flows(self) -> int:
        raise NotImplementedError


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Counter(Receiver):
    """recvmmsg, and nothing else."""

    name = "bare recvmmsg loop"

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        self._counts = self.work / "counts.bin"
        started = processes.start(processes.module("benchmarks.counter", processes.RECEIVER_CORE, self._counts),
                                  processes.RECEIVER_CORE, stdout=subprocess.PIPE)  # fmt: skip
        assert started.stdout is not None, "it is a pipe"
        return started, int(started.stdout.readline())

    def received(self) -> int:
        return int(np.fromfile(self._counts, np.int64)[loops.DATAGRAMS])


class _Ours(Receiver):
    home: Home

    def settings(self) -> str:
        return f"[collector]\nsocket_buffer = {BUFFER}\n"

    def _home(self) -> Home:
        home = Home(self.work / "home")
        home.path.mkdir(parents=True, exist_ok=True)
        (home.path / "ratemill.toml").write_text(self.settings())
        home.create()
        return home

    def received(self) -> int:
        return counters.figures(self.home, "main").received

    def durable(self) -> int:
        return counters.figures(self.home, "main").durable


class OurReceiver(_Ours):
    """The receiver's process alone: from the socket to the journal, synced."""

    name = "ratemill, receiver"

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        self.home = self._home()
        command = processes.module("cli", "--home", self.home.path, "collect", "receive", "--listen", "127.0.0.1:0",
                                   "--collector", "main")  # fmt: skip
        started = processes.start(command, processes.RECEIVER_CORE, stdout=subprocess.PIPE)
        assert started.stdout is not None, "it is a pipe"
        told = started.stdout.readline()
        if not told:
            raise RuntimeError("our receiver did not start")
        return started, int(json.loads(told)["listeners"][0]["address"].rpartition(":")[2])

    def is_done(self) -> bool:
        return super().is_done() and self.durable() == self.received()


class Ours(_Ours):
    """`collect run`: receiver, journal, decoder, segments, SQL."""

    name = "ratemill"

    def __init__(self, work: Path, compression: str = "none", segment_seconds: int = 10) -> None:
        self._compression, self._segment_seconds = compression, segment_seconds
        super().__init__(work)

    def settings(self) -> str:
        return (f"{super().settings()}compression = \"{self._compression}\"\nsegment_seconds = {self._segment_seconds}\n"
                "[time]\nskew_seconds_max = 0\n")  # fmt: skip

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        self.home = self._home()
        command = processes.module("cli", "--home", self.home.path, "collect", "run", "--listen", "127.0.0.1:0")
        started = processes.start(command, processes.RECEIVER_CORE)
        path = self.home.folder("run") / "collector-main.json"

        def listening() -> int | None:
            if started.poll() is not None:
                raise RuntimeError("our collector did not start")
            told = json.loads(path.read_text()) if path.exists() else {}
            return int(told["listeners"][0]["address"].rpartition(":")[2]) if told.get("state") == "running" else None

        try:
            return started, processes.wait_for("our collector listening", listening, 300)
        except BaseException:
            processes.end(started)
            raise

    def decoded(self) -> int:
        return counters.figures(self.home, "main").decoded

    def is_done(self) -> bool:
        return super().is_done() and self.decoded() == self.durable() == self.received()

    def flows(self) -> int:
        return counters.figures(self.home, "main").flows

    def octets_of_flows(self) -> int:
        return processes.octets_below(self.home.folder("segments"), ".arrow")


class Nfcapd(Receiver):
    """nfdump's collector; `flags` choose its compression ('' none, '-y' LZ4, '-z' LZO)."""

    name = "nfcapd"

    def __init__(self, work: Path, flags: str = "") -> None:
        self._flags = flags
        super().__init__(work)

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        port = free_port()
        (self.work / "flows").mkdir(exist_ok=True)
        command = [find("nfcapd"), "-w", str(self.work / "flows"), "-b", "127.0.0.1", "-p", str(port), "-B", str(BUFFER), "-t",
                   "86400", *self._flags.split()]  # fmt: skip
        quiet = subprocess.DEVNULL
        return processes.start(command, processes.RECEIVER_CORE, stdin=quiet, stdout=quiet, stderr=quiet), port

    def flows(self) -> int:
        done = subprocess.run([find("nfdump"), "-I", "-R", str(self.work / "flows")], capture_output=True, text=True,
                              timeout=120, check=True)  # fmt: skip
        found = re.search(r"^Flows: (\d+)$", done.stdout, re.MULTILINE)
        return int(found[1]) if found else 0

    def octets_of_flows(self) -> int:
        return processes.octets_below(self.work / "flows")


class Nfacctd(Receiver):
    """pmacct's collector with its print plugin: every flow is a line of CSV each 10 s, keyed so that none are added up."""

    name = "nfacctd (print plugin)"

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        port = free_port()
        keys = ("src_host, dst_host, src_port, dst_port, proto, tos, tcpflags, in_iface, out_iface, peer_src_ip, "
                "timestamp_start, timestamp_end")  # fmt: skip
        (self.work / "nfacctd.conf").write_text(
            f"daemonize: false\nnfacctd_ip: 127.0.0.1\nnfacctd_port: {port}\nnfacctd_pipe_size: {BUFFER}\nplugins: print\n"
            f"aggregate: {keys}\nprint_output: csv\nprint_output_file: {self.work}/flows-%s.csv\nprint_refresh_time: 10\n"
            f"print_history: 10s\nplugin_pipe_size: 268435456\nplugin_buffer_size: 1048576\nprint_cache_entries: 999983\n"
            f"logfile: {self.work}/nfacctd.log\nnfacctd_time_new: true\n")  # fmt: skip
        quiet = subprocess.DEVNULL
        command = [find("nfacctd"), "-f", str(self.work / "nfacctd.conf")]
        return processes.start(command, processes.RECEIVER_CORE, stdin=quiet, stdout=quiet, stderr=quiet), port

    def flows(self) -> int:
        return sum(max(path.read_bytes().count(b"\n") - 1, 0) for path in self.work.glob("flows-*.csv"))

    def octets_of_flows(self) -> int:
        return sum(path.stat().st_size for path in self.work.glob("flows-*.csv"))


def find(program: str) -> str:
    """Where a program of Debian lies, whatever PATH says. Raises FileNotFoundError."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if found is None:
        raise FileNotFoundError(f"{program} is not installed (Debian packages nfdump, pmacct)")
    return found


def is_here(program: str) -> bool:
    try:
        return bool(find(program))
    except FileNotFoundError:
        return False


Maker = Callable[[Path], Receiver]
