"""The balances of a period, each in its own unit, in whole numbers: what came in = what went out + named losses.

    datagrams  → records → flow_octets → used_octets → rated_octets → charges_invoices → invoices_postings

Each balance compares two independent records of one thing, so that a stage that loses or repeats anything shows. A stage
that has not run leaves its balance open by what waits for it: nothing is taken for zero because nobody looked.

Datagrams, records and octets without a service belong to the period by the seller's zone; octets of a service by its own
zone. `flow_octets` is therefore balanced in the seller's zone and both sides are moved by the same `shift` (octets that
services in other zones count into this period, less those that they don't).

Reads the tables `intake`, `segment_slot`, `late_slot`, `batch`, `cell_file`, `attributed`, `rate_run`, `invoice`,
`invoice_line`, `posting`, `rollout`, the outcome files, the current generation and the charges file. Writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from collector import sights
from core import periods, settings, tables
from core.errors import NotFound
from core.schemas import OUTCOMES, Outcome
from invoicing import charges
from monitoring import completeness
from storage import files, generations, rollouts, sql
from storage.home import Home

COLUMNS = ["balance", "unit", "in", "out", "losses", "difference", "currency", "detail"]

LOSS_OUTCOMES = {
    "infrastructure": Outcome.INFRASTRUCTURE,
    "stranger": Outcome.STRANGER,
    "no_port": Outcome.NO_PORT,
    "audit_only": Outcome.AUDIT_ONLY,
    "quarantined": Outcome.QUARANTINED,
}


@dataclass(frozen=True)
class Balance:
    """One balance: `entered` = `left` + losses + difference."""

    name: str
    unit: str
    entered: int
    left: int
    losses: dict[str, int] = field(default_factory=dict)
    currency: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    advice: str = ""

    @property
    def difference(self) -> int:
        return self.entered - self.left - sum(self.losses.values())

    def as_line(self) -> str:
        """One plain line: `datagrams: in 10, out 7, difference 0 (duplicate 2, faulted 1)`."""
        name = f"{self.name} {self.currency}" if self.currency else self.name
        named = ", ".join(f"{loss} {count}" for loss, count in self.losses.items() if count)
        line = f"{name}: in {self.entered}, out {self.left}, difference {self.difference}"
        return f"{line} ({named})" if named else line

    def as_row(self) -> dict[str, Any]:
        return {
            "balance": self.name,
            "unit": self.unit,
            "in": self.entered,
            "out": self.left,
            "losses": self.losses,
            "difference": self.difference,
            "currency": self.currency,
            "detail": self.detail,
        }


def balances(home: Home, period: str) -> list[Balance]:
    """All balances of a period, in the order in which things flow; money has one for each currency."""
    with sql.reading(sql.engine(home)) as connection:
        found = [*_traffic(home, connection, period), *_money(home, connection, period)]
    complete = completeness.status(home, period)
    return [replace(balance, detail={**balance.detail, **complete}) if balance.name == "flow_octets" else balance
            for balance in found]


def check_before_invoicing(home: Home, period: str) -> list[dict[str, Any]]:
    """The balances from datagrams to rated octets that are open: while there is one, no invoice may be committed."""
    with sql.reading(sql.engine(home)) as connection:
        return [balance.as_row() for balance in _traffic(home, connection, period) if balance.difference != 0]


def warnings(home: Home, period: str) -> list[str]:
    """What no balance can see: traffic counted twice, and figures that close but are out of date."""
    with sql.reading(sql.engine(home)) as connection:
        fresh = generations.freshness(connection)
        twice = sights.warnings_between(connection, home, *_bounds(home, period))
    stale = [
        f"{fresh.stale_batches} batches were made before an import that concerns them, so traffic may be somebody else's: "
        "`ratemill aggregate run`, `usage publish` and `rate run`"
    ]
    return [*(stale if fresh.stale_batches else []), *double_sight(home, period), *twice]


def incomplete(found: list[Balance]) -> list[str]:
    """What the traffic of the period lacks, and who accepted it: balances are of what came, not of what there was."""
    sentences: list[str] = []
    for balance in found:
        sentences += [f"incomplete: {sentence}" for sentence in balance.detail.get("findings", ())]
        sentences += [f"{row['actor']} accepted at {row['at']} that traffic is missing: {row['reason']}"
                      for row in balance.detail.get("accepted", ())]
    return sentences


def double_sight(home: Home, period: str) -> list[str]:
    """A warning if several exporters bill and no metering cut says which of them counts a packet."""
    if home.document.get("metering"):
        return []
    with sql.reading(sql.engine(home)) as connection:
        exporters = {
            bytes(exporter)
            for table in _outcome_tables(home, connection, *_bounds(home, period))
            for exporter in pc.unique(_with_outcome(table, Outcome.ATTRIBUTED).column("exporter")).to_pylist()
        }
    if len(exporters) < 2:
        return []
    return [
        f"{len(exporters)} exporters bill and there is no [[metering]] cut: "
        "traffic that passes two of them is counted twice"
    ]


def _bounds(home: Home, period: str) -> tuple[int, int]:
    return periods.period_bounds(period, settings.seller(home.document).timezone)


def _traffic(home: Home, connection: sa.Connection, period: str) -> Iterator[Balance]:
    start, end = _bounds(home, period)
    yield from _intake(connection, start, end)
    attributed = _attributed(connection, period)
    yield _flow_octets(home, connection, start, end, attributed)
    used = _used(home, period)
    advice = "Publish what was aggregated: `ratemill usage publish`."
    yield Balance("used_octets", "octets", attributed, used, advice=advice)
    yield _rated_octets(connection, period, used)


def _intake(connection: sa.Connection, start: int, end: int) -> Iterator[Balance]:
    intake = tables.intake
    names = [
        "datagrams", "decoded", "faulted", "duplicate", "refused", "twin",
        "data_records", "flow_records", "not_a_flow", "faulted_records", "waiting_sets",
    ]  # fmt: skip
    sums = [sa.func.coalesce(sa.func.sum(intake.c[name]), 0).label(name) for name in names]
    row = connection.execute(sa.select(*sums).where(intake.c.slot >= start, intake.c.slot < end)).one()
    count = {name: int(row._mapping[name]) for name in names}
    yield Balance(
        "datagrams",
        "datagrams",
        count["datagrams"],
        count["decoded"],
        {name: count[name] for name in ("faulted", "duplicate", "refused", "twin") if name != "twin" or count["twin"]},
        advice="A decoder miscounted: keep the journal and report it.",
    )
    yield Balance(
        "records",
        "records",
        count["data_records"],
        count["flow_records"],
        {"not_a_flow": count["not_a_flow"], "faulted": count["faulted_records"], "waiting": 0},
        detail={"waiting_sets": count["waiting_sets"]},  # how many records they hold, only their template would tell
        advice="A decoder miscounted: keep the journal and report it.",
    )


def _flow_octets(home: Home, connection: sa.Connection, start: int, end: int, attributed: int) -> Balance:
    slot = tables.segment_slot
    flows = int(
        connection.scalar(
            sa.select(sa.func.coalesce(sa.func.sum(slot.c.octets), 0)).where(slot.c.slot >= start, slot.c.slot < end)
        )
        or 0
    )
    late = _late_octets(connection, start, end)
    by_outcome = dict.fromkeys(Outcome, 0)
    on_net = 0
    for table in _outcome_tables(home, connection, start, end):
        on_net += pc.sum(table.column("on_net_octets")).as_py() or 0
        for outcome in Outcome:
            by_outcome[outcome] += pc.sum(_with_outcome(table, outcome).column("octets")).as_py() or 0
    shift = attributed - by_outcome[Outcome.ATTRIBUTED]
    waiting = _not_aggregated(connection, start, end)
    advice = f"{waiting} segments wait: `ratemill aggregate run`." if waiting else "Aggregation miscounted: report it."
    return Balance(
        "flow_octets",
        "octets",
        flows + late + on_net + shift,
        attributed,
        {name: by_outcome[outcome] for name, outcome in LOSS_OUTCOMES.items()},
        detail={"flows": flows, "late_rates": late, "on_net": on_net, "shift": shift, "segments_waiting": waiting},
        advice=advice,
    )


def _late_octets(connection: sa.Connection, start: int, end: int) -> int:
    """What sampling rates that came late add to the octets of flows as they were stored."""
    late, batch = tables.late_slot, tables.batch
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(late.c.octets), 0))
        .join(batch, batch.c.id == late.c.batch_id)
        .where(batch.c.to_version.is_(None), late.c.slot >= start, late.c.slot < end)
    )
    return int(connection.scalar(query) or 0)


def _outcome_tables(home: Home, connection: sa.Connection, start: int, end: int) -> Iterator[pa.Table]:
    """The rows of [start, end) in the outcome files of the batches that count, each file verified first."""
    import pyarrow.parquet as pq

    file, batch = tables.cell_file, tables.batch
    wanted = (
        sa.select(file.c.path, file.c.digest)
        .join(batch, batch.c.id == file.c.batch_id)
        .where(batch.c.to_version.is_(None), file.c.kind == "outcomes")
        .where(sa.or_(file.c.slot_first.is_(None), file.c.slot_first < end))
        .where(sa.or_(file.c.slot_last.is_(None), file.c.slot_last >= start - periods.SLOT_MS))
        .order_by(file.c.path)
    )
    for path, digest in connection.execute(wanted).all():
        table = pq.read_table(files.verify(home.path / path, digest)).cast(OUTCOMES)
        slot = pc.cast(table.column("slot"), pa.int64())
        yield table.filter(pc.and_(pc.greater_equal(slot, start), pc.less(slot, end)))


def _with_outcome(table: pa.Table, outcome: Outcome) -> pa.Table:
    return table.filter(pc.equal(table.column("outcome"), pa.scalar(int(outcome), pa.uint8())))


def _not_aggregated(connection: sa.Connection, start: int, end: int) -> int:
    slot, consumed = tables.segment_slot, tables.consumed
    waiting = (
        sa.select(sa.func.count(slot.c.segment_id.distinct()))
        .where(slot.c.slot >= start, slot.c.slot < end)
        .where(~sa.exists().where(consumed.c.segment_id == slot.c.segment_id))
    )
    return connection.scalar(waiting) or 0


def _attributed(connection: sa.Connection, period: str) -> int:
    attributed, batch = tables.attributed, tables.batch
    total = (
        sa.select(sa.func.coalesce(sa.func.sum(attributed.c.octets), 0))
        .join(batch, batch.c.id == attributed.c.batch_id)
        .where(batch.c.to_version.is_(None), attributed.c.period == period)
    )
    return int(connection.scalar(total) or 0)


def _used(home: Home, period: str) -> int:
    """Octets of the period in the current generation; 0 while none is published."""
    try:
        database = generations.open_current(home)
    except NotFound:
        return 0
    try:
        row = database.execute("SELECT coalesce(sum(octets), 0) FROM usage WHERE period = ?", [period]).fetchone()
    finally:
        database.close()
    assert row is not None, "an aggregate has one row"
    return int(row[0])


def _rated_octets(connection: sa.Connection, period: str, used: int) -> Balance:
    run = _newest_rate_run(connection, period)
    if run is None:
        losses = {"without_plan": 0, "sampled_refused": 0}
        return Balance("rated_octets", "octets", used, 0, losses, advice=f"Rate it: `ratemill rate run {period}`.")
    return Balance(
        "rated_octets",
        "octets",
        used,
        run.rated_octets,
        {"without_plan": run.without_plan_octets, "sampled_refused": run.sampled_refused_octets},
        advice=f"Usage has changed since it was rated: `ratemill rate run {period}`.",
    )


def _newest_rate_run(connection: sa.Connection, period: str) -> sa.Row[Any] | None:
    run = tables.rate_run
    return connection.execute(
        sa.select(run).where(run.c.period == period).order_by(run.c.id.desc()).limit(1)
    ).one_or_none()


def _money(home: Home, connection: sa.Connection, period: str) -> Iterator[Balance]:
    charged, held = _charged(home, connection, period), _held(home, connection, period)
    line, invoice, posting = tables.invoice_line, tables.invoice, tables.posting
    transaction = tables.ledger_transaction
    invoiced = _by_currency(
        connection,
        sa.select(line.c.currency, sa.func.sum(line.c.net_minor))
        .where(line.c.period == period)
        .group_by(line.c.currency),
    )
    gross = _by_currency(
        connection,
        sa.select(invoice.c.currency, sa.func.sum(invoice.c.gross_minor))
        .where(invoice.c.period == period)
        .group_by(invoice.c.currency),
    )
    posted = _by_currency(
        connection,
        sa.select(posting.c.currency, sa.func.sum(posting.c.amount_minor))
        .join(transaction, transaction.c.id == posting.c.transaction_id)
        .where(transaction.c.period == period, transaction.c.kind == "invoice")
        .where(posting.c.ledger_account == "receivables")
        .group_by(posting.c.currency),
    )
    advice = f"Charges that may be booked by now wait: `ratemill invoice run {period}`."
    yield from _per_currency(home, "charges_invoices", charged, invoiced, advice, held)
    yield from _per_currency(home, "invoices_postings", gross, posted, "Look at `ratemill ledger check`.", {})


def _by_currency(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {currency: int(total) for currency, total in connection.execute(query)}


def _charged(home: Home, connection: sa.Connection, period: str) -> dict[str, int]:
    """Net amounts of the newest charges of the period, by currency."""
    import pyarrow.parquet as pq

    run = _newest_rate_run(connection, period)
    if run is None:
        return {}
    table = pq.read_table(files.verify(home.path / run.path, run.digest), columns=["currency", "net_minor"])
    sums = table.group_by("currency").aggregate([("net_minor", "sum")])
    return dict(zip(sums.column("currency").to_pylist(), sums.column("net_minor_sum").to_pylist(), strict=True))


def _held(home: Home, connection: sa.Connection, period: str) -> dict[str, int]:
    """What is charged and not booked because a rollout has not reached the service: net amounts, by currency."""
    standing, run = rollouts.current(connection), charges.newest_run(connection, period)
    if run is None or not standing:
        return {}
    table, booked = charges.read_table(home, run), charges.booked(connection, period)
    under = [(key.service, key.plan, key.plan_version) for key in booked]
    held = charges.held_services(table, period, standing) | rollouts.held(standing, period, under)
    sums: Counter[str] = Counter()
    for service, currency, net in zip(*(table[name].to_pylist() for name in ("service", "currency", "net_minor")), strict=True):
        sums[currency] += net if service in held else 0
    for key, before in booked.items():
        sums[key.currency] -= before.net_minor if key.service in held else 0
    return {currency: minor for currency, minor in sums.items() if minor}


def _per_currency(
    home: Home, name: str, entered: dict[str, int], left: dict[str, int], advice: str, held: dict[str, int]
) -> Iterator[Balance]:
    for currency in sorted(entered.keys() | left.keys()) or [settings.seller(home.document).currency]:
        yield Balance(
            name, "minor units", entered.get(currency, 0), left.get(currency, 0),
            {"held": held[currency]} if currency in held else {}, currency=currency, advice=advice,
        )
