"""The real peers of RADIUS: Debian's radclient as an access server, FreeRADIUS as a proxy between one and us."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_SECONDS = 20


def find(program: str) -> str:
    """Where a program of Debian lies; the test is skipped where it is not installed."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"{program} is not installed (Debian packages freeradius, freeradius-utils)")
    return found


def send(port: int, secret: str, *requests: str, retries: int = 2) -> int:
    """Send accounting requests, each a text of `Attribute = value` lines; returns how many were acknowledged."""
    command = [find("radclient"), "-x", "-r", str(retries), "-t", "2", f"127.0.0.1:{port}", "acct", secret]
    done = subprocess.run(command, input="\n\n".join(requests) + "\n", capture_output=True, text=True, timeout=60)
    return done.stdout.count("Received Accounting-Response")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


CONFIGURATION = """
prefix = /usr
libdir = /usr/lib/freeradius
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/radiusd.pid
max_requests = 1024
log {{
  destination = stdout
}}
security {{
  allow_core_dumps = no
}}
modules {{
}}
client access {{
  ipaddr = 127.0.0.1
  secret = {secret}
}}
proxy server {{
}}
home_server ratemill {{
  type = acct
  ipaddr = 127.0.0.1
  port = {to}
  secret = {to_secret}
  response_window = 5
  status_check = none
}}
home_server_pool ratemill {{
  home_server = ratemill
}}
realm ratemill {{
  acct_pool = ratemill
  nostrip
}}
server default {{
  listen {{
    type = acct
    ipaddr = 127.0.0.1
    port = {port}
  }}
  preacct {{
    update control {{
      Proxy-To-Realm := "ratemill"
    }}
  }}
  accounting {{
  }}
}}
"""


@contextmanager
def freeradius(folder: Path, to: int, secret: str, to_secret: str) -> Iterator[int]:
    """FreeRADIUS, which hands all accounting on to our port; yields its own."""
    program = find("freeradius")
    folder.mkdir()
    port = free_port()
    (folder / "radiusd.conf").write_text(
        CONFIGURATION.format(folder=folder, port=port, secret=secret, to=to, to_secret=to_secret))
    with (folder / "log").open("w") as log:
        started = subprocess.Popen([program, "-f", "-X", "-d", str(folder), "-n", "radiusd"], stdout=log, stderr=log)
    try:
        patience = time.monotonic() + PATIENCE_SECONDS
        while "Ready to process requests" not in (told := (folder / "log").read_text()):
            assert started.poll() is None, told[-2000:]
            assert time.monotonic() < patience, told[-2000:]
            time.sleep(0.05)
        yield port
    finally:
        started.terminate()
        started.wait(10)
