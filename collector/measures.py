"""What each datagram says about its exporter's health, beside the counts of the table `intake`: how its clock differs from
ours, how many records a datagram carries. Least and greatest do not add up; this is how rows of them become one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUMS = ("missing", "reordered", "restarts", "measured", "records", "clocked")
"""Added up: units that the sequence numbers lack (less what came late), late datagrams, restarts of the exporter;
datagrams without a fault and the records in them; datagrams with a wall clock in their header."""
_PAIRS = (("measured", "records_min", "records_max"), ("clocked", "skew_min", "skew_max"))
COLUMNS = (*SUMS, "records_min", "records_max", "skew_min", "skew_max", "skew_last")
"""All of them; skew in ms: arrival less export time (NetFlow v9 and IPFIX carry whole seconds)."""

_NONE_LEAST, _NONE_GREATEST = 2**62, -(2**62)


def join(rows: Mapping[str, NDArray[Any]], starts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Rows in groups that begin at `starts` → one row a group; what nothing was measured of is 0."""
    if not len(starts):
        return {name: np.zeros(0, np.int64) for name in COLUMNS}
    joined = {name: np.add.reduceat(rows[name], starts) for name in SUMS}
    for counter, least, greatest in _PAIRS:
        seen, any_seen = rows[counter] > 0, joined[counter] > 0
        joined[least] = np.where(any_seen, np.minimum.reduceat(np.where(seen, rows[least], _NONE_LEAST), starts), 0)
        joined[greatest] = np.where(any_seen, np.maximum.reduceat(np.where(seen, rows[greatest], _NONE_GREATEST), starts), 0)
    newest = np.maximum.reduceat(np.where(rows["clocked"] > 0, np.arange(len(rows["clocked"])), -1), starts)
    joined["skew_last"] = np.where(newest >= 0, rows["skew_last"][newest], 0)
    return joined
