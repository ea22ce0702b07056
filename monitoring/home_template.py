"""The text of a new ratemill.toml: every section and key with what it means, its unit, bounds and default.

Keys that are commented out have their default; what the operator must decide stands open. Generated from the packages'
dataclasses, so that it can't go out of date.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from monitoring.sections import Section, all_sections

EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "tax": {"category": '"standard"', "percent": '"19"', "from": "2021-01-01"},
    "metering": {"exporter": '"192.0.2.1"', "interfaces": "[10]", "flow_direction": '"both"'},
    "realm": {"name": '"town-b"', "exporter": '"192.0.2.2"', "interfaces": "[7, 8]"},
    "exporter": {"address": '"192.0.2.3"', "sflow_boot": "2026-09-01T00:00:00Z", "sampling": "1",
                 "key": '"address_port"', "completeness_percent": '"98"', "datagrams_per_second_max": "10000"},
    "collector_group": {"name": '"core"', "members": '["core-a", "core-b"]'},
    "class": {"name": '"peering"', "priority": "10", "prefixes": '["198.51.100.0/24"]'},
    "infrastructure": {"prefixes": '["203.0.113.0/28"]'},
    "radius": {"listen": '"0.0.0.0:1813"'},
    "radius_client": {"address": '"192.0.2.16/28"', "secret": '"a long random text"', "realm": '"town-b"'},
    "deterministic_nat": {"inside": '["100.64.0.0/22"]', "outside": '["198.51.100.0/28"]', "inside_realm": '"subscribers"',
                          "block_size": "1000", "start": "2026-09-01T00:00:00Z", "end": "2027-09-01T00:00:00Z"},
    "database": {"url": '"postgresql+psycopg://ratemill@db.example.net/ratemill"'},
    "collector": {"listen": '["0.0.0.0:2055", "[::]:2055"]', "disk_reserve": "1073741824", "disk_warning": "4294967296"},
}
"""What an entry may look like; shown commented out."""

HEADER = """\
# Settings of ratemill. A key that is commented out has the value shown; take the # away to change it.
# `ratemill config check` reads the whole file and names everything that is wrong with it.
# A secret can be kept elsewhere: key = { env = "NAME" } or key = { file = "PATH" }.
"""


def compose(given: Mapping[str, Mapping[str, str]]) -> str:
    """The text; `given` holds the TOML values that were decided on the command line, by section and key."""
    return HEADER + "".join(_section(section, given.get(section.name, {})) for section in all_sections())


def _section(section: Section, given: Mapping[str, str]) -> str:
    active = bool(given) or not section.is_list
    mark = "" if active else "# "
    lines = ["", f"# {section.sentence}", *_repeatable(section), f"{mark}{section.heading}"]
    for field in dataclasses.fields(section.kind):
        lines += _key(section, field, given, active)
    return "\n".join(lines) + "\n"


def _repeatable(section: Section) -> list[str]:
    return ["# One such block for each; without any, there are none."] if section.is_list else []


def _key(section: Section, field: dataclasses.Field[Any], given: Mapping[str, str], active: bool) -> list[str]:
    name = field.name.rstrip("_")
    comment = f"# {explain(field)}"
    if name in given:
        return [comment, f"{name} = {given[name]}"]
    example = EXAMPLES.get(section.name, {}).get(name)
    value = default_of(field)
    if value is None or (example is not None and not active):
        value = example or '""'
    return [
        comment,
        f"# {name} = {value}" + (f"   # for example {example}" if _differs(example, value, active) else ""),
    ]


def _differs(example: str | None, value: str, active: bool) -> bool:
    return active and example is not None and example != value


def explain(field: dataclasses.Field[Any]) -> str:
    """What a key means, with its choices, unit and bounds."""
    about = field.metadata
    parts = [str(about.get("what", ""))]
    if about.get("choices"):
        parts.append("One of " + ", ".join(str(choice) for choice in about["choices"]) + ".")
    bounds = [str(about[bound]) for bound in ("lowest", "highest") if about.get(bound) is not None]
    if about.get("unit") and len(bounds) == 2:
        parts.append(f"In {about['unit']}, {bounds[0]} to {bounds[1]}.")
    elif about.get("unit"):
        parts.append(f"In {about['unit']}.")
    return " ".join(parts)


def default_of(field: dataclasses.Field[Any]) -> str | None:
    """The default as TOML; None where there is none to write."""
    if field.default_factory is not dataclasses.MISSING:
        return toml(field.default_factory())
    if field.default is dataclasses.MISSING or field.default is None:
        return None
    return toml(field.default)


def toml(value: Any) -> str:
    """A plain value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    assert text.isprintable(), f"{value!r} has no place in a settings file"
    return f'"{text}"'
