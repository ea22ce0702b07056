"""The filter of `flows top` and `flows graph`: words like nfdump's → a condition in SQL with bound parameters.

    filter    = all { "or" all }            all = one { "and" one }            one = "not" one | "(" filter ")" | condition
    condition = "any" | "ipv4" | "ipv6" | "proto" protocols | [side] ("host" | "ip") addresses | [side] "net" prefixes
              | [side] ("port" | "as") numbers | ["in" | "out"] "if" numbers
              | "exporter" ["ip"] addresses | "next" "ip" addresses
              | ("bytes" | "octets" | "packets" | "duration" | "tos" | "dscp") numbers
    side      = "src" | "dst"               numbers = [compare] number | "in" "[" number … "]"

Without a side (or a way of an interface) either will do, but `!=` wants it of both. Numbers may end in k, m, g or t (powers of
1000); octets and packets are those exported, not scaled; duration is in ms. Values reach the database as parameters only, and
the text of the condition is made of the constants of this file, so no word of a user is ever SQL.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.addresses import IPV4_MAPPED, parse_address, parse_prefix, parse_protocol
from core.errors import UsageError

WORDS_MAX = 2000
DEPTH_MAX = 100
"""Brackets and `not` inside of each other; the parser and the database recurse."""

_WORD = re.compile(r"\s*(?:(?P<word>[()\[\],]|&&|\|\||[<>=!]=|[<>=!]|[^\s()\[\],<>=!&|]+)|(?P<bad>\S))")
_COMPARE = {"=": "=", "==": "=", "eq": "=", "!=": "<>", "ne": "<>", "<": "<", "lt": "<", "<=": "<=", "le": "<=", ">": ">",
            "gt": ">", ">=": ">=", "ge": ">="}
_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")

_MAPPED = (IPV4_MAPPED + bytes(4), IPV4_MAPPED + b"\xff" * 4)
_SIDES = {"src": ("source",), "dst": ("destination",)}
_BOTH = ("source", "destination")
_WAYS = {"in": ("input",), "out": ("output",)}
_EITHER_WAY = ("input", "output")

_NUMBERS = {
    "bytes": ("octets", 2**63 - 1), "octets": ("octets", 2**63 - 1), "packets": ("packets", 2**63 - 1),
    "duration": ('(epoch_ms("end") - epoch_ms("start"))', 2**63 - 1), "tos": ("tos", 255), "dscp": ("(tos >> 2)", 63),
}
"""Word → its SQL and its largest value."""

CONDITIONS = ("any", "ipv4", "ipv6", "proto", "src", "dst", "host", "ip", "net", "port", "as", "in if", "out if", "if",
              "exporter ip", "next ip", *_NUMBERS)


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of core.schemas.FLOWS, in DuckDB's SQL, and the values of its parameters."""

    sql: str = "true"
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    at: int

    @property
    def low(self) -> str:
        return self.text.lower()


def parse(text: str) -> Condition:
    """A filter → its condition; all flows for an empty one. Raises UsageError, which points at the word."""
    return _Parser(text).whole()


def _any_of(conditions: list[Condition], word: str = " OR ") -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    return Condition("(" + word.join(one.sql for one in conditions) + ")",
                     tuple(value for one in conditions for value in one.parameters))


class _Parser:
    """Recursive descent, one word of look-ahead."""

    def __init__(self, text: str) -> None:
        self._text = " ".join(text.split())
        self._words: list[_Word] = []
        self._next = 0
        self._depth = 0
        for found in _WORD.finditer(self._text):
            kind = "word" if found["word"] else "bad"
            word = _Word(found[kind], found.start(kind))
            if kind == "bad":
                raise self._error(f"there is no {word.text}", "use and (&&), or (||), not (!), brackets and conditions", word)
            self._words.append(word)
        if len(self._words) > WORDS_MAX:
            raise UsageError(f"a filter has at most {WORDS_MAX} words, this one has {len(self._words)}",
                             "use net, or make several requests")

    def whole(self) -> Condition:
        if not self._words:
            return Condition()
        condition = self._or()
        if self._peek() == ")":
            raise self._error("this bracket closes nothing", "leave it out, or open one before it")
        if self._peek():
            raise self._error("a condition ends before this word", "join two conditions by `and` or `or`")
        return condition

    # words ------------------------------------------------------------------------------------------------------------
    def _peek(self, ahead: int = 0) -> str:
        """The word that comes, in lower case; empty at the end."""
        return self._words[self._next + ahead].low if self._next + ahead < len(self._words) else ""

    def _take(self, *words: str) -> bool:
        found = self._peek() in words
        self._next += found
        return found

    def _value(self, wanted: str, read: Callable[[str], Any]) -> Any:
        """The value that comes. Raises UsageError if `read` raises ValueError."""
        if not self._peek() or self._peek() in (*"()[],", *_COMPARE, *_AND, *_OR, *_NOT):
            raise self._error(f"here belongs {wanted}", f"write {wanted} after `{self._words[self._next - 1].text}`")
        try:
            value = read(self._words[self._next].text)
        except ValueError as error:
            raise self._error(str(error), f"write {wanted}") from None
        self._next += 1
        return value

    def _error(self, what: str, hint: str, word: _Word | None = None) -> UsageError:
        word = word or (self._words[self._next] if self._next < len(self._words) else _Word("", len(self._text)))
        named = f"`{word.text}`" if word.text else "its end"
        start = max(0, word.at - 60)
        shown = self._text[start : word.at + len(word.text) + 40]
        return UsageError(f"the filter, at {named}: {what}",
                          f"{shown}\n  {' ' * (word.at - start)}{'^' * max(1, len(word.text))}\n  {hint}")

    # structure --------------------------------------------------------------------------------------------------------
    def _or(self) -> Condition:
        found = [self._and()]
        while self._take(*_OR):
            found.append(self._and())
        return _any_of(found)

    def _and(self) -> Condition:
        found = [self._one()]
        while self._take(*_AND):
            found.append(self._one())
        return _any_of(found, " AND ")

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"brackets and `not` are at most {DEPTH_MAX} deep", "write it with fewer of them")
        if self._take(*_NOT):
            inner = self._one()
            condition = Condition(f"(NOT {inner.sql})", inner.parameters)
        elif self._take("("):
            opened = self._words[self._next - 1]
            condition = self._or()
            if not self._take(")"):
                if not self._peek():
                    raise self._error("this bracket is never closed", "add a )", opened)
                raise self._error("a condition ends before this word", "join two by `and` or `or`, or close the bracket")
        else:
            condition = self._condition()
        self._depth -= 1
        return condition

    # conditions -------------------------------------------------------------------------------------------------------
    def _condition(self) -> Condition:
        if self._take("any"):
            return Condition()
        if self._take("ipv4", "inet"):
            return Condition("(source_address BETWEEN ? AND ?)", _MAPPED)
        if self._take("ipv6", "inet6"):
            return Condition("(source_address NOT BETWEEN ? AND ?)", _MAPPED)
        if self._take("proto", "protocol"):
            return self._listed("a protocol (udp, 17)", parse_protocol, lambda number: Condition("protocol = ?", (number,)))
        if self._take("exporter"):
            self._take("ip")
            return self._addresses(["exporter"])
        if self._peek() == "next" and self._peek(1) == "ip":
            self._next += 2
            return self._addresses(["next_hop"])
        if self._peek() in ("in", "out", "if"):
            return self._interface()
        if self._peek() in _NUMBERS:
            column, largest = _NUMBERS[self._peek()]
            self._next += 1
            return self._numbers([column], largest)
        return self._end()

    def _end(self) -> Condition:
        """Conditions on the source, the destination or either."""
        sides = _SIDES.get(self._peek(), _BOTH)
        self._next += sides is not _BOTH
        if self._take("host", "ip"):
            return self._addresses([f"{side}_address" for side in sides])
        if self._take("net"):
            return self._listed("a prefix (192.0.2.0/24)", parse_prefix, lambda prefix: _any_of(
                [_within(f"{side}_address", prefix) for side in sides]))
        if self._take("port"):
            return self._numbers([f"{side}_port" for side in sides], 2**16 - 1)
        if self._take("as"):
            return self._numbers([f"{side}_as" for side in sides], 2**32 - 1)
        if sides is not _BOTH:
            raise self._error("after src or dst comes host, ip, net, port or as", "name what that end has to be")
        if not self._peek():
            raise self._error("a condition is missing", "add one, for example `proto udp`")
        near = difflib.get_close_matches(self._peek(), CONDITIONS, 1)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise self._error("no condition begins like this", f"{meant}there are {', '.join(CONDITIONS)}")

    def _interface(self) -> Condition:
        ways = _WAYS.get(self._peek(), _EITHER_WAY)
        self._next += ways is not _EITHER_WAY
        if not self._take("if"):
            raise self._error("after in or out comes `if`", "write `in if 3`")
        return self._numbers([f"{way}_interface" for way in ways], 2**32 - 1)

    def _addresses(self, columns: list[str]) -> Condition:
        return self._listed("an IP address", parse_address, lambda address: _any_of(
            [Condition(f"{column} = ?", (address,)) for column in columns]))

    def _numbers(self, columns: list[str], largest: int) -> Condition:
        compare = "="
        if self._peek() in _COMPARE:
            compare = _COMPARE[self._peek()]
            self._next += 1

        def condition(number: int) -> Condition:
            return _any_of([Condition(f"{column} {compare} ?", (number,)) for column in columns],
                           " AND " if compare == "<>" else " OR ")

        def read(text: str) -> int:
            return _number(text, largest)

        if self._peek() == "in" and self._words[self._next - 1].low in _COMPARE:
            raise self._error("a comparison is with one number", "leave out the comparison, or the list")
        return self._listed("a number", read, condition)

    def _listed(self, wanted: str, read: Callable[[str], Any], condition: Callable[[Any], Condition]) -> Condition:
        """One value, or `in [` values `]`."""
        if not self._take("in"):
            return condition(self._value(wanted, read))
        if not self._take("["):
            raise self._error("after `in` comes a list", "write `in [80 443]`")
        opened = self._words[self._next - 1]
        found = []
        while not self._take("]"):
            if not self._peek():
                raise self._error("this list is never closed", "add a ]", opened)
            found.append(condition(self._value(wanted, read)))
            self._take(",")
        if not found:
            raise self._error("the list is empty", "put values into it", opened)
        return _any_of(found)


def _within(column: str, prefix: Any) -> Condition:
    first, last = prefix.address, prefix.last.to_bytes(16, "big")
    if first < _MAPPED[0] and _MAPPED[1] <= last:  # ::/0 and its like are IPv6 prefixes: IPv4 is not in them
        return Condition(f"({column} BETWEEN ? AND ? AND {column} NOT BETWEEN ? AND ?)", (first, last, *_MAPPED))
    return Condition(f"({column} BETWEEN ? AND ?)", (first, last))


def _number(text: str, largest: int) -> int:
    found = re.fullmatch(r"([0-9]{1,19})([kmgt]?)", text.lower(), re.ASCII)
    if found is None:
        raise ValueError(f"'{text}' is not a whole number")
    number = int(found[1]) * _SUFFIX[found[2]]
    if number > largest:
        raise ValueError(f"{text} is too large: at most {largest}")
    return number
