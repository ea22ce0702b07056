"""Rule files of traffic classes: from the file to usage, with a version that begins in the middle of a flow."""

from __future__ import annotations

from pathlib import Path

import pytest
from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, Subscription, World

from core.periods import OPEN_END, OPEN_START, parse_instant

OCTOBER = """
from = 2026-10-01
[[rule]]
class = "web"
priority = 5
ports = [443, "8000-8100"]
protocols = ["tcp"]
[[rule]]
name = "peers"
class = "peering"
priority = 5
prefixes = ["8.0.0.0/8"]
prefix_file = "peers.txt"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    world = World(leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1")], seller_zone="Europe/Berlin",
                  subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin")],
                  classes=[("old", 1, ["8.8.0.0/16"])])
    made = make_home(tmp_path / "home", world)
    edge = parse_instant("2026-10-01T00:00:00+02:00")
    add_segment(made, [Flow(edge - 60_000, edge + 60_000, "8.8.8.8", "10.0.0.1", 1001, 10, source_port=443),
                       Flow(edge, edge, "10.0.0.1", "203.0.113.9", 7, 1, destination_port=8050)], "s")
    (tmp_path / "peers.txt").write_text("# peers\n203.0.113.0/24\n", encoding="utf-8")
    (tmp_path / "rules.toml").write_text(OCTOBER, encoding="utf-8")
    return made.path


def _usage(home: Path) -> list[tuple[str, str, int, int]]:
    run_cli("aggregate", "run", home=home)
    run_cli("usage", "publish", home=home)
    return sorted((row["class"], row["direction"], row["octets"], row["flows"]) for period in ("2026-09", "2026-10")
                  for row in rows(run_cli("usage", "export", period, home=home)))


def test_a_version_cuts_a_flow_at_its_date_and_the_same_file_again_changes_nothing(home: Path) -> None:
    before = _usage(home)
    assert before == [("default", "up", 7, 1), ("old", "down", 500, 1), ("old", "down", 501, 0)]
    file = str(home.parent / "rules.toml")
    assert rows(run_cli("classes", "apply", file, "--dry-run", home=home))[0]["added"] == 1
    assert rows(run_cli("classes", "list", home=home))[1:] == []
    assert rows(run_cli("classes", "apply", file, home=home)) == [
        {"version": "2026-10-01", "added": 1, "changed": 0, "unchanged": 0, "rules": 2, "prefixes": 2}]
    assert rows(run_cli("classes", "apply", file, home=home))[0]["unchanged"] == 1
    assert _usage(home) == [("old", "down", 500, 1), ("peering", "down", 501, 0), ("peering", "up", 7, 1)]
    (home.parent / "rules.toml").write_text(OCTOBER.replace("priority = 5", "priority = 6", 1), encoding="utf-8")
    assert rows(run_cli("classes", "apply", file, home=home))[0]["changed"] == 1
    assert _usage(home) == [("old", "down", 500, 1), ("web", "down", 501, 0), ("web", "up", 7, 1)]
    shown = rows(run_cli("classes", "show", "2026-10-01", home=home))
    assert [(row["rule"], row["class"], row["prefixes"], row["ports"]) for row in shown] == [
        ("rule 1", "web", 0, ["443", "8000-8100"]), ("peers", "peering", 2, [])]


def test_every_problem_is_named_with_its_place_and_nothing_is_stored(home: Path) -> None:
    (home.parent / "bad.toml").write_text('from = 2026-10-01\n[[rule]]\nclass = "a"\npriority = "x"\nportz = [1]\n[[rule]]\n'
                                          'class = "b"\npriority = 1\ndscp = ["EG"]\nprefix_file = "bad.txt"\n',
                                          encoding="utf-8")
    (home.parent / "bad.txt").write_text("10.0.0.0/8\n10.0.0.1/8\n", encoding="utf-8")
    found = rows(run_cli("classes", "apply", str(home.parent / "bad.toml"), home=home, check=1))
    assert [(row["line"], row["column"]) for row in found] == [(4, "priority"), (5, "portz"), (9, "dscp"), (2, "")]
    (home.parent / "tie.toml").write_text('from = 2026-10-01\n[[rule]]\nname = "x"\nclass = "a"\npriority = 1\nas = [64500]\n'
                                          '[[rule]]\nname = "y"\nclass = "b"\npriority = 1\ndscp = ["EF"]\n', encoding="utf-8")
    tied = rows(run_cli("classes", "apply", str(home.parent / "tie.toml"), home=home, check=1))
    assert len(tied) == 1
    assert "'x'" in tied[0]["problem"]
    assert "'y'" in tied[0]["problem"]
    assert len(rows(run_cli("classes", "list", home=home))) == 1


def test_explain_names_the_rule_that_wins_and_what_the_others_lack(home: Path) -> None:
    run_cli("classes", "apply", str(home.parent / "rules.toml"), home=home)
    flow = ("203.0.113.9", "--at", "2026-10-05T00:00Z", "--protocol", "tcp")
    found = rows(run_cli("classes", "explain", *flow, "--port", "8050", home=home))
    assert [(row["rule"], row["prefix"], row["wins"]) for row in found] == [
        ("peers", "203.0.113.0/24", True), ("rule 1", None, False)]
    assert found[1]["why"] == "holds, and comes behind the one that wins"
    [lone] = rows(run_cli("classes", "explain", "192.0.2.1", *flow[1:], home=home))[:1]
    assert lone["why"] == "it asks for far port 443, 8000-8100, which was not given"
    [before] = rows(run_cli("classes", "explain", "8.8.1.1", "--at", "2026-09-05T00:00Z", home=home))
    assert (before["version"], before["class"], before["wins"]) == ("settings", "old", True)
    assert "neither up nor down" in run_cli("classes", "explain", "8.8.1.1", "--direction", "x", home=home, check=2).stderr
