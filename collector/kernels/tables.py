"""Hash tables of the scan: open addressing over the rows of a record array (-1 is free), and the hash of a payload."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import IN_USE
from core.jit import inline_kernel, kernel


@inline_kernel
def mixed(value: Any) -> Any:
    """Spread the bits of a word over all of it (the finaliser of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inline_kernel
def payload_hash(words: Any, first: int, length: int, seed: Any) -> Any:
    """128 bits of a payload that begins at a word; octets beyond `length` don't count. Four chains, for they overlap."""
    one = mixed(np.uint64(length) + np.uint64(0x9E3779B97F4A7C15) * (seed + np.uint64(1)))
    two = one ^ np.uint64(0xD6E8FEB86659FD93)
    three = one ^ np.uint64(0xA0761D6478BD642F)
    four = one ^ np.uint64(0xE7037ED1A0B428DB)
    whole = length >> 3
    at = np.uint64(first)
    stop = at + np.uint64(whole & ~3)
    while at < stop:
        one = (one ^ words[at]) * np.uint64(0x9FB21C651E98DF25)
        two = (two ^ words[at + np.uint64(1)]) * np.uint64(0xC2B2AE3D27D4EB4F)
        three = (three ^ words[at + np.uint64(2)]) * np.uint64(0xA24BAED4963EE407)
        four = (four ^ words[at + np.uint64(3)]) * np.uint64(0xFF51AFD7ED558CCD)
        one ^= one >> np.uint64(31)
        two ^= two >> np.uint64(31)
        three ^= three >> np.uint64(31)
        four ^= four >> np.uint64(31)
        at += np.uint64(4)
    for i in range(first + (whole & ~3), first + whole):
        one = mixed(one ^ words[i])
    rest = length & 7
    if rest:
        two = mixed(two ^ (words[first + whole] & ((np.uint64(1) << np.uint64(8 * rest)) - np.uint64(1))))
    high = mixed(one + (three ^ (two << np.uint64(32))) + (two >> np.uint64(7)))
    low = mixed(two + mixed(four) + (one << np.uint64(17)) + (three >> np.uint64(9)))
    return mixed(high ^ mixed(four)), mixed(low ^ three)


@inline_kernel
def sighting_tag(first: Any) -> Any:
    """What a place of the table of sightings holds of a hash: bits that did not choose the place."""
    return np.int64(first >> np.uint64(59))


@inline_kernel
def domain_key(high: Any, low: Any, domain: int, protocol: int, session: int) -> Any:
    key = mixed(high ^ mixed(low ^ mixed(np.uint64(domain) * np.uint64(256) + np.uint64(protocol))))
    return mixed(key ^ np.uint64(session)) if session else key


@kernel
def find_domain(rows: Any, table: Any, high: Any, low: Any, domain: int, protocol: int, session: int, probes: int) -> Any:
    """The row of this key, or -1 - place where it would be entered: one behind the table if `probes` found none. A session
    that is over is found no more."""
    mask = len(table) - 1
    at = np.int64(domain_key(high, low, domain, protocol, session) & np.uint64(mask))
    for _ in range(probes):
        if table[at] < 0:
            return -1 - at
        row = rows[table[at]]
        if (row["high"] == high and row["low"] == low and row["domain"] == domain and row["protocol"] == protocol
                and row["session"] == session and row["ended"] == IN_USE):
            return np.int64(table[at])
        at = (at + 1) & mask
    return -1 - len(table)


@inline_kernel
def template_key(domain: int, identifier: int) -> Any:
    return mixed(np.uint64(domain) * np.uint64(65536) + np.uint64(identifier))


@kernel
def find_template(rows: Any, table: Any, domain: int, identifier: int, probes: int) -> Any:
    mask = len(table) - 1
    at = np.int64(template_key(domain, identifier) & np.uint64(mask))
    for _ in range(probes):
        if table[at] < 0:
            return -1 - at
        row = rows[table[at]]
        if row["domain"] == domain and row["identifier"] == identifier:
            return np.int64(table[at])
        at = (at + 1) & mask
    return -1 - len(table)


@inline_kernel
def sampler_key(domain: int, kind: int, identifier: Any) -> Any:
    return mixed(identifier ^ mixed(np.uint64(domain) * np.uint64(2) + np.uint64(kind)))


@kernel
def find_sampler(rows: Any, table: Any, domain: int, kind: int, identifier: Any, probes: int) -> Any:
    mask = len(table) - 1
    at = np.int64(sampler_key(domain, kind, identifier) & np.uint64(mask))
    for _ in range(probes):
        if table[at] < 0:
            return -1 - at
        row = rows[table[at]]
        if row["domain"] == domain and row["kind"] == kind and row["identifier"] == identifier:
            return np.int64(table[at])
        at = (at + 1) & mask
    return -1 - len(table)


@kernel
def index_tables(counts: Any, domains: Any, domain_table: Any, templates: Any, template_table: Any, samplers: Any,
                 sampler_table: Any) -> None:
    """Fill the (empty) hash tables from the rows."""
    for i in range(counts[0]["domains"]):
        row = domains[i]
        if row["ended"] == IN_USE:
            domain_table[-1 - find_domain(domains, domain_table, row["high"], row["low"], row["domain"], row["protocol"],
                                          row["session"], len(domain_table))] = i
    for i in range(counts[0]["templates"]):
        row = templates[i]
        template_table[-1 - find_template(templates, template_table, row["domain"], row["identifier"],
                                          len(template_table))] = i
    for i in range(counts[0]["samplers"]):
        row = samplers[i]
        sampler_table[-1 - find_sampler(samplers, sampler_table, row["domain"], row["kind"], row["identifier"],
                                        len(sampler_table))] = i
