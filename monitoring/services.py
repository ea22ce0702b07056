"""What `ratemill run` supervises: the processes and jobs that the packages register in their `jobs.py`."""

from __future__ import annotations

from collections.abc import Sequence

from core.settings import Document
from runtime.settings import metrics_settings
from runtime.supervisor import Job, Process


def gather(document: Document) -> tuple[Sequence[Process], Sequence[Job]]:
    """All processes and jobs, in the order in which data flows; the endpoint of the metrics if there is to be one."""
    from aggregation import jobs as aggregation
    from collector import jobs as collector
    from monitoring import projections
    from rating import jobs as rating
    from subscribers import jobs as subscribers

    projections.register()
    processes = [*subscribers.processes(document), *collector.PROCESSES]
    if metrics_settings(document).listen:
        processes.append(Process("metrics", ("metrics", "serve")))
    jobs = [*subscribers.JOBS, *collector.JOBS, *aggregation.JOBS, *rating.JOBS]
    names = [process.name for process in processes] + [job.name for job in jobs]
    assert len(names) == len(set(names)), f"two parts have one name: {names}"
    return processes, jobs
