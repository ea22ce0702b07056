"""What a market's law refuses in a plan: prices of consumers by what the traffic is for, and contracts that bind too long.

A plan with `audience = "business"` is not for consumers. Traffic classes are made of the far end's prefix, AS number, port,
protocol or DSCP: each says what or whom traffic is for, so where net neutrality binds no line of a consumer's plan may be of
some classes only. Zones (the time of day), volume, direction and speed stay free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from core.markets import Market

Where = tuple[str | int, ...]
METERED = ("traffic", "quota", "fair_use")


def problems(plan: Mapping[str, Any], market: Market) -> Iterator[tuple[Where, str, str, str]]:
    """(path below the plan, key, problem, hint) of what the market refuses in a plan from its `from` on."""
    if plan.get("audience") == "business" or "from" not in plan:
        return
    day = date.fromisoformat(plan["from"])
    rule = market.net_neutrality
    if rule is not None and day >= rule.from_:
        for kind in METERED:
            for number, line in enumerate(plan.get(kind, ())):
                if line.get("classes"):
                    yield (kind, number), "classes", (
                        f"in {market.name} a consumer's price may not depend on what or whom the traffic is for ({rule.source})"
                    ), 'leave `classes` out, so that all traffic counts alike; for companies write audience = "business"'
    term = market.contract
    months = plan.get("contract", {}).get("months", 0)
    if term is not None and day >= term.from_ and months > term.months_max:
        yield ("contract",), "months", (
            f"in {market.name} a consumer's contract binds for at most {term.months_max} months ({term.source})"
        ), f'write months = {term.months_max} or fewer; for companies audience = "business"'
