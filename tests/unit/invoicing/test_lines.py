from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invoicing.lines import Booked, Charge, Key, Line, accumulate, differences, is_worth_an_invoice


def _key(name: str, percent: str = "19") -> Key:
    return Key("S1", "plan", "2026-01-01", "2026-10-01", "2026-11-01", name, "fee", None, None, None, "month", "1.00",
               "EUR", "standard", percent)  # fmt: skip


def _charge(name: str, net: int, quantity: str = "1", gross: int | None = None, bookable: bool = True) -> Charge:
    return Charge(_key(name), quantity, net, gross, bookable)


def _book(lines: list[Line], booked: dict[Key, Booked]) -> None:
    for line in lines:
        accumulate(booked, line.key, line.quantity, line.net_minor, line.gross_minor)


def _natures(charges: list[Charge], booked: dict[Key, Booked]) -> list[tuple[str, str, int]]:
    return [(line.key.line, line.nature, line.net_minor) for line in differences("2026-10", charges, booked)]


def test_new_changed_and_vanished_charges_become_lines_and_equal_ones_none() -> None:
    booked = {_key(name): Booked("1", net, None) for name, net in (("changed", 100), ("gone", 70), ("same", 5))}
    charges = [_charge("new", 10), _charge("changed", 130, "2"), _charge("same", 5), _charge("zero", 0)]
    assert _natures(charges, booked) == [
        ("new", "charge", 10),
        ("changed", "correction", 30),
        ("zero", "charge", 0),
        ("gone", "cancellation", -70),
    ]


def test_what_may_not_be_booked_yet_waits_and_is_not_taken_for_vanished() -> None:
    assert _natures([_charge("later", 10, bookable=False)], {}) == []
    booked = {_key("later"): Booked("1", 10, None)}
    assert _natures([_charge("later", 10, bookable=False)], booked) == []


def test_another_percentage_takes_the_old_money_back_and_charges_anew() -> None:
    booked = {_key("fee", "19"): Booked("1", 100, None)}
    charges = [Charge(_key("fee", "22"), "1", 100, None, True)]
    assert _natures(charges, booked) == [("fee", "charge", 100), ("fee", "cancellation", -100)]


def test_a_charge_that_vanished_and_came_back_is_booked_again() -> None:
    booked: dict[Key, Booked] = {}
    for charges in ([_charge("fee", 100)], [], [_charge("fee", 100)]):
        _book(list(differences("2026-10", charges, booked)), booked)
    assert booked[_key("fee")] == Booked("1", 100, None)


def test_a_change_of_the_gross_alone_is_worth_an_invoice_only_where_the_gross_is_kept() -> None:
    booked = {_key("fee"): Booked("1", 4688, 5250)}
    found = list(differences("2026-10", [_charge("fee", 4688, gross=5251)], booked))
    assert [(line.net_minor, line.gross_minor) for line in found] == [(0, 1)]
    assert is_worth_an_invoice(found, "gross_kept")
    assert not is_worth_an_invoice(found, "en16931")


STATE = st.dictionaries(
    st.sampled_from("abcde"), st.tuples(st.integers(-1000, 1000), st.one_of(st.none(), st.integers(-9, 9))), max_size=5
)


@given(st.lists(STATE, min_size=1, max_size=6))
def test_any_history_of_runs_books_the_charges_as_they_stand(history: list[dict[str, tuple[int, int | None]]]) -> None:
    booked: dict[Key, Booked] = {}
    kinds = {name: gross is None for state in reversed(history) for name, (_, gross) in state.items()}
    for state in history:
        charges = [
            _charge(name, net, str(net), None if kinds[name] else gross or 0) for name, (net, gross) in state.items()
        ]
        _book(list(differences("2026-10", charges, booked)), booked)
        assert list(differences("2026-10", charges, booked)) == []
        left = {key: (b.net_minor, b.gross_minor or 0) for key, b in booked.items() if b.net_minor or b.gross_minor}
        assert left == {c.key: (c.net_minor, c.gross_minor or 0) for c in charges if c.net_minor or c.gross_minor}
