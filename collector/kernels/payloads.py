"""What lies behind a header: sets of v9 and IPFIX, the fixed records of v1, v5 and v7, the samples of sFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import fault
from collector.kernels.codes import PADDING_MAX, PLAN_V1, PLAN_V5, PLAN_V7, PROBES_MAX, V1, V5
from collector.kernels.sets import enter_set, plan_of, read_set
from collector.kernels.tables import find_template
from collector.kernels.templates import options_set, template_set
from collector.kernels.waiting import keep_waiting
from core.jit import kernel, load_be16, load_be32


@kernel
def is_padding(data: Any, at: int, stop: int) -> Any:
    """Whether a message ends here with a few zeros."""
    if stop - at > PADDING_MAX:
        return False
    found = np.int64(0)
    for i in range(at, stop):
        found |= np.int64(data[i])
    return found == 0


@kernel
def read_sets(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """The sets of a v9 or IPFIX message."""
    now = results.situation[0]
    clipped = False
    while stop - at >= 4:
        identifier = load_be16(data, at)
        length = load_be16(data, at + 2)
        if length < 4:
            if identifier != 0 or length != 0 or not is_padding(data, at, stop):
                fault(results.faults, now, kinds["set_length"])
            return
        end = at + length
        if end > stop:
            fault(results.faults, now, kinds["set_overrun"])
            clipped = True
            end = stop
        first = at + 4
        if identifier >= 256:
            if end > first:
                template = find_template(state.templates, state.template_table, now["domain"], identifier, PROBES_MAX)
                if template >= 0 and plan_of(state, template) >= 0:
                    read_set(data, first, end, state.templates[template]["plan"], clipped, state, limits, results, kinds)
                else:
                    keep_waiting(data, first, end, identifier, state, limits, results, kinds)
        elif identifier == (2 if ipfix else 0):
            template_set(data, first, end, ipfix, state, limits, results, kinds)
        elif identifier == (3 if ipfix else 1):
            options_set(data, first, end, ipfix, state, limits, results, kinds)
        else:
            fault(results.faults, now, kinds["set_id_reserved"])
        at = end


@kernel
def read_fixed(data: Any, at: int, stop: int, count: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """The records of v1, v5 and v7: the lesser of the count and the whole records present."""
    now = results.situation[0]
    plan = PLAN_V5 if now["protocol"] == V5 else (PLAN_V1 if now["protocol"] == V1 else PLAN_V7)
    stride = state.plans[plan]["stride"]
    present = (stop - at) // stride
    if present != count or (stop - at) % stride != 0:
        fault(results.faults, now, kinds["count_mismatch"])
    whole = min(present, count)
    if whole > 0:
        read_set(data, at, at + whole * stride, plan, stop < at, state, limits, results, kinds)


@kernel
def read_samples(data: Any, at: int, stop: int, count: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Delimit the samples of an sFlow datagram; the flow samples among them become one set."""
    now = results.situation[0]
    first = at
    flows = np.int64(0)
    counters = np.int64(0)
    drops = np.int64(0)
    seen = np.int64(0)
    while seen < count and stop - at >= 8:
        if seen == limits.records:
            fault(results.faults, now, kinds["too_many_records"])
            now["full"] = 1
            break
        kind = load_be32(data, at)
        length = load_be32(data, at + 4)
        if length > stop - at - 8:
            break
        if kind == 1 or kind == 3:
            flows += 1
        elif kind == 2 or kind == 4:
            counters += 1
        elif kind == 5:
            drops += 1
        seen += 1
        at = min(at + 8 + ((length + 3) & ~3), stop)
    cut = seen < count and not now["full"]
    if cut and stop - at >= 8 + 4:
        kind = load_be32(data, at)
        if 0 < kind <= 5:  # a sample that reaches beyond the datagram: its records may still be whole
            flows += 1 if kind == 1 or kind == 3 else 0
            counters += 1 if kind == 2 or kind == 4 else 0
            drops += 1 if kind == 5 else 0
            at = stop
        seen += 1
    if cut or (not now["full"] and at < stop):
        fault(results.faults, now, kinds["sample_overrun"])
    now["read"] += seen
    now["records"] += flows
    results.intake[now["intake"]]["counter_samples"] += counters
    results.intake[now["intake"]]["drop_samples"] += drops
    state.domains[now["domain"]]["drop_samples"] += drops
    if flows == 0 and counters == 0:
        return
    progress = results.progress[0]
    row = results.sets[progress["sets"]]
    progress["sets"] += 1
    enter_set(row, state, results, 0, now["domain"], first, at, flows, progress["rows"])
    progress["rows"] += flows
    row["sflow"] = 1
    row["counters"] = counters
    row["width"] = 1
    row["verdict"] = 1
    row["received"] = now["received"]
    row["exported"] = now["exported"]
    row["uptime"] = now["uptime"]
    row["intake"] = now["intake"]
    row["header_rate"] = 0
