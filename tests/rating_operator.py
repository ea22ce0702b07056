"""Somebody at the command line of a home: commands run in this process, their JSON lines come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

import cli
from invoicing import gates
from storage import sql
from storage.home import Home


class Operator:
    """Runs commands in this process, on one home."""

    def __init__(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys = home, capsys
        self.error = ""

    def __call__(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        self._capsys.readouterr()
        try:
            got = cli.run(["--home", str(self.home.path), "--json", *words])
        finally:
            gates.forget_registered()  # what a command registers is for its own process
        out, self.error = self._capsys.readouterr()
        assert got == code, f"{words}: exit {got}\n{out}\n{self.error}"
        return [json.loads(line) for line in out.splitlines()]

    def plans(self, text: str, *words: str, code: int = 0) -> list[dict[str, Any]]:
        path = self.home.path / "plans.toml"
        path.write_text(text, encoding="utf-8")
        return self("plans", "apply", str(path), *words, code=code)

    def count(self, table: sa.Table) -> int:
        with sql.reading(sql.engine(self.home)) as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
