"""The commands `collect`, `exporters`, `counters` and `flows`."""

from __future__ import annotations

from pathlib import Path

import typer

from core.actor import Actor
from runtime import options
from runtime.context import home as this_home

collect = typer.Typer(help="Receive, replay and send flow exports.")
exporters = typer.Typer(help="Routers that export to us, with their losses.")
flows = typer.Typer(help="Decoded flows.")
counters = typer.Typer(help="Octet counters of routers' interfaces.")


@collect.callback()
@exporters.callback()
@flows.callback()
@counters.callback()
def _group() -> None:
    """Each of them stays a group of verbs, however few it has."""


@collect.command("run")
def run(
    listen: list[str] = typer.Option([], "--listen", metavar="ADDR:PORT", help=(
        "Where to listen; may be repeated. ADDR:PORT is UDP; tcp://ADDR:PORT and tls://ADDR:PORT take IPFIX.")),
    collector: str = typer.Option("", "--collector", metavar="ID", help="Name of this collector, if there are several."),
    receive_only: bool = typer.Option(False, "--receive-only", help="Member of a group: leave decoding to another process."),
    no_metrics: bool = typer.Option(False, "--no-metrics", help="Do not serve metrics: another process of this home does."),
) -> None:
    """Receive datagrams and decode them until SIGTERM; every UDP port takes every protocol. SIGHUP: new certificate.

    Of a group's members one decodes."""
    from collector import service

    code = service.run(this_home(), listen, _collector_id(collector), receive_only, with_metrics=not no_metrics)
    if code:
        raise typer.Exit(code)


@collect.command("receive", hidden=True)
def receive(
    listen: list[str] = typer.Option(..., "--listen", metavar="ADDR:PORT"),
    collector: str = typer.Option(..., "--collector", metavar="ID"),
    after: int = typer.Option(0, "--after", metavar="BLOCK"),
) -> None:
    """The receiver process of `collect run`."""
    from collector import receiving

    receiving.receive(this_home(), _collector_id(collector), listen, after)


@collect.command("decode")
def decode(group: str = typer.Argument(..., metavar="GROUP", help="Name of a [[collector_group]].")) -> None:
    """Decode what the members of a group receive, without receiving, until SIGTERM."""
    from collector import group_service

    code = group_service.run(this_home(), group)
    if code:
        raise typer.Exit(code)


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


@collect.command("certificate")
def certificate(
    host: list[str] = typer.Option([], "--host", metavar="NAME|ADDR", help=(
        "What exporters call this collector; may be repeated. Default: this machine's name and loopback.")),
    client: str = typer.Option("", "--client", metavar="NAME", help="Make the certificate of an exporter instead."),
    days: int = typer.Option(825, "--days", min=1, max=3650, help="How long it is valid."),
    renew: bool = typer.Option(False, "--renew", help="Make a new one where there is one; the CA stays."),
    reason: str = options.REASON,
) -> None:
    """Make certificates for IPFIX over TLS, with a CA of the home's own in HOME/tls; what is there stays."""
    from collector import authority
    from core.actor import current
    from runtime.output import emit_object, say

    made = authority.make(this_home(), current(reason or "collect certificate"), hosts=host, client=client, days=days,
                          renew=renew)
    emit_object(made.document())
    for line in made.advice():
        say(line)


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
    to: str = typer.Option(..., "--to", metavar="HOST:PORT", help=(
        "Where the collector listens; tcp://HOST:PORT or tls://HOST:PORT for IPFIX over a stream.")),
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
    ca: str = typer.Option("", "--ca", metavar="FILE", help="TLS: believe certificates of these CAs; default: the system's."),
    certificate: str = typer.Option("", "--certificate", metavar="FILE", help="TLS: show this certificate (PEM)."),
    key: str = typer.Option("", "--key", metavar="FILE", help="TLS: its private key; default: in the same file."),
) -> None:
    """Be an exporter: send flows made from a seed, and lose some of them on purpose."""
    from collector.exporter import commands
    from collector.exporter.stream import Tls

    commands.send(to, protocol, count, rate=rate, seed=seed, loss=loss, duplicate=duplicate, reorder=reorder,
                  source=source, sampling=sampling, domain=domain, manifest=manifest,
                  tls=Tls(ca, certificate, key))


@exporters.command("list")
def list_exporters(to: str = options.TO_FILE) -> None:
    """Every exporter and domain: what came, what is missing, what is wrong."""
    from collector import listing, sights
    from runtime.output import emit_rows, say

    emit_rows(listing.exporters(this_home()), listing.EXPORTER_COLUMNS, to)
    for sentence in sights.warnings(this_home()):
        say(f"warning: {sentence}")


@exporters.command("show")
def show_exporter(
    address: str = typer.Argument(metavar="ADDRESS", help="Address from which it sends."),
    domain: int = typer.Option(-1, "--domain", min=-1, metavar="N", help="Only this observation domain."),
) -> None:
    """Everything about one exporter: loss and why, templates, sampling, clock, longest flow, faults, interfaces."""
    from collector import health, health_table
    from runtime.output import chosen_format, emit_object

    found = health.show(this_home(), address, None if domain < 0 else domain)
    if chosen_format() == "table":
        health_table.print_health(found)
    else:
        emit_object(found)


@exporters.command("snippet")
def snippet(
    vendor: str = typer.Argument("", metavar="VENDOR", help="Whose router; without it, those that there are."),
    collector: str = typer.Option("", "--collector", metavar="HOST:PORT", help="Where we listen, as the router reaches it."),
    protocol: str = typer.Option("", "--protocol", metavar="v9|ipfix|sflow", help="In which to export."),
    interface: list[str] = typer.Option([], "--interface", metavar="NAME", help="Facing subscribers; may be repeated."),
    sampling: int = typer.Option(0, "--sampling", min=0, metavar="N", help="Look at one packet in N; 1: at every packet."),
    source: str = typer.Option("", "--source", metavar="NAME|ADDR", help="The router's interface or address to send from."),
) -> None:
    """Configuration to paste into a router, with an active timeout of 60 s, templates and options each minute."""
    from collector import snippets
    from runtime.output import emit_rows, say

    if not vendor:
        emit_rows(({"vendor": one.vendor, "name": one.name, "protocols": ", ".join(one.protocols)}
                   for one in snippets.templates()), ("vendor", "name", "protocols"))
        return
    template = snippets.find(vendor)
    print(snippets.render(template, snippets.Wanted(collector, protocol, interface, sampling, source)), end="")
    given = {"--collector": collector, "--interface": interface, "--source": source}
    missing = [name for name, value in given.items() if not value]
    if missing:
        say(f"with examples in place of {', '.join(missing)}: change them")


@counters.command("import")
def import_counters(
    file: Path = typer.Argument(metavar="FILE.csv", help="exporter,interface,at,in_octets,out_octets (ifHC counters)."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Import samples of ifHCInOctets and ifHCOutOctets, to see whether flows are complete; all rows or none."""
    from collector import counter_file
    from core.actor import current
    from runtime.output import emit_object, say
    from storage import sql

    done = counter_file.import_file(sql.engine(this_home()), file, current(reason or f"counters import {file}"), dry_run)
    emit_object(done.summary)
    for note in done.notes:
        say(note)
    if dry_run:
        say("dry run: nothing was changed")


@counters.command("list")
def list_counters(to: str = options.TO_FILE) -> None:
    """The interfaces whose counters are known, from which source, from when to when."""
    from collector import counter_file
    from runtime.output import emit_rows
    from storage import sql

    with sql.reading(sql.engine(this_home())) as connection:
        emit_rows(counter_file.listing(connection), counter_file.LIST_COLUMNS, to)


@exporters.command("unknown")
def list_unknown(to: str = options.TO_FILE) -> None:
    """The busiest exporters that no [[exporter]] names: up to `overcount` of their datagrams may have been others'."""
    from collector import listing
    from runtime.output import emit_rows

    emit_rows(listing.unknown_exporters(this_home()), listing.UNKNOWN_COLUMNS, to)


@exporters.command("admit")
def admit(
    address: str = typer.Argument(..., metavar="ADDRESS", help="Its address; the settings must take it by now."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Decode what was kept of an unknown exporter, each datagram once, with its own arrival time."""
    from collector import admission
    from core.actor import current
    from runtime.output import emit_object

    exporter = _address(address, "ADDRESS")
    emit_object(admission.admit(this_home(), exporter, current(reason or f"exporters admit {address}"), dry_run))


@flows.command("export")
def export_flows(
    start: str = typer.Option("", "--from", metavar="INSTANT", help="Received at or after this instant."),
    to: list[str] = typer.Option([], "--to", metavar="INSTANT|FILE", help="Received before this instant; a file to write."),
    service: str = typer.Option("", "--service", metavar="NAME", help="Only flows of this service, by its leases then."),
    reason: str = options.REASON,
) -> None:
    """Flows in the order in which they were received, verified against their digests; each look is recorded."""
    from collector import listing
    from core.actor import current
    from runtime.output import emit_batches
    from security import flow_looks

    end, file = _ends(to)
    first, last = options.instant(start, "--from"), options.instant(end, "--to")
    actor = current(reason or "flows export")
    if service:
        _export_service(service, first, last, file, actor)
        return
    flow_looks.note(this_home(), actor, "flows export", first, last)
    batches = listing.flows(this_home(), first, last)
    emit_batches(listing.FLOW_EXPORT, batches, file)


def _export_service(service: str, first: int | None, last: int | None, file: str, actor: Actor) -> None:
    from collector import listing, service_flows
    from core import jit
    from runtime.output import emit_batches, say
    from security import flow_looks

    if jit.is_cold("subscribers.kernels"):
        say("compiling kernels, once …")
    found = service_flows.find(this_home(), service, first, last)
    flow_looks.note(this_home(), actor, "flows export", first, last, service=service)
    emit_batches(listing.FLOW_EXPORT, listing.exported(this_home(), found.tables()), file)
    for sentence in found.sentences():
        say(sentence)


_FROM = typer.Option("", "--from", metavar="INSTANT", help="Received at or after this instant.")
_TO = typer.Option([], "--to", metavar="INSTANT|FILE", help="Received before this instant; a file to write.")
_FILTER = typer.Argument(None, metavar="FILTER…", help="For example: 'proto udp and dst port in [53 443]'; default: all flows.")
_SCALED = typer.Option(False, "--scaled", help="Multiply octets and packets by the sampling rates; default: as exported.")


@flows.command("top")
def top_flows(
    words: list[str] = _FILTER,
    by: str = typer.Option("src", "--by", metavar="KEY", help=(
        "src, dst, pair, src-port, dst-port, protocol, service-port, connection, exporter, in-if, out-if, src-as, dst-as, "
        "next-hop or tos.")),
    order: str = typer.Option("octets", "--order", metavar="octets|packets|flows", help="What is biggest."),
    limit: int = typer.Option(20, "--limit", min=1, metavar="N", help="How many rows."),
    start: str = _FROM,
    to: list[str] = _TO,
    scaled: bool = _SCALED,
    reason: str = options.REASON,
) -> None:
    """The biggest sources, destinations, ports … of stored flows; each look is recorded."""
    from collector import flow_sums
    from core.actor import current
    from runtime.output import emit_rows, say

    end, file = _ends(to)
    wanted = flow_sums.Wanted(options.instant(start, "--from"), options.instant(end, "--to"), " ".join(words or ()), scaled)
    found = flow_sums.top(this_home(), wanted, by, order, limit, current(reason or "flows top"))
    emit_rows(found.rows, (*flow_sums.KEYS[by], *flow_sums.ORDERS), file)
    for sentence in found.sentences():
        say(sentence)


@flows.command("graph")
def graph_flows(
    words: list[str] = _FILTER,
    bars: int = typer.Option(24, "--bars", min=1, max=1000, metavar="N", help="Into how many equal stretches the time is cut."),
    start: str = _FROM,
    to: list[str] = _TO,
    scaled: bool = _SCALED,
    reason: str = options.REASON,
) -> None:
    """Octets of stored flows by the time of their arrival: bars on a terminal, else rows; each look is recorded."""
    from collector import flow_sums
    from core.actor import current
    from runtime.output import chosen_format, emit_rows, say

    end, file = _ends(to)
    wanted = flow_sums.Wanted(options.instant(start, "--from"), options.instant(end, "--to"), " ".join(words or ()), scaled)
    found = flow_sums.graph(this_home(), wanted, bars, current(reason or "flows graph"))
    if chosen_format() == "table" and found.rows and not file:
        import shutil
        import sys

        from collector import flow_bars

        can_draw = "utf" in (sys.stdout.encoding or "").lower()
        print(*flow_bars.draw(found.rows, shutil.get_terminal_size().columns, plain=not can_draw), sep="\n")
    else:
        emit_rows(found.rows, ("start", "end", *flow_sums.ORDERS), file)
    for sentence in found.sentences():
        say(sentence)


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


def _address(text: str, option: str = "--exporter") -> bytes:
    from core.addresses import parse_address
    from core.errors import UsageError

    try:
        return parse_address(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _collector_id(text: str) -> str:
    from collector.settings import collector_id
    from core.errors import UsageError

    try:
        return collector_id(text) if text else ""
    except ValueError as error:
        raise UsageError(f"--collector: {error}") from None
