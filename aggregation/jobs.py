"""What `ratemill run` does for this package: aggregate each minute, publish every five."""

from __future__ import annotations

from core import actor
from runtime.supervisor import Job, Process
from storage.home import Home


def run_aggregate(home: Home) -> str:
    from aggregation.batches import aggregate

    done = aggregate(home, actor.current("job aggregate"))
    return f"{done.segments} segments, {done.batches} batches, {done.remade} made again"


def run_publish(home: Home) -> str:
    from aggregation.publish import publish

    done = publish(home, actor.current("job publish"))
    return f"published {done['generation']}" if done["published"] else f"{done['generation']} holds everything"


PROCESSES: list[Process] = []
JOBS: list[Job] = [Job("aggregate", 60, run_aggregate), Job("publish", 300, run_publish)]
