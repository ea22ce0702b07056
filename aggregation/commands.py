"""`ratemill aggregate run` and `ratemill usage publish|export`."""

from __future__ import annotations

import typer

from core.errors import UsageError
from runtime import options

aggregate = typer.Typer()
usage = typer.Typer()
metering = typer.Typer()

_BY = typer.Option("hour", "--by", help="Sum by hour, slot (quarter hour or 5 minutes) or month.", metavar="hour|slot|month")


@aggregate.callback()
def _aggregate() -> None:
    """Flows to cells: whose traffic, which class."""


@usage.callback()
def _usage() -> None:
    """Usage by service, hour, zone, class and direction."""


@metering.callback()
def _metering() -> None:
    """The metering cut: where traffic is counted."""


@metering.command("check")
def check_command(
    from_: str = typer.Option(..., "--from", help="Flows that began at this instant (ISO 8601 with offset) or later.",
                              metavar="INSTANT"),
    until: str = typer.Option(..., "--until", help="… and before this one.", metavar="INSTANT"),
    limit: int = typer.Option(100, "--limit", min=1, max=1_000_000, help="Rows, most octets first."),
    to: str = options.TO_FILE,
    reason: str = options.REASON,
) -> None:
    """Addresses of subscribers whose packets the cut counts never or twice, by exporter and interface; a look is recorded."""
    from aggregation import metering as cut
    from core import actor
    from runtime import context, output
    from security import flow_looks

    first, last = options.instant(from_, "--from"), options.instant(until, "--until")
    if first is None or last is None or first >= last:
        raise UsageError("--from is not before --until", "for example --from 2026-10-05T00:00Z --until 2026-10-06T00:00Z")
    _say_if_cold()
    flow_looks.note(context.home(), actor.current(reason or "metering check"), "metering check", first, last)
    found = cut.check(context.home(), first, last, limit)
    output.emit_rows(found, cut.COLUMNS, to)
    if not found:
        output.say("every packet of a subscriber that was seen was counted once")


@aggregate.command("run")
def run_command(
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Threads, each with batches and memory of its own."),
    reason: str = options.REASON,
) -> None:
    """Take in new segments, and make batches again whose leases, subscriptions, plans or settings changed.

    May run several times at once, also on several machines: each takes segments that no other works on.
    """
    from aggregation import frozen
    from aggregation.batches import aggregate as run
    from core import actor
    from runtime import context, output

    _say_if_cold()
    done = run(context.home(), actor.current(reason or "aggregate run"), workers)
    if done.shared:
        output.say("another `aggregate run` is at work and looks after older batches: this one helped with new segments")
    output.emit_object(done.as_row())
    if done.finer_edges:
        output.say(f"{done.finer_edges} batches were made again from their flows: a tariff zone, an hour or a month now begins "
                   "inside a quarter hour, or a plan needs slots of 5 minutes")
    if done.frozen:
        output.say(frozen.sentence(done.frozen))


@usage.command("publish")
def publish_command(reason: str = options.REASON) -> None:
    """Publish a DuckDB generation of the usage, unless the current one holds everything."""
    from aggregation.publish import publish
    from core import actor
    from runtime import context, output

    _say_if_cold()
    done = publish(context.home(), actor.current(reason or "usage publish"))
    if not done["published"]:
        output.say(f"nothing has changed since {done['generation']} was published")
    if done["waiting_segments"] or done["stale_batches"]:
        output.say(f"{done['waiting_segments']} segments and {done['stale_batches']} stale batches are not in it: "
                   "run `ratemill aggregate run`, then publish again")
    output.emit_object(done)


@usage.command("export")
def export_command(period: str = options.PERIOD, by: str = _BY, to: str = options.TO_FILE) -> None:
    """Rows of a local month of each service, from what was published last."""
    from aggregation import export
    from runtime import context, output

    if by not in export.TIME_COLUMNS:
        raise UsageError(f"--by {by} is none of {', '.join(export.TIME_COLUMNS)}")
    wanted = options.period(period)
    output.emit_batches(export.schema(by), export.rows(context.home(), wanted, by), to)


@usage.command("sessions")
def sessions_command(period: str = options.PERIOD, to: str = options.TO_FILE) -> None:
    """Sessions of access servers in a local month: seconds and octets by subscription and tariff zone."""
    from aggregation import session_usage
    from runtime import context, output

    wanted = options.period(period)
    output.emit_batches(session_usage.SCHEMA, session_usage.batches(context.home(), wanted), to)


@usage.command("compare-radius")
def compare_radius_command(
    period: str = options.PERIOD,
    over: float = typer.Option(0.0, "--over", min=0.0, metavar="PERCENT", help="Only services that differ by more."),
    to: str = options.TO_FILE,
) -> None:
    """The octets that access servers counted beside those of the published flows, service by service."""
    from aggregation import session_usage
    from runtime import context, output

    rows = session_usage.compare(context.home(), options.period(period), over)
    output.emit_rows(rows, session_usage.COMPARED, to)


@usage.command("strangers")
def strangers_command(
    period: str = typer.Option("", "--period", metavar="PERIOD", help="Billing period in the seller's zone; default: now."),
    by: str = typer.Option("prefix", "--by", metavar="prefix|exporter", help="Sum by exporter and network, or by exporter."),
    limit: int = typer.Option(20, "--limit", min=1, metavar="N", help="How many rows, the biggest first."),
    to: str = options.TO_FILE,
    reason: str = options.REASON,
) -> None:
    """The biggest flows that no service owned, by exporter and network (IPv4 /24, IPv6 /48); octets are scaled. A look by
    network is recorded."""
    from aggregation import strangers
    from core import actor, clock
    from core.periods import period_bounds, period_of
    from core.settings import seller
    from runtime import context, output
    from security import flow_looks

    if by not in strangers.COLUMNS:
        raise UsageError(f"--by {by} is none of {', '.join(strangers.COLUMNS)}")
    home = context.home()
    wanted = options.period(period) if period else period_of(clock.now_ms(), seller(home.document).timezone)
    if by == "prefix":
        _say_if_cold()
        flow_looks.note(home, actor.current(reason or "usage strangers"), "usage strangers",
                        *period_bounds(wanted, seller(home.document).timezone))
    found = strangers.report(home, wanted, by, limit)
    output.emit_rows(found.rows, strangers.COLUMNS[by], to)
    for sentence in found.sentences(wanted):
        output.say(sentence)


def _say_if_cold() -> None:
    from core import jit
    from runtime import output

    if jit.is_cold("aggregation.kernels", "aggregation.kernels_cells", "aggregation.kernels_classes", "subscribers.kernels"):
        output.say("compiling kernels, once …")
