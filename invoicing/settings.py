"""The section [invoice]: how charges become invoices."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from core.settings import Document, read_section, seller, setting, tax_rates

TAX_POLICIES = ("en16931", "per_line_sum", "gross_kept")
LANGUAGES = ("en", "ru")

_SERIES = re.compile(r"[A-Za-z0-9]([A-Za-z0-9/._-]{0,18}[A-Za-z0-9])?")


def _series(value: Any) -> str:
    if not isinstance(value, str) or _SERIES.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a series: 1 to 20 letters, digits and / . _ - between them")
    return value


@dataclass(frozen=True)
class InvoiceSettings:
    """[invoice]: numbers, terms of payment and taxes of the invoices."""

    series: str = setting("A", what="Series of numbers: A gives A-000001, A-000002, without gaps.", parse=_series)
    due_days: int = setting(
        14, what="Days from the date of issue to the date of payment.", unit="days", lowest=0, highest=365
    )
    tax_policy: str = setting(
        "en16931",
        what="How tax is rounded: once per category, per line, or so that prices with tax keep their gross.",
        choices=TAX_POLICIES,
    )
    language: str = setting("en", what="Language of the documents.", choices=LANGUAGES)


def invoice_settings(document: Document) -> InvoiceSettings:
    """The section [invoice] of ratemill.toml."""
    return read_section(document, "invoice", InvoiceSettings)


def settings_digest(document: Document) -> str:
    """SHA-256 over what an invoice depends on: [seller], [invoice] and every [[tax]]; frozen into each document."""
    rates = [[rate.category, str(rate.percent), rate.from_.isoformat()] for rate in tax_rates(document)]
    issuer = {name: value for name, value in vars(seller(document)).items() if name != "market"}  # it changes no invoice
    parts = {"seller": issuer, "invoice": vars(invoice_settings(document)), "tax": rates}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
