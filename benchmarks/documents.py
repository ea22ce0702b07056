"""Invoices as PDF on one core, against compressing the same octets (what a PDF costs at the least)."""

from __future__ import annotations

import zlib

from benchmarks.measure import Figure, median_seconds, tell

INVOICES = 40


def run() -> None:
    """PDFs a second of a home made for this run."""
    import tempfile
    from pathlib import Path

    from core import actor
    from core.periods import parse_instant
    from core.product import data_file
    from invoicing import documents
    from invoicing import run as invoices
    from rating import apply
    from rating import run as rating
    from storage import sql
    from storage.home import Home
    from subscribers import contracts

    who = actor.current("benchmark")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.create()
        (home.path / "ratemill.toml").write_bytes((data_file("demo", "ratemill.toml")).read_bytes())
        apply.apply(home, data_file("demo", "plans.toml"), who)
        people = (data_file("demo", "subscribers.csv")).read_text().splitlines(keepends=True)[: INVOICES + 1]
        (home.path / "s.csv").write_text("".join(people))
        contracts.import_file(sql.engine(home), home.path / "s.csv", who)
        as_of = parse_instant("2026-11-02T00:00:00Z")
        rating.run(home, "2026-10", as_of, False, who)
        made = invoices.run(home, "2026-10", as_of, False, who)["invoices"]
        rendering = median_seconds(lambda: documents.render_all(home, "2026-10", workers=1, again=True), runs=3)
        content = b"".join(path.read_bytes() for path in (home.folder("documents") / "2026-10").glob("*.pdf"))
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
