"""Records of a compiled plan → rows of flows: NetFlow v1, v5, v7, v9 and IPFIX.

A pure function of a set, its plan and the samplers. Most templates are plain: every column of a row is one field of the
record, and is copied column by column. For all others, and for records that need a decision, fields are loaded column by
column for a chunk of records, then each record is finished (octets, rate, times, addresses) and written to the row that the
scan gave it. Both ways give the same rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import CHUNK, FLOW_VERDICT, PACKET_VERDICT
from collector.kernels.counts import judge_events, leave_unmeasured, measure
from collector.kernels.elements import FIREWALL_EVENT, NAT_EVENT
from collector.kernels.fields import load_fixed, load_variable
from collector.kernels.plain import decode_plain
from collector.kernels.sampling import set_rates
from collector.kernels.times import clock_move, has_reverse_times, place_in_time, place_reverse_in_time
from collector.kernels.writing import clear_rows, write_chunk, write_common
from core.jit import kernel


@kernel
def decode(data: Any, sets: Any, first: int, last: int, state: Any, changes: Any, out: Any, policy: Any,
           kinds: Any, values: Any, work: Any) -> None:
    """Decode sets[first:last]; rows that stay empty keep status 0, sets whose rows are all flows are marked as clean."""
    places, plans, domains = state.places, state.plans, state.domains
    samplers, sampler_table = state.samplers, state.sampler_table
    for s in range(first, last):
        job = sets[s]
        job["clean"] = 0
        if not job["sflow"] and job["verdict"] != FLOW_VERDICT and job["verdict"] != PACKET_VERDICT:
            continue
        if not job["sflow"] and plans[job["plan"]]["plain"] and decode_plain(
                data, job, plans[job["plan"]], places[job["plan"]], domains[job["domain"]], samplers, sampler_table, changes,
                out, policy):
            job["clean"] = 1
            continue
        clear_rows(out, job["row"], job["row"] + job["records"] * job["width"])
        if not job["sflow"]:
            decode_set(data, job, state, changes, out, policy, kinds, values, work)


@kernel
def decode_set(data: Any, job: Any, state: Any, changes: Any, out: Any, policy: Any, kinds: Any, values: Any,
               work: Any) -> None:
    """A set of any plan, in stages over chunks of its records."""
    plan = state.plans[job["plan"]]
    has = state.has[job["plan"]]
    owner = state.domains[job["domain"]]
    move = clock_move(job, policy)
    write_common(out, job["row"], job["records"] * job["width"], job["received"], owner["high"], owner["low"],
                 owner["domain"], owner["protocol"])
    at = job["start"]
    done = np.int64(0)
    while done < job["records"]:
        count = min(job["records"] - done, CHUNK)
        if plan["stride"] > 0:
            load_fixed(data, at, plan["stride"], count, plan["first"], plan["count"], state.fields, state.slots,
                       state.offsets, values)
            at += count * plan["stride"]
        else:
            at = load_variable(data, at, count, plan["first"], plan["count"], state.fields, state.slots, values)
        if job["verdict"] == PACKET_VERDICT:
            leave_unmeasured(count, work)
        else:
            measure(values, count, has, kinds[0], work)
            if has[FIREWALL_EVENT] or has[NAT_EVENT]:
                judge_events(values, count, has, kinds[0], work)
        place_in_time(values, count, has, job["exported"], job["uptime"], job["initialised"], owner["protocol"], move,
                      kinds[0], work)
        if job["width"] == 2 and has_reverse_times(has):
            place_reverse_in_time(values, count, has, job["exported"], job["uptime"], job["initialised"],
                                  owner["protocol"], move, kinds[0], work)
        set_rates(values, count, has, job, state.samplers, state.sampler_table, changes, policy, kinds[0], work)
        write_chunk(out, values, work, count, has, job["row"] + done * job["width"], job["width"])
        done += count
