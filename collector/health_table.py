"""`exporters show` for people: what is wrong first, then each domain, in short tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.output import emit_rows

FIELDS_SHOWN = 8


def print_health(found: Mapping[str, Any]) -> None:
    """Print what `health.show` gave."""
    print(f"exporter {found['exporter']}   {', '.join(found['protocols'])}   {found['first']} … {found['last']}")
    for part in found["domains"]:
        print(f"\ndomain {part['domain']}, {part['protocol']}")
        for name, text in _domain(part):
            print(f"  {name:<14}{text}")
        _section("templates", [_template(row) for row in part["templates"]], ("template", "kind", "defined", "fields"))
    _section("faults", found["faults"], ("kind", "count", "meaning", "advice"))
    _section(f"interfaces since {found['since']}", found["interfaces"],
             ("interface", "way", "flow_octets", "counter_octets", "percent", "verdict", "longest_flow_ms"))


def _section(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    if rows:
        print(f"\n{title}")
        emit_rows(rows, columns)


def _domain(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "seen", f"{part['first']} … {part['last']}"
    yield "received", f"{part['received']:,} datagrams, {part['duplicate']:,} copies, {part['faulted']:,} faulted"
    yield "missing", _missing(part)
    yield "reordered", f"{part['reordered']:,}; restarts {part['restarts']:,}; waiting sets {part['waiting']:,}"
    if part["skew_ms"]:
        skew = part["skew_ms"]
        yield "clock", f"arrival less export time: {skew['min']} / {skew['median']} / {skew['max']} ms (min / median / max)"
    if part["longest_flow_ms"] is not None:
        moved = f"; times moved in {part['clock_moved']:,} flows" if part["clock_moved"] else ""
        yield "longest flow", f"{part['longest_flow_ms'] / 1000:.1f} s{moved}"
    for row in part["rates"]:
        yield "sampling", f"{_rate(row)} ({row['source']}), {row['flows']:,} flows"
    for row in part["samplers"]:
        number = "" if row["id"] is None else f" {row['id']}"
        yield "announced", f"{_rate(row)} for {row['kind']}{number}"
    if part["reports"]:
        yield "own report", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in part["reports"].items())


def _missing(part: Mapping[str, Any]) -> str:
    text = f"{part['missing']:,} {part['missing_unit']}"
    if not part["missing"]:
        return text
    text += f": {part['missing_kernel']:,} dropped by our kernel, {part['missing_network']:,} by the network"
    other = "datagrams" if part["missing_unit"] == "records" else "records"
    estimate = part[f"missing_{other}"]
    return f"{text}; about {estimate['likely']:,} {other} ({estimate['least']:,} to {estimate['most']:,})"


def _rate(row: Mapping[str, Any]) -> str:
    if row["numerator"] == row["denominator"]:
        return "every packet"
    return f"{row['denominator']} in {row['numerator']} packets"


def _template(row: Mapping[str, Any]) -> dict[str, Any]:
    names = [field["name"] for field in row["fields"]]
    more = f" and {len(names) - FIELDS_SHOWN} more" if len(names) > FIELDS_SHOWN else ""
    return {**row, "fields": ", ".join(names[:FIELDS_SHOWN]) + more}
