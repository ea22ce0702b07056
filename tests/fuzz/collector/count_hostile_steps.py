"""Prints, for every hostile datagram, how many steps of compiled kernels it cost: a JSON line each."""

from __future__ import annotations

import json

from fuzz import counted_kernels

if __name__ == "__main__":
    counted_kernels.install()

    from fuzz.collector.test_hostile_datagrams import ATTACKER, everything
    from fuzz.invariants import state_octets
    from journal_bodies import NOW_MS, Datagram, body_of

    from collector.decoder import Decoder
    from collector.settings import CollectorSettings

    for hostile in everything():
        decoder = Decoder(CollectorSettings())
        for number, payload in enumerate(hostile.payloads):
            body, size = body_of([Datagram(payload, NOW_MS + number, ATTACKER)]), state_octets(decoder)
            waiting = int(decoder.state.arrays.counts[0]["waiting"])
            begun = counted_kernels.steps()
            decoded = decoder.feed(body, number)
            print(json.dumps({"name": hostile.name, "datagram": number, "octets": len(payload),
                              "steps": counted_kernels.steps() - begun, "released": decoded.counts.released_sets,
                              "waiting": waiting, "grown": state_octets(decoder) - size}))
