"""What the layer on top adds to the commands of the layers below."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from invoicing import gates
from monitoring import commands, reconcile
from runtime.supervisor import Job, Process


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    gates.forget_registered()
    yield
    gates.forget_registered()


def test_invoices_are_refused_while_a_balance_is_open() -> None:
    assert commands.invoice is not None
    assert gates._checks == [reconcile.check_before_invoicing]


def test_an_open_balance_is_described_with_its_figure() -> None:
    row = reconcile.Balance("used_octets", "octets", 10, 7).as_row()
    assert gates.describe([row]) == "used_octets: 3 octets"


def test_a_balance_is_one_plain_line() -> None:
    balance = reconcile.Balance("datagrams", "datagrams", 10, 7, {"faulted": 1, "duplicate": 2, "refused": 0})
    assert balance.as_line() == "datagrams: in 10, out 7, difference 0 (faulted 1, duplicate 2)"
    assert reconcile.Balance("x", "minor units", 5, 5, currency="EUR").as_line() == "x EUR: in 5, out 5, difference 0"


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        _ = commands.nonsense  # type: ignore[attr-defined]


def test_every_registered_job_can_be_found_by_its_process() -> None:
    from importlib import import_module

    from monitoring.services import gather

    processes, jobs = gather({})
    assert all(isinstance(process, Process) for process in processes)
    assert jobs
    for job in jobs:
        assert isinstance(job, Job)
        assert getattr(import_module(job.run.__module__), job.run.__qualname__) is job.run
