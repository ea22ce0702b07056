"""The commands `invoice run|list|export|pdf|pdfs|json|explain|verify`."""

from __future__ import annotations

import typer

from runtime import options

invoice = typer.Typer(help="Charges to invoices and documents.")

NUMBER = typer.Argument(help="Number of the invoice, for example A-000001.", metavar="NUMBER")
WORKERS = typer.Option(0, "--workers", min=0, help="Processes that render; 0: one a core.", metavar="N")


@invoice.command("run")
def run_command(
    period: str = options.PERIOD,
    dry_run: bool = options.DRY_RUN,
    as_of: str = options.AS_OF,
    reason: str = options.REASON,
    accept_incomplete: str = typer.Option(
        "", "--accept-incomplete", metavar="REASON", help="Go on although traffic is missing; recorded with the run."
    ),
) -> None:
    """Book what the charges of a period, and of periods invoiced before, differ from what is booked."""
    from core import actor
    from core.errors import UsageError
    from invoicing import run
    from runtime import context, output

    wanted, instant = options.period(period), options.instant(as_of, "--as-of")
    who = actor.current(reason or f"invoice run {wanted}")
    accepted = accept_incomplete.strip()
    if accept_incomplete and not accepted:
        raise UsageError("--accept-incomplete has no reason", "say why in a few words: it is kept with the run")
    output.emit_object(run.run(context.home(), wanted, instant, dry_run, who, accepted))


@invoice.command("list")
def list_command(period: str = options.PERIOD, to: str = options.TO_FILE) -> None:
    """The invoices of a period."""
    from invoicing import register
    from runtime import context, output
    from storage import sql

    wanted = options.period(period)
    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows(register.list_rows(connection, wanted), register.LIST_COLUMNS, to)


@invoice.command("export")
def export_command(period: str = options.PERIOD, to: str = options.TO_FILE) -> None:
    """The lines of all invoices of a period."""
    from invoicing import register
    from runtime import context, output
    from storage import sql

    wanted = options.period(period)
    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows(register.export_rows(connection, wanted), register.EXPORT_COLUMNS, to)


@invoice.command("json")
def json_command(number: str = NUMBER, to: str = options.TO_FILE) -> None:
    """The frozen document of an invoice, byte for byte as it was booked."""
    from pathlib import Path

    from invoicing import register
    from runtime import context, output
    from storage import files, sql

    with sql.reading(sql.engine(context.home())) as connection:
        text = register.find(connection, number).document
    if to:
        files.write_whole(Path(to), text.encode("utf-8"))
        output.say(f"wrote {to}")
    else:
        print(text)


@invoice.command("pdf")
def pdf_command(number: str = NUMBER, to: str = typer.Option(..., "--to", help="The file.", metavar="FILE")) -> None:
    """The PDF of an invoice; the same bytes every time."""
    from pathlib import Path

    from invoicing import documents, register
    from runtime import context, output
    from storage import files, sql

    with sql.reading(sql.engine(context.home())) as connection:
        found = register.find(connection, number)
    files.write_whole(Path(to), documents.render(found.document))
    output.say(f"wrote {to}")


@invoice.command("pdfs")
def pdfs_command(
    period: str = options.PERIOD,
    workers: int = WORKERS,
    again: bool = typer.Option(False, "--again", help="Also those whose file is there already."),
) -> None:
    """The PDFs of a period, on all cores, into documents/PERIOD/ of the home."""
    from invoicing import documents
    from runtime import context, output

    wanted = options.period(period)
    home = context.home()
    done = documents.render_period(home, wanted, workers, again=again)
    folder = str(home.folder("documents") / wanted)
    output.emit_object({"period": wanted, "rendered": done.rendered, "kept": done.kept, "folder": folder})


@invoice.command("explain")
def explain_command(
    number: str = NUMBER,
    line: int = typer.Argument(help="Number of the line.", metavar="LINE"),
    to: str = options.TO_FILE,
) -> None:
    """From a line down to the plan version, the charge, zone-hours, cells, flow segments and exporters."""
    from invoicing import explanation
    from runtime import context, output

    found = explanation.explain(context.home(), number, line)
    output.emit_rows(found, explanation.COLUMNS, to)


@invoice.command("verify")
def verify_command(
    number: str = NUMBER,
    level: int = typer.Option(1, "--level", min=1, max=2, help="1: usage to money. 2: also cells to usage."),
) -> None:
    """Recompute an invoice; exit code 7 if anything differs."""
    from core.errors import BalanceOpen
    from invoicing import verification
    from runtime import context, output

    result = verification.verify(context.home(), number, level)
    output.emit_object(result)
    if result["differing"]:
        raise BalanceOpen(f"{number} differs from what it was made of", "see the differences printed above")
