"""Accounting events → sessions and the addresses that they held: a pure function of the set of events.

Whatever the order in which events arrive, how often, and how late, the same set gives the same intervals; of one address or
prefix they never overlap. The rules:

* A session is what has one NAS, Acct-Session-Id and user. An Accounting-On or -Off ends every session of its NAS, and the
  same Acct-Session-Id behind it is another session: a NAS that starts anew may count from the beginning. At one instant, stops
  and interims come before it, starts behind it.
* It begins with its earliest Start; where that was lost, at the earliest instant that Acct-Session-Time points back to.
* It ends with its earliest Stop; where that was lost, at the next Accounting-On or -Off of the NAS, else `lost_after_ms` behind
  its last event (0: it stays open).
* An address that is reported first is the session's from its begin, another one of the same kind from the event that reports
  it; events that report none of a kind change nothing.
* Where two sessions hold one address at a time, the one that began later has it for as long as it lasts.
* Counters are cumulative: what they grow by counts, and one that has become smaller began anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from core.addresses import Prefix
from core.periods import OPEN_END
from subscribers.radius.packets import Counters, Status

IPV4_LENGTH = 96
"""Prefixes not shorter than this that are mapped IPv4 addresses are one kind, all others the other."""


@dataclass(frozen=True, slots=True)
class Event:
    """One accounting request, as far as sessions depend on it."""

    nas: str
    session: str
    user: str
    status: Status
    at: int
    """ms: Event-Timestamp, else arrival less Acct-Delay-Time."""
    prefixes: tuple[Prefix, ...] = ()
    seconds: int | None = None
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Held:
    """An address or prefix that a session held in [start, end)."""

    prefix: Prefix
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a session's counters had grown by since its begin, at the instant of a report."""

    at: int
    input_octets: int
    output_octets: int


@dataclass(frozen=True, slots=True)
class Session:
    """A user's stay at a NAS."""

    nas: str
    session: str
    user: str
    start: int
    end: int
    """OPEN_END while nothing says that it is over."""
    closed_by: str
    """stop, nas (Accounting-On or -Off), lost (no event for too long) or the empty text: it is open."""
    held: tuple[Held, ...]
    input_octets: int
    """As the NAS counts: what it received from the user, where it keeps to RFC 2866."""
    output_octets: int
    events: int
    readings: tuple[Reading, ...] = ()
    """Of the reports up to the end, in order; the last one has the session's octets."""

    @property
    def known_until(self) -> int:
        """The end, if a Stop told it; else the last report: of what came behind it nothing is known."""
        return self.end if self.closed_by == "stop" else max(self.readings[-1].at if self.readings else 0, self.start)

    def octets(self, start: int, end: int) -> tuple[int, int]:
        """Input and output in [start, end): what came between two reports is spread evenly over the time between them.

        Parts are whole octets, and those of neighbouring spans add up to those of the whole (the cumulative split that
        flows are cut by, too).
        """
        found_in = found_out = 0
        before = Reading(self.start, 0, 0)
        for reading in self.readings:
            found_in += _part(before.at, reading.at, reading.input_octets - before.input_octets, start, end)
            found_out += _part(before.at, reading.at, reading.output_octets - before.output_octets, start, end)
            before = Reading(max(before.at, reading.at), reading.input_octets, reading.output_octets)
        return found_in, found_out


def _part(first: int, last: int, amount: int, start: int, end: int) -> int:
    """The part in [start, end) of what came in [first, last); at once, if that is an instant or none."""
    if last <= first:
        return amount if start <= first < end else 0
    lower, upper = min(max(start, first), last), max(min(end, last), first)
    if upper <= lower:
        return 0
    return amount * (upper - first) // (last - first) - amount * (lower - first) // (last - first)


def sessions(events: Iterable[Event], lost_after_ms: int = 0) -> list[Session]:
    """All sessions of these events, in order of begin, NAS, Acct-Session-Id and user."""
    distinct = set(events)
    resets: dict[str, list[int]] = {}
    for event in distinct:
        if event.status in (Status.ACCOUNTING_ON, Status.ACCOUNTING_OFF):
            resets.setdefault(event.nas, []).append(event.at)
    for instants in resets.values():
        instants.sort()
    groups: dict[tuple[str, str, str, int], list[Event]] = {}
    for event in distinct:
        if event.status not in (Status.ACCOUNTING_ON, Status.ACCOUNTING_OFF):
            life = _life(event, resets.get(event.nas, []))
            groups.setdefault((event.nas, event.session, event.user, life), []).append(event)
    found = [_session(sorted(group, key=_order), resets.get(key[0], []), lost_after_ms) for key, group in groups.items()]
    return _without_overlaps(sorted(found, key=_rank))


def _life(event: Event, resets: Sequence[int]) -> int:
    """How many resets of its NAS lie before an event."""
    if event.status == Status.START:
        return sum(at <= event.at for at in resets)
    return sum(at < event.at for at in resets)


_PLACES = {Status.START: 0, Status.INTERIM: 1, Status.STOP: 2}


def _order(event: Event) -> tuple[object, ...]:
    counters = event.counters
    numbers = (event.seconds, counters.input_octets, counters.output_octets, counters.input_packets, counters.output_packets)
    return (event.at, _PLACES[event.status], [(number is not None, number or 0) for number in numbers],
            [(prefix.address, prefix.length) for prefix in event.prefixes])


def _rank(session: Session) -> tuple[int, str, str, str]:
    return session.start, session.nas, session.session, session.user


def _session(events: list[Event], resets: Sequence[int], lost_after_ms: int) -> Session:
    first = events[0]
    starts = [event.at for event in events if event.status == Status.START]
    start = min(starts) if starts else min(event.at - (event.seconds or 0) * 1000 for event in events)
    stops = [event.at for event in events if event.status == Status.STOP]
    newest = max(event.at for event in events)
    following = [at for at in resets if at > newest or (at == newest and not stops)]
    end, closed_by = OPEN_END, ""
    if stops:
        end, closed_by = min(stops), "stop"
    elif following:
        end, closed_by = following[0], "nas"
    if not stops and lost_after_ms and newest + lost_after_ms < end:
        end, closed_by = newest + lost_after_ms, "lost"
    before = [at for at in resets if at <= (min(starts) if starts else first.at)]
    if before and not starts:
        start = max(start, before[-1])  # nothing outlives its NAS
    end = max(end, start)
    ours = [event for event in events if event.at <= end]
    grown_in = _grown([event.counters.input_octets for event in ours])
    grown_out = _grown([event.counters.output_octets for event in ours])
    readings = tuple(Reading(event.at, *counts) for event, *counts in zip(ours, grown_in, grown_out, strict=True))
    return Session(first.nas, first.session, first.user, start, end, closed_by, tuple(_held(ours, start, end)),
                   *((readings[-1].input_octets, readings[-1].output_octets) if readings else (0, 0)), len(events), readings)


def _kind(prefix: Prefix) -> str:
    if prefix.address[:12] == bytes(10) + b"\xff\xff" and prefix.length >= IPV4_LENGTH:
        return "ipv4"
    return "ipv6 address" if prefix.length == 128 else "ipv6 prefix"


def _held(events: Sequence[Event], start: int, end: int) -> list[Held]:
    """What was held when, by kind: a report of a kind replaces what was reported of it before."""
    reports: dict[str, list[tuple[int, frozenset[Prefix]]]] = {}
    for event in events:
        for kind in {_kind(prefix) for prefix in event.prefixes}:
            known = reports.setdefault(kind, [])
            told = frozenset(prefix for prefix in event.prefixes if _kind(prefix) == kind)
            known.append((max(event.at, start) if known else start, told))
    found: list[Held] = []
    for known in reports.values():
        for (at, prefixes), until in zip(known, [*(later for later, _ in known[1:]), end], strict=True):
            found += [Held(prefix, at, until) for prefix in prefixes if at < until]
    return _joined(found)


def _joined(held: list[Held]) -> list[Held]:
    """Neighbours of one prefix as one."""
    found: list[Held] = []
    for one in sorted(held, key=lambda h: (h.prefix.address, h.prefix.length, h.start)):
        if found and found[-1].prefix == one.prefix and found[-1].end == one.start:
            found[-1] = Held(one.prefix, found[-1].start, one.end)
        else:
            found.append(one)
    return found


def _grown(values: Sequence[int | None]) -> list[int]:
    """What a cumulative counter had grown by since the session began, at each value; without a value, as before."""
    total = last = 0
    found: list[int] = []
    for value in values:
        if value is not None:
            total += value - last if value >= last else value
            last = value
        found.append(total)
    return found


def _without_overlaps(found: list[Session]) -> list[Session]:
    """Sessions in order, of which each address is only the later one's where two had it."""
    taken: dict[Prefix, list[tuple[int, int]]] = {}
    kept: dict[int, list[Held]] = {}
    for index in reversed(range(len(found))):
        kept[index] = []
        for one in found[index].held:
            free = [(one.start, one.end)]
            for start, end in taken.get(one.prefix, []):
                free = [part for a, b in free for part in ((a, min(b, start)), (max(a, end), b)) if part[0] < part[1]]
            kept[index] += [Held(one.prefix, a, b) for a, b in free]
            taken.setdefault(one.prefix, []).append((one.start, one.end))
    return [replace(one, held=tuple(sorted(kept[index], key=lambda h: (h.prefix.address, h.prefix.length, h.start))))
            for index, one in enumerate(found)]
