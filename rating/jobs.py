"""What `ratemill run` supervises for the rating: decisions about fair use while a month is going on."""

from __future__ import annotations

from runtime.supervisor import Job
from storage.home import Home

LATE_MS = 2 * 86_400_000
"""So long after its end a month may still reach a threshold: its last flows are on their way."""


def decide_fair_use(home: Home) -> str:
    """Decide for the months that are going on, or just over."""
    import sqlalchemy as sa

    from core import clock, periods, tables
    from core.actor import current
    from rating import fair_use
    from storage import sql

    plan = tables.plan_version
    with sql.reading(sql.engine(home)) as connection:
        asked = connection.execute(sa.select(plan.c.id).where(plan.c.document.like('%"fair_use":%')).limit(1)).first()
    if asked is None:
        return "no plan has a [[plan.fair_use]]"
    now = clock.now_ms()
    months = sorted({periods.local_date(instant, "UTC").isoformat()[:7] for instant in (now - LATE_MS, now)})
    done = [fair_use.decide(home, month, current("fair use")) for month in months]
    return "; ".join(f"{one['period']}: {sum(one['taken'].values())} taken, {one['standing']} stood" for one in done)


JOBS = [Job("decide fair use", 300, decide_fair_use)]
