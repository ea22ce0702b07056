"""The commands `collect`, `exporters` and `flows`."""

from __future__ import annotations

from pathlib import Path

import typer

from runtime import options
from runtime.context import home as this_home

collect = typer.Typer(help="Receive, replay and send flow exports.")
exporters = typer.Typer(help="Routers that export to us, with their losses.")
flows = typer.Typer(help="Decoded flows.")


@collect.callback()
@exporters.callback()
@flows.callback()
def _group() -> None:
    """Each of them stays a group of verbs, however few it has."""


@collect.command("run")
def run(
    listen: list[str] = typer.Option([], "--listen", metavar="ADDR:PORT", help="Where to listen; may be repeated."),
    collector: str = typer.Option("", "--collector", metavar="ID", help="Name of this collector, if there are several."),
    no_metrics: bool = typer.Option(False, "--no-metrics", help="Do not serve metrics: another process of this home does."),
) -> None:
    """Receive datagrams and decode them until SIGTERM; every port takes every protocol."""
    from collector import service

    code = service.run(this_home(), listen, _collector_id(collector), with_metrics=not no_metrics)
    if code:
        raise typer.Exit(code)


@collect.command("receive", hidden=True)
def receive(
    listen: list[str] = typer.Option(..., "--listen", metavar="ADDR:PORT"),
    collector: str = typer.Option(..., "--collector", metavar="ID"),
    after: int = typer.Option(0, "--after", metavar="BLOCK"),
) -> None:
    """The receiver process of `collect run`."""
    from collector import service

    service.receive(this_home(), _collector_id(collector), listen, after)


@collect.command("status")
def status(
    watch: bool = typer.Option(False, "--watch", help="Show rates, lag and losses until q or Ctrl-C; a line each when piped."),
    interval: float = typer.Option(2.0, "--interval", min=0.2, max=3600.0, metavar="S", help="Seconds from look to look."),
    count: int = typer.Option(0, "--count", min=0, help="End after so many looks; 0: go on."),
) -> None:
    """What was received, made durable and decoded; what the kernel dropped."""
    from collector import status as collectors
    from runtime.output import emit_object

    if watch:
        _watch(interval, count)
    else:
        emit_object(collectors.describe(this_home()))


def _watch(interval: float, count: int) -> None:
    from collector import watch, watch_screen
    from core.errors import UsageError
    from runtime import context

    if context.options.format not in (None, "table", "json"):
        raise UsageError(f"--watch has no -o {context.options.format}", "leave it out, or use --json: an object for each look")
    watch_screen.run(watch.Watch(this_home()), interval, count, as_json=context.options.format == "json")


@collect.command("replay")
def replay(
    files: list[Path] = typer.Argument(..., metavar="FILE…", help="pcap, pcapng, IPFIX files or single payloads."),
    exporter: str = typer.Option("", "--exporter", metavar="ADDR", help="Exporter of files that hold no addresses."),
    port: list[int] = typer.Option([], "--port", min=1, max=65535, help="Only datagrams to this port; may be repeated."),
    received: str = typer.Option("", "--received", metavar="INSTANT", help="When raw sFlow payloads came: uptime 0."),
    continues: bool = typer.Option(False, "--continue", help="Go on with the decoder state of the last such replay."),
    again: bool = typer.Option(False, "--again", help="Count files that were replayed before once more."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Decode captures and store their flows; a file counts once."""
    from collector import replay as replays
    from collector.captures import DEFAULT_EXPORTER, Source
    from core.actor import current
    from core.errors import PartlyDone
    from runtime.output import emit_object, say

    source = Source(_address(exporter) if exporter else DEFAULT_EXPORTER, options.instant(received, "--received") or 0)
    request = replays.Request(files, source, tuple(dict.fromkeys(port)), continues, again, dry_run)
    done = replays.replay_files(this_home(), request, current(reason or "collect replay"))
    for path in done.skipped:
        say(f"{path} was replayed before: skipped (--again counts it once more)")
    for note in done.notes:
        say(note)
    emit_object(done.document())
    if done.failures:
        problems = "; ".join(error.message for _, error in done.failures)
        raise PartlyDone(f"{len(done.failures)} of {len(files)} files were not replayed: {problems}",
                         "the others count; correct these and replay them again")


@collect.command("send")
def send(
    to: str = typer.Option(..., "--to", metavar="HOST:PORT", help="Where the collector listens."),
    protocol: str = typer.Option(..., "--protocol", metavar="v5|v9|ipfix|sflow", help="In which protocol to export."),
    count: int = typer.Option(..., "--flows", min=1, max=50_000_000, help="How many flows."),
    rate: int = typer.Option(0, "--rate", min=0, help="Datagrams a second; 0: as fast as they go."),
    seed: int = typer.Option(1, "--seed", min=0, help="The same flows and losses for the same seed."),
    loss: float = typer.Option(0.0, "--loss", min=0.0, max=1.0, help="Share of datagrams that are not sent."),
    duplicate: float = typer.Option(0.0, "--duplicate", min=0.0, max=1.0, help="Share of datagrams that are sent twice."),
    reorder: float = typer.Option(0.0, "--reorder", min=0.0, max=1.0, help="Share of datagrams that are sent late."),
    source: str = typer.Option("", "--source", metavar="ADDR", help="Address to send from (127.0.0.2, …)."),
    sampling: int = typer.Option(1, "--sampling", min=1, max=2**32 - 1, help="Announce this sampling rate."),
    domain: int = typer.Option(0, "--domain", min=0, max=2**32 - 1, help="Observation domain, engine or sub-agent."),
    manifest: str = typer.Option("", "--manifest", metavar="FILE", help="Write what was sent, and what must be reported."),
) -> None:
    """Be an exporter: send flows made from a seed, and lose some of them on purpose."""
    from collector.exporter import commands

    commands.send(to, protocol, count, rate=rate, seed=seed, loss=loss, duplicate=duplicate, reorder=reorder,
                  source=source, sampling=sampling, domain=domain, manifest=manifest)


@exporters.command("list")
def list_exporters(to: str = options.TO_FILE) -> None:
    """Every exporter and domain: what came, what is missing, what is wrong."""
    from collector import listing
    from runtime.output import emit_rows

    emit_rows(listing.exporters(this_home()), listing.EXPORTER_COLUMNS, to)


@flows.command("export")
def export_flows(
    start: str = typer.Option("", "--from", metavar="INSTANT", help="Received at or after this instant."),
    to: list[str] = typer.Option([], "--to", metavar="INSTANT|FILE", help="Received before this instant; a file to write."),
) -> None:
    """Flows in the order in which they were received, verified against their digests."""
    from collector import listing
    from runtime.output import emit_batches

    end, file = _ends(to)
    batches = listing.flows(this_home(), options.instant(start, "--from"), options.instant(end, "--to"))
    emit_batches(listing.FLOW_EXPORT, batches, file)


def _ends(values: list[str]) -> tuple[str, str]:
    """--to names an instant, or a file, or (given twice) both."""
    from core.errors import UsageError
    from core.periods import parse_instant

    end, file = "", ""
    for value in values:
        try:
            parse_instant(value)
        except ValueError as error:
            if "offset" in str(error):
                raise UsageError(f"--to: {error}") from None
            if file:
                raise UsageError(f"--to names two files, {file} and {value}") from None
            file = value
        else:
            if end:
                raise UsageError(f"--to names two instants, {end} and {value}")
            end = value
    return end, file


def _address(text: str) -> bytes:
    from core.addresses import parse_address
    from core.errors import UsageError

    try:
        return parse_address(text)
    except ValueError as error:
        raise UsageError(f"--exporter: {error}") from None


def _collector_id(text: str) -> str:
    from collector.settings import collector_id
    from core.errors import UsageError

    try:
        return collector_id(text) if text else ""
    except ValueError as error:
        raise UsageError(f"--collector: {error}") from None
