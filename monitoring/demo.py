"""`ratemill demo`: the main job for a demo town, from real UDP packets to invoices that balance.

Works in a home of its own and goes on where an earlier run stopped. Only the sending can't be continued in its middle: a
home whose sending was interrupted is made anew. Reads data/demo; writes the home.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from core import actor, clock
from core.errors import BalanceOpen, DependencyDown, RatemillError, UsageError
from runtime.output import say
from runtime.progress import bar

DEFAULT_HOME = "demo-home"
STATE_FILE = "demo.json"
COLLECTOR = "main"
AS_OF = "2026-11-02T08:00:00Z"
SEED = 20261001
LOSS, DUPLICATE, REORDER = 0.010, 0.008, 0.008
START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 120
REASON = "ratemill demo"


def demo(
    fresh: bool = typer.Option(False, "--fresh", help="Forget what an earlier demo left and start over."),
) -> None:
    """Run the whole pipeline for a demo town, from UDP packets to invoices."""
    from monitoring.demo_traffic import PERIOD
    from runtime import context
    from storage.home import Home

    folder = Path(context.options.home or os.environ.get("RATEMILL_HOME") or DEFAULT_HOME).absolute()
    home = Home(folder)
    begun = _seconds()
    _prepare(home, fresh)
    _load_town(home)
    truths = _traffic(home)
    _account(home, PERIOD)
    documents = _documents(home, PERIOD)
    _show(home, PERIOD, truths)
    print(f"\n{documents} invoices as PDF in {folder / 'documents' / PERIOD}")
    print(f"The whole demo took {_seconds() - begun:.0f} s. Five commands to try next:")
    for command in _suggestions(home, PERIOD):
        print(f"  {command}")


def _seconds() -> float:
    return clock.monotonic_ns() / 1e9


def _town() -> Path:
    from core.product import data_file

    return data_file("demo")


# the home ---------------------------------------------------------------------------------------------------------------
def _state(home: Any) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((home.path / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return state


def _remember(home: Any, **values: Any) -> None:
    from storage.files import write_whole

    write_whole(home.path / STATE_FILE, (json.dumps({**_state(home), **values}, indent=2) + "\n").encode())


def _prepare(home: Any, fresh: bool) -> None:
    state = _state(home)
    if home.path.exists() and any(home.path.iterdir()) and not state:
        raise UsageError(f"{home.path} is there and is not a demo's home", "name another folder with --home DIR")
    if state.get("sending") and not state.get("sent"):
        say("the last demo was stopped while it was sending: its home is made anew")
        fresh = True
    if fresh and state:
        shutil.rmtree(home.path)
    if not (home.path / STATE_FILE).exists():
        from storage.files import write_whole

        home.path.mkdir(parents=True, exist_ok=True)
        _remember(home, made_by="ratemill demo")
        write_whole(home.path / "ratemill.toml", (_town() / "ratemill.toml").read_bytes())
        say(f"made a home in {home.path}")
    else:
        say(f"going on with the home in {home.path}")
    home.create()


def _load_town(home: Any) -> None:
    from rating import apply
    from storage import sql
    from subscribers import contracts, leases

    town, who = _town(), actor.current(REASON)
    plans = apply.apply(home, town / "plans.toml", who)
    people = contracts.import_file(sql.engine(home), town / "subscribers.csv", who)
    addresses = leases.import_file(sql.engine(home), town / "leases.csv", who)
    for what, counts in (("plans and calendars", plans), ("subscriptions", people), ("leases", addresses)):
        say(f"{what}: {counts['added']} added, {counts['changed']} changed, {counts['unchanged']} unchanged")


# the packets --------------------------------------------------------------------------------------------------------------
def _traffic(home: Any) -> list[Any]:
    """Send a month of flows over UDP to a real collector and wait until all of them are decoded; once a home."""
    from collector.exporter.network import Manifest
    from monitoring import demo_check, demo_traffic

    state = _state(home)
    if state.get("sent"):
        say("the packets of the month are there already")
        return [
            demo_check.Truth(
                router, Manifest(**told["manifest"]), told["infrastructure_octets"], told["stranger_octets"]
            )
            for router, told in zip(demo_traffic.ROUTERS, state["truths"], strict=True)
        ]
    process, log = _start_collector(home)
    try:
        port = _wait_for_port(home, process, log)
        _remember(home, sending=True)
        truths = _send_all(home, port)
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS_MAX)
        raise
    say("decoding what was received …")
    process.send_signal(signal.SIGTERM)
    if process.wait(STOP_SECONDS_MAX) != 0:
        raise RatemillError("the collector did not end well", f"read {log}")
    told = [{"manifest": asdict(t.manifest), "infrastructure_octets": t.infrastructure_octets,
             "stranger_octets": t.stranger_octets} for t in truths]  # fmt: skip
    _remember(home, sent=True, truths=told)
    return truths


def _start_collector(home: Any) -> tuple[subprocess.Popen[bytes], Path]:
    from core import jit

    if jit.is_cold("collector.kernels.scan"):
        say("compiling the collector's kernels, once on this machine …")
    log = home.path / "run" / "demo-collector.log"
    command = [sys.executable, "-m", "cli", "--home", str(home.path), "collect", "run", "--listen", "127.0.0.1:0",
               "--no-metrics"]
    with log.open("wb") as stream:
        # A group of its own: Ctrl-C reaches the demo, which then stops the collector in good order.
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    return process, log


def _status(home: Any) -> dict[str, Any]:
    """What the collector last said of itself, {} while it has said nothing."""
    try:
        told: dict[str, Any] = json.loads(
            (home.path / "run" / f"collector-{COLLECTOR}.json").read_text(encoding="utf-8")
        )
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return told


def _wait_for_port(home: Any, process: subprocess.Popen[bytes], log: Path) -> int:
    patience = _seconds() + START_SECONDS_MAX
    while _seconds() < patience:
        status = _status(home)
        if status.get("pid") == process.pid and status.get("state") == "running" and status.get("listeners"):
            return int(status["listeners"][0]["address"].rpartition(":")[2])
        if process.poll() is not None:
            raise RatemillError(f"the collector ended at once: {log.read_text(errors='replace')[-500:]}", f"read {log}")
        clock.sleep(0.05)
    raise DependencyDown(f"the collector is not ready after {START_SECONDS_MAX} s", f"read {log}")


def _send_all(home: Any, port: int) -> list[Any]:
    from collector import counters
    from core.periods import parse_instant
    from monitoring import demo_traffic

    leases = demo_traffic.read_town(_town())
    boot = parse_instant("2026-09-20T00:00:00Z")
    figures = counters.open_counters(home, COLLECTOR)

    def received() -> int:
        return int(figures[counters.RECEIVED])

    with bar("sending a month of flows over UDP", sum(r.flows for r in demo_traffic.ROUTERS), "flows") as advance:
        truths = []
        for router in demo_traffic.ROUTERS:
            truths.append(_send(router, leases, port, boot, received))
            advance(router.flows)
    return truths


def _send(router: Any, leases: Any, port: int, boot: int, received: Callable[[], int]) -> Any:
    """One router's month, paced by what the collector has received."""
    from collector.exporter import encode, network, send
    from monitoring import demo_check, demo_traffic

    columns = demo_traffic.make_flows(router, leases, SEED)
    datagrams = encode.encode(
        columns, router.protocol, domain=1, sampling=router.sampling, boot=boot, agent=router.address
    )
    seed = SEED + demo_traffic.ROUTERS.index(router)
    delivery = network.perturb(datagrams, loss=LOSS, duplicate=DUPLICATE, reorder=REORDER, seed=seed)
    send.transmit(datagrams, delivery, ("127.0.0.1", port), source=router.address, received=received)
    told = network.describe(datagrams, delivery, router.address, 1, router.sampling)
    say(
        f"{router.name}: {told.records + told.lost_records} flows by {router.protocol} in {len(datagrams)} datagrams from "
        f"{router.address}; on purpose {told.lost_datagrams} lost, {told.duplicated_datagrams} duplicated, "
        f"{told.reordered_datagrams} reordered"
    )
    return demo_check.truth(router, columns, ~delivery.lost[datagrams.datagram_of_flow], told)


# usage, charges, invoices -------------------------------------------------------------------------------------------------
def _account(home: Any, period: str) -> None:
    from aggregation import batches, publish
    from core.periods import parse_instant
    from invoicing import run as invoices
    from monitoring import gates
    from rating import run as rating

    who = actor.current(REASON)
    gates.register()
    _step("aggregating: whose traffic is it", lambda: batches.aggregate(home, who))
    _step("publishing usage for analysts and billing", lambda: publish.publish(home, who))
    _step("rating", lambda: rating.run(home, period, parse_instant(AS_OF), False, who))
    _step("invoicing", lambda: invoices.run(home, period, parse_instant(AS_OF), False, who))


def _step(what: str, work: Callable[[], object]) -> None:
    begun = _seconds()
    work()
    say(f"{what}: {_seconds() - begun:.1f} s")


def _documents(home: Any, period: str) -> int:
    from invoicing import documents

    begun = _seconds()
    made = documents.render_all(home, period, workers=os.cpu_count() or 1)
    say(f"documents: {_seconds() - begun:.1f} s")
    return int(made)


# what came of it ----------------------------------------------------------------------------------------------------------
def _show(home: Any, period: str, truths: Sequence[Any]) -> None:
    """One line a balance and one line a loss caused on purpose. Raises BalanceOpen if any of them is off."""
    from monitoring import demo_check
    from monitoring.reconcile import balances

    received = _received_period(home)
    lines = [balance for balance in balances(home, received) if balance.name in ("datagrams", "records")]
    lines += [balance for balance in balances(home, period) if balance.name not in ("datagrams", "records")]
    print(f"\nBalances of {period} (datagrams and records: of {received}, when they arrived)")
    for balance in lines:
        losses = ", ".join(f"{name} {count}" for name, count in balance.losses.items() if count)
        print(f"{balance.name}: in {balance.entered}, out {balance.left}, difference {balance.difference}"
              + (f" ({losses})" if losses else ""))  # fmt: skip
    octets = next(balance.losses for balance in lines if balance.name == "flow_octets")
    print("\nWhat was done to the packets on purpose")
    compared = list(demo_check.compare(home, truths, octets))
    for comparison in compared:
        print(f"{comparison}")
    wrong = [balance.name for balance in lines if balance.difference]
    wrong += [comparison.what for comparison in compared if not comparison.is_equal]
    if wrong:
        raise BalanceOpen(f"the demo does not balance: {', '.join(wrong)}", "run it again with --fresh, and report it")


def _received_period(home: Any) -> str:
    """The period in which the packets were received: the one of the newest of them."""
    import sqlalchemy as sa

    from core import periods, settings, tables
    from storage import sql

    with sql.reading(sql.engine(home)) as connection:
        newest = connection.scalar(sa.select(sa.func.max(tables.intake.c.slot)))
    return periods.period_of(int(newest or 0), settings.seller(home.document).timezone)


def _suggestions(home: Any, period: str) -> list[str]:
    where = f"--home {os.path.relpath(home.path)}"
    program = "ratemill" if shutil.which("ratemill") else os.path.relpath(Path(sys.executable).parent / "ratemill")
    return [
        f"{program} invoice list {period} {where}",
        f"{program} invoice explain A-000001 1 {where}",
        f"{program} usage export {period} --by month {where}",
        f"{program} reconcile {period} {where}",
        f"{program} exporters list {where}",
    ]
