"""The commands init, config, status, run, metrics, reconcile and demo."""

from __future__ import annotations

import typer

from core.errors import BalanceOpen, SettingsError, UsageError
from runtime import context
from runtime.options import PERIOD, TO_FILE, period
from runtime.output import chosen_format, emit_object, emit_rows, say

config = typer.Typer(help="Check the settings.")
metrics = typer.Typer(help="Figures for Prometheus.")


def __getattr__(name: str) -> object:
    """`demo` brings the sender and the whole pipeline with it: imported only when it is asked for. `invoice` is
    invoicing's, with the checks of the layers above it registered; `usage` and `db` are aggregation's, with the tables of the
    layers above it."""
    if name == "demo":
        from monitoring.demo import demo

        return demo
    if name in ("usage", "db"):
        from aggregation import commands, db_commands
        from monitoring import projections

        projections.register()
        return commands.usage if name == "usage" else db_commands.db
    if name == "invoice":
        from invoicing.commands import invoice
        from monitoring import gates

        gates.register()
        return invoice
    raise AttributeError(name)


def init(
    name: str = typer.Option("", "--name", help="Name of the provider, for invoices."),
    country: str = typer.Option("", "--country", help="ISO 3166 code, for example DE."),
    currency: str = typer.Option("EUR", "--currency", help="Currency of the books (ISO 4217)."),
    timezone: str = typer.Option("UTC", "--timezone", help="IANA zone of the provider, for example Europe/Berlin."),
    tax: str = typer.Option("", "--tax", help="Percentage of the tax category `standard`, for example 19."),
) -> None:
    """Make a home folder with a commented ratemill.toml; an existing one is never overwritten."""
    from monitoring.new_home import Choices, make
    from storage.home import locate

    made = make(locate(context.options.home), Choices(name, country, currency, timezone, tax))
    emit_object({"home": str(made.home.path), "settings": str(made.settings), "written": made.written})
    for number, step in enumerate(made.next_steps, 1):
        say(f"{number}. {step}")


@config.command("check")
def check() -> None:
    """Build everything that ratemill.toml describes and say what is wrong, all at once."""
    from monitoring import home_check
    from storage import sql
    from storage.home import SETTINGS_FILE, locate

    home = locate(context.options.home)
    problems = home_check.problems(home)
    warnings: list[str] = []
    if not problems:
        home.create()
        sql.engine(home)  # a database that is down or too new is said here
        warnings = home_check.warnings(home)
    path = str(home.path / SETTINGS_FILE)
    emit_object({"settings": path, "ok": not problems, "problems": problems, "warnings": warnings})
    if chosen_format() == "table":
        for sentence in warnings:
            say(f"warning: {sentence}")
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        raise SettingsError(f"{path} has {len(problems)} {noun}:\n" + "\n".join(f"  - {text}" for text in problems))


def status() -> None:
    """What runs, what lags, what is wrong."""
    from monitoring.status import describe, for_people

    found = describe(context.home())
    emit_object(for_people(found) if chosen_format() == "table" else found)
    for sentence in found["problems"]:
        say(f"problem: {sentence}")


def run() -> None:
    """Supervise everything until SIGTERM or Ctrl-C: collect and decode, aggregate each minute, publish every five."""
    from monitoring.services import gather
    from runtime.supervisor import supervise

    home = context.home()
    processes, jobs = gather(home.document)
    supervise(home, processes, jobs)


def completeness(
    text: str = PERIOD,
    by: str = typer.Option("interface", "--by", metavar="interface|exporter|day|hour", help="One row for each of these."),
    to: str = TO_FILE,
) -> None:
    """Flows against interface counters, and what is missing and why: whether a period's traffic is all there."""
    from monitoring.completeness import COLUMNS, SHOWN, describe

    if by not in ("interface", "exporter", "day", "hour"):
        raise UsageError(f"--by {by} is none of interface, exporter, day, hour")
    if by == "hour":
        from monitoring.completeness import HOURLY, describe_hours

        emit_rows(describe_hours(context.home(), period(text)), HOURLY, to)
        return
    rows, sentences = describe(context.home(), period(text), by)
    columns = SHOWN if chosen_format() == "table" and not to else COLUMNS
    emit_rows(rows, [name for name in columns if by == "day" or name != "day"], to)
    for sentence in sentences:
        say(sentence)
@metrics.command("serve")
def serve_metrics() -> None:
    """Answer Prometheus at [metrics] listen until SIGTERM: /metrics, /healthz, /readyz. `ratemill run` starts it."""
    from monitoring.metrics import serve

    serve(context.home())


@metrics.command("print")
def print_metrics() -> None:
    """Print what a scrape would give, in Prometheus' text format."""
    from monitoring.metrics import text

    print(text(context.home()), end="")


def reconcile(text: str = PERIOD) -> None:
    """Print the balances of a period, from datagrams to postings; exit code 7 while one is open."""
    from monitoring.reconcile import COLUMNS, balances, incomplete, warnings

    home, wanted = context.home(), period(text)
    found = balances(home, wanted)
    emit_rows([row.as_row() for row in found], COLUMNS)
    for sentence in [*warnings(home, wanted), *incomplete(found)]:
        say(f"warning: {sentence}")
    still_open = [row for row in found if row.difference != 0]
    if still_open:
        told = "\n".join(f"  {row.name}: {row.difference} {row.unit} open. {row.advice}" for row in still_open)
        raise BalanceOpen(f"{wanted} does not balance:\n{told}")
