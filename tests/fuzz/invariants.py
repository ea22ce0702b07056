"""What holds for every call of the decoder, whatever it was fed."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.decoder import Decoded, Decoder
from collector.faults import RECORD_FAULTS
from collector.settings import CollectorSettings

_COUNTS = ("datagrams", "decoded", "faulted", "duplicate", "data_records", "flow_records", "not_a_flow", "faulted_records",
           "flows", "octets", "templates", "options_templates", "options_records", "waiting_sets", "released_sets",
           "expired_sets")


def broken(decoded: Decoded, datagrams: int, settings: CollectorSettings) -> list[str]:
    """The names of the invariants that do not hold."""
    c, flows = decoded.counts, decoded.flows
    rows = len(flows["octets"])
    octets = flows["octets"]
    record_faults = sum(count for _, _, kind, count in decoded.faults if kind in RECORD_FAULTS)
    most = settings.collector.records_per_datagram_max
    checks = {
        "every datagram is counted": c.datagrams == datagrams,
        "datagrams close": c.datagrams == c.decoded + c.faulted + c.duplicate + c.refused + c.twin,
        "records close": c.data_records == c.flow_records + c.not_a_flow + c.faulted_records,
        "a record is at most two flows": c.flow_records <= c.flows <= 2 * c.flow_records,
        "flows are rows": c.flows == rows,
        "columns are of one length": all(len(column) == rows for column in flows.values()),
        "octets add up": c.octets == int((octets >> 32).sum()) * 2**32 + int((octets & 0xFFFFFFFF).sum()),
        "the intake adds up": all(int(decoded.intake[name].sum()) == getattr(c, name) for name in _COUNTS),
        "no count is negative": all(int(getattr(c, name)) >= 0 for name in _COUNTS),
        "record faults have a kind": record_faults <= c.faulted_records,
        "records are capped": c.data_records + c.options_records
        <= most * datagrams + (c.released_sets > 0) * _released_max(datagrams, most),
        "values are in range": bool(
            (octets >= 0).all() and (octets < 2**48).all() and (flows["packets"] >= 0).all()
            and (flows["end"] >= flows["start"]).all() and (flows["end"] - flows["start"] < 2**32).all()
            and (flows["rate_numerator"] > 0).all() and (flows["rate_denominator"] > 0).all()
            and np.isin(flows["rate_source"], (1, 2, 3, 4, 5, 6)).all()
            and np.isin(flows["flow_direction"], (0, 1, 255)).all()
            and np.isin(flows["export_protocol"], (1, 5, 7, 9, 10, 105)).all()
            and (flows["exporter"].any(axis=1)).all()),
    }  # fmt: skip
    return [name for name, holds in checks.items() if not holds]


def _released_max(datagrams: int, most: int) -> int:
    """Records that the datagrams of a block, and its end, may set free of waiting data."""
    from collector.decoder import RELEASE_RECORDS

    return (datagrams + 1) * (RELEASE_RECORDS + most)


def state_octets(decoder: Decoder) -> int:
    """Memory of all that the decoder keeps, and of its working tables."""
    return sum(array.nbytes for array in (*decoder.state.arrays, *decoder._results))


def same(one: Decoded, two: Decoded) -> bool:
    """Whether two results are equal to the last octet."""
    def columns_equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)

    return (one.counts == two.counts and one.faults == two.faults and one.rates == two.rates
            and columns_equal(one.flows, two.flows) and columns_equal(one.intake, two.intake)
            and columns_equal(one.interface_counters, two.interface_counters))
