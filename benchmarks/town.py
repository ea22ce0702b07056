"""A home with the demo town's plans and subscribers, for the scenarios that need one."""

from __future__ import annotations

from pathlib import Path

from core import actor
from core.product import data_file
from rating import apply
from storage import sql
from storage.home import Home
from subscribers import contracts, leases

WHO = actor.Actor("benchmark", "make bench")


def settle(folder: Path, subscriptions: int | None = None) -> Home:
    """The town, or the first of its subscriptions without their addresses."""
    home = Home(folder)
    home.create()
    (home.path / "ratemill.toml").write_bytes(data_file("demo", "ratemill.toml").read_bytes())
    apply.apply(home, data_file("demo", "plans.toml"), WHO)
    people = data_file("demo", "subscribers.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (home.path / "subscribers.csv").write_text("".join(people[: None if subscriptions is None else subscriptions + 1]))
    contracts.import_file(sql.engine(home), home.path / "subscribers.csv", WHO)
    if subscriptions is None:
        leases.import_file(sql.engine(home), data_file("demo", "leases.csv"), WHO)
    return home
