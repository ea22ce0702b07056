"""The command `ratemill`: mounts each package's commands; no logic.

Only the package of the noun that was typed is imported, so that every command starts quickly.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Any

COMMANDS: dict[str, tuple[str, str, str]] = {
    # word: (module, attribute, one line of help)
    "init": ("monitoring.commands", "init", "Make a home folder with a commented ratemill.toml."),
    "demo": ("monitoring.commands", "demo", "Run the whole pipeline for a demo town, from UDP packets to invoices."),
    "config": ("monitoring.commands", "config", "Check the settings."),
    "run": ("monitoring.commands", "run", "Supervise everything: collect, decode, aggregate, publish, jobs."),
    "status": ("monitoring.commands", "status", "What runs, what lags, what is wrong."),
    "metrics": ("monitoring.commands", "metrics", "Figures for Prometheus: what a scrape gives."),
    "subscribers": ("subscribers.commands", "subscribers", "Accounts, contracts, services and their plans."),
    "addons": ("subscribers.commands", "addons", "Plans beside a service's own: packages, equipment, addresses, coupons."),
    "pauses": ("subscribers.commands", "pauses", "Times in which a service rests: suspension and vacation."),
    "leases": ("collector.lease_commands", "leases", "Which address belongs to which service, when."),
    "radius": ("subscribers.radius.commands", "radius", "Accounting of access servers: who is online with which address."),
    "plans": ("rating.commands", "plans", "Plans and calendars."),
    "collect": ("collector.commands", "collect", "Receive, replay and send flow exports."),
    "exporters": ("collector.commands", "exporters", "Routers that export to us, with their losses."),
    "counters": ("collector.commands", "counters", "Octet counters of routers' interfaces."),
    "flows": ("collector.commands", "flows", "Decoded flows."),
    "aggregate": ("aggregation.commands", "aggregate", "Flows to cells: whose traffic, which class."),
    "classes": ("aggregation.class_commands", "classes", "Traffic classes: rules for the far end of a flow, by date."),
    "metering": ("aggregation.commands", "metering", "Where traffic is counted, and whether once."),
    "usage": ("monitoring.commands", "usage", "Usage by service, hour, zone, class and direction."),
    "db": ("monitoring.commands", "db", "Published usage in DuckDB, for analysts."),
    "rate": ("rating.commands", "rate", "Usage and plans to charges."),
    "charges": ("rating.commands", "charges", "Rated charges of a period."),
    "rollout": ("rating.rollout_commands", "rollout", "A plan, or the whole system, comes into use by stages."),
    "twin": ("rating.rollout_commands", "twin", "Another billing's charges beside ours: line by line, with causes."),
    "invoice": ("monitoring.commands", "invoice", "Charges to invoices and documents."),
    "ledger": ("ledger.commands", "ledger", "The double-entry journal."),
    "completeness": ("monitoring.commands", "completeness", "Flows against interface counters: what a period lacks."),
    "storage": ("monitoring.storage_commands", "storage", "The files of the home: compacted, kept, verified, copied."),
    "reconcile": ("monitoring.commands", "reconcile", "The balances of a period, from datagrams to postings."),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        print(f"ratemill {metadata.version('ratemill')}")
        sys.exit(0)
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run one command in this process; returns its exit code."""
    from core.errors import RatemillError
    from runtime import context, failures

    try:
        options = context.extract(words)
    except RatemillError as error:
        return failures.report(error, debug="--debug" in words)
    context.options = options
    if "--version" in options.words[:1]:
        print(f"ratemill {metadata.version('ratemill')}")
        return 0
    return failures.guard(lambda: _command(options.words)(options.words), options.debug)


def _command(words: list[str]) -> Any:
    """The root command, with the package of the typed noun mounted and the others named only."""
    import typer

    from runtime import globals as global_options

    app = typer.Typer(
        name="ratemill",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        help="Billing for internet providers: from a router's flow packets to an invoice.",
    )
    app.callback()(lambda: None)
    noun = next((word for word in words if not word.startswith("-")), "")
    for name, (module, attribute, sentence) in COMMANDS.items():
        part = getattr(import_module(module), attribute) if name == noun else None
        if isinstance(part, typer.Typer):
            app.add_typer(part, name=name, help=sentence, no_args_is_help=True)
        else:
            app.command(name, help=sentence)(part or (lambda: None))
    command = typer.main.get_command(app)
    global_options.show_everywhere(command)
    return lambda arguments: command.main(arguments, prog_name="ratemill", standalone_mode=False)


if __name__ == "__main__":
    main()
