"""Template and options template records (RFC 3954 §5.2, §6.1; RFC 7011 §3.4): definitions, redefinition, withdrawal."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import fault
from collector.kernels.codes import ENTERPRISE_MAX, PROBES_MAX, TCP_SESSION
from collector.kernels.plans import compile_plan
from collector.kernels.sets import plan_of
from collector.kernels.tables import find_template
from collector.kernels.waiting import open_template, release
from core.jit import inline_kernel, kernel, load_be16, load_be32


@kernel
def define(state: Any, limits: Any, results: Any, kinds: Any, identifier: int, count: int, scope: int, options: int,
           v9: bool) -> None:
    """A whole definition was read into the free fields: compare it with what is known, and take it if it is new."""
    now = results.situation[0]
    counts = state.counts[0]
    if now["defined"] >= limits.records:
        if not now["full"]:
            fault(results.faults, now, kinds["too_many_records"])
        now["full"] = 1
        return
    now["defined"] += 1
    template = open_template(state, limits, now["domain"], identifier)
    if template < 0 or counts["fields"] + count > limits.fields:
        fault(results.faults, now, kinds["templates_full"])
        return
    now["read"] += 1
    if options:
        results.intake[now["intake"]]["options_templates"] += 1
    else:
        results.intake[now["intake"]]["templates"] += 1
    owner = state.templates[template]
    if plan_of(state, template) >= 0:
        known = state.plans[owner["plan"]]
        same = known["count"] == count and known["scope"] == scope and known["options"] == options
        i = 0
        while same and i < count:
            same = state.fields[known["first"] + i] == state.fields[counts["fields"] + i]
            i += 1
        if same:
            return
        if now["session"] >> 48 == TCP_SESSION:  # RFC 7011 §8: over TCP it is withdrawn first; the new one is clear enough
            fault(results.faults, now, kinds["template_redefined"])
    owner["plan"] = compile_plan(state, limits, count, scope, options, v9, state.domains[now["domain"]]["repeat"])
    owner["defined"] = now["received"]
    owner["number"] = counts["definitions"]
    counts["definitions"] += 1
    if owner["waiting_first"] >= 0:
        release(template, state, limits, results, kinds)


@inline_kernel
def read_fields(data: Any, at: int, stop: int, count: int, scope: int, ipfix: bool, state: Any) -> Any:
    """Field specifiers → the free fields; the offset behind them (-1: they are cut off), how many there are, how many of
    them are scope. Fields of no length are left out: they hold nothing, and a thousand of them would be walked in vain for
    every record."""
    first = state.counts[0]["fields"]
    kept = np.int64(0)
    kept_scope = np.int64(0)
    for i in range(count):
        if stop - at < 4:
            return np.int64(-1), kept, kept_scope
        element = load_be16(data, at)
        length = load_be16(data, at + 2)
        enterprise = np.int64(0)
        at += 4
        if ipfix and element >= 32768:
            if stop - at < 4:
                return np.int64(-1), kept, kept_scope
            enterprise = load_be32(data, at)
            element -= 32768
            at += 4
            if enterprise == 0:
                element += 32768  # the enterprise number 0 is reserved: not an IANA element
        # 31 bits are enough, if larger numbers don't become those of others
        if length > 0:
            state.fields[first + kept] = (min(enterprise, ENTERPRISE_MAX) << 32) | (element << 16) | length
            kept += 1
            kept_scope += i < scope
    return at, kept, kept_scope


@kernel
def too_large(data: Any, at: int, stop: int, count: int, ipfix: bool) -> Any:
    """The offset behind a definition that is not read, -1 if it is cut off."""
    for _ in range(count):
        if stop - at < 4:
            return -1
        wide = ipfix and load_be16(data, at) >= 32768
        at += 8 if wide else 4
        if at > stop:
            return -1
    return at


@kernel
def withdraw(state: Any, results: Any, identifier: int, options: int) -> None:
    """Forget one template of the domain, or all of a kind (RFC 7011 §8.1: the id is then that of the set)."""
    now = results.situation[0]
    now["read"] += 1
    if identifier >= 256:
        found = find_template(state.templates, state.template_table, now["domain"], identifier, PROBES_MAX)
        if found >= 0:
            state.templates[found]["plan"] = -1
        return
    # All of a kind: those defined before this moment. A walk over them could be asked for in every set of a message.
    owner = state.domains[now["domain"]]
    if options:
        owner["withdrawn_options"] = state.counts[0]["definitions"]
    else:
        owner["withdrawn"] = state.counts[0]["definitions"]


@inline_kernel
def template_set(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Template records (RFC 3954 §5.2, RFC 7011 §3.4.1)."""
    now = results.situation[0]
    withdrew_all = False
    while stop - at >= 4:
        identifier = load_be16(data, at)
        count = load_be16(data, at + 2)
        at += 4
        if count == 0 and identifier == 0:
            return  # padding
        if count == 0 and ipfix and (identifier >= 256 or identifier == 2):
            if identifier >= 256 or not withdrew_all:
                withdraw(state, results, identifier, np.int64(0))
            withdrew_all = withdrew_all or identifier == 2
            continue
        if count > limits.template_fields:
            at = too_large(data, at, stop, count, ipfix)
            fault(results.faults, now, kinds["template_malformed"] if at < 0 else kinds["template_too_large"])
        else:
            at, kept, _ = read_fields(data, at, stop, count, np.int64(0), ipfix, state)
            if at < 0 or identifier < 256 or count == 0:
                fault(results.faults, now, kinds["template_malformed"])
            else:
                define(state, limits, results, kinds, identifier, kept, np.int64(0), np.int64(0), not ipfix)
        if at < 0:
            return


@inline_kernel
def options_set(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Options template records (RFC 3954 §6.1: lengths in octets; RFC 7011 §3.4.2: counts of fields)."""
    now = results.situation[0]
    withdrew_all = False
    while stop - at >= (4 if ipfix else 6):
        identifier = load_be16(data, at)
        count = load_be16(data, at + 2)
        if count == 0 and ipfix:
            at += 4
            if identifier == 0:
                return  # padding
            if identifier >= 256 or (identifier == 3 and not withdrew_all):
                withdraw(state, results, identifier, np.int64(1))
            elif identifier != 3:
                fault(results.faults, now, kinds["template_malformed"])
            withdrew_all = withdrew_all or identifier == 3
            continue
        if stop - at < 6:
            fault(results.faults, now, kinds["template_malformed"])
            return
        scope = load_be16(data, at + 4)
        at += 6
        odd = False
        if not ipfix:
            if identifier == 0 and count == 0 and scope == 0:
                return  # padding
            odd = count % 4 != 0 or scope % 4 != 0
            octets = count
            count = (octets + scope) // 4
            scope = octets // 4
        if odd:
            fault(results.faults, now, kinds["template_malformed"])
            return
        if count > limits.template_fields:
            at = too_large(data, at, stop, count, ipfix)
            fault(results.faults, now, kinds["template_malformed"] if at < 0 else kinds["template_too_large"])
        else:
            at, kept, kept_scope = read_fields(data, at, stop, count, scope, ipfix, state)
            bad = at < 0 or identifier < 256 or count == 0 or scope > count or (ipfix and scope == 0)
            if bad:
                fault(results.faults, now, kinds["template_malformed"])
            else:
                define(state, limits, results, kinds, identifier, kept, kept_scope, np.int64(1), not ipfix)
        if at < 0:
            return
