"""From an exception to a clear line on stderr and the exit code that the contract names."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from core.errors import ImportRefused, RatemillError

INTERRUPTED = 130  # 128 + SIGINT, as a shell shows it


def guard(work: Callable[[], object], debug: bool) -> int:
    """Do the work of a command; returns 0 or the exit code of what went wrong. No traceback without --debug."""
    from typer import Abort, Exit
    from typer._click.exceptions import ClickException  # typer brings its own click

    try:
        result = work()
        # typer makes 130 of a KeyboardInterrupt, without a word
        return _interrupted() if result == INTERRUPTED else result if isinstance(result, int) else 0
    except Exit as end:
        return _interrupted() if end.exit_code == INTERRUPTED else int(end.exit_code)
    except ClickException as error:
        error.show()
        return int(error.exit_code)
    except (Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:  # `ratemill … | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RatemillError as error:
        return report(error, debug)
    except OSError as error:
        hint = "free some space and run the same command again" if error.errno == errno.ENOSPC else ""
        return report(RatemillError(str(error), hint), debug)
    except Exception as error:  # the last resort of the command line: say it and point at --debug
        return report(
            RatemillError(
                f"internal error: {type(error).__name__}: {error}", "run it again with --debug and report the traceback"
            ),
            debug,
        )


def _interrupted() -> int:
    print("\ninterrupted; run the same command again to go on", file=sys.stderr)
    return INTERRUPTED


def report(error: RatemillError, debug: bool) -> int:
    """Print an error for a person; the problems of an import are rows on stdout."""
    if debug:
        traceback.print_exc()
    if isinstance(error, ImportRefused):
        from dataclasses import asdict

        from runtime.output import emit_rows

        emit_rows((asdict(problem) for problem in error.problems), ["file", "line", "column", "problem", "hint"])
    print(f"ratemill: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    return error.exit_code
