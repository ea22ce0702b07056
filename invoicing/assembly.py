"""Lines of an account → an invoice: totals, taxes and the frozen document. Pure.

The document is canonical JSON (sorted keys, no spaces); its SHA-256 is stored beside it. It pins what it was made of:
rate runs with their manifest and engine versions, plan versions, settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import msgspec

from core.periods import format_instant, local_date
from core.settings import Document, seller
from invoicing.charges import RateRun
from invoicing.language import describe
from invoicing.lines import Line
from invoicing.settings import InvoiceSettings, invoice_settings, settings_digest
from invoicing.taxes import Totals, totals

FORMAT = "ratemill-invoice/1"
"""What a reader of the frozen document goes by."""

NUMBER_DIGITS = 6


@dataclass(frozen=True)
class Frame:
    """What all invoices of a run have in common."""

    period: str
    issued_ms: int
    issued: date
    due: date
    seller: Mapping[str, str]
    settings: InvoiceSettings
    settings_digest: str
    runs: Mapping[str, RateRun]
    plans: Mapping[tuple[str, str], tuple[str, str]]
    product: str

    def number(self, count: int) -> str:
        return f"{self.settings.series}-{count:0{NUMBER_DIGITS}d}"


@dataclass(frozen=True)
class Invoice:
    """An invoice ready to be booked."""

    number: str
    account: str
    currency: str
    lines: tuple[Line, ...]
    descriptions: tuple[str, ...]
    totals: Totals
    document: str
    digest: str


def frame(
    document: Document,
    period: str,
    issued_ms: int,
    runs: Mapping[str, RateRun],
    plans: Mapping[tuple[str, str], tuple[str, str]],
    product: str,
) -> Frame:
    """Issued and due are local days of the seller."""
    from_whom, terms = seller(document), invoice_settings(document)
    issued = local_date(issued_ms, from_whom.timezone)
    due = issued + timedelta(days=terms.due_days)
    digest = settings_digest(document)
    return Frame(period, issued_ms, issued, due, asdict(from_whom), terms, digest, runs, plans, product)


def assemble(
    common: Frame,
    count: int,
    buyer: Mapping[str, str],
    currency: str,
    lines: Sequence[Line],
    contracts: Mapping[str, str],
    usage: Sequence[Mapping[str, Any]],
) -> Invoice:
    """The invoice number `count` of the series."""
    made = totals(lines, common.settings.tax_policy)
    descriptions = tuple(describe(line, common.settings.language) for line in lines)
    number = common.number(count)
    rows = [
        _line(number, line, text, contracts)
        for number, (line, text) in enumerate(zip(lines, descriptions, strict=True), 1)
    ]
    document = {
        "format": FORMAT,
        "number": number,
        "account": buyer["account"],
        "period": common.period,
        "currency": currency,
        "issued": format_instant(common.issued_ms),
        "issued_date": common.issued.isoformat(),
        "due": common.due.isoformat(),
        "language": common.settings.language,
        "tax_policy": common.settings.tax_policy,
        "seller": common.seller,
        "buyer": dict(buyer),
        "lines": rows,
        "taxes": [row._asdict() for row in made.taxes],
        "totals": {name: getattr(made, name) for name in ("net_minor", "tax_minor", "gross_minor")},
        "usage": list(usage),
        "made_of": _made_of(common, lines),
    }
    text = canonical(document)
    return Invoice(number, buyer["account"], currency, tuple(lines), descriptions, made, text, digest_of(text))


def canonical(value: Mapping[str, Any]) -> str:
    """JSON of one spelling, so that it has one digest."""
    return msgspec.json.encode(value, order="sorted").decode("utf-8")


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _line(number: int, line: Line, description: str, contracts: Mapping[str, str]) -> dict[str, Any]:
    key = line.key
    return {
        "line": number,
        "period": line.period,
        "service": key.service,
        "contract": contracts.get(key.service, ""),
        "plan": key.plan,
        "plan_version": key.plan_version,
        "start": key.start,
        "end": key.end,
        "charge_line": key.line,
        "kind": key.kind,
        "zone": key.zone,
        "class": key.class_,
        "direction": key.direction,
        "description": description,
        "nature": line.nature,
        "quantity": line.quantity,
        "quantity_before": line.before,
        "unit": key.unit,
        "unit_price": key.unit_price,
        "net_minor": line.net_minor,
        "gross_minor": line.gross_minor,
        "tax_category": key.tax_category,
        "tax_percent": key.tax_percent,
    }


def _made_of(common: Frame, lines: Sequence[Line]) -> dict[str, Any]:
    periods = sorted({line.period for line in lines})
    plans = sorted({(line.key.plan, line.key.plan_version) for line in lines})
    return {
        "product": common.product,
        "settings_digest": common.settings_digest,
        "rate_runs": [_rate_run(common.runs[period]) for period in periods],
        "plans": [
            {"plan": plan, "version": version, "digest": common.plans[plan, version][1]} for plan, version in plans
        ],
    }


def _rate_run(run: RateRun) -> dict[str, Any]:
    return {
        "period": run.period,
        "rate_run": run.id,
        "charges_digest": run.digest,
        "usage_digest": run.usage_digest,
        "manifest_version": run.manifest_version,
        "generation": run.generation,
        "engine_version": run.engine_version,
    }
