"""Names of information elements, for people: a template's fields read `octetDeltaCount`, not `1`.

Reads every CSV below data/registries and HOME/registries that has the columns element and name (enterprise is 0 without one);
a later file replaces an earlier one's name, the home's come last.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from core.product import data_file
from storage.home import Home

Names = Mapping[tuple[int, int], str]
REVERSE_ENTERPRISE = 29305  # RFC 5103
ENTERPRISES = {9: "Cisco", 2011: "Huawei", 2636: "Juniper", 5951: "Citrix", 6871: "CERT", 12356: "Fortinet", 14988: "MikroTik",
               25506: "H3C", 30065: "Arista", 35632: "ntop", 39499: "CESNET", 6527: "Nokia", 3375: "F5", 10704: "Barracuda"}
"""Private enterprise numbers (IANA) of vendors whose elements may have no name here."""


def element_names(home: Home | None) -> Names:
    """(enterprise, element) → name."""
    folders = [data_file("registries")]
    if home is not None and (home.path / "registries").is_dir():
        folders.append(home.path / "registries")
    found: dict[tuple[int, int], str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            found.update(_read(path))
    return found


def _read(path: Path) -> dict[tuple[int, int], str]:
    """The names of one file; rows that are not of this kind are somebody else's."""
    found: dict[tuple[int, int], str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            enterprise, element, name = row.get("enterprise") or "0", row.get("element") or "", row.get("name") or ""
            if element.isdigit() and enterprise.isdigit() and name:
                found[int(enterprise), int(element)] = name
    return found


def name_of(names: Names, enterprise: int, element: int) -> str:
    """The name of a field, or its number with whose it is."""
    known = names.get((enterprise, element))
    if known is not None:
        return known
    if enterprise == REVERSE_ENTERPRISE and (0, element) in names:
        forward = names[0, element]
        return f"reverse{forward[0].upper()}{forward[1:]}"
    if enterprise:
        return f"{ENTERPRISES.get(enterprise, f'enterprise {enterprise}')} element {element}"
    return f"element {element}"
