"""A real PostgreSQL of the test's own: started, asked by a Unix socket, thrown away. Skips where it is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage import sql
from storage.home import Home


def _find(program: str) -> str:
    """Debian keeps the server's programs by version and off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(program) or next((str(place / program) for place in places if (place / program).is_file()), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    return found


def _as_postgres(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return [*drop, *command]


@contextmanager
def postgresql() -> Iterator[str]:
    """Yields the URL of an empty database."""
    initdb, control = _find("initdb"), _find("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="ratemill-pg-", dir="/tmp"))  # a socket's path must be short
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = str(folder / "data")
    _run(initdb, "-D", data, "-U", "ratemill", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        _run(control, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql+psycopg://ratemill@/postgres?host={folder}"
    finally:
        _run(control, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _run(*command: str) -> None:
    # output must not go to a pipe of ours: the server would hold it open as long as it runs
    subprocess.run(_as_postgres(*command), check=True, timeout=120, cwd="/", stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


@contextmanager
def home_on(url: str, folder: Path, settings: str = "") -> Iterator[Home]:
    """A home whose database is this one."""
    folder.mkdir(exist_ok=True)
    (folder / "ratemill.toml").write_text(f'[database]\nurl = "{url}"\n{settings}')
    made = Home(folder)
    made.create()
    try:
        yield made
    finally:
        sql.engine(made).dispose()
        sql.forget_engines()
