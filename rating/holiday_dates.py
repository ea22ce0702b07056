"""Public holidays of a country or a part of one as dates, to be frozen into a calendar's version.

The dates come from the package `holidays`; once applied they do not change with its releases.
"""

from __future__ import annotations

from datetime import date

YEAR_FIRST = 1970
YEAR_LAST = 2050


def check(name: str) -> None:
    """Raises ValueError if nobody knows the holidays of 'DE', 'DE-BY' …"""
    import difflib

    import holidays

    country, _, part = name.partition("-")
    known = holidays.list_supported_countries(include_aliases=True)
    if country not in known:
        near = difflib.get_close_matches(country.upper(), known, 1)
        raise ValueError(f"the holidays of '{name}' are not known" + (f"; did you mean '{near[0]}'?" if near else ""))
    if "-" in name and part not in known[country]:
        raise ValueError(f"'{country}' has no part '{part}'"
                         + (f": its parts are {', '.join(known[country])}" if known[country] else ""))


def dates(name: str) -> list[date]:
    """All public holidays from YEAR_FIRST to YEAR_LAST, in order."""
    import holidays

    country, _, part = name.partition("-")
    found = holidays.country_holidays(country, subdiv=part or None, years=range(YEAR_FIRST, YEAR_LAST + 1))
    return sorted(day for day in found if YEAR_FIRST <= day.year <= YEAR_LAST)
