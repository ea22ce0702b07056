"""`ratemill storage …`."""

from __future__ import annotations

from pathlib import Path

import typer

from runtime import options

storage = typer.Typer()


@storage.callback()
def _storage() -> None:
    """The files of the home: whether they are whole, how long they are kept, and copies of them."""


@storage.command("verify")
def verify_command() -> None:
    """Read every file and every block of the journal against its digest; exit code 1 if anything is wrong."""
    from core.errors import DamagedFile
    from monitoring import storage_check
    from runtime import context, output

    done = storage_check.Verified()
    output.emit_rows((found.row() for found in storage_check.verify(context.home(), done)), storage_check.COLUMNS)
    output.say(f"{done.files} files and {done.blocks} blocks of the journal are whole ({done.octets} octets read)")
    if done.problems:
        raise DamagedFile(f"{done.problems} problems were found", "do what the column `do` says, one by one")


@storage.command("repair")
def repair_command(dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Make damaged or missing files again: segments from the journal, cells from segments; the rest is named. Deletes nothing.

    Exit code 3 if some could be repaired and some could not, 1 if none could."""
    from core import actor
    from core.errors import DamagedFile, PartlyDone
    from monitoring import storage_repair
    from runtime import context, output

    done = storage_repair.Done()
    steps = storage_repair.repair(context.home(), actor.current(reason or "storage repair"), done, dry_run=dry_run)
    output.emit_rows((step.row() for step in steps), storage_repair.COLUMNS)
    output.say(f"{done.repaired} files {'can be' if dry_run else 'are'} repaired, {done.left} are not")
    if dry_run:
        output.say("dry run: nothing was changed")
    if done.left:
        kind = PartlyDone if done.repaired else DamagedFile
        raise kind(f"{done.left} problems can't be repaired now", "do what the column `do` says, one by one")


@storage.command("compact")
def compact_command(dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Turn flows of past days into Parquet, sorted by subscribers' addresses; `ratemill run` does it each hour."""
    from collector import compaction
    from core import actor
    from runtime import context, output

    done = compaction.compact(context.home(), actor.current(reason or "storage compact"), dry_run=dry_run)
    output.emit_object(done.as_row())
    if dry_run:
        output.say("dry run: nothing was changed")


@storage.command("gc")
def gc_command(dry_run: bool = options.DRY_RUN, to: str = options.TO_FILE, reason: str = options.REASON) -> None:
    """Truncate and delete flows as [retention] says, and delete files that nobody needs any more; rows say what and why."""
    from core import actor
    from monitoring import garbage
    from runtime import context, output

    steps = garbage.collect(context.home(), actor.current(reason or "storage gc"), dry_run=dry_run)
    output.emit_rows((step.as_row() for step in steps), garbage.COLUMNS, to)
    if dry_run:
        output.say("dry run: nothing was changed")


@storage.command("backup")
def backup_command(to: Path = typer.Argument(help="A new folder, on another disk.", metavar="FOLDER")) -> None:
    """Copy the home as of now, while everything runs; each file is verified on the way."""
    from monitoring import backup
    from runtime import context, output

    output.emit_object(backup.backup(context.home(), to))


@storage.command("restore")
def restore_command(
    source: Path = typer.Argument(help="A folder that `storage backup` made.", metavar="FOLDER"),
    to: Path = typer.Option(..., "--to", help="The new home.", metavar="HOME"),
) -> None:
    """Make a home from a backup; it is whole or not there."""
    from monitoring import backup
    from runtime import output

    output.emit_object(backup.restore(source, to))
    output.say(f"next: ratemill --home {to} storage verify, then ratemill --home {to} run")
