"""The bars of `flows graph` fit the width, begin at zero and say what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from collector import flow_bars


def rows(*octets: int, second: str = "00.000") -> list[dict[str, Any]]:
    return [{"start": f"2026-10-05T{number:02d}:00:{second}Z", "end": f"2026-10-05T{number + 1:02d}:00:{second}Z",
             "octets": count} for number, count in enumerate(octets)]


@pytest.mark.parametrize("width", [40, 80, 81, 200])
@pytest.mark.parametrize("plain", [False, True])
def test_lines_fit_and_the_axis_ends_where_the_longest_bar_may(width: int, plain: bool) -> None:
    lines = list(flow_bars.draw(rows(0, 1, 250, 500, 1000), width, plain))
    bars, line, ends = lines[:5], lines[5], lines[6]
    assert all(len(text) <= width for text in lines[:7])
    marks = [bar[18 : -flow_bars._AMOUNT_WIDTH - 1] for bar in bars]
    room = len(marks[0])
    full = "#" if plain else "█"
    assert [mark.count(full) for mark in marks] == [0, 0, room // 4, room // 2, room]
    assert len(line.strip()) == room
    assert line.index("+" if plain else "┼") == 18
    assert ends.split() == ["0", *(["500", "B"] if width > 40 else []), "1.00", "kB"]
    assert len(ends) == len(line)
    assert not plain or "".join(lines).isascii()


def test_a_bar_is_rounded_down_to_an_eighth() -> None:
    assert flow_bars._bar(15, 1000, 50, False).strip() == "▊"
    assert flow_bars._bar(2, 1000, 50, False).strip() == ""


def test_without_octets_there_are_no_bars() -> None:
    lines = list(flow_bars.draw(rows(0, 0), 80))
    assert not any("█" in line for line in lines)
    assert lines[0].endswith("0 B")
    assert lines[3].split() == ["0", "5", "B", "10", "B"]


@pytest.mark.parametrize(("second", "shown"), [("00.000", "00:00Z "), ("07.000", "00:00:07Z "), ("07.125", "00:00:07.125Z ")])
def test_times_are_as_exact_as_they_need_be(second: str, shown: str) -> None:
    (line, *_) = flow_bars.draw(rows(1, second=second), 80)
    assert line.startswith(f"2026-10-05T{shown}")


@pytest.mark.parametrize(("octets", "text"), [
    (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1999, "1.99 kB"), (12_345, "12.3 kB"), (999_999, "999 kB"),
    (10**9, "1.00 GB"), (5 * 10**18, "5.00 EB"), (1234 * 10**18, "1234 EB")])
def test_amounts_have_three_digits_and_a_unit(octets: int, text: str) -> None:
    assert flow_bars._amount(octets) == text


@pytest.mark.parametrize(("octets", "scale"), [
    (1, 1), (3, 5), (10, 10), (11, 20), (501, 1000), (10**12 + 1, 2 * 10**12)])
def test_the_axis_ends_at_a_round_number(octets: int, scale: int) -> None:
    assert flow_bars._round_up(octets) == scale
