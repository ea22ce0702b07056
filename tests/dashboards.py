"""The dashboard and the rules that are shipped, as tests need them: their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.product import data_file

DASHBOARD = data_file("grafana", "ratemill-collector.json")
RULES = data_file("prometheus", "ratemill.rules.yml")

METRIC = re.compile(r"\bratemill_[a-z0-9_]+")


def dashboard() -> dict[str, Any]:
    """The file as Grafana reads it."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def panels() -> Iterator[dict[str, Any]]:
    """Every panel, those inside closed rows too."""
    for panel in dashboard()["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(values: Mapping[str, str]) -> dict[str, str]:
    """Title and letter → expression, with `$name` replaced by its value."""
    found = {}
    for panel in panels():
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = filled(target["expr"], values)
    return found


def filled(expression: str, values: Mapping[str, str]) -> str:
    """An expression without variables."""
    for name, value in values.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, expression
    return expression
