"""Random rules and flows: the compiled lists give what a search through all rules gives."""

from __future__ import annotations

import os
import random
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation import class_explanation, class_file, class_ranges, kernels
from aggregation.classes import Classifier
from core import class_rules
from core.addresses import IPV4_MAPPED, PROTOCOL_NUMBERS, Prefix, format_address, parse_address
from core.class_rules import Rule
from core.periods import OPEN_START

PREFIXES = 1_000_000 if os.environ.get("RATEMILL_NIGHTLY") else 100_000
EXPORTERS = ["192.0.2.1", "192.0.2.2"]
PORTED = {6, 17, 33, 132, 136}
ADDRESS_BITS = [parse_address("10.0.0.0"), parse_address("2001:db8::"), bytes(16), b"\xff" * 16]


def _address(rng: random.Random) -> int:
    return int.from_bytes(rng.choice(ADDRESS_BITS), "big") ^ rng.getrandbits(3) ^ (rng.getrandbits(2) << 20)


def _some(rng: random.Random, values: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted(rng.sample(values, rng.randrange(1, 3)))) if rng.random() < 0.25 else ()


def _rule(rng: random.Random, number: int) -> tuple[Rule, list[Prefix]]:
    prefixes = []
    if rng.random() < 0.7:
        for _ in range(rng.randrange(1, 6)):
            length = rng.choice([0, 96, 100, 107, 108, 109, 120, 126, 127, 128, rng.randrange(129)])
            address = _address(rng) >> (128 - length) << (128 - length)
            prefixes.append(Prefix(address.to_bytes(16, "big"), length))
    pairs = [(1, 2), (5, 9), (11, 11)]
    return Rule(f"r{number}", f"c{rng.randrange(9)}", rng.randrange(3), rng.choice(["both", "both", "up", "down"]),
                _some(rng, pairs), _some(rng, [0, 8, 46, 63]), _some(rng, [6, 17, 132]), _some(rng, pairs), _some(rng, pairs),
                _some(rng, [(EXPORTERS[0], ()), (EXPORTERS[1], (1, 3))]), bool(prefixes)), prefixes


def _slowly(rules: list[tuple[Rule, list[Prefix]]], flow: dict[str, Any], up: bool) -> str:
    far, near, interface = ("destination", "source", "output") if up else ("source", "destination", "input")
    best: tuple[int, int, int] | None = None
    for number, (rule, prefixes) in enumerate(rules):
        address = int.from_bytes(flow[f"{far}_address"], "big")
        lengths = [p.length for p in prefixes if address >> (128 - p.length) == p.first >> (128 - p.length)]
        if rule.has_prefixes and not lengths:
            continue
        checks = [rule.direction in ("both", "up" if up else "down"),
                  not rule.dscp or flow["tos"] >> 2 in rule.dscp, not rule.protocols or flow["protocol"] in rule.protocols,
                  not (rule.ports or rule.near_ports) or flow["protocol"] in PORTED]
        for ranges, value in ((rule.as_numbers, flow[f"{far}_as"]), (rule.ports, flow[f"{far}_port"]),
                              (rule.near_ports, flow[f"{near}_port"])):
            checks.append(not ranges or any(a <= value <= b for a, b in ranges))
        checks.append(not rule.interfaces or any(
            parse_address(exporter) == flow["exporter"] and (not listed or flow[f"{interface}_interface"] in listed)
            for exporter, listed in rule.interfaces))
        rank = (rule.priority, max(lengths, default=0), -number)
        if all(checks) and (best is None or rank > best):
            best = rank
    return "default" if best is None else rules[-best[2]][0].class_


def _explained(rules: list[tuple[Rule, list[Prefix]]], flow: dict[str, Any], up: bool) -> str:
    far, near, interface = ("destination", "source", "output") if up else ("source", "destination", "input")
    rows = class_explanation.ranked(
        [rule for rule, _ in rules], [class_rules.from_prefixes(p) for _, p in rules],
        class_explanation.Asked(flow[f"{far}_address"], "up" if up else "down", 0, flow[f"{far}_as"], flow["tos"] >> 2,
                                flow["protocol"], flow[f"{far}_port"], flow[f"{near}_port"], flow["exporter"],
                                flow[f"{interface}_interface"]))  # fmt: skip
    winner: str
    [winner] = [row["class"] for row in rows if row["wins"]]
    return winner


@pytest.mark.parametrize("seed", range(40))
def test_compiled_rules_equal_a_search_through_all_of_them(seed: int) -> None:
    rng = random.Random(seed)
    starts = (OPEN_START, *sorted(rng.sample(range(1, 100), rng.randrange(3))))
    versions = [[_rule(rng, number) for number in range(rng.randrange(25))] for _ in starts]
    ids = {"default": 1, **{f"c{number}": number + 2 for number in range(9)}}
    names = {number: name for name, number in ids.items()}
    classifier = Classifier(starts, tuple(class_ranges.compile_rules(
        [rule for rule, _ in rules], [class_rules.from_prefixes(p) for _, p in rules], ids, 1) for rules in versions))
    flows = [{"exporter": parse_address(rng.choice([*EXPORTERS, "192.0.2.3"])),
              **{f"{end}_address": _address(rng).to_bytes(16, "big") for end in ("source", "destination")},
              **{f"{end}_{what}": rng.randrange(13) for end in ("source", "destination") for what in ("port", "as")},
              "tos": rng.choice([0, 1, 32, 184, 255]), "protocol": rng.choice([1, 6, 17, 132]),
              "input_interface": rng.randrange(4), "output_interface": rng.randrange(4)} for _ in range(150)]
    kinds: dict[str, Any] = {"tos": np.uint8, "protocol": np.uint8, "source_port": np.uint16, "destination_port": np.uint16}
    columns = {name: np.frombuffer(b"".join(f[name] for f in flows), np.uint8).reshape(-1, 16)
               if isinstance(flows[0][name], bytes) else np.array([f[name] for f in flows], kinds.get(name, np.uint32))
               for name in flows[0]}
    count = len(flows)
    begin = np.array([rng.randrange(100) for _ in flows])
    end = begin + np.array([rng.randrange(50) for _ in flows])
    spans = kernels.Spans(np.arange(count), np.zeros(count, np.uint8), np.array([rng.randrange(2) for _ in flows], np.uint8),
                          np.zeros(count, np.uint8), np.ones(count, np.int64), begin, end, np.zeros(count, np.int16),
                          np.zeros(count, np.int32))
    found = classifier.classify_spans(columns, spans, int(begin.min()), int(end.max()))
    assert sorted(set(zip(found.flow.tolist(), found.from_ms.tolist(), strict=True))) == sorted({
        (flow, at) for flow in range(count) for at in (begin[flow], *(s for s in starts if begin[flow] < s < end[flow]))})
    for flow, side, at, far_class in zip(found.flow.tolist(), found.end.tolist(), found.from_ms.tolist(),
                                         found.far_class.tolist(), strict=True):
        rules = next(rules for start, rules in reversed(list(zip(starts, versions, strict=True))) if start <= at)
        assert names[far_class] == _slowly(rules, flows[flow], side == 0)
        if flow < 20:
            assert _explained(rules, flows[flow], side == 0) == names[far_class]


def test_a_great_many_prefixes_of_a_file_classify_as_a_dictionary_does(tmp_path: Path) -> None:
    rng = random.Random(1)
    table = {(rng.getrandbits(24) << 8 if length == 24 else rng.getrandbits(16) << 16, length)
             for length in rng.choices([16, 24], [1, 20], k=PREFIXES)}
    lines = [f"{format_address(IPV4_MAPPED + address.to_bytes(4, 'big'))}/{length}" for address, length in table]
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text("\n".join(lines[number::2]), encoding="utf-8")
    (tmp_path / "rules.toml").write_text("from = 2026-10-01\n" + "".join(
        f'[[rule]]\nclass = "c{n}"\npriority = 1\nprefix_file = "{n}.txt"\n' for n in range(2)), encoding="utf-8")
    draft = class_file.read(tmp_path / "rules.toml")
    assert not draft.problems
    classifier = Classifier((OPEN_START,), (class_ranges.compile_rules(draft.rules, draft.prefixes, {"c0": 0, "c1": 1}, 2),))
    owner = {prefix: number % 2 for number, prefix in enumerate(table)}
    known = list(table)
    wanted = [rng.choice(known)[0] | rng.getrandbits(8) if rng.random() < 0.5 else rng.getrandbits(32)
              for _ in range(20_000)]
    packed = np.frombuffer(b"".join(IPV4_MAPPED + a.to_bytes(4, "big") for a in wanted), np.uint8)
    expected = [owner.get((a & 0xFFFFFF00, 24), owner.get((a & 0xFFFF0000, 16), 2)) for a in wanted]
    assert classifier.classify(packed.reshape(-1, 16)).tolist() == expected


def test_the_example_of_the_guide_is_a_rule_file(tmp_path: Path) -> None:
    guide = Path(__file__).parents[3] / "docs/how-to/traffic-classes.md"
    example = guide.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "rules.toml").write_text(example, encoding="utf-8")
    draft = class_file.read(tmp_path / "rules.toml")
    assert draft.problems == []
    assert len(draft.rules) == len(tomllib.loads(example)["rule"]) == 3
    assert PROTOCOL_NUMBERS["udp"] in draft.rules[1].protocols
