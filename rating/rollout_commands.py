"""The command line of moving over: `rollout` and `twin`."""

from __future__ import annotations

from pathlib import Path

import typer

from core import actor
from core.errors import BalanceOpen, UsageError
from core.money import format_minor
from runtime import context, options, output

rollout = typer.Typer(rich_markup_mode=None)
twin = typer.Typer(rich_markup_mode=None)

_NAME = typer.Argument(help="Name of the rollout.", metavar="NAME")
_GROUP = typer.Option("", "--group", help="Pilot group: a file with one service a line.", metavar="FILE")
_SERVICES = typer.Option("", "--services", help="Pilot group: services with commas between them.", metavar="A,B")


@rollout.callback()
def _rollout() -> None:
    """A plan, or the whole system, comes into use by stages."""


@rollout.command("start")
def rollout_start(
    name: str = _NAME,
    plan: str = typer.Option("", "--plan", help="Of this plan; without it of the whole system."),
    version: str = typer.Option("", "--version-from", metavar="DATE",
                                help="The plan's version (its `from`) that is rolled out, with later ones; else the newest."),
    group: str = _GROUP,
    services: str = _SERVICES,
    pilot_books: bool = typer.Option(False, "--pilot-books", help="The group is invoiced in the pilot; else nobody is."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Begin with the stage test: everything is rated, nothing of it is booked."""
    from rating import rollout as steps

    if version and not plan:
        raise UsageError("--version-from needs --plan", "name the plan whose version it is")
    output.emit_object(steps.start(context.home(), name, plan, version, _group(group, services), pilot_books,
                                   actor.current(reason or f"rollout start {name}"), dry_run))


@rollout.command("list")
def rollout_list(to: str = options.TO_FILE) -> None:
    """All rollouts as they stand."""
    from rating import rollout as steps

    output.emit_rows(steps.rows(context.home()), steps.COLUMNS, to)


@rollout.command("show")
def rollout_show(
    name: str = _NAME,
    members: bool = typer.Option(False, "--services", help="The services of the pilot group instead."),
    to: str = options.TO_FILE,
) -> None:
    """Every step of a rollout: who, why, and what allowed it."""
    from rating import rollout as steps

    if members:
        output.emit_rows([{"service": service} for service in steps.members(context.home(), name)], ["service"], to)
    else:
        output.emit_rows(steps.history(context.home(), name), steps.HISTORY_COLUMNS, to)


@rollout.command("advance")
def rollout_advance(
    name: str = _NAME,
    group: str = _GROUP,
    services: str = _SERVICES,
    from_period: str = typer.Option("", "--from", metavar="PERIOD",
                                    help="Whole system: the first period that is invoiced here; after the last compared one."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Go on: test → pilot → everybody. The whole system needs its last periods compared without an open cent."""
    from rating import rollout as steps

    wanted = options.period(from_period) if from_period else ""
    output.emit_object(steps.advance(context.home(), name, _group(group, services), wanted,
                                     actor.current(reason or f"rollout advance {name}"), dry_run))


@rollout.command("back")
def rollout_back(name: str = _NAME, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Go one stage back; what was booked stays booked."""
    from rating import rollout as steps

    output.emit_object(steps.back(context.home(), name, actor.current(reason or f"rollout back {name}"), dry_run))


@rollout.command("end")
def rollout_end(name: str = _NAME, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Take away a rollout that was begun by mistake: whom it held may be invoiced. Needs --reason."""
    from rating import rollout as steps

    output.emit_object(steps.end(context.home(), name, actor.current(_needed(reason)), dry_run))


@twin.callback()
def _twin() -> None:
    """Another billing's charges beside ours."""


@twin.command("import")
def twin_import(
    period: str = options.PERIOD,
    file: Path = typer.Argument(help="CSV: service, line (or product), amount, currency; quantity, tax.", metavar="FILE.csv"),
    mapping: str = typer.Option("", "--mapping", help="How they name services, lines and columns.", metavar="FILE.toml"),
    total: list[str] = typer.Option([], "--total", metavar='"AMOUNT CUR"', help="What the rows add up to; one a currency."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Bring in the charges of a period: all rows or none. The same file again changes nothing, another one replaces it."""
    from rating.twin import charges_file

    wanted = options.period(period)
    who = actor.current(reason or f"twin import {wanted} {file.name}")
    output.emit_object(charges_file.import_file(context.home(), wanted, file, Path(mapping) if mapping else None, total, who,
                                                dry_run))


@twin.command("list")
def twin_list(to: str = options.TO_FILE) -> None:
    """What was imported, and which import of a period counts."""
    from rating.twin import charges_file

    output.emit_rows(charges_file.rows(context.home()), charges_file.LIST_COLUMNS, to)


@twin.command("compare")
def twin_compare(
    period: str = options.PERIOD,
    service: str = typer.Option("", "--service", help="Only this service."),
    everything: bool = typer.Option(False, "--all", help="Also the lines that are equal."),
    summary: bool = typer.Option(False, "--summary", help="Sums by cause instead of lines."),
    to: str = options.TO_FILE,
) -> None:
    """Ours and theirs, line by line, with the cause of each difference; exit code 7 while one is open."""
    from rating.twin import comparison

    found = comparison.compare(context.home(), options.period(period), service)
    sums = found.summary()
    if summary:
        output.emit_object(sums)
    else:
        shown = [line for line in found.lines if everything or line.state != comparison.EQUAL]
        output.emit_rows([line.row(found.period) for line in shown], comparison.COLUMNS, to)
    output.say(f"{sums['lines']} lines, {sums['equal']} equal; explained {_money(sums['explained_minor'])}, "
               f"open {_money(sums['unexplained_minor'])} on {sums['unexplained_lines']} lines")
    if found.open_lines:
        raise BalanceOpen(f"{_money(sums['unexplained_minor'])} of {found.period} are open",
                          "correct the cause and rate again, or accept it with `ratemill twin explain`")


@twin.command("explain")
def twin_explain(
    period: str = options.PERIOD,
    service: str = typer.Option("", "--service", help="The service whose difference is accepted."),
    line: str = typer.Option("", "--line", help="Its line."),
    rules: str = typer.Option("", "--file", metavar="FILE.toml", help="Rules: [[explanation]] with line, cause, reason."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Accept differences as they are: one (with --reason), or all that the rules of a file fit."""
    from rating.twin import explanations

    wanted, home = options.period(period), context.home()
    if rules:
        if service or line:
            raise UsageError("--file is given beside --service or --line", "a rule of the file may name a service")
        who = actor.current(reason or f"twin explain {wanted} --file {Path(rules).name}")
        output.emit_object(explanations.explain(home, wanted, explanations.read_rules(Path(rules)), who, dry_run))
        return
    if not service or not line:
        raise UsageError("what is accepted is not named", "give --service and --line, or rules with --file")
    output.emit_object(explanations.explain_one(home, wanted, service, line, actor.current(_needed(reason)), dry_run))


@twin.command("explanations")
def twin_explanations(period: str = options.PERIOD, to: str = options.TO_FILE) -> None:
    """The differences of a period that were accepted, by whom and why."""
    from rating.twin import explanations

    output.emit_rows(explanations.rows(context.home(), options.period(period)), explanations.COLUMNS, to)


def _needed(reason: str) -> str:
    if not reason.strip():
        raise UsageError("--reason is missing", "say why in a few words: it is kept")
    return reason.strip()


def _group(file: str, services: str) -> list[str]:
    if file and services:
        raise UsageError("--group and --services are given both", "name the pilot group by one of them")
    if file:
        from rating import rollout as steps

        return steps.read_group(Path(file))
    return [name.strip() for name in services.split(",") if name.strip()]


def _money(minor: dict[str, int]) -> str:
    return " and ".join(f"{format_minor(amount, currency)} {currency}" for currency, amount in minor.items()) or "0"
