"""`collect status --watch` as people see it: a screen on a terminal, lines elsewhere; q or Ctrl-C ends it.

Nothing is told by colour alone: what is wrong stands beside a `!`.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from collector.watch import CollectorView, ExporterView, View, Watch
from core import clock
from core.periods import format_instant

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

UNKNOWN = "…"
_ENOUGH_LINES = 5
"""Exporters that are shown however small the terminal is."""


def run(watch: Watch, interval: float, count: int, *, as_json: bool) -> None:
    """Look every `interval` seconds, `count` times or (0) until somebody ends it."""
    from rich.console import Console

    console = Console()
    try:
        if as_json or not console.is_terminal or console.is_dumb_terminal:
            _lines(watch, interval, count, _json if as_json else plain)
        else:
            _screen(console, watch, interval, count)
    except KeyboardInterrupt:
        return  # the usual way to end a watch: no error


def _lines(watch: Watch, interval: float, count: int, text: Callable[[View], str]) -> None:
    looks = 0
    while True:
        print(text(watch.look()), flush=True)
        looks += 1
        if looks == count:
            return
        clock.sleep(interval)


def _json(view: View) -> str:
    return json.dumps(view.document(), ensure_ascii=False)


def plain(view: View) -> str:
    """One line a collector, without cursor movements or colour."""
    lines = []
    for one in view.collectors:
        parts = [format_instant(view.at), one.collector, one.state, f"received/s {_rate(one.received_per_second)}",
                 f"flows/s {_rate(one.flows_per_second)}", f"lag {_whole(one.lag_datagrams)} datagrams {_age(one.lag_seconds)}",
                 f"kernel drops {one.kernel_drops}", f"refused {one.refused}", f"lost {one.lost}",
                 f"disk free {_size(view.disk_free)}"]
        lines.append(", ".join(parts[:2]) + ": " + ", ".join(parts[2:]) + (f", trouble: {one.trouble}" if one.trouble else ""))
    return "\n".join(lines) or f"{format_instant(view.at)}: no collector has run in this home"


# the screen -----------------------------------------------------------------------------------------------------------
def _screen(console: Console, watch: Watch, interval: float, count: int) -> None:
    from rich.live import Live

    looks = 0
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            view = watch.look()
            live.update(screen(view, interval, console.width, console.height), refresh=True)
            looks += 1
            if looks == count or pressed(interval) in ("q", "Q", "\x03", "\x04"):
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits for a key so long and returns it, '' for none. The terminal is put back as it was."""
    import termios
    import tty

    def nothing(seconds: float) -> str:
        clock.sleep(seconds)
        return ""

    if not sys.stdin.isatty():
        yield nothing
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        deadline = clock.monotonic_ns() + int(seconds * 1e9)
        while (left := (deadline - clock.monotonic_ns()) / 1e9) > 0:
            if select.select([descriptor], [], [], left)[0]:
                key = os.read(descriptor, 1).decode("latin-1")
                if key in ("", "q", "Q", "\x03", "\x04"):
                    return key or "q"  # '': the terminal has gone
        return ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def screen(view: View, interval: float, width: int, height: int) -> RenderableType:
    """All of a view that fits."""
    from rich.console import Group
    from rich.text import Text

    head = Text(no_wrap=True, overflow="ellipsis")
    head.append("ratemill collect status", "bold")
    head.append(f"  {format_instant(view.at)[:19].replace('T', ' ')} UTC  every {interval:g} s  q ends it")
    parts: list[RenderableType] = [head]
    for one in view.collectors:
        parts += [Text(), *_collector(one)]
    if not view.collectors:
        parts += [Text(), Text("no collector has run in this home: `ratemill run` or `ratemill collect run`")]
    if view.disk_size:
        parts += [_disk(view)]
    used = len(parts)
    if view.exporters is None:
        parts += [Text(), Text("! the database can't be read: nothing is known by exporter", "red")]
    elif view.exporters:
        room = max(_ENOUGH_LINES, height - used - 3)
        shown = view.exporters if len(view.exporters) <= room else view.exporters[: room - 1]
        parts += [Text(), _exporters(shown, width, view.at)]
        if len(view.exporters) > len(shown):
            parts.append(Text(f"and {len(view.exporters) - len(shown)} more: `ratemill exporters list`", "dim"))
    return Group(*parts)


def _collector(one: CollectorView) -> list[Text]:
    from rich.text import Text

    def line(*parts: tuple[str, str] | str) -> Text:
        return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")

    def bad(text: str, wrong: bool) -> tuple[str, str]:
        return (f"! {text}", "bold red") if wrong else (text, "")

    addresses = " ".join(listener.address for listener in one.listeners)
    dropping = bool(one.kernel_drops_per_second)
    lines = [
        line((f"{one.collector}  ", "bold"), bad(one.state, one.state != "running"), f"  process {one.pid}  {addresses}"),
        line(f"  received  {_rate(one.received_per_second):>8} datagrams/s  {_size(one.octets_per_second):>9}/s"
             f"   {_whole(one.received)} in all"),
        line(f"  decoded   {_rate(one.flows_per_second):>8} flows/s                    {_whole(one.flows)} flows in all"),
        line(f"  lag       {_whole(one.lag_datagrams)} datagrams, {_whole(one.lag_blocks)} blocks, "
             f"oldest {_age(one.lag_seconds)}, not yet durable {_whole(one.not_durable)}"),
        line("  losses    ", bad(f"kernel {_whole(one.kernel_drops)}", dropping),
             f" ({_rate(one.kernel_drops_per_second)}/s), ", bad(f"disk {_whole(one.refused)}", one.refused > 0),
             f", killed {_whole(one.lost)};  receive buffer {_fill(one)} in use"),
    ]
    if one.trouble:
        lines.append(line("  ", bad(f"decoding waits: {one.trouble}", True)))
    return lines


def _fill(one: CollectorView) -> str:
    """The fullest receive buffer."""
    shares = [listener.queued / listener.buffer for listener in one.listeners if listener.buffer]
    return f"{100 * max(shares):.0f} %" if shares else UNKNOWN


def _disk(view: View) -> Text:
    from rich.text import Text

    journals = [one.journal_octets for one in view.collectors if one.journal_octets is not None]
    share = 100 * (view.disk_free or 0) / (view.disk_size or 1)
    return Text(f"  disk      {_size(view.disk_free)} free ({share:.0f} %), journal {_size(sum(journals))}", no_wrap=True)


_COLUMNS = ("domain", "proto", "dgram/s", "flows/s", "missing", "%", "wait", "fault", "heard")
_ADDRESS_WIDTH_MIN = 15


def _exporters(rows: list[ExporterView], width: int, at: int) -> Table:
    """The figures keep their width; what the terminal lacks is taken from the addresses."""
    from rich.table import Table
    from rich.text import Text

    cells = [_cells(row, at) for row in rows]
    widths = [max(len(name), *(len(line[column]) for line in cells)) for column, name in enumerate(_COLUMNS)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    room = max(_ADDRESS_WIDTH_MIN, width - sum(widths) - len(widths))
    table.add_column("exporter", no_wrap=True, overflow="ellipsis", max_width=room)
    for name, needed in zip(_COLUMNS, widths, strict=True):
        table.add_column(name, justify="left" if name == "proto" else "right", no_wrap=True, min_width=needed)
    for row, line in zip(rows, cells, strict=True):
        table.add_row(Text(row.exporter), *(Text(cell, "red" if cell.startswith("!") else "") for cell in line))
    return table


def _cells(row: ExporterView, at: int) -> list[str]:
    return [
        _domain(row.domain), row.protocol, _rate(row.datagrams_per_second), _rate(row.flows_per_second),
        ("!" if row.loses else "") + _short(row.missing),
        "" if row.missing_percent is None else f"{row.missing_percent:.1f}", _short(row.waiting), _short(row.faulted),
        "" if row.last is None else _age(max(0, at - row.last) / 1000),
    ]


def _domain(text: str) -> str:
    """Long ones, which are numbers by accident, end in dots: the column must not push the figures out."""
    return text if len(text) <= 10 else text[:9] + UNKNOWN


# figures --------------------------------------------------------------------------------------------------------------
def _rate(value: float | None) -> str:
    """Three digits are enough for an eye."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < value < 10 else _short(round(value))


def _short(value: int) -> str:
    """A count in at most six places."""
    if value < 100_000:
        return str(value)
    for exponent, unit in enumerate("kMGTPE", 1):
        scaled = value / 1000**exponent
        if scaled < 999.5:
            return f"{scaled:.3g}{unit}"
    return "huge"


def _whole(value: int | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,}".replace(",", " ")


def _size(octets: float | None) -> str:
    """Octets for people, in powers of 1024."""
    if octets is None:
        return UNKNOWN
    if octets < 1024:
        return f"{octets:.0f} B"
    for exponent, unit in enumerate(("KiB", "MiB", "GiB"), 1):
        scaled = octets / 1024**exponent
        if scaled < 1023.95:
            return f"{scaled:.1f} {unit}"
    return f"{octets / 1024**4:.1f} TiB"


def _age(seconds: float | None) -> str:
    """A time since, in its largest unit."""
    if seconds is None:
        return UNKNOWN
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.0f}s"
