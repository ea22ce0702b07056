"""Data sets whose template is known: how many records they hold, and all that is needed to read them later."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import fault
from collector.kernels.codes import PADDING_MAX, VARIABLE
from collector.kernels.options import read_options
from core.jit import inline_kernel, load_be16


@inline_kernel
def count_records(data: Any, start: int, stop: int, plan: Any, fields: Any, most: int) -> Any:
    """Whole records in [start, stop), at most `most`; whether there are more; whether the last one is cut off."""
    if plan["minimum"] == 0 or stop <= start:
        return np.int64(0), False, False
    if plan["stride"] > 0:
        whole = (stop - start) // plan["stride"]
        if whole > most:
            return np.int64(most), True, False
        return np.int64(whole), False, whole == 0 and stop - start > PADDING_MAX
    count = np.int64(0)
    at = start
    while stop - at >= plan["minimum"]:
        if count == most:
            return count, True, False
        for i in range(plan["first"], plan["first"] + plan["count"]):
            length = fields[i] & 0xFFFF
            if length == VARIABLE:
                if at >= stop:
                    return count, False, True
                length = np.int64(data[at])
                at += 1
                if length == 255:
                    if stop - at < 2:
                        return count, False, True
                    length = load_be16(data, at)
                    at += 2
            if length > stop - at:
                return count, False, True
            at += length
        count += 1
    return count, False, False


@inline_kernel
def enter_set(row: Any, state: Any, results: Any, plan_index: int, domain: int, start: int, stop: int, records: int,
              first_row: int) -> Any:
    """Describe a set that the decoder can read without any other state; returns the rows it may need."""
    plan = state.plans[plan_index]
    owner = state.domains[domain]
    row["sflow"] = 0
    row["start"] = start
    row["stop"] = stop
    row["plan"] = plan_index
    row["records"] = records
    row["row"] = first_row
    row["width"] = plan["width"]
    row["verdict"] = plan["verdict"]
    row["options"] = plan["options"]
    row["fault"] = 0
    row["clean"] = 0
    row["domain"] = domain
    row["rate_numerator"] = owner["rate_numerator"]
    row["rate_denominator"] = owner["rate_denominator"]
    row["configured"] = owner["configured"]
    row["initialised"] = owner["initialised"]
    row["sflow_boot"] = owner["sflow_boot"]
    row["order"] = results.progress[0]["order"]
    results.progress[0]["order"] += 1
    return records * plan["width"]


@inline_kernel
def read_set(data: Any, start: int, stop: int, plan_index: int, clipped: bool, state: Any, limits: Any, results: Any,
             kinds: Any) -> None:
    """A data set whose template is known."""
    now = results.situation[0]
    plan = state.plans[plan_index]
    if plan["minimum"] == 0:
        if stop > start:
            fault(results.faults, now, kinds["zero_length_record"])
        return
    records, more, cut = count_records(data, start, stop, plan, state.fields, limits.records - now["records"])
    if more and not now["full"]:
        fault(results.faults, now, kinds["too_many_records"])
        now["full"] = 1
    if cut and not clipped:  # a set that is cut off has been counted as such
        fault(results.faults, now, kinds["record_overrun"])
    now["records"] += records
    if plan["options"]:
        now["options"] += records
    if records == 0:
        return
    now["read"] += 1
    progress = results.progress[0]
    row = results.sets[progress["sets"]]
    progress["sets"] += 1
    progress["rows"] += enter_set(row, state, results, plan_index, now["domain"], start, stop, records, progress["rows"])
    row["received"] = now["received"]
    row["exported"] = now["exported"]
    row["uptime"] = now["uptime"]
    row["intake"] = now["intake"]
    row["header_rate"] = now["header_rate"]
    if plan["options"] and plan["informs"]:
        refused = read_options(data, start, stop, records, plan_index, now["domain"], state, limits, results)
        results.faults[now["intake"], kinds["samplers_full"]] += refused
        now["faults"] += refused


@inline_kernel
def plan_of(state: Any, template: int) -> Any:
    """The plan that a template stands for now, -1 for none: one that was withdrawn with all of its kind is forgotten here."""
    row = state.templates[template]
    if row["plan"] >= 0:
        owner = state.domains[row["domain"]]
        until = owner["withdrawn_options"] if state.plans[row["plan"]]["options"] else owner["withdrawn"]
        if row["number"] < until:
            row["plan"] = -1
    return row["plan"]
