"""The receiver's process of `collect run`: opens the sockets, says where it listens, receives until SIGTERM.

Nothing that it does not need is imported: neither Arrow nor SQL, so that it takes little memory and starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from collector import receiver
from collector.certificates import Watched
from collector.settings import Collector, from_document
from runtime import log
from runtime.locks import only_one
from storage.home import Home

FLUSH_SECONDS_MAX = 60
"""How long a receiver that was told to stop may take to write what it holds."""


def contexts(home: Home, settings: Collector, addresses: Sequence[receiver.Address]) -> Watched | None:
    """What tls:// listeners show; None if there are none. Raises SettingsError."""
    return Watched(home.path, settings) if any(address.transport == "tls" for address in addresses) else None


def receive(home: Home, collector: str, listen: Sequence[str], next_block: int) -> None:
    """The receiver process: says on stdout when and where it listens, ends on SIGTERM. Raises RatemillError."""
    settings = from_document(home.document).collector
    receiver.warm_up()
    with only_one(home, f"receiver-{collector}", f"receiving as '{collector}'", patience_seconds=FLUSH_SECONDS_MAX):
        addresses = [receiver.parse_listen(text) for text in listen]
        context = contexts(home, settings, addresses)
        if context is not None and not settings.tls_client_ca:
            log.warning("receiver", "anybody may send over TLS: [collector] tls_client_ca is not set")
        listeners = receiver.open_listeners([one for one in addresses if one.transport == "udp"], settings.socket_buffer)
        stream_listeners = receiver.open_streams([one for one in addresses if one.transport != "udp"], context)
        advice = receiver.buffer_advice(listeners, settings.socket_buffer)
        if advice:
            log.warning("receiver", advice)
        process = receiver.Receiver(home, collector, listeners, settings.journal_sync_ms, next_block, stream_listeners,
                                    settings)
        receiver.handle_signals(process)
        told = [{"address": str(one.address), "buffer": one.granted // 2} for one in listeners]
        told += [{"address": str(one), "buffer": 0} for one in stream_listeners]
        print(json.dumps({"listeners": told}), flush=True)
        process.run()
