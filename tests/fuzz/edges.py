"""Everything in Python that reads what others wrote, under atheris (coverage-guided). A process of its own:

    PYTHONPATH=.:tests python -m fuzz.edges TARGET|all [libFuzzer's options: -runs=1000 -seed=1 -timeout=20 -rss_limit_mb=2048]

Only errors of the product's own tree may come out. libFuzzer ends the process for anything else, for an input that takes
longer than -timeout, and for memory beyond -rss_limit_mb.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import atheris
import numpy as np

import collector.kernels
import subscribers.kernels  # noqa: F401

# Kernels first: what is imported here is not instrumented, and numba could not compile it if it were.
for module in iter_modules(collector.kernels.__path__):
    import_module(f"collector.kernels.{module.name}")

with atheris.instrument_imports(
    include=[
        "collector",
        "core",
        "rating",
        "storage",
        "subscribers",
        "aggregation",
        "invoicing",
        "runtime",
        "monitoring",
    ]
):
    from collector import captures, receiver
    from collector import settings as collector_settings
    from collector.decoder import Decoder
    from collector.state import DecoderState
    from core import actor, settings
    from core.errors import RatemillError
    from core.product import data_file
    from monitoring import sections
    from rating import apply
    from storage import journal, sql
    from storage.home import Home
    from subscribers import contracts, leases

Target = Callable[[bytes], None]
WHO = actor.Actor("fuzz", "make nightly")


class Edges:
    """The targets, with a home that has the demo town's plans, people and leases."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "input"
        self._home = Home(folder / "home")
        self._home.create()
        (self._home.path / "ratemill.toml").write_bytes(data_file("demo", "ratemill.toml").read_bytes())
        apply.apply(self._home, data_file("demo", "plans.toml"), WHO)
        self._engine = sql.engine(self._home)
        contracts.import_file(self._engine, data_file("demo", "subscribers.csv"), WHO)
        self._journal = folder / "journal"

    def forked(self) -> None:
        """In a child: connections are the parent's."""
        self._engine.dispose(close=False)

    def _written(self, data: bytes) -> Path:
        self._file.write_bytes(data)
        return self._file

    def captures(self, data: bytes) -> None:
        """pcap, pcapng, IPFIX files, raw payloads: batches are bodies of the journal, and decode."""
        capture = captures.Capture(self._written(data))
        datagrams = 0
        for batch in captures.read_capture(capture):
            body = batch.framed[journal.HEADER_SIZE :]
            assert len(body) <= journal.BODY_SIZE_MAX
            assert batch.datagrams > 0
            datagrams += batch.datagrams
            Decoder(collector_settings.CollectorSettings()).feed(body, 0)
        assert capture.datagrams == datagrams
        assert datagrams <= 1 + len(data) // 2 + 1

    def journals(self, data: bytes) -> None:
        """A file of the journal that something has damaged: good blocks come out, in order, each once."""
        folder = self._journal / "main"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{0:012d}.journal").write_bytes(data)
        reader = journal.JournalReader(self._journal, "main")
        try:
            numbers = [block.head.number for block in reader.blocks()]
        finally:
            reader.close()
        assert numbers == sorted(set(numbers))

    def states(self, data: bytes) -> None:
        """A saved state with any octets; every other one has its checksum put right."""
        if len(data) > 16 and data[-1] & 1:
            data = data[:12] + zlib.crc32(data[16:]).to_bytes(4, "little") + data[16:]
        DecoderState.from_bytes(data)

    def settings(self, data: bytes) -> None:
        """ratemill.toml, all sections of all packages."""
        document = settings.load(self._written(data))
        sections.problems(document)
        collector_settings.from_document(document)

    def plans(self, data: bytes) -> None:
        apply.apply(self._home, self._written(data), WHO, dry_run=True)

    def leases(self, data: bytes) -> None:
        leases.import_file(self._engine, self._written(data), WHO, dry_run=True)

    def subscribers(self, data: bytes) -> None:
        contracts.import_file(self._engine, self._written(data), WHO, dry_run=True)

    def listen(self, data: bytes) -> None:
        address = receiver.parse_listen(data.decode("utf-8", "replace"))
        assert receiver.parse_listen(str(address)) == address


def seeds(target: str) -> list[bytes]:
    """Good inputs to begin with."""
    from fuzz.hostile import v5, v5_record
    from peers.exchange import Session, write_pcap

    demo = {
        "settings": "ratemill.toml",
        "plans": "plans.toml",
        "leases": "leases.csv",
        "subscribers": "subscribers.csv",
    }
    if target in demo:
        whole = data_file("demo", demo[target]).read_bytes()
        return [
            b"\n".join(whole.split(b"\n")[:lines])
            for lines in ((3, 10) if target in ("leases", "subscribers") else (2000,))
        ]
    if target == "listen":
        return [b"0.0.0.0:2055", b"[::]:2055", b":9995", b"[fe80::1%eth0]:1"]
    payload = v5([v5_record()])
    if target == "captures":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seed.pcap"
            write_pcap(path, [Session("seed", [payload, payload])])
            return [path.read_bytes(), payload, _pcapng(payload), b"\0\x0a\0\x10" + bytes(12)]
    from journal_bodies import Datagram, body_of

    if target == "states":
        decoder = Decoder(collector_settings.CollectorSettings())
        decoder.feed(body_of([Datagram(payload)]), 0)
        return [DecoderState().to_bytes(), decoder.state.to_bytes()]
    assert target == "journals", target
    with tempfile.TemporaryDirectory() as folder:
        writer = journal.JournalWriter(Path(folder), "main")
        for number in range(3):
            framed = bytearray(journal.HEADER_SIZE) + body_of([Datagram(payload)]).tobytes()
            writer.append(journal.BlockHead(number, 1, 1, 1), np.frombuffer(framed, np.uint8))
        writer.close()
        return [path.read_bytes() for path in journal.journal_files(Path(folder) / "main")]


def _pcapng(payload: bytes) -> bytes:
    udp = (2055).to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
    packet = (
        b"\x45\0"
        + (20 + len(udp)).to_bytes(2, "big")
        + bytes(5)
        + b"\x11\0\0"
        + bytes([192, 0, 2, 1, 192, 0, 2, 2])
        + udp
    )
    padded = packet + bytes(-len(packet) % 4)

    def block(kind: int, body: bytes) -> bytes:
        size = (12 + len(body)).to_bytes(4, "little")
        return kind.to_bytes(4, "little") + size + body + size

    return (
        block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a\x01\0\0\0" + b"\xff" * 8)
        + block(1, b"\x65\0\0\0\0\0\1\0")
        + block(6, bytes(12) + len(packet).to_bytes(4, "little") * 2 + padded)
    )


TOLD_EVERY = 500
TARGETS = ("captures", "journals", "states", "settings", "plans", "leases", "subscribers", "listen")


def main() -> int:
    """Each target in a child, so that what all of them need is imported once. Returns 1 if any found something."""
    wanted, options = sys.argv[1], sys.argv[2:]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        edges = Edges(Path(folder))
        for target in TARGETS if wanted == "all" else (wanted,):
            child = os.fork()
            if child == 0:
                edges.forked()
                _fuzz(edges, target, Path(folder), options)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status != 0:
                failed.append(target)
    print(f"failed: {', '.join(failed)}" if failed else "nothing but the product's own errors", flush=True)
    return 1 if failed else 0


def _fuzz(edges: Edges, target: str, folder: Path, options: list[str]) -> None:
    """Ends the process."""
    run: Target = getattr(edges, target)
    corpus = folder / f"corpus-{target}"
    corpus.mkdir()
    for number, data in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(data)
        run(data)  # a good input is good
    counts = {"refused": 0, "accepted": 0}

    def one_input(data: bytes) -> None:
        try:
            run(data)
            counts["accepted"] += 1
        except RatemillError:
            counts["refused"] += 1
        if sum(counts.values()) % TOLD_EVERY == 0:
            print(json.dumps({"target": target, **counts}), flush=True)

    atheris.Setup([sys.argv[0], f"-artifact_prefix={folder}/", *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
