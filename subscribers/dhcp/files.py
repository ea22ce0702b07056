"""Opens a lease file and finds out whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import RatemillError, UsageError
from subscribers.dhcp import isc, kea
from subscribers.dhcp.entries import Entry, Reading

Reader = Callable[[BinaryIO, Reading], Iterator[tuple[int, Entry]]]
READERS: dict[str, Reader] = {"isc": isc.read, "kea": kea.read}
_BEGIN_OCTETS = 65_536
_WORDS_OF_ISC = ("lease", "ia-na", "ia-ta", "ia-pd", "authoring-byte-order", "server-duid", "failover", "host", "group",
                 "class", "subclass", "#")  # fmt: skip


def check_format(form: str) -> None:
    """Raises UsageError for a format that there is not."""
    if form and form not in READERS:
        raise UsageError(f"--format '{form}' is not {' or '.join(READERS)}")


def read(path: Path, form: str, reading: Reading) -> Iterator[tuple[int, Entry]]:
    """(line, entry) for each entry of a file; `form` is isc, kea, or empty: by the content. Raises RatemillError."""
    try:
        with path.open("rb") as stream:
            reader = READERS[form or recognised(stream.read(_BEGIN_OCTETS), path)]
            stream.seek(0)
            yield from reader(stream, reading)
    except OSError as error:
        raise RatemillError(
            f"{path} can't be read: {error.strerror}", "check the name and the rights of the file"
        ) from None


def recognised(begin: bytes, path: Path) -> str:
    """The format of a file that begins so; an empty one is as dhcpd makes it. Raises RatemillError."""
    first = next((line.strip() for line in begin.decode("utf-8-sig", "replace").splitlines() if line.strip()), "")
    if first.startswith("address,"):
        return "kea"
    if not first or first.startswith("#") or first.split()[0].rstrip(";") in _WORDS_OF_ISC:
        return "isc"
    raise RatemillError(f"{path} is not recognised as a lease file: it begins with '{first[:60]}'",
                        "name a file of ISC dhcpd or Kea, or say which it is with --format isc|kea")  # fmt: skip
