"""`invoice verify`: recompute an invoice by a second, slow arithmetic that shares no code with the first.

Level 1: the document against the tables, totals and taxes from the lines, the lines from the charges of the rate run
that the invoice pins less what was booked before, traffic charges from quantity and price, the postings from the totals.
Level 2: also the frozen usage of its services against the cells. What recomputes charges from usage and usage from
segments belongs to other packages and is asked through `invoicing.gates`. Every comparison is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Context, Decimal
from typing import Any

import sqlalchemy as sa

from core import tables
from core.errors import NotFound
from core.money import minor_digits
from invoicing import charges, gates, lineage, usage
from invoicing.assembly import digest_of
from storage import sql
from storage.home import Home

_EXACT = Context(prec=200)
_SHOWN_MAX = 50

Row = Mapping[str, Any]


@dataclass
class Findings:
    """What was compared; the first differences are kept in words."""

    checked: int = 0
    differing: int = 0
    differences: list[dict[str, Any]] = field(default_factory=list)

    def compare(self, what: str, found: Any, expected: Any) -> None:
        self.checked += 1
        if found != expected:
            self.differing += 1
            if len(self.differences) < _SHOWN_MAX:
                self.differences.append({"what": what, "booked": found, "recomputed": expected})

    def add(self, what: str, counts: Mapping[str, int]) -> None:
        """The counts of a recomputation elsewhere."""
        self.checked += counts["checked"]
        self.differing += counts["differing"]
        if counts["differing"]:
            self.differences.append({"what": what, "booked": counts["checked"], "recomputed": counts["equal"]})


def verify(home: Home, number: str, level: int) -> dict[str, Any]:
    """{number, level, checked, equal, differing, differences}. Raises NotFound for an unknown number."""
    findings = Findings()
    with sql.reading(sql.engine(home)) as connection:
        invoice, lines, taxes = _booked(connection, number)
        document = json.loads(invoice["document"])
        findings.compare("digest of the document", invoice["digest"], digest_of(invoice["document"]))
        _compare_document(findings, document, invoice, lines)
        _compare_taxes(findings, invoice, lines, taxes, document)
        _compare_charges(findings, home, connection, invoice, lines, document)
        _compare_postings(findings, connection, invoice, lines, taxes)
        if level == 2:
            _compare_cells(findings, home, connection, lines, document)
    _ask_others(findings, home, lines, level)
    return {
        "number": number,
        "level": level,
        "checked": findings.checked,
        "equal": findings.checked - findings.differing,
        "differing": findings.differing,
        "differences": findings.differences,
    }


def _booked(connection: sa.Connection, number: str) -> tuple[Row, list[Row], list[Row]]:
    i, line, tax = tables.invoice, tables.invoice_line, tables.invoice_tax
    invoice = connection.execute(sa.select(i).where(i.c.number == number)).mappings().one_or_none()
    if invoice is None:
        raise NotFound(f"there is no invoice {number}", "`ratemill invoice list PERIOD` lists the numbers")
    lines = connection.execute(sa.select(line).where(line.c.invoice_id == invoice["id"]).order_by(line.c.line))
    taxes = connection.execute(sa.select(tax).where(tax.c.invoice_id == invoice["id"]))
    return dict(invoice), [dict(row) for row in lines.mappings()], [dict(row) for row in taxes.mappings()]


_SAME_NAME = (
    "line", "period", "service", "plan", "plan_version", "charge_line", "kind", "zone", "class", "direction",
    "description", "quantity", "unit", "unit_price", "net_minor", "gross_minor", "tax_category", "tax_percent",
)  # fmt: skip
_RENAMED = {"start": "start_date", "end": "end_date"}


def _compare_document(findings: Findings, document: Row, invoice: Row, lines: Sequence[Row]) -> None:
    for name in ("number", "account", "period", "currency", "due", "tax_policy"):
        findings.compare(f"{name} in the document", document[name], invoice[name])
    findings.compare("number of lines in the document", len(document["lines"]), len(lines))
    for shown, line in zip(document["lines"], lines, strict=False):
        expected = {name: line[name] for name in _SAME_NAME} | {new: line[old] for new, old in _RENAMED.items()}
        findings.compare(f"line {line['line']} in the document", {name: shown[name] for name in expected}, expected)


def _compare_taxes(findings: Findings, invoice: Row, lines: Sequence[Row], taxes: Sequence[Row], document: Row) -> None:
    """Net, tax and gross once more, in decimals."""
    expected = {}
    for category, percent in {(line["tax_category"], line["tax_percent"]) for line in lines}:
        group = [line for line in lines if (line["tax_category"], line["tax_percent"]) == (category, percent)]
        net = sum(line["net_minor"] for line in group)
        expected[category, percent] = (net, _tax(group, percent, invoice["tax_policy"]))
    booked = {(row["tax_category"], row["percent"]): (row["net_minor"], row["tax_minor"]) for row in taxes}
    shown = {(row["category"], row["percent"]): (row["net_minor"], row["tax_minor"]) for row in document["taxes"]}
    for key in sorted(expected.keys() | booked.keys() | shown.keys()):
        findings.compare(f"tax {key[0]} {key[1]} %", booked.get(key), expected.get(key))
        findings.compare(f"tax {key[0]} {key[1]} % in the document", shown.get(key), expected.get(key))
    net, tax = sum(line["net_minor"] for line in lines), sum(amount for _, amount in expected.values())
    sums = {"net_minor": net, "tax_minor": tax, "gross_minor": net + tax}
    findings.compare("totals", {name: invoice[name] for name in sums}, sums)
    findings.compare("totals in the document", document["totals"], sums)


def _tax(lines: Sequence[Row], percent: str, policy: str) -> int:
    if policy == "per_line_sum":
        return sum(_share(line["net_minor"], percent) for line in lines)
    kept = [line for line in lines if line["gross_minor"] is not None] if policy == "gross_kept" else []
    others = sum(line["net_minor"] for line in lines if line not in kept)
    included = sum(int(line["gross_minor"]) - int(line["net_minor"]) for line in kept)
    return included + _share(others, percent)


def _share(net_minor: int, percent: str) -> int:
    return _round(_EXACT.divide(_EXACT.multiply(Decimal(net_minor), Decimal(percent)), Decimal(100)))


def _round(value: Decimal, rule: str = ROUND_HALF_UP) -> int:
    return int(value.quantize(Decimal(1), rounding=rule, context=_EXACT))


_KEY = ("service", "plan", "plan_version", "start", "end", "line", "kind", "zone", "class", "direction", "unit",
        "unit_price", "currency")  # fmt: skip
_KEY_BOOKED = ("service", "plan", "plan_version", "start_date", "end_date", "charge_line", "kind", "zone", "class",
               "direction", "unit", "unit_price", "currency")  # fmt: skip


def _compare_charges(
    findings: Findings, home: Home, connection: sa.Connection, invoice: Row, lines: Sequence[Row], document: Row
) -> None:
    """A line = the charge as it was rated - all that was booked of it before."""
    for pinned in document["made_of"]["rate_runs"]:
        run = charges.run_by_id(connection, pinned["rate_run"])
        findings.compare(f"charges of {run.period}", pinned["charges_digest"], run.digest)
        findings.compare(f"usage of {run.period}", pinned["usage_digest"], run.usage_digest)
        services = {line["service"] for line in lines if line["period"] == run.period}
        rated = {_charge_key(row): row for row in charges.of_services(home, run, services)}
        for line, shown in zip(lines, document["lines"], strict=False):
            if line["period"] == run.period:
                before = list(_booked_before(connection, invoice["id"], line))
                charge = rated.get(tuple(line[name] or None for name in _KEY_BOOKED))
                _compare_line(findings, before, line, shown["nature"], charge, _rounding(connection, line))


def _charge_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name].isoformat() if name in ("start", "end") else row[name] or None for name in _KEY)


_RULES = {"half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN, "up": ROUND_UP, "down": ROUND_DOWN}


def _rounding(connection: sa.Connection, line: Row) -> str:
    """The rule that the plan of a line names."""
    plan = tables.plan_version.c
    query = sa.select(plan.document).where(plan.name == line["plan"], plan.valid_from == line["plan_version"])
    document = connection.execute(query).scalar_one_or_none()
    return _RULES[json.loads(document or "{}").get("rounding", "half_up")]


def _compare_line(
    findings: Findings, before: Sequence[Row], line: Row, nature: str, charge: Row | None, rounding: str
) -> None:
    """`nature` says which of the two a line is: on the way to the charge, or all that was booked of it taken back."""
    net, gross = (sum(row[name] or 0 for row in before) for name in ("net_minor", "gross_minor"))
    what = f"line {line['line']}"
    if nature == "cancellation":
        findings.compare(f"net of {what}", line["net_minor"], -net)
        findings.compare(f"gross of {what}", line["gross_minor"] or 0, -gross)
        return
    findings.compare(f"charge of {what} is rated", charge is not None, True)
    if charge is not None:
        findings.compare(f"net of {what}", line["net_minor"], charge["net_minor"] - net)
        findings.compare(f"gross of {what}", line["gross_minor"] or 0, (charge["gross_minor"] or 0) - gross)
        findings.compare(f"quantity of {what}", line["quantity"], charge["quantity"])
        _compare_arithmetic(findings, line, charge, rounding)


def _booked_before(connection: sa.Connection, invoice_id: int, line: Row) -> Iterator[Row]:
    """What was booked of the same charge, at the same tax, by earlier invoices."""
    table = tables.invoice_line.c
    query = sa.select(table.net_minor, table.gross_minor).where(table.invoice_id < invoice_id)
    for name in (*_KEY_BOOKED, "period", "tax_category", "tax_percent"):
        query = query.where(table[name].is_(None) if line[name] is None else table[name] == line[name])
    for row in connection.execute(query).mappings():
        yield dict(row)


def _compare_arithmetic(findings: Findings, line: Row, charge: Row, rounding: str) -> None:
    """A traffic charge is quantity times price, rounded once; its quantity is exact, so it can be said here. Tiers have
    no one price: `rate verify` computes them again."""
    if charge["kind"] != "traffic" or charge["unit_price"] in ("graduated", "volume"):
        return
    price = _EXACT.multiply(Decimal(charge["quantity"]), Decimal(charge["unit_price"]))
    amount = _round(price.scaleb(minor_digits(line["currency"]), _EXACT), rounding)
    if charge["gross_minor"] is None:
        findings.compare(f"quantity times price of line {line['line']}", charge["net_minor"], amount)
    else:
        share = _EXACT.divide(Decimal(amount * 100), 100 + Decimal(line["tax_percent"]))
        findings.compare(f"quantity times price of line {line['line']}", charge["gross_minor"], amount)
        findings.compare(f"net of the gross of line {line['line']}", charge["net_minor"], _round(share))


def _compare_postings(
    findings: Findings, connection: sa.Connection, invoice: Row, lines: Sequence[Row], taxes: Sequence[Row]
) -> None:
    t, p = tables.ledger_transaction.c, tables.posting.c
    query = sa.select(p.ledger_account, p.subject, p.currency, p.amount_minor)
    query = query.join_from(tables.ledger_transaction, tables.posting).where(
        t.reference == f"invoice:{invoice['number']}"
    )
    found = sorted(tuple(row) for row in connection.execute(query))
    expected: dict[tuple[str, str, str], int] = {}
    sides = [("receivables", invoice["account"], invoice["gross_minor"])]
    sides += [(f"revenue:{line['kind']}", "", -line["net_minor"]) for line in lines]
    sides += [(f"tax:{row['tax_category']}", "", -row["tax_minor"]) for row in taxes]
    for account, subject, amount in sides:
        key = (account, subject, invoice["currency"])
        expected[key] = expected.get(key, 0) + amount
    findings.compare("postings", found, sorted((*key, amount) for key, amount in expected.items() if amount))


def _compare_cells(
    findings: Findings, home: Home, connection: sa.Connection, lines: Sequence[Row], document: Row
) -> None:
    """The frozen usage of each service against the cells that it was summed from."""
    for pinned in document["made_of"]["rate_runs"]:
        run = charges.run_by_id(connection, pinned["rate_run"])
        for service in sorted({line["service"] for line in lines if line["period"] == run.period}):
            number = lineage.service_id(connection, service)
            octets = 0
            for start, end in lineage.stretches(connection, service, run.period):
                found = lineage.cell_files(home, connection, run, start, end)
                octets += sum(part.octets for part in lineage.parts(home, found, number, start, end))
            findings.compare(f"octets of {service} in {run.period}", usage.subscribed(home, run, number), octets)


def _ask_others(findings: Findings, home: Home, lines: Sequence[Row], level: int) -> None:
    for recompute in gates.recomputations():
        for period in sorted({line["period"] for line in lines}):
            services = sorted({line["service"] for line in lines if line["period"] == period})
            findings.add(f"charges of {period} from usage", recompute(home, period, services, level))
