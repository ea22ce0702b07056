"""Process life: global options, output, progress, jobs with a lease, the supervisor."""
