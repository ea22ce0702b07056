"""Invoices as PDF on one core, against compressing the same octets (what a PDF costs at the least)."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

from benchmarks.measure import Figure, median_seconds, tell
from benchmarks.town import WHO, settle
from core.periods import parse_instant
from invoicing import documents
from invoicing import run as invoices
from rating import run as rating

INVOICES = 40
PERIOD = "2026-10"


def run() -> None:
    """PDFs a second of a home made for this run."""
    with tempfile.TemporaryDirectory() as folder:
        home = settle(Path(folder), INVOICES)
        as_of = parse_instant("2026-11-02T00:00:00Z")
        rating.run(home, PERIOD, as_of, False, WHO)
        made = invoices.run(home, PERIOD, as_of, False, WHO)["invoices"]
        rendering = median_seconds(lambda: documents.render_period(home, PERIOD, 1, again=True), runs=3)
        content = b"".join(path.read_bytes() for path in (home.folder("documents") / PERIOD).glob("*.pdf"))
        packing = median_seconds(lambda: zlib.compress(content))
        tell(
            Figure(
                "documents",
                "invoice PDFs, one core",
                made / rendering,
                "PDF/s",
                "compressing them",
                packing / rendering,
            )
        )
