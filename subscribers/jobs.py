"""What `ratemill run` supervises for subscribers: leases by formula, and the RADIUS server where the settings name its address.
"""

from __future__ import annotations

from core.settings import Document
from runtime.supervisor import Job, Process
from storage.home import Home


def lease_by_formula(home: Home) -> str:
    """Turn the formulas of [[deterministic_nat]] into leases."""
    from core.actor import current
    from subscribers.deterministic_nat import leases
    from subscribers.deterministic_nat.settings import from_document

    if not from_document(home.document):
        return "there is no [[deterministic_nat]]"
    done = leases.run(home, current("deterministic NAT to leases"))
    return f"{done.inside} inside addresses, {done.added} leases added, {done.removed} removed, {done.conflicts} conflicts"


JOBS = [Job("lease deterministic NAT", 300, lease_by_formula)]


def processes(document: Document) -> list[Process]:
    from subscribers.radius.settings import from_document

    return [Process("radius", ("radius", "run"))] if from_document(document).radius.listen else []
