"""What can be wrong with a datagram: a closed list of kinds. Bad input is counted by kind and exporter, never raised.

A *datagram* fault is a defect that ends the reading of (a part of) a datagram: whole records before it count. A *record*
fault costs one data record that could be delimited, but must not become a flow. Numbers are stable: state files hold them.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class FaultKind(IntEnum):
    """A kind of fault; the name in lower case is what commands print."""

    TOO_SHORT = 1
    VERSION_UNKNOWN = 2
    COUNT_MISMATCH = 3
    LENGTH_MISMATCH = 4
    SET_LENGTH = 5
    SET_OVERRUN = 6
    SET_ID_RESERVED = 7
    TEMPLATE_MALFORMED = 8
    TEMPLATE_TOO_LARGE = 9
    TEMPLATES_FULL = 10
    ZERO_LENGTH_RECORD = 11
    RECORD_OVERRUN = 12
    SAMPLE_OVERRUN = 13
    TOO_MANY_RECORDS = 14
    HEADER_MALFORMED = 15
    DUPLICATE = 16
    DOMAINS_FULL = 17
    SAMPLERS_FULL = 18
    WAITING_FULL = 19
    WAITING_EXPIRED = 20
    CUMULATIVE_COUNTER = 21
    RATE_UNANNOUNCED = 22
    DURATION_TOO_LONG = 23
    TIME_OUT_OF_RANGE = 24
    COUNT_TOO_LARGE = 25
    TEMPLATE_REDEFINED = 40
    STREAM_MALFORMED = 41
    STREAM_CUT = 42
    COUNTERS_FULL = 31
    TWIN_TOO_LATE = 50
    EXPORTER_UNKNOWN = 43
    DOMAIN_UNKNOWN = 44
    RATE_LIMITED = 45
    PORT_BLOCKS_FULL = 46
    REPORTS_FULL = 47
    BLOCK_WITHOUT_SERVICE = 51
    BLOCK_CONFLICT = 52
    BLOCK_UNMATCHED = 53
    BLOCK_NOT_CONTIGUOUS = 54
    BLOCK_MALFORMED = 55

    @property
    def label(self) -> str:
        return self.name.lower()


MEANINGS: dict[FaultKind, str] = {
    FaultKind.TOO_SHORT: "the payload ends inside the header of its protocol",
    FaultKind.VERSION_UNKNOWN: "the payload begins as no known version (1, 5, 7, 9, 10, sFlow 5)",
    FaultKind.COUNT_MISMATCH: "v1, v5, v7: the count in the header is not the number of whole records present",
    FaultKind.LENGTH_MISMATCH: "IPFIX: the length in the header is not the length of the payload; the lesser is read",
    FaultKind.SET_LENGTH: "a set is shorter than its own header: nothing after it can be delimited",
    FaultKind.SET_OVERRUN: "a set reaches beyond the message: whole records in it are read, the rest is lost",
    FaultKind.SET_ID_RESERVED: "a set id between the template sets and 256",
    FaultKind.TEMPLATE_MALFORMED: "a template definition that is cut off, has a reserved id or no usable fields",
    FaultKind.TEMPLATE_TOO_LARGE: "a template with more fields than template_fields_max",
    FaultKind.TEMPLATES_FULL: "no room for another template (templates_max)",
    FaultKind.ZERO_LENGTH_RECORD: "data of a template whose records have no length",
    FaultKind.RECORD_OVERRUN: "a record reaches beyond its set or sample, or an interface counter record is too short",
    FaultKind.SAMPLE_OVERRUN: "sFlow: a sample reaches beyond the datagram, or fewer are present than announced",
    FaultKind.TOO_MANY_RECORDS: "more than records_per_datagram_max records, or so many templates, in one datagram",
    FaultKind.HEADER_MALFORMED: "a header holds an impossible value: an unknown agent address type in sFlow",
    FaultKind.DUPLICATE: "an exact copy of a datagram inside the duplicate window",
    FaultKind.DOMAINS_FULL: "no room for another exporter or domain (domains_max)",
    FaultKind.SAMPLERS_FULL: "no room for another sampler (samplers_max)",
    FaultKind.WAITING_FULL: "data without a template, and no room to keep it (waiting_octets_max)",
    FaultKind.WAITING_EXPIRED: "data whose template did not come within waiting_seconds_max",
    FaultKind.CUMULATIVE_COUNTER: "a record with running totals only (IE 85, 353): no delta is known",
    FaultKind.RATE_UNANNOUNCED: "no sampling rate is known and the policy is `reject`",
    FaultKind.DURATION_TOO_LONG: "a flow of 2^32 milliseconds or more",
    FaultKind.TIME_OUT_OF_RANGE: "a flow outside the years 1 to 9999",
    FaultKind.TEMPLATE_REDEFINED: "IPFIX over TCP: a template is defined anew without a withdrawal; the new one is read",
    FaultKind.STREAM_MALFORMED: "a TCP or TLS session does not go on with an IPFIX message (version, length): it was closed",
    FaultKind.STREAM_CUT: "a TCP or TLS session ended inside a message",
    FaultKind.TWIN_TOO_LATE: "a member of a group brings a datagram so late that nobody can tell whether another had it",
    FaultKind.EXPORTER_UNKNOWN: "a datagram of an exporter that no [[exporter]] names: refused, or kept in the quarantine",
    FaultKind.DOMAIN_UNKNOWN: "a datagram of a domain that the exporter's `domains` do not name: refused",
    FaultKind.RATE_LIMITED: "a datagram beyond the exporter's datagrams_per_second_max: refused",
    FaultKind.PORT_BLOCKS_FULL: "an event of a port block beyond those kept of one journal block",
    FaultKind.REPORTS_FULL: "a loss report of a scope beyond those told apart of one domain",
    FaultKind.BLOCK_WITHOUT_SERVICE: "a port block whose inside address belongs to no service for all or a part of its life",
    FaultKind.BLOCK_CONFLICT: "a port block at an address that another lease has at the same time",
    FaultKind.BLOCK_UNMATCHED: "a release of a port block that nobody had",
    FaultKind.BLOCK_NOT_CONTIGUOUS: "a port block with a step: its ports are not one after the other, and no lease",
    FaultKind.BLOCK_MALFORMED: "a port block without an inside address, or with ports that are none",
    FaultKind.COUNT_TOO_LARGE: "octets or packets of 2^48 or more in one record, scaled by its sampling rate",
    FaultKind.COUNTERS_FULL: "sFlow: more interface counters in one journal block than are kept; each beyond is left out",
}

RECORD_FAULTS = frozenset({FaultKind.CUMULATIVE_COUNTER, FaultKind.RATE_UNANNOUNCED, FaultKind.DURATION_TOO_LONG,
                           FaultKind.TIME_OUT_OF_RANGE, FaultKind.COUNT_TOO_LARGE})
"""Kinds that cost exactly one data record each."""

BLOCK_FAULTS = (FaultKind.BLOCK_WITHOUT_SERVICE, FaultKind.BLOCK_CONFLICT, FaultKind.BLOCK_UNMATCHED,
                FaultKind.BLOCK_NOT_CONTIGUOUS, FaultKind.BLOCK_MALFORMED)
"""Found when port blocks become leases, not while decoding."""

KIND_COUNT = 64
"""Columns of a fault matrix: room for every kind that decoding can find."""


def _numbers() -> NDArray[np.void]:
    kinds = np.zeros(1, np.dtype([(kind.label, np.int64) for kind in FaultKind]))
    for kind in FaultKind:
        kinds[0][kind.label] = kind
    return kinds


KINDS = _numbers()
"""The numbers of the kinds by label, handed to kernels."""
