"""Hostile datagrams of every class: bounded work, flat memory, and good packets around them are decoded all the same.

Work is counted in steps of the compiled kernels (`fuzz.counted_kernels`), in a process of its own: no clock is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fuzz.hostile import Hostile, calm, floods
from fuzz.invariants import broken, state_octets
from harness import ROOT, sessions, shared
from journal_bodies import NOW_MS, Datagram, body_of, capture_datagrams

from collector.decoder import Decoded, Decoder
from collector.settings import Collector, CollectorSettings

ATTACKER = "203.0.113.66"
STEPS_FOR_1_MS = 700_000
"""Of compiled kernels: below 1 ms on any machine of this century (`benchmarks/hostile.py` prints the milliseconds)."""


def shared_hostile() -> Iterator[Hostile]:
    """The vectors of the reference material; NAME.0, NAME.1 … are one."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(shared("hostile").glob("*.bin")):
        found.setdefault(path.name.split(".")[0], []).append(path.read_bytes())
    return (Hostile(name, payloads) for name, payloads in found.items())


def everything() -> list[Hostile]:
    return [*shared_hostile(), *calm(), *floods()]


def feed_all(decoder: Decoder, payloads: list[bytes], source: str = ATTACKER, at: int = NOW_MS) -> list[Decoded]:
    """One datagram a call, and what it has set free."""
    results = []
    for number, payload in enumerate(payloads):
        results.append(decoder.feed(body_of([Datagram(payload, at + number, source)]), number))
        results += decoder.rest(number)
    return results


def test_no_hostile_datagram_costs_more_than_its_octets_pay_for() -> None:
    """4 steps an octet are usual; selectors that were aimed at one place of a table cost the most."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-m", "fuzz.collector.count_hostile_steps"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    counted = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(counted) > 10_000
    assert not [one for one in counted if one["steps"] > STEPS_FOR_1_MS]
    releasing = {one["name"] for one in counted if one["released"]}
    dear = [one for one in counted if one["steps"] > 5_000 + 12 * one["octets"] and one["name"] not in releasing
            and not one["grown"] and one["steps"] > 2 * one["waiting"] + 5_000]
    assert not dear, dear[:5]


@pytest.mark.parametrize("which", ["calm", "floods", "shared"])
def test_the_invariants_hold_for_every_hostile_datagram(which: str) -> None:
    settings = CollectorSettings()
    for hostile in {"calm": calm, "floods": floods, "shared": shared_hostile}[which]():
        decoder = Decoder(settings)
        for number, payload in enumerate(hostile.payloads):
            datagrams = 1
            for decoded in [decoder.feed(body_of([Datagram(payload, NOW_MS + number, ATTACKER)]), number),
                            *decoder.rest(number)]:
                assert not broken(decoded, datagrams, settings), (hostile.name, number)
                datagrams = 0


def test_what_a_datagram_sets_free_is_capped() -> None:
    """16 MB wait for one template: no call gives more rows than a few full datagrams, and in the end all are there."""
    settings = CollectorSettings()
    most = 3 * 2 * settings.collector.records_per_datagram_max * 2
    for hostile in floods():
        if "bomb" not in hostile.name:
            continue
        decoder = Decoder(settings)
        results = feed_all(decoder, hostile.payloads)
        assert max(one.counts.flows for one in results) <= most, hostile.name
        assert max(one.counts.released_sets for one in results) <= 2000, hostile.name
        assert decoder.state.waiting == 0, hostile.name
        began = sum(one.counts.waiting_sets for one in results)
        assert sum(one.counts.released_sets for one in results) == began > 0, hostile.name


def test_released_flows_are_those_of_data_that_came_after_its_template() -> None:
    """The same sets, template first or last, however many steps the release takes."""
    for hostile in floods():
        if hostile.name in ("ipfix_bomb_of_flows", "ipfix_bomb_of_many_small_sets", "ipfix_bomb_of_two_directions"):
            *data, template = hostile.payloads
            last, first = ([row for one in feed_all(Decoder(CollectorSettings()), order) for row in rows_of(one)]
                           for order in ([*data, template], [template, *data]))
            assert sorted(last) == sorted(first), hostile.name
            assert len(last) > 1000


def rows_of(decoded: Decoded) -> list[bytes]:
    """Flows as octets, without the times, which the clock of a later arrival may move."""
    names = ("source_address", "destination_address", "octets", "packets", "source_port", "rate_numerator", "domain")
    count = decoded.counts.flows
    if count == 0:
        return []
    columns = [np.ascontiguousarray(decoded.flows[name]).view(np.uint8).reshape(count, -1) for name in names]
    return [row.tobytes() for row in np.concatenate(columns, axis=1)]


def test_repeating_hostile_datagrams_grows_no_memory() -> None:
    """Tables grow to their bounds and no further: the third round needs what the second did."""
    bounds = Collector(domains_max=2000, templates_max=4000, samplers_max=4000, waiting_octets_max=1 << 20, sightings_max=8192)
    decoder = Decoder(CollectorSettings(collector=bounds))
    chosen = [hostile for hostile in everything() if len(hostile.payloads) <= 60]
    sizes = []
    for turn in range(3):
        for number, hostile in enumerate(chosen):
            at = NOW_MS + 1000 * (turn * len(chosen) + number)
            decoder.feed(body_of([Datagram(p, at, ATTACKER) for p in hostile.payloads]), number)
            for _ in decoder.rest(number):
                pass
        sizes.append(state_octets(decoder))
    assert sizes[2] == sizes[1]
    assert sizes[1] < 256 << 20


def captures() -> list[list[Datagram]]:
    folder = shared("captures")
    return [[one for name in session["files"] for one in capture_datagrams(folder / name)] for session in sessions()]


def fed_together(parts: list[list[Datagram]], mine: str) -> tuple[dict[str, Any], list[Any]]:
    """Flows and exporter counts of `mine`, each part in a block of its own."""
    decoder = Decoder(CollectorSettings())
    decoded = []
    for number, part in enumerate(parts):
        decoded.append(decoder.feed(body_of(part), number))
        decoded += decoder.rest(number)
    flows = {name: np.concatenate([one.flows[name] for one in decoded]) for name in decoded[0].flows}
    chosen = flows["exporter"][:, 15] != int(mine.split(".")[-1])
    return {name: column[chosen] for name, column in flows.items()}, [
        row for row in decoder.state.exporters() if row.exporter[15] != int(mine.split(".")[-1])]


def test_good_packets_around_hostile_ones_are_all_decoded() -> None:
    """Each real session, with hostile datagrams of another exporter before, between and behind its own."""
    attacks = [hostile.payloads[:40] for hostile in everything()]
    place = 0
    for session in captures():
        good = [one._replace(received=one.received or NOW_MS) for one in session]
        alone, exporters_alone = fed_together([good], ATTACKER)
        mixed = []
        for one in good:
            for attack in (attacks[place % len(attacks)], attacks[(place + 1) % len(attacks)]):
                mixed += [Datagram(payload, one.received, ATTACKER) for payload in attack[:6]]
            place += 2
            mixed.append(one)
        beside, exporters_beside = fed_together([mixed], ATTACKER)
        assert all(np.array_equal(alone[name], beside[name]) for name in alone)
        assert exporters_alone == exporters_beside
    assert place > len(attacks), "every attack had its turn"
