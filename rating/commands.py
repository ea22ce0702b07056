"""The command line of the rating: `plans`, `rate` and `charges`."""

from __future__ import annotations

from pathlib import Path

import typer

from core import actor
from core.errors import BalanceOpen
from runtime import context, options, output

plans = typer.Typer(rich_markup_mode=None)
rate = typer.Typer(rich_markup_mode=None)
charges = typer.Typer(rich_markup_mode=None)

PLAN_COLUMNS = ["name", "from", "currency", "tax", "prices", "calendar", "lines", "subscriptions"]
CHARGE_COLUMNS = ["period", "service", "plan", "plan_version", "start", "end", "line", "kind", "zone", "class", "direction",
                  "quantity", "unit", "unit_price", "net_minor", "currency"]

SIMULATED = ["line", "kind", "start", "end", "quantity", "unit", "unit_price", "net_minor", "gross_minor", "tax", "currency"]


@plans.callback()
def _plans() -> None:
    """Plans and calendars."""


@plans.command("apply")
def plans_apply(
    file: Path = typer.Argument(help="TOML file with calendars and plans.", metavar="FILE.toml"),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Store the calendars and plans of a file: all of them, or none if one has a problem."""
    from rating import apply

    who = actor.current(reason or f"plans apply {file.name}")
    output.emit_object(apply.apply(context.home(), file, who, dry_run))


@plans.command("list")
def plans_list() -> None:
    """All versions of all plans."""
    from rating import shelf

    output.emit_rows(shelf.rows(context.home()), PLAN_COLUMNS)


@plans.command("show")
def plans_show(
    name: str = typer.Argument(help="Name of a plan.", metavar="NAME"),
    as_of: str = options.AS_OF,
) -> None:
    """One plan with all its lines, in the version in force now (or at --as-of)."""
    from rating import shelf

    output.emit_object(shelf.show(context.home(), name, options.instant(as_of, "--as-of")))


_PLAN_FILE = typer.Argument(help="TOML file with calendars and plans.", metavar="FILE.toml")


@plans.command("lint")
def plans_lint(file: Path = _PLAN_FILE) -> None:
    """Judge a file without storing it: its problems, or what it holds and which traffic costs nothing."""
    from rating import shelf

    found = shelf.lint(context.home(), file)
    notes = found.pop("notes")
    output.emit_object(found)
    for note in notes:
        output.say(f"note: {note}")


@plans.command("test")
def plans_test(file: Path = _PLAN_FILE) -> None:
    """Run the examples that a file carries, by both engines; exit code 7 if one comes to something else."""
    from rating import shelf, simulation

    outcomes = shelf.test(context.home(), file)
    output.emit_rows([outcome.row() for outcome in outcomes], simulation.COLUMNS)
    failing = sum(not outcome.holds for outcome in outcomes)
    if not outcomes:
        output.say("the file has no [[plan.example]]")
    if failing:
        raise BalanceOpen(f"{failing} of {len(outcomes)} expectations do not hold", "correct the plan, or the example")


@plans.command("diff")
def plans_diff(file: Path = _PLAN_FILE, to: str = options.TO_FILE) -> None:
    """What the plans of a file say otherwise than the stored version that they replace or follow."""
    from rating import plan_difference, shelf

    output.emit_rows(shelf.difference(context.home(), file), plan_difference.COLUMNS, to)


@plans.command("simulate")
def plans_simulate(
    plan: str = typer.Argument(help="Name of a stored plan, or a file with one plan.", metavar="PLAN"),
    usage: list[str] = typer.Option([], "--usage", metavar='"120 GB down day"', help="Volume, direction, zone, class."),
    period: str = typer.Option("", "--period", metavar="YYYY-MM", help="The month; this one without it."),
    start: str = typer.Option("", "--from", metavar="YYYY-MM-DD", help="First day of the subscription; ever without it."),
    end: str = typer.Option("", "--to", metavar="YYYY-MM-DD", help="First day that no longer counts."),
) -> None:
    """What a month of an imaginary subscriber would cost."""
    from core import clock, money, periods
    from rating import shelf

    month = options.period(period) if period else periods.local_date(clock.now_ms(), "UTC").isoformat()[:7]
    first, last = (options.day(text, name) if text else None for text, name in ((start, "--from"), (end, "--to")))
    rows = shelf.simulate(context.home(), plan, usage, month, first, last)
    output.emit_rows([row._asdict() for row in rows], SIMULATED)
    for currency in {row.currency for row in rows}:
        net = sum(row.net_minor for row in rows)
        output.say(f"net {money.format_minor(net, currency)} {currency} for {month}")


@plans.command("advise")
def plans_advise(
    service: list[str] = typer.Argument(None, help="Names of services.", metavar="[SERVICE]..."),
    every: bool = typer.Option(False, "--all", help="The cheapest plan of every service."),
    months: int = typer.Option(12, "--months", min=1, max=60, help="So many whole months of usage."),
    names: str = typer.Option("", "--plans", metavar="A,B", help="Only these plans, and the service's own."),
    to: str = options.TO_FILE,
) -> None:
    """What past usage would have cost under every plan, cheapest first."""
    from core.errors import UsageError
    from rating import advice

    if bool(service) == every:
        raise UsageError("name a service, or all of them", "write `ratemill plans advise SERVICE`, or --all")
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if every:
        output.emit_rows(advice.best(context.home(), [], months, wanted), advice.BEST_COLUMNS, to)
    else:
        output.emit_rows(advice.advise(context.home(), service, months, wanted), advice.COLUMNS, to)


@plans.command("offer")
def plans_offer(
    people: int = typer.Option(1, "--people", min=1, max=100, help="How many people live there."),
    uses: str = typer.Option("", "--use", metavar="A,B", help="What they do: web, video, games, work …"),
    volume: str = typer.Option("", "--volume", metavar='"400 GB"', help="Of a month, instead of people and uses."),
    shares: list[str] = typer.Option([], "--zone", metavar="ZONE=PERCENT", help="Share of a tariff zone; again for more."),
    term: int = typer.Option(0, "--term-max", min=0, help="Longest contract in months; any without it."),
    business: bool = typer.Option(False, "--business", help="Plans for companies instead of consumers."),
    to: str = options.TO_FILE,
) -> None:
    """Plans for a new customer with their full price, tax included, cheapest first."""
    from core.errors import UsageError
    from rating import offer

    named: dict[str, int] = {}
    for text in shares:
        zone, _, percent = text.partition("=")
        if not percent.isdigit() or int(percent) > 100:
            raise UsageError(f"--zone {text} is not a zone and a percentage", "write --zone night=30")
        named[zone] = int(percent)
    wanted = [use.strip() for use in uses.split(",") if use.strip()]
    answers = offer.Answers(people, wanted, volume, named, term, "business" if business else "consumer")
    output.emit_rows(offer.offer(context.home(), answers), offer.COLUMNS, to)


@plans.command("what-if")
def plans_what_if(
    file: Path = _PLAN_FILE,
    period: str = typer.Option(..., "--period", metavar="YYYY-MM", help="A month that was rated."),
    to: str = options.TO_FILE,
    image: str = typer.Option("", "--picture", metavar="FILE.svg", help="The histogram of differences as a picture."),
) -> None:
    """A changed tariff over the usage of a month: who would pay less, who more, and what it brings."""
    from core import money
    from core.errors import UsageError
    from rating import what_if
    from storage import files

    if image and not image.endswith(".svg"):
        raise UsageError(f"--picture {image} does not end in .svg", "a picture is written as SVG, which browsers show")
    result = what_if.what_if(context.home(), file, options.period(period))
    output.emit_rows(result.rows, what_if.COLUMNS, to)
    for name, one in [("all", result.summary), *result.summary["plans"].items()]:
        currency = result.rows[0]["currency"]
        output.say(f"{name}: {one['pay less']} pay less, {one['pay more']} pay more, {one['the same']} the same; "
                   f"{money.format_minor(one['before'], currency)} → {money.format_minor(one['after'], currency)} {currency}")
    bars = what_if.histogram(result.rows)
    most = max(count for _, _, count in bars)
    for low, high, count in bars:
        output.say(f"{money.format_minor(low, currency):>12} … {money.format_minor(high, currency):>12} "
                   f"{'█' * (count * 40 // most)} {count}")
    if image:
        files.write_whole(Path(image), what_if.picture(result).encode())


@rate.callback()
def _rate() -> None:
    """Usage and plans to charges."""


@rate.command("run")
def rate_run(
    period: str = options.PERIOD,
    as_of: str = options.AS_OF,
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Make the charges of a period from the published usage; the same inputs again change nothing."""
    from rating import run

    output.emit_object(run.run(context.home(), options.period(period), options.instant(as_of, "--as-of"), dry_run,
                               actor.current(reason or f"rate run {period}")))


@rate.command("decide")
def rate_decide(period: str = options.PERIOD, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Take the decisions that fair use of a period asks for: notify, slow down, block, buy a package; each once."""
    from rating import fair_use

    wanted = options.period(period)
    output.emit_object(fair_use.decide(context.home(), wanted, actor.current(reason or f"rate decide {wanted}"), dry_run))


@rate.command("decisions")
def rate_decisions(
    period: str = typer.Argument("", help="YYYY-MM; all periods without it.", metavar="[PERIOD]"),
    service: str = typer.Option("", "--service", help="Only those of this service."),
    to: str = options.TO_FILE,
) -> None:
    """The decisions that were taken, and when they are undone."""
    from rating import fair_use

    wanted = options.period(period) if period else ""
    output.emit_rows(fair_use.rows(context.home(), wanted, service), fair_use.COLUMNS, to)


@rate.command("explain")
def rate_explain(
    service: str = typer.Argument(help="Name of the service.", metavar="SERVICE"),
    period: str = options.PERIOD,
    line: str = typer.Argument("", help="Name of one line of the plan; all without it.", metavar="[LINE]"),
    to: str = options.TO_FILE,
) -> None:
    """Where a charge comes from: plan version, arithmetic, zone-hours, cell files, segments, exporters."""
    from rating import explanation

    rows = explanation.explain(context.home(), service, options.period(period), line)
    output.emit_rows(rows, explanation.COLUMNS, to)


@rate.command("verify")
def rate_verify(
    period: str = options.PERIOD,
    level: int = typer.Option(1, "--level", min=1, max=2, help="1: usage to charges; 2: also segments to usage."),
) -> None:
    """Compute the charges of a period again, by other code, and compare."""
    from rating import verification

    result = verification.verify(context.home(), options.period(period), level)
    output.emit_object({"checked": result.checked, "equal": result.equal, "differing": result.differing})
    for text in result.differences[:verification.SHOWN_MAX]:
        output.say(text)
    if result.differing:
        raise BalanceOpen(f"{result.differing} of {result.checked} differ in {period}",
                          "look at one with `ratemill rate explain SERVICE PERIOD`")


@charges.callback()
def _charges() -> None:
    """Rated charges."""


@charges.command("export")
def charges_export(period: str = options.PERIOD, to: str = options.TO_FILE) -> None:
    """The charges of a period, as the newest rate run made them."""
    from rating import run

    output.emit_table(run.charges(context.home(), options.period(period)).select(CHARGE_COLUMNS), to)
