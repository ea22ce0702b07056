"""Adds up what became of the records of the decoded sets, by intake row, and lists the rows that are flows."""

from __future__ import annotations

from typing import Any

from collector.kernels.codes import FAULTED, FLOW, NOT_A_FLOW
from core.jit import kernel


@kernel
def all_clean(sets: Any, count: int) -> bool:
    """Whether all rows of these sets are flows, so that none must be left out."""
    for s in range(count):
        if (sets[s]["verdict"] == 1 or sets[s]["verdict"] == 3) and not sets[s]["clean"]:
            return False
    return True


@kernel
def tally(sets: Any, count: int, out: Any, intake: Any, faults: Any, keep: Any, kept: int, cumulative: int) -> Any:
    """Count the sets' records; the indexes of flow rows are appended to `keep`, if it has room at all (not all sets are
    clean). Returns how many it holds."""
    for s in range(count):
        job = sets[s]
        at = intake[job["intake"]]
        records = job["records"]
        if job["fault"]:
            faults[job["intake"], job["fault"]] += 1
        if job["options"]:
            at["options_records"] += records
            continue
        at["data_records"] += records
        if job["verdict"] == 0:
            at["not_a_flow"] += records
        elif job["verdict"] == 2:
            at["faulted_records"] += records
            faults[job["intake"], cumulative] += records
        elif job["clean"]:
            at["flow_records"] += records
            at["flows"] += records
            at["octets"] += job["octets"]
            if len(keep) > 0:
                for k in range(job["row"], job["row"] + records):
                    keep[kept] = k
                    kept += 1
        else:
            width = job["width"]
            for record in range(records):
                row = job["row"] + record * width
                status = out.status[row]
                if out.fault[row]:
                    faults[job["intake"], out.fault[row]] += 1
                if status == NOT_A_FLOW:
                    at["not_a_flow"] += 1
                elif status == FAULTED:
                    at["faulted_records"] += 1
                elif status == FLOW:
                    at["flow_records"] += 1
                    for k in range(row, row + width):
                        at["flows"] += 1
                        at["octets"] += out.octets[k]
                        keep[kept] = k
                        kept += 1
    return kept
