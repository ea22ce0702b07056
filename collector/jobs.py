"""What `ratemill run` supervises for the collector: collecting, compacting flows, and forgetting what may be forgotten."""

from __future__ import annotations

from pathlib import Path

from core import clock
from core.periods import HOUR_MS
from runtime.supervisor import Job, Process
from storage.home import Home


def forget_datagrams(home: Home) -> str:
    """Delete journal files whose blocks are in segments and that are older than `journal_keep_hours`."""
    from storage.journal import remove_old

    removed = sum(remove_old(home.folder("journal"), collector, block, before, whole=whole)
                  for collector, block, before, whole in _decoded(home))
    return f"{removed} journal files removed"


def old_journal_files(home: Home) -> list[Path]:
    """What `forget_datagrams` would delete."""
    from storage.journal import old_files

    return [path for collector, block, before, whole in _decoded(home)
            for path in old_files(home.folder("journal"), collector, block, before, whole=whole)]


def _decoded(home: Home) -> list[tuple[str, int, int, bool]]:
    """Collector, last block in segments, instant before which files may go, whether all of them may."""
    import sqlalchemy as sa

    from collector.settings import from_document
    from core import tables
    from storage import sql

    before = clock.now_ms() - from_document(home.document).collector.journal_keep_hours * HOUR_MS
    position = tables.decoder_position
    with sql.reading(sql.engine(home)) as connection:
        positions = connection.execute(sa.select(position.c.collector, position.c.block)).all()
    return [(row.collector, row.block, before, row.collector.startswith("replay-")) for row in positions]


def compact_flows(home: Home) -> str:
    """Turn the flows of past days into Parquet, and delete what they were in before once no reader has it open."""
    from collector import compaction
    from core.actor import current

    done = compaction.compact(home, current("job compact flows"))
    return f"{done.segments} segments of {done.days} days, {done.flows} flows; {done.swept_files} old files removed"


def keep_retention(home: Home) -> str:
    """Truncate and delete flows as [retention] says."""
    from collections import Counter

    from collector import retention
    from core.actor import current

    steps = Counter(step.what for step in retention.forget(home, current("job retention")))
    return f"{steps[retention.TRUNCATE]} parts truncated, {steps[retention.DELETE]} deleted, {steps[retention.WAITS]} wait"


def lease_port_blocks(home: Home) -> str:
    """Turn what NATs report about their port blocks into leases."""
    from collector import port_blocks
    from core.actor import current

    done = port_blocks.run(home, current("port blocks to leases"))
    faults = sum(count for outcome, count in done.document().items() if outcome.startswith("block_"))
    return f"{done.events} events, {done.added} leases added, {done.removed} removed, {faults} faults"


PROCESSES = [Process("collect", ("collect", "run", "--no-metrics"))]  # one endpoint tells of all that is supervised
JOBS = [Job("forget datagrams", 3600, forget_datagrams), Job("lease port blocks", 60, lease_port_blocks),
        Job("compact flows", 3600, compact_flows), Job("retention", 6 * 3600, keep_retention)]
