"""Writes the demo town's subscribers.csv and leases.csv beside this file: 500 services, the same every time.

Run it only to change the town: `python data/demo/generate.py`. Names are put together from lists; nobody is meant.
"""

from __future__ import annotations

import csv
import random
from datetime import date, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST = [
    "Anna",
    "Lukas",
    "Marie",
    "Jonas",
    "Lena",
    "Paul",
    "Clara",
    "Felix",
    "Sophie",
    "Max",
    "Emma",
    "Leon",
    "Mia",
    "Noah",
    "Ella",
    "Finn",
    "Ida",
    "Emil",
    "Greta",
    "Anton",
    "Frieda",
    "Karl",
    "Helene",
    "Otto",
    "Martha",
    "Oskar",
    "Elsa",
    "Theo",
    "Luise",
    "Jakob",
    "Nina",
    "Erik",
    "Olga",
    "Pavel",
    "Irina",
    "Dmitri",
    "Vera",
    "Igor",
    "Zoë",
    "José",
]
LAST = [
    "Becker",
    "Vogt",
    "Krämer",
    "Lindner",
    "Hoffmann",
    "Seidel",
    "Brandt",
    "Pohl",
    "Engel",
    "Winter",
    "Sommer",
    "Busch",
    "Kraus",
    "Arnold",
    "Haas",
    "Graf",
    "Jung",
    "Roth",
    "Beck",
    "Lorenz",
    "Franke",
    "Albrecht",
    "Simon",
    "Ludwig",
    "Böhm",
    "Winkler",
    "Schuster",
    "Jäger",
    "Peters",
    "Scholz",
    "Möller",
    "Weiß",
    "König",
    "Lang",
    "Ziegler",
    "Kühn",
    "Sokolov",
    "Petrova",
    "O'Brien",
    "Müller-Lüdenscheidt",
]
STREETS = [
    "Hauptstr.",
    "Bahnhofstr.",
    "Gartenweg",
    "Lindenallee",
    "Mühlgasse",
    "Am_Markt",
    "Schulstr.",
    "Ringstr.",
    "Kirchplatz",
    "Uferweg",
]
TRADES = ("Bäckerei", "Autohaus", "Druckerei", "Praxis Dr.", "Steuerbüro", "Schreinerei", "Software", "Hotel")

HEADER = [
    "account",
    "name",
    "kind",
    "email",
    "phone",
    "address",
    "contract",
    "service",
    "plan",
    "start",
    "end",
    "timezone",
    "currency",
]
LEASE_HEADER = ["realm", "address", "protocol", "port_first", "port_last", "start", "end", "service"]
CGNAT_BLOCK = 2000
CGNAT_PORT_FIRST = 1024
HANDOVERS = ("2026-10-08T01:30:00Z", "2026-10-16T02:10:00Z", "2026-10-24T23:47:13Z")


def main() -> None:
    random_ = random.Random(20261001)
    people: list[list[str]] = []
    leases: list[list[str]] = []
    for number in range(1, 501):
        group = _group(number)
        people += _subscriptions(number, group, random_)
    leases += _static_leases() + _handed_over_leases() + _cgnat_leases() + _town_b_leases() + _business_leases()
    _write(HERE / "subscribers.csv", HEADER, people)
    _write(HERE / "leases.csv", LEASE_HEADER, leases)


def _group(number: int) -> str:
    """Which part of the town a subscriber belongs to."""
    for last, group in (
        (160, "flat"),
        (240, "daily"),
        (360, "package"),
        (440, "cgnat"),
        (480, "town-b"),
        (500, "business"),
    ):
        if number <= last:
            return group
    raise AssertionError(number)


PLANS = {
    "flat": "home-flat",
    "daily": "home-daily",
    "package": "home-package",
    "cgnat": "home-flat",
    "town-b": "home-daily",
    "business": "business-95",
}


def _subscriptions(number: int, group: str, random_: random.Random) -> list[list[str]]:
    company = group == "business"
    name = (
        f"{random_.choice(TRADES)} {random_.choice(LAST)}"
        if company
        else f"{random_.choice(FIRST)} {random_.choice(LAST)}"
    )
    account = f"A{number:04d}"
    street = random_.choice(STREETS).replace("_", " ")
    town = "10117 Oberstadt" if group != "town-b" else "10999 Unterstadt"
    common = [
        account,
        name,
        "company" if company else "person",
        f"subscriber{number}@example.net",
        f"+49 30 5550{number:04d}",
        f"{street} {random_.randint(1, 120)}, {town}",
        f"C{number:04d}",
        service(number),
    ]
    started = (date(2025, 1, 1) + timedelta(days=random_.randrange(500))).isoformat()
    zone = ["Europe/Berlin", "EUR"]
    if number % 50 == 7 and group != "daily":  # joined in the middle of the month
        return [[*common, PLANS[group], "2026-10-14", "", *zone]]
    if number % 50 == 19:  # changed the plan in the middle of the month
        other = "home-package" if group == "flat" else "home-flat"
        if group != "business":
            return [[*common, PLANS[group], started, "2026-10-18", *zone], [*common, other, "2026-10-18", "", *zone]]
    if number % 50 == 33 and group != "daily":  # leaves on the 26th, the day after the clocks went back
        return [[*common, PLANS[group], started, "2026-10-26", *zone]]
    return [[*common, PLANS[group], started, "", *zone]]


def service(number: int) -> str:
    return f"S{number:04d}"


def _static_leases() -> list[list[str]]:
    """Flat and package: one private address each for good; every fifth has an IPv6 prefix too."""
    rows = []
    for number in [*range(1, 161), *range(241, 361)]:
        rows.append(
            ["", f"10.1.{number // 250}.{number % 250 + 1}", "", "", "", "2025-01-01T00:00:00Z", "", service(number)]
        )
        if number % 5 == 0:
            rows.append(["", f"2001:db8:{number:x}::/56", "", "", "", "2025-01-01T00:00:00Z", "", service(number)])
    return rows


def _handed_over_leases() -> list[list[str]]:
    """Daily: addresses that go round within groups of four, three times in the month."""
    rows = []
    for first in range(161, 241, 4):
        edges = ["2026-09-01T00:00:00Z", *HANDOVERS, ""]
        for turn in range(4):
            for seat in range(4):
                number = first + (seat + turn) % 4
                rows.append(
                    ["", f"10.2.0.{first - 160 + seat}", "", "", "", edges[turn], edges[turn + 1], service(number)]
                )
    return rows


def _cgnat_leases() -> list[list[str]]:
    """Blocks of 2,000 ports of five public addresses, sixteen or more subscribers behind each."""
    rows = []
    for index, number in enumerate(range(361, 441)):
        first = CGNAT_PORT_FIRST + (index // 5) * CGNAT_BLOCK
        for protocol in ("tcp", "udp"):
            rows.append(
                [
                    "",
                    f"192.0.2.{index % 5 + 1}",
                    protocol,
                    str(first),
                    str(first + CGNAT_BLOCK - 1),
                    "2026-09-01T00:00:00Z",
                    "",
                    service(number),
                ]
            )
    return rows


def _town_b_leases() -> list[list[str]]:
    """The same private addresses as in town A, in a realm of their own."""
    return [
        ["town-b", f"10.1.0.{number - 440 + 1}", "", "", "", "2026-01-01T00:00:00Z", "", service(number)]
        for number in range(441, 481)
    ]


def _business_leases() -> list[list[str]]:
    rows = []
    for number in range(481, 501):
        rows.append(["", f"198.18.{number - 480}.0/29", "", "", "", "2025-01-01T00:00:00Z", "", service(number)])
        rows.append(["", f"2001:db8:b{number - 480:03x}::/48", "", "", "", "2025-01-01T00:00:00Z", "", service(number)])
    return rows


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
