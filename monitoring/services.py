"""What `ratemill run` supervises: the processes and jobs that the packages register in their `jobs.py`."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.supervisor import Job, Process


def gather() -> tuple[Sequence[Process], Sequence[Job]]:
    """All processes and jobs, in the order in which data flows."""
    from aggregation import jobs as aggregation
    from collector import jobs as collector

    processes = [*collector.PROCESSES]
    jobs = [*collector.JOBS, *aggregation.JOBS]
    names = [process.name for process in processes] + [job.name for job in jobs]
    assert len(names) == len(set(names)), f"two parts have one name: {names}"
    return processes, jobs
