"""The frozen document of an invoice → PDF: A4, in the document's language, PDF/A-3b, the same bytes every time.

What is shown is worked out here as plain text and handed to the Typst template as JSON; the template holds layout only.
The fonts are those that Typst brings, so that a document looks the same on every machine.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa

from core.periods import local_day_start
from invoicing import language as languages
from invoicing import register
from runtime import progress
from storage import files, sql
from storage.home import Home

if TYPE_CHECKING:
    import typst

TEMPLATE = Path(__file__).with_name("templates") / "invoice.typ"
STANDARD: Literal["a-3b"] = "a-3b"
CHUNK = 32
"""Invoices that a worker renders for one order."""
WORKERS_MAX = 64
USAGE_ROWS_MAX = 200
"""What is beyond these rows of the usage table is summed into one."""

_DIRECTION_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def render(document: str) -> bytes:
    """The PDF of a frozen document."""
    content = json.loads(document)
    data = json.dumps(printable(view(content)), ensure_ascii=False)
    issued = date.fromisoformat(content["issued_date"])
    return _compile(data, local_day_start(issued, "UTC") // 1000)


def _compile(data: str, timestamp: int) -> bytes:
    import typst

    try:
        made = _compiler().compile(
            format="pdf", sys_inputs={"data": data}, pdf_standards=STANDARD, timestamp=timestamp, pdf_tags=False
        )
    except typst.TypstError:  # a character that no font of ours has: PDF/A forbids the box that stands for it
        made = _compiler().compile(format="pdf", sys_inputs={"data": data}, timestamp=timestamp, pdf_tags=False)
    assert isinstance(made, bytes), "a PDF is one file"
    return made


@cache
def _compiler() -> typst.Compiler:
    import typst

    return typst.Compiler(TEMPLATE, root=TEMPLATE.parent, ignore_system_fonts=True)


class Rendered(NamedTuple):
    """How many documents were written, and how many were there already."""

    rendered: int
    kept: int


def render_all(home: Home, period: str, workers: int = 0) -> int:
    """Make sure that the PDF of every invoice of a period is there; returns how many there are."""
    return sum(render_period(home, period, workers))


def render_period(home: Home, period: str, workers: int = 0, *, again: bool = False) -> Rendered:
    """The PDFs of a period into documents/<period>/, on `workers` processes (0: all cores).

    A file that is there is kept, unless `again`: interrupted, the same call goes on where it was.
    """
    folder = home.folder("documents") / period
    rendered = kept = 0
    with sql.reading(sql.engine(home)) as connection:
        total = register.count(connection, period)
        orders = _orders(connection, period, folder, again)
        with progress.bar("rendering invoices", total, "PDF") as advance:
            for written, there in _rendered(orders, _workers(workers, total)):
                rendered, kept = rendered + written, kept + there
                advance(written + there)
    return Rendered(rendered, kept)


Order = tuple[list[tuple[Path, str]], int]
"""Files with their documents, and how many of the chunk are there already."""


def _workers(wanted: int, total: int) -> int:
    cores = len(os.sched_getaffinity(0))
    return max(1, min(wanted or cores, (total + CHUNK - 1) // CHUNK, WORKERS_MAX))


def _orders(connection: sa.Connection, period: str, folder: Path, again: bool) -> Iterator[Order]:
    for chunk in register.of_period(connection, period, CHUNK):
        todo = [(path_of(folder, invoice.number), invoice.document) for invoice in chunk]
        wanted = [order for order in todo if again or not order[0].exists()]
        yield wanted, len(todo) - len(wanted)


def path_of(folder: Path, number: str) -> Path:
    """A number may hold a slash, a file name may not."""
    return folder / f"{number.replace('/', '_')}.pdf"


def _rendered(orders: Iterator[Order], workers: int) -> Iterator[tuple[int, int]]:
    """Yields (rendered, kept) a chunk. At most two orders a worker are under way."""
    if workers == 1:
        yield from ((_render_chunk(wanted), kept) for wanted, kept in orders)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[int], int] = {}
        for wanted, kept in orders:
            pending[pool.submit(_render_chunk, wanted)] = kept
            while len(pending) >= 2 * workers:
                yield from _finished(pending)
        while pending:
            yield from _finished(pending)


def _finished(pending: dict[Future[int], int]) -> Iterator[tuple[int, int]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        yield future.result(), pending.pop(future)


def _render_chunk(wanted: list[tuple[Path, str]]) -> int:
    for path, document in wanted:
        files.write_whole(path, render(document))
    return len(wanted)


def printable(value: Any) -> Any:
    """The same without control characters and those that override the direction of writing: what is shown is what it
    says, 'gnp.exe' can't be made to read 'exe.png'."""
    if isinstance(value, str):
        return "".join(" " if c in "\n\t" else c for c in value if c in "\n\t" or not _is_control(c))
    if isinstance(value, dict):
        return {name: printable(item) for name, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or character in _DIRECTION_OVERRIDES


def view(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, as text."""
    spoken = content["language"]
    said = languages.words(spoken)
    credit = content["totals"]["gross_minor"] < 0
    heading = said["credit_note" if credit else "invoice"]
    issued = date.fromisoformat(content["issued_date"])
    return {
        "language": spoken,
        "words": dict(said),
        "title": f"{heading} {content['number']}",
        "heading": heading,
        "issued_date": {"year": issued.year, "month": issued.month, "day": issued.day},
        "seller": _seller(content["seller"], said),
        "buyer": _buyer(content["buyer"]),
        "facts": _facts(content, said),
        "columns": [said[name] for name in ("line", "description", "quantity", "unit_price", "tax_short")]
        + [f"{said['net_short']}, {content['currency']}"],
        "lines": [_line(line, content, said) for line in content["lines"]],
        "totals": _totals(content, said),
        "payable": _payable(content, said),
        "note": said["prices_with_tax"] if any(line["gross_minor"] is not None for line in content["lines"]) else "",
        "payment": [] if content["totals"]["gross_minor"] <= 0 else _payment(content, said),
        "usage_title": f"{said['usage']} {languages.month(content['period'], spoken)}",
        **_usage(content, said),
        "footer": [part for part in (content["seller"]["name"], content["number"]) if part],
    }


def _seller(seller: Mapping[str, str], said: Mapping[str, str]) -> dict[str, Any]:
    tax_id = f"{said['tax_id']}: {seller['tax_id']}" if seller["tax_id"] else ""
    address = ", ".join(part for part in (seller["address"], seller["country"]) if part)
    return {"name": seller["name"], "lines": [line for line in (address, tax_id) if line]}


def _buyer(buyer: Mapping[str, str]) -> dict[str, Any]:
    lines = [part.strip() for part in buyer["address"].split(",")] + [buyer["email"]]
    return {"name": buyer["name"], "lines": [line for line in lines if line]}


def _facts(content: Mapping[str, Any], said: Mapping[str, str]) -> list[list[str]]:
    spoken = content["language"]
    due = languages.long_day(date.fromisoformat(content["due"]), spoken)
    return [
        [said["number"], content["number"]],
        [said["issued"], languages.long_day(date.fromisoformat(content["issued_date"]), spoken)],
        *([[said["due"], due]] if content["totals"]["gross_minor"] > 0 else []),
        [said["period"], languages.month(content["period"], spoken)],
        [said["account"], content["account"]],
    ]


def _line(line: Mapping[str, Any], content: Mapping[str, Any], said: Mapping[str, str]) -> dict[str, Any]:
    spoken = content["language"]
    price = said.get(f"price_{line['unit_price']}") or languages.number(line["unit_price"], spoken)
    return {
        "number": str(line["line"]),
        "name": line["charge_line"],
        "details": _details(line, spoken, said),
        "quantity": languages.number(line["quantity"], spoken),
        "unit": said.get(f"fee_unit_{line['unit']}", line["unit"]),
        "price": f"{price}\u00a0*" if line["gross_minor"] is not None else price,
        "percent": languages.number(line["tax_percent"], spoken),
        "net": languages.amount(line["net_minor"], content["currency"], spoken),
    }


def _details(line: Mapping[str, Any], spoken: str, said: Mapping[str, str]) -> list[str]:
    """The small print below a line's name: days, service, what traffic, and what is corrected."""
    traffic = [line["zone"], line["class"], said.get(line["direction"] or "", line["direction"])]
    found = [languages.span(line["start"], line["end"], spoken) + f"  ·  {line['service']}"]
    found.append("  ·  ".join(part for part in traffic if part))
    if line["nature"] == "correction":
        before = languages.number(line["quantity_before"], spoken)
        found.append(f"{said['correction']}: {said['instead_of']} {before}")
    elif line["nature"] == "cancellation":
        found.append(f"{said['cancellation']}: {languages.number(line['quantity_before'], spoken)}")
    return [part for part in found if part]


def _totals(content: Mapping[str, Any], said: Mapping[str, str]) -> list[list[str]]:
    spoken, currency = content["language"], content["currency"]

    def shown(minor: int) -> str:
        return languages.amount(minor, currency, spoken)

    rows = [[said["net"], shown(content["totals"]["net_minor"])]]
    for tax in content["taxes"]:
        percent, base = languages.number(tax["percent"], spoken), shown(tax["net_minor"])
        rows.append([f"{said['tax']} {percent}\u00a0% {said['on']} {base}", shown(tax["tax_minor"])])
    return rows


def _payable(content: Mapping[str, Any], said: Mapping[str, str]) -> list[str]:
    gross = content["totals"]["gross_minor"]
    amount = languages.amount(abs(gross), content["currency"], content["language"])
    return [said["payable" if gross >= 0 else "credited"], f"{amount}\u00a0{content['currency']}"]


def _payment(content: Mapping[str, Any], said: Mapping[str, str]) -> list[list[str]]:
    iban = content["seller"]["iban"].replace(" ", "")
    rows = [
        [said["beneficiary"], content["seller"]["name"]],
        [said["iban"], " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))],
        [said["reference"], f"{content['number']} / {content['account']}"],
        [said["amount"], _payable(content, said)[1]],
        [said["until"], languages.long_day(date.fromisoformat(content["due"]), content["language"])],
    ]
    return [row for row in rows if row[1]]


def _usage(content: Mapping[str, Any], said: Mapping[str, str]) -> dict[str, Any]:
    """The columns and rows of the usage table; a column that says nothing is left out."""
    spoken, found = content["language"], content["usage"]
    several = len({row["service"] for row in found}) > 1
    zones = any(row["zone"] for row in found)
    rows = []
    for row in found[:USAGE_ROWS_MAX]:
        cells = [row["service"]] if several else []
        cells += [row["zone"] or said["no_zone"]] if zones else []
        cells += [row["class"], said.get(row["direction"], row["direction"]), languages.octets(row["octets"], spoken)]
        rows.append(cells)
    names = ["service"] * several + ["zone"] * zones + ["class", "direction", "volume"]
    rest = sum(row["octets"] for row in found[USAGE_ROWS_MAX:])
    if rest:
        rows.append([said["others"], *[""] * (len(names) - 2), languages.octets(rest, spoken)])
    return {"usage_columns": [said[name] for name in names], "usage": rows}
