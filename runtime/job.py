"""One run of one job, in a process of its own: `python -m runtime.job HOME NAME MODULE FUNCTION`.

The supervisor starts it; a run that is killed loses nothing, since every job can be done again. Writes `job_run`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from core import clock
from core.errors import Locked, RatemillError
from runtime import failures, jobs, log
from storage import sql
from storage.home import Home, open_home


def main(arguments: list[str]) -> int:
    """Do the job and note how it ended; returns the exit code."""
    folder, name, module, function = arguments
    return failures.guard(lambda: _run(open_home(folder), name, module, function), debug=False)


def _run(home: Home, name: str, module: str, function: str) -> int:
    work = getattr(import_module(module), function)
    started = clock.now_ms()
    try:
        detail = str(work(home))
        result, code = "done", 0
    except Locked as error:  # somebody does the same job by hand: that is as good
        detail, result, code = error.message, "locked", error.exit_code
    except RatemillError as error:
        detail, result, code = str(error), "failed", error.exit_code
    except Exception as error:  # the supervisor goes on with its other work; what happened is in job_run and in the log
        detail, result, code = f"internal error: {type(error).__name__}: {error}", "failed", 1
    jobs.record_run(sql.engine(home), name, started, result, detail[:2000])
    level = "error" if result == "failed" else "info"
    log.write(level, "job", detail, name=name, result=result, milliseconds=clock.now_ms() - started)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
