"""What to do about a fault of an exporter, one sentence a kind; `collector.faults.MEANINGS` says what it is."""

from __future__ import annotations

from collector.faults import FaultKind

COMMON = "Keep the datagrams (`collect replay` reads them again) and ask the router's vendor."
ADVICE: dict[FaultKind, str] = {
    FaultKind.TOO_SHORT: "Something else sends to this port: name the routers in ratemill.toml, or filter it before.",
    FaultKind.VERSION_UNKNOWN: "Something else sends to this port, or the router exports in NetFlow v8: choose v9 or IPFIX.",
    FaultKind.COUNT_MISMATCH: "The router's software miscounts or the path cuts datagrams: look at the MTU on the way here.",
    FaultKind.LENGTH_MISMATCH: "The path cuts or pads datagrams: look at the MTU on the way here.",
    FaultKind.SET_LENGTH: COMMON,
    FaultKind.SET_OVERRUN: "The path cuts datagrams: look at the MTU on the way here, and at the router's export packet size.",
    FaultKind.SET_ID_RESERVED: COMMON,
    FaultKind.TEMPLATE_MALFORMED: COMMON,
    FaultKind.TEMPLATE_TOO_LARGE: "Raise template_fields_max in [collector], if the template is meant.",
    FaultKind.TEMPLATES_FULL: "Raise templates_max in [collector]; look which exporter defines so many.",
    FaultKind.ZERO_LENGTH_RECORD: COMMON,
    FaultKind.RECORD_OVERRUN: "The path cuts datagrams: look at the MTU on the way here.",
    FaultKind.SAMPLE_OVERRUN: "The path cuts datagrams: look at the MTU on the way here, and at sFlow's maximum datagram size.",
    FaultKind.TOO_MANY_RECORDS: "No router sends so many: look who sends from this address.",
    FaultKind.HEADER_MALFORMED: "Set the sFlow agent address to an IPv4 or IPv6 address of the router.",
    FaultKind.DUPLICATE: "The datagrams come twice: look for a mirror port, two export targets or a loop. They count once.",
    FaultKind.DOMAINS_FULL: "Raise domains_max in [collector]; if exporters come from spoofed addresses, filter them before.",
    FaultKind.SAMPLERS_FULL: "Raise samplers_max in [collector].",
    FaultKind.WAITING_FULL: "Let the router send templates more often (60 s), or raise waiting_octets_max in [collector].",
    FaultKind.WAITING_EXPIRED: "Let the router send templates more often (60 s): `exporters snippet` shows how.",
    FaultKind.CUMULATIVE_COUNTER: "Let the router export octetDeltaCount (1) instead of running totals.",
    FaultKind.RATE_UNANNOUNCED: "Let the router export its sampler table, or set `sampling` in [[exporter]].",
    FaultKind.DURATION_TOO_LONG: "Set the router's clock (NTP) and an active timeout of 60 s.",
    FaultKind.TIME_OUT_OF_RANGE: "Set the router's clock (NTP).",
    FaultKind.COUNT_TOO_LARGE: "Look at the sampling rate that the router announces, and at its software's counters.",
}


def advice(label: str) -> tuple[str, str]:
    """(what it is, what to do) of a kind by its label; a kind that this version does not know has neither."""
    from collector.faults import MEANINGS

    kind = next((kind for kind in FaultKind if kind.label == label), None)
    if kind is None:
        return "", ""
    return MEANINGS.get(kind, ""), ADVICE.get(kind, COMMON)
