"""Lease files of ISC dhcpd, by dhcpd.leases(5): `lease` for IPv4, `ia-na`, `ia-ta` and `ia-pd` for IPv6; times are UTC.

The file is a log: an entry of an address that comes later takes the place of the one before. What else is in it (failover
states, hosts, DUIDs of the server) is passed over. Data are octets: quoted text with octal escapes, or hexadecimal
numbers between colons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from core.addresses import Prefix, parse_address, parse_prefix
from core.periods import OPEN_END, to_ms
from subscribers.dhcp.entries import Client, Entry, Kind, Reading, State, lines

TOKENS_MAX = 20_000
"""Of one entry; dhcpd writes some dozens, and one for each address of an IPv6 association."""
HINT = "copy the file again from the server"
SECONDS_MAX = 253_402_300_799
"""The end of the year 9999."""

STATES = {"active": State.ACTIVE, "free": State.ENDED, "released": State.ENDED, "expired": State.ENDED,
          "backup": State.ENDED, "reset": State.ENDED, "abandoned": State.VOID}  # fmt: skip
"""Free and backup addresses tell who had them last."""
_ASSOCIATIONS = {"ia-na": "iaaddr", "ia-ta": "iaaddr", "ia-pd": "iaprefix"}
_OPTIONS = {"agent.circuit-id": Kind.CIRCUIT_ID, "agent.remote-id": Kind.REMOTE_ID}
_TOKEN = re.compile(r'#.*|("(?:[^"\\]|\\.)*"|[{};]|[^\s{};"]+)|(")')
"""A comment; a word, text in quotes or sign; or a quote that has no other."""
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a", "f": "\f", "v": "\v", "0": "\0"}


class _Token(NamedTuple):
    line: int
    text: str


@dataclass(slots=True)
class _Statement:
    line: int
    words: list[str]
    body: list[_Token] = field(default_factory=list)


def read(stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, Entry]]:
    """(line, entry) for each address of the file. Problems and the incomplete last entry go to `reading`."""
    for statement in _declarations(stream, reading):
        yield from _entries(statement, reading)


def _declarations(stream: BinaryIO, reading: Reading) -> Iterator[_Statement]:
    """The lease entries of the file, in whole."""
    problems = reading.problems
    tokens: list[_Token] = []
    depth, damaged, began, is_lease = 0, False, 0, False
    for number, data in lines(stream, reading):
        line = data.decode("latin-1")
        for match in _TOKEN.finditer(line):
            token = match.group(1)
            if token is None and match.group(2) is None:
                continue
            if token is None:
                if not line.endswith("\n"):
                    reading.incomplete = began or number
                    return
                problems.add(number, "", "a quoted text has no end", HINT)
                damaged = True
                break
            if match.start() == 0 and began and (token == "lease" or token in _ASSOCIATIONS):
                if not damaged:
                    problems.add(began, "", f"the entry has no end before the next one in line {number}", HINT)
                tokens, depth, damaged, began = [], 0, False, 0
            if token == "}" and depth == 0:
                problems.add(number, "", "'}' closes nothing", HINT)
                tokens, damaged, began = [], False, 0
                continue
            if not began:
                began, is_lease = number, token == "lease" or token in _ASSOCIATIONS
            if is_lease:
                tokens.append(_Token(number, token))
                if len(tokens) > TOKENS_MAX:
                    problems.add(began, "", f"the entry has more than {TOKENS_MAX} words", HINT)
                    tokens, damaged, is_lease = [], True, False
            if token == "{":
                depth += 1
            elif token == "}" or token == ";":
                depth -= token == "}"
                if depth == 0:
                    if tokens and not damaged:
                        yield next(_statements(tokens))
                    tokens, damaged, began = [], False, 0
    if began:
        reading.incomplete = began


def _statements(tokens: list[_Token]) -> Iterator[_Statement]:
    """Split into statements, each with the words before its `;` or `{` and the tokens between its braces."""
    current: _Statement | None = None
    depth = 0
    for token in tokens:
        if current is None:
            current = _Statement(token.line, [])
        closes = token.text == "}"
        depth -= closes
        if depth > 0:
            current.body.append(token)
        elif token.text not in ("{", "}", ";"):
            current.words.append(token.text)
        depth += token.text == "{"
        if depth == 0 and token.text in (";", "}"):
            yield current
            current = None


def _entries(statement: _Statement, reading: Reading) -> Iterator[tuple[int, Entry]]:
    try:
        if statement.words[0] == "lease":
            found = _lease(statement)
            if found is not None:
                yield statement.line, found
            return
        who, cltt, addresses = _association(statement)
    except _Damaged as error:
        error.tell(reading)
        return
    for part in addresses:
        try:
            one = _of_association(part, statement.words[0], who, cltt)
        except _Damaged as error:
            error.tell(reading)
            continue
        if one is not None:
            yield part.line, one


class _Damaged(Exception):
    """An entry is not to be used, for these reasons: (line, word, what is wrong)."""

    def __init__(self, *reasons: tuple[int, str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def tell(self, reading: Reading) -> None:
        for line, word, text in self.reasons:
            reading.problems.add(line, word, text, HINT)


@dataclass(slots=True)
class _Facts:
    """What the statements of an entry say, as far as it matters."""

    line: int
    times: dict[str, int] = field(default_factory=dict)
    state: State | None = None
    is_released: bool = False
    identifiers: dict[Kind, bytes] = field(default_factory=dict)
    max_life: int = 0

    @classmethod
    def of(cls, statement: _Statement) -> _Facts:
        facts = cls(statement.line)
        reasons: list[tuple[int, str, str]] = []
        for one in _statements(statement.body):
            try:
                facts._take(one.words)
            except (ValueError, IndexError) as error:
                word = one.words[0] if one.words else ""
                text = str(error) if isinstance(error, ValueError) else f"'{' '.join(one.words)}' lacks its value"
                reasons.append((one.line, word, text))
        if reasons:
            raise _Damaged(*reasons)
        return facts

    def _take(self, words: list[str]) -> None:
        if not words:
            return
        word = words[0]
        if word in ("starts", "ends", "cltt"):
            self.times[word] = _time(words[1:])
        elif word == "binding" and words[1] == "state":
            if words[2] not in STATES:
                raise ValueError(f"'{words[2]}' is no binding state ({', '.join(STATES)})")
            self.state = STATES[words[2]]
            self.is_released = words[2] == "released"
        elif word == "abandoned" and self.state is None:
            self.state = State.VOID
        elif word == "hardware" and len(words) > 2:
            self.identifiers[Kind.HARDWARE] = octets(words[2])
        elif word in ("uid", "client-id"):
            self.identifiers[Kind.CLIENT_ID] = octets(words[1])
        elif word == "option" and words[1] in _OPTIONS:
            self.identifiers[_OPTIONS[words[1]]] = octets(words[2])
        elif word == "max-life":
            if not words[1].isdigit():
                raise ValueError(f"'{words[1]}' is not a number of seconds")
            self.max_life = int(words[1]) * 1000


def _lease(statement: _Statement) -> Entry | None:
    """None: it was never used, or says nothing of time."""
    try:
        prefix = Prefix(parse_address(statement.words[1]), 128)
    except (ValueError, IndexError):
        raise _Damaged((statement.line, "lease", f"'{' '.join(statement.words)}' names no address")) from None
    facts = _Facts.of(statement)
    state = facts.state or State.ACTIVE  # dhcpd 2 wrote no state of what was in use
    starts, ends, cltt = (facts.times.get(name) for name in ("starts", "ends", "cltt"))
    seen = cltt if cltt is not None and cltt != OPEN_END else starts
    if state is State.ACTIVE:
        if ends is None or seen is None:
            lacking = "ends" if ends is None else "starts"
            raise _Damaged((statement.line, lacking, f"the active lease of {statement.words[1]} has no {lacking}"))
        return Entry(prefix, state, seen, min(seen if starts is None else starts, seen), max(ends, seen),
                     Client.of(facts.identifiers))  # fmt: skip
    if state is State.VOID:
        return None if seen is None else Entry(prefix, state, seen, seen, seen, None)
    if ends is None or ends == OPEN_END:
        ends = seen
    if ends is None:
        return None
    start = min(ends if starts is None else starts, ends)
    return Entry(prefix, state, ends if seen is None else seen, start, ends,
                 Client.of(facts.identifiers) if facts.identifiers else None)  # fmt: skip


def _association(statement: _Statement) -> tuple[Client, int | None, list[_Statement]]:
    """Of an `ia-…`: the client, its last transaction, and the addresses or prefixes."""
    word = statement.words[0]
    try:
        name = octets(statement.words[1])
    except (ValueError, IndexError):
        name = b""
    if len(name) < 5:
        raise _Damaged((statement.line, word, f"{word} names no IAID and DUID"))
    parts = list(_statements(statement.body))
    own = [token for part in parts if not part.body for token in (
        *(_Token(part.line, one) for one in part.words), _Token(part.line, ";"))]  # fmt: skip
    facts = _Facts.of(_Statement(statement.line, [word], own))
    return (Client.of({Kind.DUID: name[4:]}), facts.times.get("cltt"),
            [part for part in parts if part.words[:1] == [_ASSOCIATIONS[word]]])  # fmt: skip


def _of_association(part: _Statement, word: str, who: Client, cltt: int | None) -> Entry | None:
    try:
        text = part.words[1]
        prefix = parse_prefix(text) if word == "ia-pd" else Prefix(parse_address(text), 128)
    except (ValueError, IndexError):
        raise _Damaged((part.line, part.words[0], f"'{' '.join(part.words)}' names no address")) from None
    facts = _Facts.of(part)
    ends, state = facts.times.get("ends"), facts.state
    if state is None:
        raise _Damaged((part.line, "binding", f"{text} has no binding state"))
    if cltt is None and ends is not None and ends != OPEN_END:
        cltt = ends - facts.max_life
    if cltt is None or (ends is None and state is State.ACTIVE):
        lacking = "cltt" if cltt is None else "ends"
        raise _Damaged((part.line, lacking, f"{text} has no {lacking}"))
    if state is State.ACTIVE:
        assert ends is not None
        return Entry(prefix, state, cltt, cltt, max(ends, cltt), who)
    if state is State.VOID:
        return Entry(prefix, state, cltt, cltt, cltt, None)
    # unlike IPv4 the `ends` of a released address stays what was promised: the client's last word is the release
    end = cltt if ends is None or ends == OPEN_END or (facts.is_released and cltt < ends) else ends
    return Entry(prefix, state, cltt, min(cltt, end), end, who)


def _time(words: list[str]) -> int:
    """`4 2026/01/02 03:04:05`, `epoch 1767323045` or `never` → instant. Raises ValueError."""
    text = " ".join(words)
    if words == ["never"]:
        return OPEN_END
    if len(words) == 2 and words[0] == "epoch" and words[1].isascii() and words[1].isdigit():
        if int(words[1]) <= SECONDS_MAX:
            return int(words[1]) * 1000
    elif len(words) == 3 and words[0] in ("0", "1", "2", "3", "4", "5", "6"):
        try:
            return to_ms(datetime.strptime(f"{words[1]} {words[2]}", "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC))
        except ValueError:
            pass
    raise ValueError(f"'{text}' is not a time such as '4 2026/01/01 03:04:05', 'epoch 1767236645' or 'never'")


def octets(text: str) -> bytes:
    """Quoted text or hexadecimal numbers between colons → octets. Raises ValueError."""
    if text.startswith('"'):
        return _ESCAPE.sub(_escaped, text[1:-1]).encode("latin-1")
    try:
        return bytes(int(part, 16) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"'{text}' is neither a quoted text nor octets such as 0:1a:2b") from None


def _escaped(match: re.Match[str]) -> str:
    octal, hexadecimal, letter = match.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    return chr(int(hexadecimal, 16)) if hexadecimal else _LETTERS.get(letter, letter)
