"""Rules of traffic classes → the arrays that kernels read: ranges of addresses, each leading to the rules to be tried there.

Prefixes nest or are apart, never overlap otherwise, so one pass lays them out as ranges with an innermost prefix each. The
rules to be tried in a prefix are its own, merged by rank with those of the prefix around it; the list ends behind the first
rule that asks for nothing else. Prefixes share lists, so that a million of them need a handful; a range whose list is one
rule without conditions holds its class by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aggregation import kernels_classes as kernels
from core.addresses import Prefix, parse_address
from core.class_rules import PORT_PROTOCOLS, Prefixes, Ranges, Rule
from core.errors import RatemillError

TOP_BITS_MAX = 20
"""A table by the first bits of IPv4 addresses has about twice as many places as there are ranges, and 4 MB at most."""

LIST_RULES_MAX = 16_000_000
"""Rules in all lists together: 128 MB."""

_IPV4_FIRST = np.uint64(0xFFFF << 32)
_IPV4_LAST = np.uint64((0xFFFF << 32) + (1 << 32) - 1)

RuleList = tuple[int, ...]


@dataclass(frozen=True)
class Compiled:
    """Everything that kernels need to tell the class of a flow's far end."""

    ranges: kernels.ClassRanges
    rules: kernels.ClassRules
    needs: int  # bits of all rules together

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of flows that are read for its sake alone."""
        columns = ("source_as", "destination_as") if self.needs & kernels.NEEDS_AS else ()
        return (*columns, "tos") if self.needs & kernels.NEEDS_DSCP else columns


@dataclass(frozen=True)
class Layout:
    """The distinct prefixes of all rules, and which rules each has; those of everything (::/0, or none) are `everywhere`."""

    prefixes: Prefixes
    group: NDArray[np.int64]  # of each prefix: an index of `groups`
    groups: list[RuleList]  # rules in the order of the document
    everywhere: RuleList


def compile_rules(rules: Sequence[Rule], prefixes: Sequence[Prefixes], ids: Mapping[str, int], default: int) -> Compiled:
    """Rules with the prefixes of each, and the ids of classes → arrays. Raises RatemillError if lists grow beyond bounds."""
    found = lay_out(rules, prefixes)
    lists = _Lists(rules)
    root = lists.number(lists.merge(found.everywhere, (len(rules),)))
    first_high, first_low, number = _ranges(found, lists, root)
    codes = _codes(lists, [*(ids[rule.class_] for rule in rules), default])
    packed = _packed(rules, [*(ids[rule.class_] for rule in rules), default], lists.all)
    return Compiled(_by_address(first_high, first_low, codes[number]), packed, int(np.bitwise_or.reduce(packed.needs)))


def lay_out(rules: Sequence[Rule], prefixes: Sequence[Prefixes]) -> Layout:
    """Bring the prefixes of all rules together."""
    high = np.concatenate([some.high for some in prefixes] or [np.empty(0, np.uint64)])
    low = np.concatenate([some.low for some in prefixes] or [np.empty(0, np.uint64)])
    length = np.concatenate([some.length for some in prefixes] or [np.empty(0, np.uint8)])
    rule = np.repeat(np.arange(len(rules)), [len(some.high) for some in prefixes])
    wide = length == 0
    everywhere = {*rule[wide].tolist(), *(number for number, one in enumerate(rules) if not one.has_prefixes)}
    order = np.lexsort((rule, length, low, high))
    order = order[~wide[order]]
    high, low, length, rule = high[order], low[order], length[order], rule[order]
    new = np.ones(len(high), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1]) | (length[1:] != length[:-1])
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(high)))
    group = rule[starts]  # a prefix of one rule has the group of that rule alone
    groups: list[RuleList] = [(number,) for number in range(len(rules))]
    known: dict[RuleList, int] = {}
    for at in np.flatnonzero(counts > 1).tolist():
        members = tuple(rule[starts[at] : starts[at] + counts[at]].tolist())
        if members not in known:
            known[members] = len(groups)
            groups.append(members)
        group[at] = known[members]
    return Layout(Prefixes(high[starts], low[starts], length[starts]), group, groups, tuple(sorted(everywhere)))


@dataclass
class _Lists:
    """Lists of rules in order of rank, each once. The rule behind the last one is that of what no rule holds."""

    rules: Sequence[Rule]
    all: list[RuleList] = field(default_factory=list)
    _numbers: dict[RuleList, int] = field(default_factory=dict)
    _size: int = 0

    def merge(self, own: RuleList, around: RuleList) -> RuleList:
        """The rules of a prefix before those around it, by priority, as far as any is ever tried."""
        ranked = sorted(own, key=lambda number: -self.rules[number].priority)
        mine = set(own)
        outer = [number for number in around if number not in mine]
        found: list[int] = []
        at = 0
        for number in [*ranked, None]:
            while at < len(outer) and (number is None or self._goes_before(outer[at], number)):
                found.append(outer[at])
                at += 1
            if number is not None:
                found.append(number)
        for place, number in enumerate(found):
            if number == len(self.rules) or not self.rules[number].is_conditional:
                return tuple(found[: place + 1])
        return tuple(found)

    def _goes_before(self, outer: int, own: int) -> bool:
        return outer < len(self.rules) and self.rules[outer].priority > self.rules[own].priority

    def number(self, members: RuleList) -> int:
        if members not in self._numbers:
            self._size += len(members)
            if self._size > LIST_RULES_MAX:
                raise RatemillError("prefixes and rules without prefixes combine in too many ways",
                                    "give rules with a condition fewer prefixes, or join rules of one class")
            self._numbers[members] = len(self.all)
            self.all.append(members)
        return self._numbers[members]


def _ranges(found: Layout, lists: _Lists, root: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """First addresses of ranges, and the list of each."""
    count = len(found.group)
    parent, level = np.empty(count, np.int32), np.empty(count, np.uint8)
    high, low = np.empty(2 * count + 1, np.uint64), np.empty(2 * count + 1, np.uint64)
    prefix = np.empty(2 * count + 1, np.int32)
    used = kernels.lay_ranges(*found.prefixes, np.empty(kernels.NEST_MAX, np.int64), parent, level, high, low, prefix)
    number = np.full(count + 1, root, np.int64)  # the last one is that of no prefix
    for depth in range(int(level.max()) + 1 if count else 0):
        rows = np.flatnonzero(level == depth)
        pairs = number[parent[rows]] * len(found.groups) + found.group[rows]
        unique, inverse = np.unique(pairs, return_inverse=True)
        made = [lists.number(lists.merge(found.groups[pair % len(found.groups)], lists.all[pair // len(found.groups)]))
                for pair in unique.tolist()]
        number[rows] = np.array(made, np.int64)[inverse]
    return high[:used], low[:used], number[prefix[:used]]


def _codes(lists: _Lists, classes: Sequence[int]) -> NDArray[np.int32]:
    """Of each list: the class of its only rule, or the complement of its number."""
    return np.array([classes[members[0]] if len(members) == 1 else -1 - number
                     for number, members in enumerate(lists.all)], np.int32)


def _by_address(high: NDArray[np.uint64], low: NDArray[np.uint64], code: NDArray[np.int32]) -> kernels.ClassRanges:
    """Ranges that follow each other from address 0 on → what the kernel reads; neighbours with one code are joined."""
    keep = np.ones(len(code), np.bool_)
    keep[1:] = code[1:] != code[:-1]
    high, low, code = high[keep], low[keep], code[keep]
    narrow = low[: int(np.searchsorted(high, np.uint64(0), "right"))]
    begin = int(np.searchsorted(narrow, _IPV4_FIRST, "right")) - 1
    until = int(np.searchsorted(narrow, _IPV4_LAST, "right"))
    ipv4_first = (np.maximum(narrow[begin:until], _IPV4_FIRST) - _IPV4_FIRST).astype(np.uint32)
    bits = min(max((len(ipv4_first) - 1).bit_length() + 1, 1), TOP_BITS_MAX)
    starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(32 - bits)
    top = np.searchsorted(ipv4_first, np.append(starts, (1 << 32) - 1).astype(np.uint32), "right") - 1
    return kernels.ClassRanges(high, low, code, ipv4_first, code[begin:until].copy(), top.astype(np.int32),
                               np.array([32 - bits]))


def _packed(rules: Sequence[Rule], classes: Sequence[int], lists: Sequence[RuleList]) -> kernels.ClassRules:
    ranges = [pairs for rule in rules for pairs in (rule.as_numbers, rule.ports, rule.near_ports)]
    exporters = [_exporters(rule) for rule in rules]
    flat = [entry for entries in exporters for entry in entries]
    return kernels.ClassRules(
        first=_firsts(lists), rule=np.array([number for members in lists for number in members], np.int64),
        needs=np.array([*(_needs(rule) for rule in rules), 0], np.int64), rule_class=np.array(classes, np.int16),
        direction=np.array([*(int(rule.direction == "down") for rule in rules), 0], np.int64),
        dscp=np.array([*(sum(1 << value for value in rule.dscp) for rule in rules), 0], np.uint64),
        protocols=np.array([*(word for rule in rules for word in _protocol_words(rule)), 0, 0, 0, 0], np.uint64),
        ranges_first=_firsts([*ranges, (), (), ()]), low=np.array([low for pairs in ranges for low, _ in pairs], np.int64),
        high=np.array([high for pairs in ranges for _, high in pairs], np.int64),
        interfaces_first=_firsts([*exporters, ()]), exporter_high=np.array([entry[0] for entry in flat], np.uint64),
        exporter_low=np.array([entry[1] for entry in flat], np.uint64),
        interface=np.array([entry[2] for entry in flat], np.int64))


def _firsts(parts: Sequence[Sequence[object]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)


def _needs(rule: Rule) -> int:
    return (kernels.NEEDS_DIRECTION * (rule.direction != "both") | kernels.NEEDS_DSCP * bool(rule.dscp)
            | kernels.NEEDS_PROTOCOL * bool(protocols_of(rule)) | kernels.NEEDS_AS * bool(rule.as_numbers)
            | kernels.NEEDS_PORT * bool(rule.ports) | kernels.NEEDS_NEAR_PORT * bool(rule.near_ports)
            | kernels.NEEDS_INTERFACE * bool(rule.interfaces))


def protocols_of(rule: Rule) -> tuple[int, ...]:
    """The protocols that a rule holds for, empty for all: ports are those of protocols that have them."""
    if not rule.ports and not rule.near_ports:
        return rule.protocols
    return tuple(number for number in rule.protocols or PORT_PROTOCOLS if number in PORT_PROTOCOLS)


def _protocol_words(rule: Rule) -> list[int]:
    bits = sum(1 << number for number in protocols_of(rule))
    return [bits >> 64 * word & (1 << 64) - 1 for word in range(4)]


def _exporters(rule: Rule) -> list[tuple[int, int, int]]:
    found = []
    for exporter, interfaces in rule.interfaces:
        packed = parse_address(exporter)
        words = int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big")
        found += [(*words, interface) for interface in interfaces or (-1,)]
    return found


def ties(rules: Sequence[Rule], found: Layout) -> Iterator[tuple[int, int, Prefix | None]]:
    """Pairs of rules of different classes that one flow could fall under with equal rank, with a prefix that both have (None:
    both hold everywhere)."""
    yield from ((*pair, None) for pair in _tied(rules, found.everywhere))
    for number in range(len(rules), len(found.groups)):
        at = int(np.flatnonzero(found.group == number)[0])
        yield from ((*pair, found.prefixes.prefix(at)) for pair in _tied(rules, found.groups[number]))


def _tied(rules: Sequence[Rule], members: RuleList) -> Iterator[tuple[int, int]]:
    by_priority: dict[int, list[int]] = {}
    for number in members:
        by_priority.setdefault(rules[number].priority, []).append(number)
    for equals in by_priority.values():
        for one, other in combinations(equals, 2):
            if rules[one].class_ != rules[other].class_ and _both_can_hold(rules[one], rules[other]):
                yield one, other


def _both_can_hold(one: Rule, other: Rule) -> bool:
    """Whether there is a flow for which the conditions of both hold, prefixes aside."""
    return ((one.direction == other.direction or "both" in (one.direction, other.direction)) and _share(one.dscp, other.dscp)
            and _share(protocols_of(one), protocols_of(other)) and _touch(one.as_numbers, other.as_numbers)
            and _touch(one.ports, other.ports) and _touch(one.near_ports, other.near_ports)
            and (not one.interfaces or not other.interfaces or any(
                a == b and _share(these, those) for a, these in one.interfaces for b, those in other.interfaces)))


def _share(one: Sequence[int], other: Sequence[int]) -> bool:
    return not one or not other or not set(one).isdisjoint(other)


def _touch(one: Ranges, other: Ranges) -> bool:
    return not one or not other or any(a <= d and c <= b for a, b in one for c, d in other)
