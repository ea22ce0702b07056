"""What `ratemill run` supervises for the collector: collecting, and forgetting datagrams that are flows already."""

from __future__ import annotations

from core import clock
from core.periods import HOUR_MS
from runtime.supervisor import Job, Process
from storage.home import Home


def forget_datagrams(home: Home) -> str:
    """Delete journal files whose blocks are in segments and that are older than `journal_keep_hours`."""
    import sqlalchemy as sa

    from collector.settings import from_document
    from core import tables
    from storage import sql
    from storage.journal import remove_old

    before = clock.now_ms() - from_document(home.document).collector.journal_keep_hours * HOUR_MS
    position = tables.decoder_position
    with sql.reading(sql.engine(home)) as connection:
        positions = connection.execute(sa.select(position.c.collector, position.c.block)).all()
    removed = 0
    for collector, block in positions:
        removed += remove_old(home.folder("journal"), collector, block, before, whole=collector.startswith("replay-"))
    return f"{removed} journal files removed"


def lease_port_blocks(home: Home) -> str:
    """Turn what NATs report about their port blocks into leases."""
    from collector import port_blocks
    from core.actor import current

    done = port_blocks.run(home, current("port blocks to leases"))
    faults = sum(count for outcome, count in done.document().items() if outcome.startswith("block_"))
    return f"{done.events} events, {done.added} leases added, {done.removed} removed, {faults} faults"


PROCESSES = [Process("collect", ("collect", "run", "--no-metrics"))]  # one endpoint tells of all that is supervised
JOBS = [Job("forget datagrams", 3600, forget_datagrams), Job("lease port blocks", 60, lease_port_blocks)]
