"""The disk's and the processor's own limits, which no stage can beat: durable writes, and digests before every billing read."""

from __future__ import annotations

import tempfile
from pathlib import Path

from core import clock
from storage import files

SIZE = 256 * 2**20
SMALL_FILES = 100


def measure() -> dict[str, float]:
    """Octets a second written whole and read for a digest, and small durable files a second."""
    data = bytes(range(256)) * (SIZE // 256)
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        path = Path(folder) / "large"
        write = _seconds(lambda: files.write_whole(path, data))
        digest = _seconds(lambda: files.digest_of(path))
        small = _seconds(lambda: [files.write_whole(Path(folder) / str(n), b"x" * 1000) for n in range(SMALL_FILES)])
    return {
        "written_octets_per_second": SIZE / write,
        "digested_octets_per_second": SIZE / digest,
        "small_files_per_second": SMALL_FILES / small,
    }


def _seconds(work: object) -> float:
    assert callable(work)
    start = clock.monotonic_ns()
    work()
    return (clock.monotonic_ns() - start) / 1e9
