"""`exporters snippet`: router configuration to paste, from the templates in data/snippets.

A template begins with lines that describe it:

    %name TEXT                       what it is for
    %protocols v9 ipfix              what it can export, the default first
    %interface TEXT                  an example of an interface's name
    %source interface|address TEXT   what the router wants as source of the export, and an example
    %units                           an interface `ge-0/0/1.0` is written `ge-0/0/1 unit 0`

In the text, `%if WORD … %end` stands for a protocol's name, `sampled` or `unsampled`; `%each interface … %end` is repeated for
each. Words between @ are filled in: all of them, and only with values that can't be anything but one word or address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import NotFound, UsageError
from core.product import data_file

EXAMPLE_COLLECTOR = "192.0.2.254:2055"
"""RFC 5737: an address that is nobody's."""
INTERFACES_MAX = 256
SAMPLING_MAX = 2**16
SFLOW_SAMPLING = 1024

_VERSIONS = {"v9": "9", "ipfix": "ipfix"}
_VERSIONS_OF = {"junos": {"v9": "version9", "ipfix": "version-ipfix"}, "nokia": {"v9": "9", "ipfix": "10"}}
"""How a router's configuration names a protocol."""
_INTERFACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9/.:_\-]| (?=[A-Za-z0-9])){0,79}")
_WORD = re.compile(r"@([A-Z]+)@")


@dataclass(frozen=True)
class Template:
    """A file of data/snippets."""

    vendor: str
    name: str
    protocols: tuple[str, ...]
    interface: str
    source_kind: str
    source: str
    units: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What a snippet is filled with; empty: the template's example, which the text tells to change."""

    collector: str = ""
    protocol: str = ""
    interfaces: Sequence[str] = ()
    sampling: int = 0
    """1: every packet; 0: that, and one in SFLOW_SAMPLING for sFlow, which always samples."""
    source: str = ""


@dataclass
class _Block:
    """Lines between %if or %each and their %end."""

    condition: str = ""
    each: bool = False
    parts: list[str | _Block] = field(default_factory=list)


def templates() -> list[Template]:
    """All of them, by vendor."""
    return [_read(path) for path in sorted(data_file("snippets").glob("*.txt"))]


def find(vendor: str) -> Template:
    """The template of a vendor. Raises NotFound with the nearest."""
    known = {template.vendor: template for template in templates()}
    wanted = vendor.strip().lower()
    if wanted in known:
        return known[wanted]
    import difflib

    by_name = [name for name, template in known.items() if wanted and wanted in template.name.lower()]
    near = by_name or difflib.get_close_matches(wanted, known, 3)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise NotFound(f"there is no snippet for '{vendor}'", hint)


def _read(path: Path) -> Template:
    about: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    body = 0
    for body, line in enumerate(lines):  # noqa: B007  # where the text begins
        word, _, rest = line.partition(" ")
        if not word.startswith("%") or word in ("%if", "%each"):
            break
        about[word[1:]] = rest
    kind, _, example = about["source"].partition(" ")
    return Template(path.stem, about["name"], tuple(about["protocols"].split()), about["interface"], kind, example,
                    "units" in about, tuple(lines[body:]))


def render(template: Template, wanted: Wanted) -> str:
    """The configuration. Raises UsageError for a value that is not what it should be."""
    protocol = wanted.protocol or template.protocols[0]
    if protocol not in template.protocols:
        raise UsageError(f"--protocol {protocol}: {template.name} exports {' and '.join(template.protocols)} here",
                         f"use one of {', '.join(template.protocols)}")
    sampling = wanted.sampling or (SFLOW_SAMPLING if protocol == "sflow" else 1)
    if not 1 <= sampling <= SAMPLING_MAX:
        raise UsageError(f"--sampling {wanted.sampling} is not from 1 to {SAMPLING_MAX}")
    host, port = _collector(wanted.collector or EXAMPLE_COLLECTOR)
    interfaces = [_interface(template, text) for text in wanted.interfaces or (template.interface,)]
    if len(interfaces) > INTERFACES_MAX:
        raise UsageError(f"{len(interfaces)} interfaces are more than {INTERFACES_MAX}", "apply a group on the router instead")
    words = {"COLLECTOR": host, "PORT": port, "SOURCE": _source(template, wanted.source), "SAMPLING": str(sampling),
             "SPACE": str(sampling - 1), "INTERFACES": ",".join(interfaces),
             "VERSION": _VERSIONS_OF.get(template.vendor, _VERSIONS).get(protocol, protocol)}
    true = {protocol, "sampled" if sampling > 1 else "unsampled"}
    return "\n".join(_written(_parsed(template.lines), true, interfaces, words)) + "\n"


def _parsed(lines: Sequence[str]) -> _Block:
    open_blocks = [_Block()]
    for line in lines:
        if line.startswith("%if "):
            open_blocks.append(_Block(condition=line[4:].strip()))
        elif line == "%each interface":
            open_blocks.append(_Block(each=True))
        elif line == "%end":
            done = open_blocks.pop()
            open_blocks[-1].parts.append(done)
        else:
            open_blocks[-1].parts.append(line)
    assert len(open_blocks) == 1, "every %if and %each has its %end"
    return open_blocks[0]


def _written(block: _Block, true: set[str], interfaces: Sequence[str], words: Mapping[str, str]) -> Iterator[str]:
    if block.condition and block.condition not in true:
        return
    for interface in interfaces if block.each else [words.get("INTERFACE", "")]:
        mine = {**words, "INTERFACE": interface} if interface else words
        for part in block.parts:
            if isinstance(part, _Block):
                yield from _written(part, true, interfaces, mine)
            else:
                yield _WORD.sub(lambda match, mine=mine: mine[match[1]], part)  # type: ignore[misc]


# values ---------------------------------------------------------------------------------------------------------------
def _collector(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(port)
    except ValueError:
        raise UsageError(f"--collector {text!r} is not ADDRESS:PORT",
                         "routers want an address: 192.0.2.254:2055 or [2001:db8::1]:2055") from None
    return str(address), str(int(port))


def _interface(template: Template, text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        raise UsageError(f"--interface {text!r} is not the name of an interface", f"for example {template.interface}")
    if template.units and " unit " not in text:
        name, _, unit = text.partition(".")
        return f"{name} unit {unit or 0}"
    return text


def _source(template: Template, text: str) -> str:
    if not text:
        return template.source
    if template.source_kind == "interface":
        if _INTERFACE.fullmatch(text):
            return text
    else:
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            pass
    raise UsageError(f"--source {text!r} is not an {template.source_kind}",
                     f"{template.name} wants an {template.source_kind} here, for example {template.source}")
