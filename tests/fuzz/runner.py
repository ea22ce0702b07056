"""Feeds mutated datagrams to the decoder and checks what must hold after every block. A process of its own:

    PYTHONPATH=.:tests python -m fuzz.runner --datagrams 1000000 --seed 7 [--mode guards|cliff|steps]

guards  each block twice, between guards of two patterns and with other octets where no payload is: equal, nothing written;
        the state is saved and restored at random places, and goes on alike
cliff   the block ends where the readable memory ends
steps   kernels count their steps: a bound of the work for each octet, in small blocks

An epoch begins with a fresh decoder, so that its tables are not full of noise for ever. The first violation ends the run:
seed, epoch, block, and the fewest, shortest datagrams that still show it are printed. Prints one JSON object otherwise.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
import time
from typing import Any

EPOCH_BLOCKS = 32
STEPS_OF_DATAGRAM, STEPS_OF_OCTET = 500, 6
"""Bound of the work: an honest record costs 2 to 4 steps an octet."""
STEPS_OF_CALL = 50_000
"""Of a call: looks through the waiting sets and templates, tables that grow."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--datagrams", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("guards", "cliff", "steps"), default="guards")
    parser.add_argument("--block", type=int, default=0, help="datagrams a block")
    chosen = parser.parse_args()
    faulthandler.enable()
    if chosen.mode == "steps":
        from fuzz import counted_kernels

        counted_kernels.install()
    return _Run(chosen.seed, chosen.datagrams, chosen.mode, chosen.block or (64 if chosen.mode == "steps" else 8192)).go()


class _Run:
    def __init__(self, seed: int, datagrams: int, mode: str, block: int) -> None:
        from fuzz.guarded import Cliff, Fenced
        from fuzz.mutation import BODY_SIZE_MAX, Mutator, corpus

        self._seed, self._wanted, self._mode, self._block = seed, datagrams, mode, block
        self._material = corpus()
        self._make = lambda number: Mutator(seed * 1_000_003 + number, self._material, block)
        self._fences = [Fenced(BODY_SIZE_MAX, 0x00), Fenced(BODY_SIZE_MAX, 0xFF)]
        self._cliff = Cliff(BODY_SIZE_MAX)
        self._done = self._flows = self._blocks = self._state_max = self._restored = self._steps_worst = 0

    def go(self) -> int:
        began = time.process_time()
        epoch = 0
        while self._done < self._wanted:
            if not self._epoch(epoch):
                return 1
            epoch += 1
        summary = {"mode": self._mode, "seed": self._seed, "datagrams": self._done, "blocks": self._blocks, "epochs": epoch,
                   "flows": self._flows, "state_octets_max": self._state_max, "states_restored": self._restored,
                   "steps_worst_per_mille": self._steps_worst, "cpu_seconds": round(time.process_time() - began, 1)}
        print(json.dumps(summary))
        return 0

    def _settings(self, mutator: Any) -> Any:
        """Small tables, so that they are full within an epoch; another policy and other exporters each time."""
        from collector.settings import Collector, CollectorSettings, Exporter, Sampling, Time
        from core.addresses import parse_address

        bounds = Collector(domains_max=200, templates_max=1500, samplers_max=300, waiting_octets_max=200_000,
                           template_fields_max=(64, 1024)[mutator.draw(2)], sightings_max=4096,
                           duplicate_window=(0, 100, 65536)[mutator.draw(3)],
                           records_per_datagram_max=(7, 4096, 4096)[mutator.draw(3)],
                           waiting_seconds_max=(1, 600)[mutator.draw(2)])
        policy = ("assume_1", "quarantine", "reject")[mutator.draw(3)]
        exporters = tuple(Exporter(parse_address(f"192.0.2.{n}"), 1_700_000_000_000 if n % 2 else None, n * 100)
                          for n in range(1, 1 + mutator.draw(4)))
        return CollectorSettings(bounds, Sampling(policy), Time((0, 600)[mutator.draw(2)]), exporters)

    def _epoch(self, number: int) -> bool:
        from fuzz.invariants import state_octets

        from collector.decoder import Decoder
        from collector.state import DecoderState

        mutator = self._make(number)
        settings = self._settings(mutator)
        decoders = [Decoder(settings) for _ in range(2 if self._mode == "guards" else 1)]
        before = decoders[0].state.to_bytes()
        for block in range(EPOCH_BLOCKS * (128 if self._mode == "steps" else 1)):
            if self._done >= self._wanted:
                break
            body = mutator.body()
            if self._mode == "guards" and mutator.draw(3) == 0:
                before = decoders[0].state.to_bytes()
                decoders[1] = Decoder(settings, DecoderState.from_bytes(before))
                self._restored += 1
            elif self._mode != "guards":
                before = b""
            wrong = self._feed(decoders, body, block, mutator, settings)
            if wrong:
                self._tell(number, block, wrong, body, before, settings, mutator)
                return False
            self._state_max = max(self._state_max, state_octets(decoders[0]))
        if self._mode == "guards" and decoders[0].state.to_bytes() != decoders[1].state.to_bytes():
            print(f"epoch {number}: equal results, different states")
            return False
        return True

    def _feed(self, decoders: list[Any], body: Any, block: int, mutator: Any, settings: Any) -> list[str]:
        """Decode the block as the mode says; what is broken."""
        from fuzz.invariants import broken, same
        from fuzz.mutation import count_entries

        datagrams = count_entries(body)
        if self._mode == "guards":
            first = self._fences[0].hold(body)
            one = decoders[0].feed(first, block)
            other = body.copy()
            mutator.paint(other)
            two = decoders[1].feed(self._fences[1].hold(other), block)
            wrong = broken(one, datagrams, settings)
            if not same(one, two):
                wrong.append("what lies where no payload is changes nothing")
            if not (self._fences[0].is_whole(body) and self._fences[1].is_whole(other)):
                wrong.append("nothing is written into the body or its guards")
        elif self._mode == "cliff":
            one = decoders[0].feed(self._cliff.hold(body), block)
            wrong = broken(one, datagrams, settings)
        else:
            one, wrong = self._counted(decoders[0], body, block, datagrams, settings)
        self._done += datagrams
        self._blocks += 1
        self._flows += one.counts.flows
        return wrong

    def _counted(self, decoder: Any, body: Any, block: int, datagrams: int, settings: Any) -> tuple[Any, list[str]]:
        from fuzz import counted_kernels
        from fuzz.invariants import broken

        waiting = int(decoder.state.arrays.waiting_octets.nbytes)
        begun = counted_kernels.steps()
        one = decoder.feed(self._fences[0].hold(body), block)
        taken = counted_kernels.steps() - begun
        allowed = STEPS_OF_CALL + datagrams * STEPS_OF_DATAGRAM + len(body) * STEPS_OF_OCTET + waiting
        self._steps_worst = max(self._steps_worst, taken * 1000 // allowed)
        wrong = broken(one, datagrams, settings)
        if taken > allowed:
            wrong.append(f"the work is bounded: {taken} steps, {allowed} allowed")
        return one, wrong

    def _tell(self, epoch: int, block: int, wrong: list[str], body: Any, before: bytes, settings: Any, mutator: Any) -> None:
        from fuzz.mutation import entries_of, minimised, told

        from collector.decoder import Decoder
        from collector.state import DecoderState

        print(f"seed {self._seed}, epoch {epoch}, block {block}: {'; '.join(wrong)}")
        datagrams = list(entries_of(body))
        for start in ([before] if before else []) + [b""]:
            def fails(small: Any, start: bytes = start) -> bool:
                states = [DecoderState.from_bytes(start) if start else None for _ in range(2)]
                return bool(self._feed([Decoder(settings, state) for state in states], small, block, mutator, settings))

            if fails(body):
                print(f"{'with the state before the block' if start else 'with a fresh decoder'}:")
                print(told(minimised(datagrams, fails)))
                return
        print(f"not with a fresh decoder; run it again with the same seed, mode {self._mode} and --block {self._block}")


if __name__ == "__main__":
    sys.exit(main())
