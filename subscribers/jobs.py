"""What `ratemill run` supervises for subscribers: the RADIUS server, where the settings name an address for it."""

from __future__ import annotations

from core.settings import Document
from runtime.supervisor import Job, Process

JOBS: list[Job] = []


def processes(document: Document) -> list[Process]:
    from subscribers.radius.settings import from_document

    return [Process("radius", ("radius", "run"))] if from_document(document).radius.listen else []
