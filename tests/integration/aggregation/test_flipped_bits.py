"""What a disk can do to segments and cell files is found before any of it is counted: flipped bits, short files, files
that are missing or stand in for each other."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from damage import empty, flip, shorten
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from aggregation import cell_store, export, manifest, segments
from aggregation.batches import aggregate
from aggregation.publish import publish
from core import tables
from core.actor import Actor
from core.errors import DamagedFile, NotFound, RatemillError
from core.periods import OPEN_END, OPEN_START, parse_instant
from storage import files, generations, sql
from storage.home import Home

ACTOR = Actor("test", "test")
OCTOBER = parse_instant("2026-10-01T00:00:00+02:00")
FLIPS = 100_000 if os.environ.get("RATEMILL_NIGHTLY") else 10_000
LENGTHS = 200
SEGMENTS = 4
EACH_A_BATCH = "[aggregation]\nbatch_flows_max = 1\nmerge_batches_min = 1000\n"


def make_world() -> World:
    return World(
        leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "S2")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                       Subscription("S2", OPEN_START, OPEN_END, "Asia/Kolkata", "fast")],
        plans={"home": ("day", False), "fast": (None, True)},
        calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 480, 1380),), "night")},
        classes=[("peering", 1, ["198.51.100.0/24"])], seller_zone="Europe/Berlin")


def make_flows(count: int, seed: int) -> list[Flow]:
    rng = random.Random(seed)
    flows = []
    for _ in range(count):
        start = OCTOBER + rng.randrange(86_400_000)
        near, far = rng.choice(["10.0.0.1", "10.0.0.2"]), rng.choice(["8.8.8.8", "198.51.100.9", "10.0.0.2"])
        flows.append(Flow(start, start + rng.randrange(3_000_000), *rng.choice([(near, far), (far, near)]),
                          octets=rng.randrange(10**9), packets=rng.randrange(1, 10**4)))
    return flows


def make_filled(path: Path, bounds: str = "") -> Home:
    """A home with small segments; every other one has the digest that the collector writes, the others one of SHA-256."""
    home = make_home(path, make_world(), bounds=bounds)
    for number in range(SEGMENTS):
        key = add_segment(home, make_flows(10 + number, number), f"s{number}", rows_per_batch=5)
        if number % 2 == 0:
            with sql.transaction(sql.engine(home)) as connection:
                digest = files.fast_digest_of(home.folder("segments") / f"s{number}.arrow")
                connection.execute(tables.segment.update().where(tables.segment.c.id == key).values(digest=digest))
    return home


@dataclass(frozen=True)
class Stored:
    """A file, and how aggregation reads it to the end."""

    path: Path
    read: Callable[[], int]


def read_segment(home: Home, segment: segments.Segment) -> int:
    return sum(len(columns["start"]) for columns in segments.read(home, segment))


def read_cells(home: Home, file: manifest.CellFile) -> int:
    return sum(table.num_rows for table in cell_store.read(home, file))


def stored_files(home: Home) -> list[Stored]:
    """All segments, files of cells and of outcomes that rows know."""
    with sql.reading(sql.engine(home)) as connection:
        known = manifest.segments(connection, connection.execute(sa.select(tables.segment.c.id)).scalars())
        made = [file for kind in ("cells", "outcomes") for _, file in manifest.cell_files(connection, kind)]
    found = [Stored(home.path / segment.path, partial(read_segment, home, segment)) for segment in known]
    return found + [Stored(home.path / file.path, partial(read_cells, home, file)) for file in made]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Stored]:
    home = make_filled(tmp_path_factory.mktemp("flips") / "home", EACH_A_BATCH)
    assert aggregate(home, ACTOR).batches == SEGMENTS
    found = stored_files(home)
    assert len(found) == 3 * SEGMENTS
    assert all(file.read() > 0 for file in found)
    return found


def damage_of(file: Stored) -> str:
    """What reading says of a damaged file: its name and what to do."""
    with pytest.raises(DamagedFile) as caught:
        file.read()
    assert str(file.path) in caught.value.message
    assert "restore it from a backup" in caught.value.hint
    return caught.value.message


def test_no_flipped_bit_of_a_segment_or_cell_file_passes(stored: list[Stored]) -> None:
    rng = random.Random(20_261_127)
    sizes = [file.path.stat().st_size for file in stored]
    descriptors = [os.open(file.path, os.O_RDWR) for file in stored]
    silent: list[tuple[str, int, int]] = []
    other: list[tuple[str, int, int, str]] = []
    found = dict.fromkeys(range(len(stored)), 0)
    try:
        for _ in range(FLIPS):
            number, bit = rng.randrange(len(stored)), rng.randrange(8)
            file, place, descriptor = stored[number], rng.randrange(sizes[number]), descriptors[number]
            before = os.pread(descriptor, 1, place)
            os.pwrite(descriptor, bytes([before[0] ^ 1 << bit]), place)
            try:
                file.read()
                silent.append((file.path.name, place, bit))
            except DamagedFile as error:
                if str(file.path) in error.message and "does not match its digest" in error.message and error.hint:
                    found[number] += 1
                else:
                    other.append((file.path.name, place, bit, str(error)))
            except Exception as error:
                other.append((file.path.name, place, bit, repr(error)))
            finally:
                os.pwrite(descriptor, before, place)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert not silent
    assert not other
    assert sum(found.values()) == FLIPS
    assert min(found.values()) > FLIPS // len(stored) // 2, "every file had its share"
    assert all(file.read() > 0 for file in stored), "all bits are back"


@contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """The file with other content for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_file_cut_off_at_any_length_is_named(stored: list[Stored]) -> None:
    rng = random.Random(3)
    for number in range(LENGTHS):
        file = stored[number % len(stored)]
        data = file.path.read_bytes()
        length = len(data) - 1 - number // len(stored) if number < LENGTHS // 4 else rng.randrange(len(data))
        with changed(file.path, data[:length]):
            assert "does not match its digest" in damage_of(file)
    assert all(file.read() > 0 for file in stored)


def test_an_empty_a_longer_and_a_missing_file_are_named(stored: list[Stored]) -> None:
    for file in stored:
        for data in (b"", bytes(file.path.stat().st_size), file.path.read_bytes() + b"\0"):
            with changed(file.path, data):
                assert "does not match its digest" in damage_of(file)
        aside = file.path.rename(file.path.with_suffix(".aside"))
        assert "is missing" in damage_of(file)
        file.path.mkdir()
        assert "can't be read" in damage_of(file), "a folder in its place"
        file.path.rmdir()
        aside.rename(file.path)
        assert file.read() > 0


def test_files_that_stand_in_for_each_other_are_both_named(stored: list[Stored]) -> None:
    kinds = [stored[first:first + SEGMENTS] for first in range(0, len(stored), SEGMENTS)]
    for one, another in [(kind[i], kind[i + 1]) for kind in kinds for i in range(SEGMENTS - 1)]:
        contents = one.path.read_bytes(), another.path.read_bytes()
        assert contents[0] != contents[1]
        with changed(one.path, contents[1]), changed(another.path, contents[0]):
            for file in (one, another):
                assert "does not match its digest" in damage_of(file)
        assert one.read() > 0
        assert another.read() > 0


# Runs over damaged files ----------------------------------------------------------------------------------------------
def swap(path: Path, other: Path) -> None:
    aside = path.rename(path.with_suffix(".aside"))
    other.rename(path)
    aside.rename(other)


def lose(path: Path, _: Path) -> None:
    path.unlink()


DAMAGES = (flip, shorten, empty, swap, lose)
Damage = Callable[[Path, Path], None]


@dataclass(frozen=True)
class State:
    """All that counts of a home: its rows, its files of cells, what is exported of it."""

    batches: list[manifest.Batch]
    rows: list[manifest.CellFile]
    files: dict[str, bytes]
    generation: int | None
    exported: str


def state_of(home: Home) -> State:
    with sql.reading(sql.engine(home)) as connection:
        batches = manifest.live_batches(connection)
        rows = [file for kind in ("cells", "outcomes") for _, file in manifest.cell_files(connection, kind)]
        last = generations.latest(connection)
    cells = home.folder("cells")
    contents = {home.relative(path): path.read_bytes() for path in sorted(cells.rglob("*")) if path.is_file()}
    try:
        exported = repr([batch.to_pylist() for by in ("hour", "month") for batch in export.rows(home, "2026-10", by)])
    except NotFound:
        exported = ""
    return State(batches, rows, contents, last.id if last else None, exported)


def files_of(home: Home, kind: str) -> list[Path]:
    if kind == "segments":
        return [home.folder("segments") / f"s{number}.arrow" for number in range(SEGMENTS)]
    with sql.reading(sql.engine(home)) as connection:
        return [home.path / file.path for _, file in manifest.cell_files(connection, kind)]


def refuse(home: Home, work: Callable[[], object], paths: list[Path], damage: Damage) -> None:
    """Damage a file: the work names it and changes nothing. Then put it back."""
    kept = {path: path.read_bytes() for path in paths}
    before = state_of(home)
    damage(paths[1], paths[2])
    with pytest.raises(RatemillError) as caught:
        work()
    assert isinstance(caught.value, DamagedFile)
    assert str(paths[1]) in caught.value.message or (damage is swap and str(paths[2]) in caught.value.message)
    assert caught.value.hint
    for path, data in kept.items():
        path.write_bytes(data)
    assert state_of(home) == before, "nothing new counts, and no file is left"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_leaves_nothing_new_and_once_restored_all_is_as_in_an_undamaged_home(damage: Damage, tmp_path: Path) -> None:
    home, twin = make_filled(tmp_path / "home"), make_filled(tmp_path / "twin")
    refuse(home, lambda: aggregate(home, ACTOR), files_of(home, "segments"), damage)
    assert not state_of(home).files
    for each in (home, twin):
        assert aggregate(each, ACTOR).segments == SEGMENTS
    assert state_of(home) == state_of(twin)
    for each in (home, twin):
        publish(each, ACTOR)
    assert state_of(home) == state_of(twin)
    assert state_of(home).exported


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cells_are_not_published_and_no_damaged_file_is_merged(damage: Damage, tmp_path: Path) -> None:
    home, twin = (make_filled(tmp_path / name, EACH_A_BATCH) for name in ("home", "twin"))
    for each in (home, twin):
        assert aggregate(each, ACTOR).batches == SEGMENTS
    refuse(home, lambda: publish(home, ACTOR), files_of(home, "cells"), damage)
    assert state_of(home).generation is None
    for each in (home, twin):
        publish(each, ACTOR)
    assert state_of(home) == state_of(twin)
    homes = [merging(each) for each in (home, twin)]
    for kind in ("cells", "outcomes"):
        refuse(homes[0], lambda: aggregate(homes[0], ACTOR), files_of(home, kind), damage)
    for each in homes:
        assert aggregate(each, ACTOR).merged == SEGMENTS
        publish(each, ACTOR)
    assert state_of(homes[0]) == state_of(homes[1])
    assert len(state_of(homes[0]).batches) == 1


def merging(home: Home) -> Home:
    """The same home, which now merges its batches."""
    settings = home.path / "ratemill.toml"
    settings.write_text(settings.read_text().replace("merge_batches_min = 1000", f"merge_batches_min = {SEGMENTS}"))
    return Home(home.path)
