"""Plans and calendars change: batches whose cells answer for it are published anew, the others are read again."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_plans, add_segment, make_home, note_change
from oracles import slow_usage
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from aggregation.batches import Summary, aggregate
from aggregation.publish import publish
from core import tables
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START, parse_instant
from storage import generations, sql
from storage.home import Home

ACTOR = Actor("test", "test")
SEPTEMBER_30 = parse_instant("2026-09-30T00:00:00Z")
EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)


def night_from(minute: int) -> Calendar:
    return Calendar((Zone("day", EVERY_DAY, 7 * 60, minute),), "night")


def make_world(timezone: str = "Europe/Berlin", calendar: Calendar | None = None, five_minutes: bool = False) -> World:
    return World(
        leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "S2")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, timezone, "home"),
                       Subscription("S2", OPEN_START, OPEN_END, "Europe/Berlin", "other")],
        plans={"home": ("day", five_minutes), "other": (None, False)}, calendars={"day": calendar or night_from(22 * 60)},
        classes=[], seller_zone="Europe/Berlin")


def make_flows() -> list[Flow]:
    rng = random.Random(5)
    flows = []
    for _ in range(600):
        start = SEPTEMBER_30 + rng.randrange(2 * 86_400_000)
        flows.append(Flow(start, start + rng.randrange(3_000_000), rng.choice(["10.0.0.1", "10.0.0.2"]), "8.8.8.8",
                          octets=rng.randrange(10**9), packets=rng.randrange(1, 10**4)))
    return flows


def change(home: Home, world: World, kind: str = "plans") -> Summary:
    """Bring the rows to what another world says, as `plans apply` and `subscribers import` do, and aggregate."""
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.plan_version.delete())
        connection.execute(tables.calendar_version.delete())
        for row in world.subscriptions:
            service = sa.select(tables.service.c.id).where(tables.service.c.service == row.service).scalar_subquery()
            connection.execute(tables.subscription.update().where(tables.subscription.c.service_id == service)
                               .values(timezone=row.timezone, plan=row.plan))
        note_change(connection, kind, SEPTEMBER_30, OPEN_END)
    add_plans(home, world.plans, world.calendars)
    done = aggregate(home, ACTOR)
    publish(home, ACTOR)
    return done


def rows(home: Home, table: str) -> list[tuple[object, ...]]:
    wanted = {"usage": "period, hour, coalesce(zone, '')", "usage_5min": "period, slot, ''"}[table]
    with generations.open_current(home) as duck:
        return duck.execute(f"SELECT service, {wanted}, direction, octets FROM {table} ORDER BY ALL").fetchall()


def attributed(home: Home) -> dict[str, int]:
    table, batch = tables.attributed, tables.batch
    query = (sa.select(table.c.period, sa.func.sum(table.c.octets)).join(batch, batch.c.id == table.c.batch_id)
             .where(batch.c.to_version.is_(None)).group_by(table.c.period))
    with sql.reading(sql.engine(home)) as connection:
        return {period: int(octets) for period, octets in connection.execute(query)}


@pytest.mark.parametrize(("after", "held"), [
    (make_world(calendar=night_from(21 * 60)), True),
    (make_world(calendar=night_from(21 * 60 + 45)), True),
    (make_world(timezone="Asia/Kolkata"), True),  # local hours and months begin at half past
    (make_world(timezone="Asia/Kathmandu"), True),  # and here at a quarter to
    (make_world(calendar=night_from(21 * 60 + 7)), False),
    (make_world(five_minutes=True), False),
])  # fmt: skip
def test_usage_after_a_change_is_that_of_a_home_that_never_knew_another_plan(
    tmp_path: Path, after: World, held: bool
) -> None:
    flows = make_flows()
    home, twin = make_home(tmp_path / "home", make_world()), make_home(tmp_path / "twin", after)
    for number in range(3):
        add_segment(home, flows[number::3], f"s{number}")
        aggregate(home, ACTOR)
    publish(home, ACTOR)
    before = rows(home, "usage")
    add_segment(twin, flows, "s")
    aggregate(twin, ACTOR)
    publish(twin, ACTOR)
    done = change(home, after)
    assert done.held + done.finer_edges == 3
    assert done.remade == done.finer_edges
    assert (done.finer_edges == 0) is held
    assert rows(home, "usage") == rows(twin, "usage")
    assert rows(home, "usage_5min") == rows(twin, "usage_5min")
    assert attributed(home) == attributed(twin) == +slow_usage.usage(after, flows).periods
    assert rows(home, "usage") != before or after.plans["home"][1]
    again = aggregate(home, ACTOR)
    assert (again.held, again.remade, again.batches) == (0, 0, 0)


def test_a_change_of_leases_beside_one_of_plans_reads_the_flows_again(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    add_segment(home, make_flows(), "s")
    aggregate(home, ACTOR)
    with sql.transaction(sql.engine(home)) as connection:
        note_change(connection, "leases", SEPTEMBER_30, SEPTEMBER_30 + 86_400_000)
    done = change(home, make_world(timezone="Asia/Kolkata"))
    assert (done.held, done.remade) == (0, 1)


def test_traffic_that_lies_elsewhere_is_not_read_again_for_an_edge_inside_a_quarter_hour(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    flows = [replace(flow, end=min(flow.end, flow.start + 1000)) for flow in make_flows()]
    day = 86_400_000
    local_noon = [flow for flow in flows if 3 * 3_600_000 < (flow.start + 2 * 3_600_000) % day < 20 * 3_600_000]
    add_segment(home, local_noon, "noon")
    aggregate(home, ACTOR)
    done = change(home, make_world(calendar=night_from(21 * 60 + 7)))
    assert (done.held, done.remade) == (1, 0)
