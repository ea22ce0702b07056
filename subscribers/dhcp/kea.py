"""Lease files of Kea's memfile backend, kea-leases4.csv and kea-leases6.csv, and what its clean-up makes of them (.1, .2,
.output, .completed).

The file is a log: a row of an address that comes later takes the place of the one before. Columns are found by the header,
which differs by version. Kea puts nothing in quotes: a comma inside a value is written `&#x2c`. Times are seconds UTC;
the client's last transaction is `expire` less `valid_lifetime`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from core.addresses import Prefix, parse_address, parse_prefix
from core.periods import OPEN_END
from subscribers.csv_file import Problems
from subscribers.dhcp.entries import Client, Entry, Kind, Reading, State, lines
from subscribers.dhcp.isc import HINT, SECONDS_MAX

INFINITE = 0xFFFF_FFFF
"""A valid_lifetime without end (RFC 8415 §7.7)."""
COLUMNS = ("address", "valid_lifetime", "expire")
_ACTIVE, _DECLINED, _RECLAIMED, _RELEASED, _REGISTERED = range(5)
STATES = {_ACTIVE: State.ACTIVE, _DECLINED: State.VOID, _RECLAIMED: State.ENDED, _RELEASED: State.ENDED,
          _REGISTERED: State.ACTIVE}  # fmt: skip
_PREFIX_DELEGATION = "2"
_ESCAPE = re.compile(r"(?:&#|\\)x([0-9A-Fa-f]{2});?")
_CIRCUIT_ID, _REMOTE_ID = 1, 2
"""Sub-options of the relay agent information (RFC 3046)."""


def read(stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, Entry]]:
    """(line, entry) for each row of the file. Problems and a row that has no end yet go to `reading`."""
    header: list[str] = []
    for number, data in lines(stream, reading):
        if not data.endswith(b"\n"):
            reading.incomplete = number
            return
        try:
            cells = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split(",")
        except UnicodeDecodeError as error:
            reading.problems.add(number, "", f"byte {data[error.start]:#04x} is not UTF-8", HINT)
            continue
        if cells == [""]:
            continue
        if not header:
            header = cells
            missing = [name for name in COLUMNS if name not in header]
            for name in missing:
                reading.problems.add(number, name, f"column '{name}' is missing", "the file begins with Kea's header line")
            if missing:
                return
        elif cells == header:
            continue  # files that were put behind each other
        elif len(cells) != len(header):
            reading.problems.add(number, "", f"the row has {len(cells)} values, the header {len(header)} columns", HINT)
        else:
            entry = _entry(number, dict(zip(header, cells, strict=True)), reading.problems)
            if entry is not None:
                yield number, entry


def _entry(line: int, row: dict[str, str], problems: Problems) -> Entry | None:
    column = ""
    try:
        column = "address"
        if row.get("lease_type") == _PREFIX_DELEGATION:
            prefix = parse_prefix(f"{row['address']}/{row.get('prefix_len', '')}")
        else:
            prefix = Prefix(parse_address(row["address"]), 128)
        column = "expire"
        expire = _number(row["expire"], SECONDS_MAX + INFINITE)
        column = "valid_lifetime"
        valid = _number(row["valid_lifetime"], INFINITE)
        if valid > expire:
            raise ValueError(f"valid_lifetime {valid} is longer than the time until expire {expire}")
        column = "state"
        number = _number(row.get("state") or "0", 255)
        if number not in STATES:
            raise ValueError(f"state {number} is none of {', '.join(map(str, STATES))}")
        state = STATES[number]
        values: dict[Kind, bytes] = {}
        for column, kind in (("hwaddr", Kind.HARDWARE), ("client_id", Kind.CLIENT_ID), ("duid", Kind.DUID)):
            values[kind] = octets(row.get(column, ""))
        column = "user_context"
        values |= _relayed(row.get(column, ""))
    except ValueError as error:
        problems.add(line, column, str(error), HINT)
        return None
    seen, end = (expire - valid) * 1000, expire * 1000
    if state is State.VOID:
        return Entry(prefix, state, seen, seen, seen, None)
    if state is State.ACTIVE and valid == 0:
        state = State.ENDED  # so Kea writes that it deletes a lease
    elif state is State.ACTIVE and valid == INFINITE:
        end = OPEN_END
    client = Client.of(values)
    return Entry(prefix, state, seen, seen, end, client if client.identifiers or state is State.ACTIVE else None)


def _number(text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and int(text) <= most:
        return int(text)
    raise ValueError(f"'{text}' is not a whole number up to {most}")


def octets(text: str) -> bytes:
    """'00:1a:2b' → octets. Raises ValueError."""
    try:
        return bytes.fromhex(text.removeprefix("0x").replace(":", ""))
    except ValueError:
        raise ValueError(f"'{text}' are no octets such as 00:1a:2b") from None


def unescape(text: str) -> str:
    """A value as it was before Kea wrote it into CSV."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)


def _relayed(text: str) -> dict[Kind, bytes]:
    """What the relay agent told (option 82), of a user context: {"ISC": {"relay-agent-info": "0x…" or {"sub-options": "0x…"}}}.
    Raises ValueError."""
    if not text:
        return {}
    try:
        context = json.loads(unescape(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"the user context is not JSON: {error}") from None
    told: Any = context
    for name in ("ISC", "relay-agent-info"):
        told = told.get(name) if isinstance(told, dict) else None
    if isinstance(told, str):
        told = {"sub-options": told}
    if not isinstance(told, dict):
        return {}
    found: dict[Kind, bytes] = {}
    if isinstance(told.get("sub-options"), str):
        found |= _sub_options(octets(told["sub-options"]))
    for name, kind in (("circuit-id", Kind.CIRCUIT_ID), ("remote-id", Kind.REMOTE_ID)):
        if isinstance(told.get(name), str):
            found.setdefault(kind, octets(told[name]))
    return found


def _sub_options(data: Sequence[int]) -> dict[Kind, bytes]:
    found: dict[Kind, bytes] = {}
    position = 0
    while position + 2 <= len(data):
        code, length = data[position], data[position + 1]
        value = bytes(data[position + 2 : position + 2 + length])
        if len(value) < length:
            break
        if code in (_CIRCUIT_ID, _REMOTE_ID):
            found[Kind.CIRCUIT_ID if code == _CIRCUIT_ID else Kind.REMOTE_ID] = value
        position += 2 + length
    if position != len(data):
        raise ValueError("the relay agent information has no end")
    return found
