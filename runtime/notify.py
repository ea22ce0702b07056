"""Tells systemd how the service is (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET names.

Without that variable, outside systemd, every call does nothing.
"""

from __future__ import annotations

import os
import socket


def send(*lines: str) -> bool:
    """Send assignments such as READY=1; returns whether somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract name space
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:  # systemd is restarting itself: the next message comes soon
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often WATCHDOG=1 must come: half of what systemd waits for; None without a watchdog."""
    text = os.environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 2_000_000
