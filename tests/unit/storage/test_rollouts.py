"""Whom a rollout reaches, stage by stage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import rollouts
from storage.rollouts import Rollout

SYSTEM = Rollout(id=1, name="move", at=0, actor="a", reason="r", action="start", stage="test", plan=None, plan_version=None,
                 pilot_books=True, pilot_from="", everybody_from="", group=frozenset({"S1"}))
PLAN = replace(SYSTEM, name="v2", plan="home", plan_version="2026-10-01")


@pytest.mark.parametrize(("rollout", "period", "reached"), [
    (SYSTEM, "2026-10", set()),
    (replace(SYSTEM, stage="pilot", pilot_from="2026-10"), "2026-10", {"S1"}),
    (replace(SYSTEM, stage="pilot", pilot_from="2026-10"), "2026-09", set()),
    (replace(SYSTEM, stage="pilot", pilot_books=False), "2026-10", set()),
    (replace(SYSTEM, stage="everybody", pilot_from="2026-10", everybody_from="2026-11"), "2026-10", {"S1"}),
    (replace(SYSTEM, stage="everybody", pilot_from="2026-10", everybody_from="2026-11"), "2026-11", {"S1", "S2"}),
    (replace(SYSTEM, stage="everybody", pilot_books=False, everybody_from="2026-11"), "2026-10", set()),
    (replace(SYSTEM, stage="ended"), "2026-01", {"S1", "S2"}),
    (replace(PLAN, stage="pilot"), "2026-01", {"S1"}),
    (replace(PLAN, stage="everybody"), "2026-01", {"S1", "S2"}),
])  # fmt: skip
def test_a_stage_reaches_whom_it_is_for(rollout: Rollout, period: str, reached: set[str]) -> None:
    assert {service for service in ("S1", "S2") if rollout.reaches(service, period)} == reached
    under = [(service, "home", "2026-10-01") for service in ("S1", "S2")]
    assert rollouts.held([rollout], period, under) == dict.fromkeys({"S1", "S2"} - reached, rollout.name)


def test_a_plans_rollout_holds_its_version_and_later_ones_and_the_service_whole() -> None:
    under = [("S2", "home", "2026-01-01"), ("S3", "home", "2026-01-01"), ("S3", "home", "2026-12-01"),
             ("S4", "other", "2027-01-01")]
    assert rollouts.held([PLAN], "2026-10", under) == {"S3": "v2"}


def test_every_rollout_has_to_reach_a_service() -> None:
    live = replace(SYSTEM, stage="everybody")
    under = [("S1", "home", "2026-10-01"), ("S2", "home", "2026-10-01")]
    assert rollouts.held([live, replace(PLAN, stage="pilot")], "2026-10", under) == {"S2": "v2"}
    assert rollouts.held([], "2026-10", under) == {}
