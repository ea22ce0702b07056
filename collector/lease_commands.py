"""The group `leases`, with what the collector adds to it: leases from the port blocks that NATs report."""

from __future__ import annotations

from runtime import options
from runtime.context import home as this_home
from subscribers.commands import leases


@leases.command("from-port-blocks")
def from_port_blocks(dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Turn the port blocks of a carrier-grade NAT (RFC 8158) into leases of its outside addresses."""
    from collector import port_blocks
    from core.actor import current
    from runtime.output import emit_object

    done = port_blocks.run(this_home(), current(reason or "leases from-port-blocks"), dry_run)
    emit_object(done.document())
