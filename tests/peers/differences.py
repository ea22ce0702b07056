"""What peers read otherwise of the captures, and why ours is kept.

docs/explanation/capture-differences.md holds each reason.
"""

from __future__ import annotations

from peers.exchange import Difference

_RECORDS, _TIMES = frozenset({"records"}), frozenset({"start", "end"})
_PORT = frozenset({"destination_port"})

_NO_TIME = (
    "the record holds no time that the peer knows: it says 1970, we take the export time (or nanoseconds, NTP, seconds)"
)
_ANCHOR = "uptimes of IPFIX need an anchor: IE 160 from options, else the flow ended at its export"
_UPTIME_0 = "an uptime of 0 is the boot, not a missing value"
_FINER = "a record with times in seconds and in milliseconds: the finer ones count"
_ENDS_EARLIER = "a flow that ends before it starts: the end is moved to the start and flagged"
_ICMP_PORT = "ICMP type and code of NetFlow v9 lie in the destination port where there is no element for them"
_COUNT_FEWER = "v5: the count in the header is less than the records present: the lesser of the two"
_COUNT_WRONG = (
    "v5: the count in the header is more than the records present: those present are read, the peer refuses all"
)
_SCALED = "the peer multiplies by the sampling rate of the header; our rows hold raw counts beside the rate"
_CUMULATIVE = "running totals (IE 85, 86) without a delta are a fault: they would be billed again and again"
_CREATED = "a firewall event that creates a flow and has counted nothing is no flow"
_WAITING = "data before its template waits for it; the peer drops it"
_OVERRUN = "a set that reaches beyond the message: whole records inside it only"
_V9_COUNT = "v9: the count in the header is no number of records (softflowd counts otherwise): sets are read to the end"
_OPTIONS_SCOPE = "the peer gives up at an options template that it can't read"
_V1_RECORD = "v1: records are taken to be 52 octets long; softflowd and the peer know 48"
_VARIABLE = "the peer reads a field of another length than the template says"

OF: dict[str, tuple[Difference, ...]] = {
    "nfdump": (
        Difference("beats:IPFIX Barracuda firewall", _TIMES, _ANCHOR),
        Difference("beats:IPFIX configured with include_flowset_id", _TIMES, _NO_TIME),
        Difference("beats:IPFIX", _TIMES, _ANCHOR),
        Difference("beats:IPFIX Barracuda extended uniflow template 256", _RECORDS, _CREATED),
        Difference("beats:IPFIX Mikrotik RouterOS 6.39.2", _TIMES, _ANCHOR),
        Difference("beats:IPFIX Netscaler with variable length fields", _TIMES, _NO_TIME),
        Difference("beats:Netflow 9 valid 01", _PORT, _ICMP_PORT),
        Difference("beats:Netflow 9 multiple netflow exporters", _PORT, _ICMP_PORT),
        Difference("beats:Netflow 9 IE150 IE151", _TIMES, _NO_TIME),
        Difference("beats:Netflow 9 Cisco NBAR flowset 262", _PORT, _ICMP_PORT),
        Difference("beats:Netflow 9 Cisco 1941/K9 release 15.1", _TIMES, _NO_TIME),
        Difference("logstash:Netflow 5 valid 01", _RECORDS, _COUNT_FEWER),
        Difference("logstash:Netflow 5 invalid 01 ", _RECORDS, _COUNT_WRONG),
        Difference("logstash:Netflow 5 invalid 02 ", _RECORDS, _COUNT_WRONG),
        Difference("logstash:Netflow 9 valid 01", _PORT, _ICMP_PORT),
        Difference("logstash:Netflow5 Juniper MX80", frozenset({"octets", "packets"}), _SCALED),
        Difference("telegraf:ipfix_example", _RECORDS, _CUMULATIVE),
        Difference("Graylog2:netflow5.pcap", frozenset({"octets", "packets"}), _SCALED),
        Difference("Graylog2:netflow9.pcap", _PORT, _ICMP_PORT),
        Difference("Graylog2:nprobe-netflow9-2.pcap", _TIMES, _UPTIME_0),
        Difference("Graylog2:nprobe-netflow9-4.pcap", _RECORDS, _WAITING),
        Difference("Graylog2:nprobe-netflow9.pcap", _TIMES, _UPTIME_0),
        Difference("EdgeCast:ipfix_decoder_test.go.L58.ipfix.bin", _RECORDS, _OVERRUN),
        Difference("EdgeCast:netflow_v5_decoder_test.go.L32.nf5.bin", frozenset({"octets", "packets"}), _SCALED),
        Difference("bitkeks:tests_lib.py.00.nf1.bin", _RECORDS, _V1_RECORD),
        Difference("bitkeks:tests_lib.py.14.ipfix.bin", _TIMES, _ANCHOR),
    ),
    "tshark": (
        Difference("beats:IPFIX Barracuda extended uniflow template 256", _RECORDS, _CREATED),
        Difference("beats:IPFIX", frozenset({"start"}), _UPTIME_0),
        Difference("beats:Netflow 9 multiple netflow exporters", frozenset({"start"}), _UPTIME_0),
        Difference("beats:Netflow 9 invalid 01", _RECORDS, _V9_COUNT),
        Difference("logstash:Netflow 5 invalid 01 ", frozenset({"end"}), _ENDS_EARLIER),
        Difference("logstash:Netflow 5 invalid 02 ", frozenset({"end"}), _ENDS_EARLIER),
        Difference("telegraf:ipfix_pen_35632", _TIMES, _FINER),
        Difference("telegraf:issue_13305", _TIMES, _FINER),
        Difference("Graylog2:netflow-v9-1.dat", _RECORDS, _V9_COUNT),
        Difference("Graylog2:netflow9.pcap", _RECORDS, _V9_COUNT),
        Difference("Graylog2:nprobe-netflow9-2.pcap", _TIMES, _UPTIME_0),
        Difference("Graylog2:nprobe-netflow9.pcap", _TIMES, _UPTIME_0),
        Difference("EdgeCast:ipfix_decoder_test.go.L58.ipfix.bin", _RECORDS, _OPTIONS_SCOPE),
        Difference("bitkeks:tests_lib.py.00.nf1.bin", _RECORDS, _V1_RECORD),
    ),
    "scapy": (
        Difference(
            "beats:Netflow 9 Cisco NBAR flowset 262",
            frozenset({"destination_as", "next_hop", "octets", "packets"}),
            _VARIABLE,
        ),
        Difference("logstash:Netflow 5 valid 01", _RECORDS, _COUNT_FEWER),
        Difference("Graylog2:nprobe-netflow9-4.pcap", _RECORDS, _WAITING),
        Difference("bitkeks:tests_lib.py.00.nf1.bin", _RECORDS, _V1_RECORD),
    ),
}
