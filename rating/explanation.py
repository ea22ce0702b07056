"""`rate explain SERVICE PERIOD [LINE]`: a charge from the line down, in words and numbers.

    0 the charge · 1 plan version, calendar, subscription, arithmetic · 2 usage by hour and zone · 3 cell files ·
    4 flow segments · 5 exporters

Levels 0 to 2 come from the run's frozen inputs, the others from what is in the manifest now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from core import money, periods, schemas, tables
from core.addresses import format_address
from core.errors import NotFound
from rating import arithmetic, engine, frozen, plans, run
from rating.quotas import Carried
from rating.verification import in_ms
from storage import files, sql
from storage.home import Home

COLUMNS = ["level", "line", "what", "value", "unit", "detail"]
Row = dict[str, Any]


def explain(home: Home, service: str, period: str, line: str) -> Iterator[Row]:
    """The rows, from each charge of the service down. Raises NotFound for an unknown service or line."""
    _check_service(home, service)
    made_by = run.newest_or_hint(home, period)
    charges = [row for row in in_ms(run.charges(home, period)).to_pylist() if row["service"] == service]
    wanted = [row for row in charges if not line or row["line"] == line]
    if not wanted:
        names = ", ".join(sorted({row["line"] for row in charges}))
        raise NotFound(f"{service} has no charge{f' {line!r}' if line else ''} in {period}",
                       f"its lines are {names}" if names else "`ratemill plans list` shows whether its plan has lines")
    return _rows(home, made_by, charges, wanted)


def _check_service(home: Home, service: str) -> None:
    import difflib

    table = tables.service
    with sql.reading(sql.engine(home)) as connection:
        if connection.execute(sa.select(table.c.id).where(table.c.service == service)).first() is None:
            near = difflib.get_close_matches(service, connection.execute(sa.select(table.c.service)).scalars(), 1)
            raise NotFound(f"there is no service '{service}'",
                           f"did you mean '{near[0]}'?" if near else "`ratemill subscribers list` shows all")


def _rows(home: Home, made_by: sa.Row[Any], charges: list[Row], wanted: list[Row]) -> Iterator[Row]:
    copy = frozen.read(home, made_by.usage_path, made_by.usage_digest)
    terms = copy.terms.filter(pc.equal(copy.terms.column("service"), wanted[0]["service"])).to_pylist()
    bill = bill_of(made_by.period, copy, terms, charges)
    uses_octets = False
    for charge in wanted:
        for level, what, value, unit, detail in _of_charge(made_by, charge, bill, copy):
            yield {"level": level, "line": charge["line"], "what": what, "value": value, "unit": unit, "detail": detail}
        uses_octets = uses_octets or charge["kind"] in ("traffic", "percentile", "quota")
    if uses_octets:
        yield from _files(home, made_by.period, terms[0]["service_id"])


def bill_of(period: str, copy: frozen.Frozen, terms: list[Row], charges: list[Row]) -> arithmetic.Bill:
    """A service's rows of frozen.TERMS and of its charges, as the engine's own."""
    catalogue = plans.Catalogue(plans.parse(document) for document in copy.plans)
    subscriptions = sorted((_subscription(row) for row in terms), key=engine.rank)
    stretches = [stretch for row in subscriptions if (stretch := engine.stretch_of(row, catalogue, period)) is not None]
    usage, slots = {}, {}
    for row in subscriptions:
        usage[row.id] = [engine.Usage(used["zone"], used["class"], used["direction"], used["sampled"], used["octets"])
                         for used in _of_subscription(copy.usage, row.id)]
        sums = _slots(copy.slots, row.id).values()
        slots[row.id] = engine.Slots(*(np.array([one[way] for one in sums], np.int64) for way in ("up", "down")))
    return arithmetic.Bill(stretches, [_charge(row) for row in charges], usage, slots)


def _charge(row: Row) -> engine.Charge:
    return engine.Charge(*(row[name] for name in schemas.CHARGES.names))


def _subscription(row: Row) -> engine.Subscription:
    """A row of frozen.TERMS; older files lack what came with add-ons."""
    def listed(name: str) -> list[Any]:
        return list(json.loads(row.get(name) or "[]"))

    return engine.Subscription(
        id=row["subscription"], service=row["service"], plan=row["plan"], start=_day(row["start"]), end=_day(row["end"]),
        timezone=row["timezone"], currency=row["currency"], is_first=bool(row.get("first")), previous=row.get("previous"),
        has_next=bool(row.get("followed")), is_addon=bool(row.get("addon")), quantity=row.get("quantity") or 1,
        pauses=tuple(engine.Pause(date.fromisoformat(start), date.fromisoformat(end), kind)
                     for start, end, kind in listed("pauses")),
        carried=tuple(Carried(*rest) for rest in listed("carried")),
        beside=tuple(engine.Beside(plan, _day(start), _day(end)) for plan, start, end in listed("beside")))


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


def _of_subscription(table: pa.Table, number: int) -> list[Row]:
    rows: list[Row] = in_ms(table.filter(pc.equal(table.column("subscription"), number))).to_pylist()
    return rows


def _slots(table: pa.Table, number: int) -> dict[int, dict[str, int]]:
    """Octets up and down by slot."""
    found: dict[int, dict[str, int]] = {}
    for row in _of_subscription(table, number):
        sums = found.setdefault(row["slot"], {"up": 0, "down": 0})
        sums[row["direction"]] += row["octets"]
    return found


def _of_charge(made_by: sa.Row[Any], charge: Row, bill: arithmetic.Bill, copy: frozen.Frozen) -> Iterator[tuple[Any, ...]]:
    row = _charge(charge)
    stretch = bill.stretch_of(row)
    plan, subscription = stretch.plan, stretch.subscription
    yield 0, "charge", charge["net_minor"], f"{charge['currency']} minor units, net", \
        f"{charge['start']} to {charge['end']}, {charge['quantity']} {charge['unit']} at {charge['unit_price']}"
    yield 1, "plan version", f"{plan.name} from {plan.version}", "", f"prices {'inclusive' if plan.inclusive else 'exclusive'}"
    if plan.calendar is not None:
        yield 1, "calendar", plan.calendar, "", "its version of each local date decides"
    holds = f"{subscription.start or 'ever'} to {subscription.end or 'open'}"
    yield 1, "subscription", holds, "local days", subscription.timezone
    yield 1, "rate run", made_by.id, "", f"usage {made_by.usage_path}, generation {made_by.generation or 'none'}"
    yield 1, "bookable", periods.format_instant(charge["bookable"]), "", "the earliest instant of booking"
    for said in arithmetic.rows(bill, row):
        yield 1, *said
    yield from _of_tax(charge, copy.tax)
    if charge["kind"] in ("traffic", "quota"):
        yield from _hours(charge, stretch, bill, copy.usage)
    if charge["kind"] == "percentile":
        yield from _highest(charge, stretch, copy.slots)


def _hours(charge: Row, stretch: engine.Stretch, bill: arithmetic.Bill, usage: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The usage of a line of traffic by hour, or what a quota may cover: of an add-on's, all of the service."""
    lines: list[plans.Traffic | plans.Quota] = [*stretch.plan.traffic, *stretch.plan.quotas]
    line = next(line for line in lines if line.name == charge["line"])
    takes_sampled = isinstance(line, plans.Quota) or line.sampled == "allow"
    for other in bill.stretches if stretch.subscription.is_addon else [stretch]:
        for row in _of_subscription(usage, other.subscription.id):
            if line.matches(row["zone"], row["class"], row["direction"]) and (takes_sampled or not row["sampled"]):
                yield 2, f"hour {periods.format_instant(row['hour'])}", row["octets"], "octets", \
                    f"zone {row['zone'] or 'none'}, class {row['class']}, {row['direction']}"


def _highest(charge: Row, stretch: engine.Stretch, slots: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The slots that are dropped, and the one that is billed."""
    line = next(line for line in stretch.plan.percentiles if line.name == charge["line"])
    by_slot = _slots(slots, stretch.subscription.id)

    def octets(slot: int) -> int:
        up, down = by_slot[slot]["up"], by_slot[slot]["down"]
        if line.convention == "higher_direction":
            return up if charge["direction"] == "up" else down
        return up + down if line.convention == "sum" else max(up, down)

    active = sum(1 for sums in by_slot.values() if sums["up"] or sums["down"])
    count = engine.slots_of(stretch) if line.missing == "zero" else active
    for slot in sorted(by_slot, key=lambda slot: (-octets(slot), slot))[:arithmetic.dropped(line, count) + 1]:
        speed = Fraction(8 * octets(slot), engine.SLOT_SECONDS)
        yield 2, f"slot {periods.format_instant(slot)}", money.round_half_up(speed), "bit/s", \
            f"{by_slot[slot]['up']} octets up, {by_slot[slot]['down']} down"


def _of_tax(charge: Row, rates: list[dict[str, str]]) -> Iterator[tuple[Any, ...]]:
    if charge["gross_minor"] is None:
        return
    last = charge["end"].toordinal() - 1
    percent = max((rate["from"], rate["percent"]) for rate in rates
                  if rate["category"] == charge["tax"] and rate["from"] <= date.fromordinal(last).isoformat())[1]
    yield 1, "gross", charge["gross_minor"], f"{charge['currency']} minor units", \
        f"net = gross × 100 ÷ (100 + {percent}), rounded half-up once"


def _files(home: Home, period: str, service_id: int) -> Iterator[Row]:
    """Cell files with cells of the service in the period, the segments they were made of, and who exported those."""
    first, last = periods.period_extent(period)
    cell_file, batch, consumed, segment = tables.cell_file, tables.batch, tables.consumed, tables.segment
    with sql.reading(sql.engine(home)) as connection:
        cells = list(connection.execute(
            sa.select(cell_file).join(batch, batch.c.id == cell_file.c.batch_id)
            .where(cell_file.c.kind == "cells", batch.c.to_version.is_(None), cell_file.c.slot_first < last,
                   cell_file.c.slot_last >= first).order_by(cell_file.c.id)))
        batches = []
        for row in cells:
            octets = _octets_in(home, row, service_id, first, last)
            if octets:
                batches.append(row.batch_id)
                yield _row(3, f"cell file {row.path}", octets, "octets", f"of this service; SHA-256 {row.digest}")
        segments = list(connection.execute(
            sa.select(segment).join(consumed, consumed.c.segment_id == segment.c.id)
            .where(consumed.c.batch_id.in_(batches), segment.c.start_first < last, segment.c.end_last >= first)
            .order_by(segment.c.id)))
        for row in segments:
            yield _row(4, f"segment {row.path}", row.flows, "flows", f"collector {row.collector}; XXH3 {row.digest}")
        intake = tables.intake
        exporters = connection.execute(
            sa.select(intake.c.exporter, sa.func.sum(intake.c.flow_records).label("flows"))
            .where(intake.c.segment_id.in_([row.id for row in segments]))
            .group_by(intake.c.exporter).order_by(intake.c.exporter))
        for row in exporters:
            yield _row(5, f"exporter {format_address(row.exporter)}", int(row.flows), "flows", "in these segments")


def _octets_in(home: Home, row: sa.Row[Any], service_id: int, first: int, last: int) -> int:
    path = files.verify(home.path / row.path, row.digest)
    cells = in_ms(pq.read_table(path, columns=["service", "slot", "octets"], filters=[("service", "==", service_id)]))
    slot = cells.column("slot")
    inside = cells.filter(pc.and_(pc.greater_equal(slot, first), pc.less(slot, last)))
    return int(pc.sum(inside.column("octets")).as_py() or 0)


def _row(level: int, what: str, value: Any, unit: str, detail: str) -> Row:
    return {"level": level, "line": None, "what": what, "value": value, "unit": unit, "detail": detail}
