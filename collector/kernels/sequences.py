"""Sequence numbers: what is missing, late or begun anew, of each exporter and domain.

The scan notes what every datagram said about its place (`layout.HEARD`); here the notes are compared, in order, with what
was expected (`layout.SEQUENCE`, `State.gaps`, `State.trials`). A datagram takes a stretch of its domain's count, in the
protocol's own unit (v5, v7, IPFIX: records, options records included, RFC 7011 §3.1; v9, sFlow: datagrams).

An *epoch* lasts from one start of the exporter to the next. In each of them, missing is the stretch from the first place
known to the last, less what came. A datagram that fits nowhere is *stray* until the next one says whether the exporter
started again (it goes on from there) or the stray was late or a copy. A lone one never changes the count.

Exporters that number otherwise than their protocol says (after instead of before, datagrams instead of records) are
recognised by predictions that hold where the standard ones fail, and what was charged to them for that is taken back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import SFLOW, V9, WORD
from core.jit import inline_kernel, kernel

DATAGRAM, SETTLED = 0, 1  # kinds of notes
HALF = 1 << 31

REBOOT_MS = 60_000  # a boot time that moves by more than this, seen from both clocks, is another boot
LATE_DATAGRAMS = 64  # so long after a start are late ones of the epoch before looked for
NEAR = 65_536
FAR_AHEAD = 1 << 26  # a jump beyond this is not believed before the next datagram confirms it
WRAP_FAR = 1 << 20  # likewise, where the numbers become smaller: more likely a start at 0 than a loss across the wrap
EARLY_RECORDS, EARLY_DATAGRAMS = 256, 8  # so far before the first one known may a late one lie
RUN_DOUBTFUL = 8  # two strays in a row are a new start, so many where they could also be late ones

# How an exporter numbers. STANDARD is the protocol's way; the others are what some do instead.
STANDARD, OTHER_UNIT, AFTER_ALL, BEFORE_DATA, AFTER_DATA = range(5)
CONVENTIONS = 5
EVIDENCE, EVIDENCE_BACKWARDS, EVIDENCE_ENOUGH, EVIDENCE_AGAINST = 1, 4, 5, -15


@inline_kernel
def apart(one: Any, other: Any) -> Any:
    """Distance of two moments that are known modulo 2^32 ms."""
    ahead = (one - other) & WORD
    return min(ahead, WORD + 1 - ahead)


# Gaps: (start, length, epoch) -----------------------------------------------------------------------------------------
@kernel
def remember_gap(row: Any, gaps: Any, start: int, length: int, epoch: int) -> None:
    """Units that did not come; the oldest gap is forgotten (and stays missing) when there are too many."""
    count = row["gaps"]
    if count == len(gaps):
        if gaps[0, 2] == row["epoch"]:
            end = (gaps[0, 0] + gaps[0, 1]) & WORD
            if not row["forgot"] or ((end - row["forgotten"]) & WORD) < HALF:
                row["forgotten"] = end
            row["forgot"] = 1
        drop_gap(row, gaps, 0)
        count -= 1
    gaps[count, 0] = start
    gaps[count, 1] = length
    gaps[count, 2] = epoch
    row["gaps"] = count + 1


@kernel
def drop_gap(row: Any, gaps: Any, index: int) -> None:
    for i in range(index + 1, row["gaps"]):
        for k in range(3):
            gaps[i - 1, k] = gaps[i, k]
    row["gaps"] -= 1


@kernel
def find_gap(row: Any, gaps: Any, at: int, epoch: int) -> Any:
    """The gap of an epoch that holds a place, or -1."""
    for i in range(row["gaps"]):
        if gaps[i, 2] == epoch and ((at - gaps[i, 0]) & WORD) < gaps[i, 1]:
            return i
    return -1


@kernel
def cut_gap(domain: Any, row: Any, gaps: Any, at: int, units: int, epoch: int) -> bool:
    """Take [at, at + units) out of the gap that holds `at`: whether there is one. Missing shrinks with it."""
    i = find_gap(row, gaps, at, epoch)
    if i < 0:
        return False
    before = (at - gaps[i, 0]) & WORD
    taken = min(units, gaps[i, 1] - before)
    after = gaps[i, 1] - before - taken
    domain["missing"] -= taken
    if before > 0:
        gaps[i, 1] = before
        if after > 0:
            remember_gap(row, gaps, (at + taken) & WORD, after, epoch)
    elif after > 0:
        gaps[i, 0] = (at + taken) & WORD
        gaps[i, 1] = after
    else:
        drop_gap(row, gaps, i)
    return True


@inline_kernel
def clock_of(note: Any) -> Any:
    """The exporter's own time of a datagram, which a late one does not have later than what it is late behind."""
    return note["uptime"] if note["protocol"] == SFLOW else note["clock"]


# Epochs ---------------------------------------------------------------------------------------------------------------
@kernel
def take_boot(row: Any, note: Any) -> None:
    if note["has_uptime"]:
        row["boot"] = (note["clock"] - note["uptime"]) & WORD
        row["arrival_boot"] = (note["received"] - note["uptime"]) & WORD
        row["uptime"] = note["uptime"]
        row["has_boot"] = 1


@kernel
def open_epoch(row: Any, at: int, units: int, note: Any) -> None:
    row["begun"] = 1
    row["begin"] = at
    row["expected"] = (at + units) & WORD
    row["heard"] = 1
    row["began"] = note["received"]
    row["begin_clock"] = clock_of(note)
    row["forgot"] = 0
    row["stray"] = 0
    take_boot(row, note)


@kernel
def epoch_by_boot(row: Any, note: Any) -> int:
    """By what the exporter says of its uptime: 0 this epoch or unknown, 1 the one before, 2 a new one.

    Its clock may be set and ours too; a boot has moved only if both say so. A replayed month passes in seconds by our
    clock, but not by the exporter's. sFlow has no clock beside the uptime: it must have gone back, to a boot behind the newest
    datagram.
    """
    if not note["has_uptime"] or not row["has_boot"] or note["uptime"] == row["uptime"]:
        return 0
    by_clock = (note["clock"] - note["uptime"]) & WORD
    by_arrival = (note["received"] - note["uptime"]) & WORD
    alone = note["protocol"] == SFLOW
    moved = apart(by_arrival, row["arrival_boot"])
    if alone:
        known = apart(by_arrival, row["before_arrival_boot"])
    else:
        if apart(by_clock, row["boot"]) <= REBOOT_MS:
            return 0
        known = apart(by_clock, row["before_boot"])
    if row["before"] > 0 and known <= REBOOT_MS and (not alone or moved > REBOOT_MS):
        return 1
    if moved <= REBOOT_MS:
        return 0
    if alone:
        passed = (note["received"] - row["arrival_boot"] - row["uptime"]) & WORD  # since the newest one came
        went_back = ((note["uptime"] - row["uptime"]) & WORD) >= HALF
        if not went_back or passed >= HALF or note["uptime"] > passed + REBOOT_MS:
            return 0
    return 2


@kernel
def late_of_epoch_before(domain: Any, row: Any, gaps: Any, at: int, units: int) -> None:
    """A datagram of the epoch before: it fills a gap there, or lies behind the last one known of it."""
    row["before"] -= row["before"] > 0
    domain["reordered"] += units > 0
    if units == 0 or cut_gap(domain, row, gaps, at, units, row["epoch"] - 1):
        return
    ahead = (at - row["before_expected"]) & WORD
    if ahead < NEAR:
        if ahead > 0:
            domain["missing"] += ahead
            remember_gap(row, gaps, row["before_expected"], ahead, row["epoch"] - 1)
        row["before_expected"] = (at + units) & WORD


@kernel
def belongs_before(row: Any, gaps: Any, at: int, note: Any) -> Any:
    """Whether a place that is none of this epoch is one of the epoch before, soon after a start."""
    if row["before"] == 0:
        return False
    if note["has_uptime"]:  # the boots are known: only if they can't be told apart
        alone = note["protocol"] == SFLOW
        moved = apart(row["arrival_boot"], row["before_arrival_boot"]) if alone else apart(row["boot"], row["before_boot"])
        if moved > REBOOT_MS:
            return False
    return find_gap(row, gaps, at, row["epoch"] - 1) >= 0 or ((at - row["before_expected"]) & WORD) < NEAR


# Strays ---------------------------------------------------------------------------------------------------------------
@kernel
def early_by(row: Any, at: int, note: Any) -> Any:
    """How far a place lies before the first one known of a young epoch, 0 if it does not lie shortly before it."""
    distance = (row["begin"] - at) & WORD
    furthest = EARLY_RECORDS if by_records(row["convention"], note["protocol"]) else EARLY_DATAGRAMS
    is_young = row["heard"] <= LATE_DATAGRAMS * row["reach"]
    return distance if distance <= furthest * row["reach"] and is_young else np.int64(0)


@kernel
def begin_earlier(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """Of a group: a member brings what lies before the first one that the others brought, and says by its clock."""
    hole = (row["begin"] - at - units) & WORD
    if 0 < hole < HALF:
        domain["missing"] += hole
        remember_gap(row, gaps, (at + units) & WORD, hole, row["epoch"])
    row["begin"] = at
    row["begin_clock"] = clock_of(note)
    domain["reordered"] += 1


@kernel
def is_doubtful(row: Any, at: int, note: Any) -> Any:
    """Whether a place behind could be one whose gap is not known (any more), so that it may just be late."""
    if early_by(row, at, note) > 0:
        return True
    return row["forgot"] != 0 and ((row["forgotten"] - at - 1) & WORD) < NEAR


@kernel
def drop_strays(domain: Any, row: Any, gaps: Any, note: Any) -> None:
    """The count went on where it was: the strays were late, or copies of what is known."""
    if row["stray"] == 0:
        return
    domain["reordered"] += row["stray"]
    distance = early_by(row, row["stray_begin"], note)
    if distance > 0:  # the epoch is known from earlier on than it was
        hole = (row["begin"] - row["stray_next"]) & WORD
        if 0 < hole < HALF:
            remember_gap(row, gaps, row["stray_next"], hole, row["epoch"])
        domain["missing"] += max(distance - row["stray_units"], 0)
        row["begin"] = row["stray_begin"]
    row["stray"] = 0


@kernel
def restart(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """The exporter has started again: what was missing stays, the new epoch begins here."""
    drop_strays(domain, row, gaps, note)
    domain["restarts"] += 1
    row["before"] = LATE_DATAGRAMS
    row["before_expected"] = row["expected"]
    row["before_boot"] = row["boot"]
    row["before_arrival_boot"] = row["arrival_boot"]
    row["epoch"] += 1
    open_epoch(row, at, units, note)


@kernel
def begin_stray(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    drop_strays(domain, row, gaps, note)
    row["stray"] = 1
    row["stray_begin"] = at
    row["stray_next"] = (at + units) & WORD
    row["stray_units"] = units


@kernel
def stray_distance(row: Any, at: int) -> Any:
    """How far a place lies from the strays' next one, -1 if it has nothing to do with them."""
    if row["stray"] == 0:
        return np.int64(-1)
    distance = apart(at, row["stray_next"])
    return distance if distance < NEAR else np.int64(-1)


@kernel
def lengthen_run(row: Any, at: int, units: int) -> None:
    if ((row["stray_begin"] - at) & WORD) < HALF:
        row["stray_begin"] = at
    if ((at + units - row["stray_next"]) & WORD) < HALF:
        row["stray_next"] = (at + units) & WORD
    row["stray"] += 1
    row["stray_units"] += units


@kernel
def go_on_from_strays(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """Another datagram in the strays' neighbourhood: decide whether this is where the exporter counts now."""
    begin = row["stray_begin"]
    upto = row["stray_next"]
    jumped = ((begin - row["expected"]) & WORD) < HALF
    early = not jumped and early_by(row, begin, note) > 0
    passes = early and ((at + units - row["begin"] - 1) & WORD) < HALF  # it takes a place that was taken before
    if not jumped and is_doubtful(row, begin, note) and not passes and row["stray"] + 1 < RUN_DOUBTFUL:
        lengthen_run(row, at, units)
        return
    lost = max(((upto - begin) & WORD) - row["stray_units"], 0)
    row["stray"] = 0
    if jumped and begin > row["expected"]:  # the numbers went up: nobody heard what lies between
        gap = (begin - row["expected"]) & WORD
        domain["missing"] += gap
        remember_gap(row, gaps, row["expected"], gap, row["epoch"])
        row["expected"] = upto
    else:
        restart(domain, row, gaps, begin, (upto - begin) & WORD, note)
    domain["missing"] += lost
    place(domain, row, gaps, at, units, note)


# Places ---------------------------------------------------------------------------------------------------------------
@kernel
def advance(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """The next datagram, or one behind some that did not come (yet)."""
    drop_strays(domain, row, gaps, note)
    ahead = (at - row["expected"]) & WORD
    if ahead > 0:
        domain["missing"] += ahead
        remember_gap(row, gaps, row["expected"], ahead, row["epoch"])
    row["expected"] = (at + units) & WORD
    row["heard"] += 1
    row["before"] -= row["before"] > 0
    take_boot(row, note)


@kernel
def place(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """Enter a datagram at its place of this epoch; one that fits nowhere is stray."""
    ahead = (at - row["expected"]) & WORD
    wraps = at < row["expected"]
    if ahead == 0 or (ahead < HALF and ahead <= (WRAP_FAR if wraps else FAR_AHEAD)):
        advance(domain, row, gaps, at, units, note)
    elif units > 0 and cut_gap(domain, row, gaps, at, units, row["epoch"]):
        domain["reordered"] += 1
    elif units > 0:
        begin_stray(domain, row, gaps, at, units, note)


@kernel
def enter(domain: Any, row: Any, gaps: Any, at: int, units: int, note: Any) -> None:
    """Find the epoch of a datagram, and its place in it."""
    ahead = (at - row["expected"]) & WORD
    which = 0 if ahead == 0 else epoch_by_boot(row, note)
    if which == 2:
        restart(domain, row, gaps, at, units, note)
        return
    if which == 1:
        late_of_epoch_before(domain, row, gaps, at, units)
        return
    is_behind = ahead >= HALF
    if units == 0 and is_behind:
        return  # a message of templates only: it has no place of its own in the count
    in_gap = find_gap(row, gaps, at, row["epoch"]) >= 0
    if not in_gap and (is_behind or ahead >= NEAR) and belongs_before(row, gaps, at, note):
        late_of_epoch_before(domain, row, gaps, at, units)
        return
    if row["reach"] > 1 and is_behind and not in_gap and clock_of(note) <= row["begin_clock"] and early_by(row, at, note) > 0:
        begin_earlier(domain, row, gaps, at, units, note)
        return
    distance = stray_distance(row, at)
    if distance >= 0 and (is_behind or distance < ahead) and not in_gap:
        go_on_from_strays(domain, row, gaps, at, units, note)
    elif is_behind and not in_gap and at == row["begin"]:
        restart(domain, row, gaps, at, units, note)  # exactly where it began before: no late one, that place was taken
    else:
        place(domain, row, gaps, at, units, note)


# Conventions ----------------------------------------------------------------------------------------------------------
@inline_kernel
def by_records(convention: Any, protocol: Any) -> Any:
    """Whether the count is of records."""
    datagrams = protocol in (V9, SFLOW)
    return not datagrams if convention == STANDARD else (convention != OTHER_UNIT or datagrams)


@inline_kernel
def units_of(convention: Any, protocol: Any, records: Any, options: Any) -> Any:
    """By how much a datagram moves the count on."""
    if not by_records(convention, protocol):
        return np.int64(1)
    return records - options if convention >= BEFORE_DATA else records


@inline_kernel
def is_after(convention: Any) -> Any:
    """Whether a datagram carries the count behind it."""
    return convention in (AFTER_ALL, AFTER_DATA)


@kernel
def judge_conventions(row: Any, trials: Any, note: Any) -> Any:
    """Compare how the number moved with what each convention predicts. Returns (the convention that has convinced or -1,
    whether some other than the present one was right alone)."""
    protocol = note["protocol"]
    winner, disputed = -1, False
    if protocol == SFLOW or not note["whole"] or not row["last_whole"]:
        return winner, disputed
    moved = (note["sequence"] - row["last"]) & WORD
    present = row["convention"]
    expected = np.int64(0)
    for k in range(-1, CONVENTIONS):
        convention = present if k < 0 else k
        if is_after(convention):
            predicted = units_of(convention, protocol, note["records"], note["options"])
        else:
            predicted = units_of(convention, protocol, row["last_records"], row["last_options"])
        if k < 0:
            expected = predicted
        elif k != present:
            if predicted == moved and expected != moved:
                backwards = ((moved - expected) & WORD) >= HALF
                trials[k] += EVIDENCE_BACKWARDS if backwards else EVIDENCE
                disputed = True
                if trials[k] >= EVIDENCE_ENOUGH and winner < 0:
                    winner = k
            elif predicted != moved and expected == moved:
                trials[k] = EVIDENCE_AGAINST
    return winner, disputed


@inline_kernel
def is_suspected(trials: Any) -> Any:
    """Whether any other convention has been right lately where the present one was not."""
    for k in range(CONVENTIONS):
        if trials[k] > 0:
            return True
    return False


@kernel
def adopt(domain: Any, row: Any, trials: Any, convention: int, note: Any) -> None:
    """The exporter numbers in another way: take back what it was charged, and go on from this datagram."""
    domain["missing"] = max(domain["missing"] - row["disputed_missing"], 0)
    domain["reordered"] = max(domain["reordered"] - row["disputed_reordered"], 0)
    domain["restarts"] = max(domain["restarts"] - row["disputed_restarts"], 0)
    row["convention"] = convention
    for k in range(CONVENTIONS):
        trials[k] = 0
    row["gaps"] = 0
    row["before"] = 0
    units = units_of(convention, note["protocol"], note["records"], note["options"])
    at = (note["sequence"] - units) & WORD if is_after(convention) else note["sequence"]
    open_epoch(row, at, units, note)


@kernel
def begin(row: Any, trials: Any) -> None:
    """Nothing is known: the row is new, or was another domain's."""
    row["epoch"] = row["gaps"] = row["before"] = row["has_boot"] = row["stray_disputed"] = 0
    row["convention"] = STANDARD
    row["last_whole"] = 0
    row["disputed_missing"] = row["disputed_reordered"] = row["disputed_restarts"] = 0
    for k in range(CONVENTIONS):
        trials[k] = 0


@kernel
def hear(domain: Any, row: Any, gaps: Any, trials: Any, note: Any) -> None:
    """Account for one datagram."""
    if not row["begun"]:
        begin(row, trials)
    convention = row["convention"]
    units = units_of(convention, note["protocol"], note["records"], note["options"])
    at = (note["sequence"] - units) & WORD if is_after(convention) else note["sequence"]
    if not row["begun"]:
        open_epoch(row, at, units, note)
    else:
        winner, disputed = judge_conventions(row, trials, note)
        missing, reordered, restarts = domain["missing"], domain["reordered"], domain["restarts"]
        of_dispute = disputed or row["stray_disputed"] != 0
        enter(domain, row, gaps, at, units, note)
        row["stray_disputed"] = of_dispute and row["stray"] > 0
        if of_dispute:
            row["disputed_missing"] += domain["missing"] - missing
            row["disputed_reordered"] += domain["reordered"] - reordered
            row["disputed_restarts"] += domain["restarts"] - restarts
        if winner >= 0:
            adopt(domain, row, trials, winner, note)
        if winner >= 0 or not is_suspected(trials):
            row["disputed_missing"] = row["disputed_reordered"] = row["disputed_restarts"] = 0
    row["last"] = note["sequence"]
    row["last_records"] = note["records"]
    row["last_options"] = note["options"]
    row["last_whole"] = note["whole"]


@kernel
def settle(domain: Any, row: Any, gaps: Any, note: Any) -> None:
    """Records of a message that was accounted for before they could be counted: what they left open is not missing."""
    units = note["records"]
    at = note["sequence"]
    if units == 0 or not row["begun"] or not by_records(row["convention"], note["protocol"]):
        return
    epoch = row["epoch"]
    if epoch > 0 and note["received"] < row["began"]:
        cut_gap(domain, row, gaps, at, units, epoch - 1)
        return
    if cut_gap(domain, row, gaps, at, units, epoch):
        return
    best = -1
    nearest = np.int64(NEAR)
    for i in range(row["gaps"]):
        distance = (gaps[i, 0] - at) & WORD
        if gaps[i, 2] == epoch and distance < nearest:
            nearest = distance
            best = i
    if best >= 0:
        cut_gap(domain, row, gaps, gaps[best, 0], units, epoch)
    elif ((row["expected"] - at) & WORD) < NEAR:
        row["expected"] = (row["expected"] + units) & WORD


@kernel
def account(domains: Any, sequences: Any, gaps: Any, trials: Any, notes: Any, intake: Any, reach: int) -> None:
    """Go through the notes of one call of the scan, in the order in which the datagrams came; what the counts of a domain
    gain is noted in `intake` too.

    `reach` is 1, and more for a group, whose members bring what the others lost later.
    """
    for i in range(len(notes)):
        note = notes[i]
        at = note["domain"]
        sequences[at]["reach"] = reach
        domain, counted = domains[at], intake[note["intake"]]
        missing, reordered, restarts = domain["missing"], domain["reordered"], domain["restarts"]
        if note["kind"] == DATAGRAM:
            hear(domain, sequences[at], gaps[at], trials[at], note)
        else:
            settle(domain, sequences[at], gaps[at], note)
        counted["missing"] += domain["missing"] - missing
        counted["reordered"] += domain["reordered"] - reordered
        counted["restarts"] += domain["restarts"] - restarts
