"""Writes the reference pages from the code: commands, settings, schemas, faults, metrics. A test holds them up to date.

python docs/generate.py            write docs/reference/*.md (`make docs`)
python docs/generate.py --check    exit 1 if a page differs, naming it
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py (`make docs`): change the code, not this page. -->\n\n"
WIDTH = "100"


def commands() -> str:
    """Every command with what `--help` says."""
    import cli

    lines = [
        "# Commands",
        "",
        "`ratemill NOUN VERB`. Data goes to stdout, talk and progress to stderr. These options are understood before the",
        "noun and after the verb alike: `--home DIR` (or `RATEMILL_HOME`), `-o table|json|csv|parquet`, `--json`, `--debug`.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
    ]
    for noun, (module, attribute, sentence) in cli.COMMANDS.items():
        part = getattr(import_module(module), attribute)
        lines += [f"## ratemill {noun}", "", sentence, ""]
        for words in _invocations([noun], part):
            if len(words) > 1:
                lines += [f"### ratemill {' '.join(words)}", ""]
            lines += ["```", _help(words), "```", ""]
    return "\n".join(lines)


EXIT_CODES = {
    0: "done; also when there was nothing to do",
    1: "failed: an import with errors, a port in use, a full disk, an unfinished period",
    2: "the command line is wrong",
    3: "partly done; the list says what was not",
    4: "denied",
    5: "not found: no such service, invoice, plan",
    6: "locked, and by whom",
    7: "a balance does not close, or a verification differs",
    8: "a database or a peer does not answer",
    130: "interrupted; the same command goes on",
}


def _invocations(words: list[str], part: Any) -> list[list[str]]:
    """The words of every command in a noun, in the order in which its help lists them."""
    import typer

    if not isinstance(part, typer.Typer):
        return [words]
    shown = [command for command in part.registered_commands if not command.hidden]
    found = [
        [*words, command.name or command.callback.__name__.replace("_", "-")] for command in shown if command.callback
    ]
    for group in part.registered_groups:
        found += _invocations([*words, str(group.name)], group.typer_instance)
    return found


def _help(words: list[str]) -> str:
    import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.run([*words, "--help"])
    assert code == 0, f"{words} --help ends with {code}"
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def settings() -> str:
    """Every section and key of ratemill.toml."""
    from monitoring.home_template import default_of, explain
    from monitoring.sections import all_sections

    lines = [
        "# Settings",
        "",
        "`ratemill.toml` lies in the home folder; `ratemill init` writes it with every key explained, `ratemill config check`",
        "names everything that is wrong with it. A section in double brackets may appear several times. An unknown key is an",
        'error. A secret may be kept elsewhere: `{ env = "NAME" }` or `{ file = "PATH" }`.',
        "",
    ]
    for section in all_sections():
        lines += [f"## {section.heading}", "", section.sentence, "", "| key | default | meaning |", "|---|---|---|"]
        for field in dataclasses.fields(section.kind):
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            default = "required" if required else f"`{default_of(field)}`" if default_of(field) is not None else "none"
            lines.append(f"| `{field.name.rstrip('_')}` | {default} | {explain(field)} |")
        lines.append("")
    return "\n".join(lines)


def schemas() -> str:
    """Every column of the files that travel between packages."""
    from core.schemas import ALL

    lines = ["# Schemas", "", "The Arrow schemas of segments, cells, usage and charges.", ""]
    for name, schema in ALL.items():
        lines += [f"## {name}", "", "| column | type | unit | null | meaning |", "|---|---|---|---|---|"]
        for field in schema:
            about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
            nullable = "yes" if field.nullable else ""
            lines.append(
                f"| `{field.name}` | {field.type} | {about.get('unit', '')} | {nullable} | {about.get('what', '')} |"
            )
        lines.append("")
    return "\n".join(lines)


def faults() -> str:
    """Every kind of fault that a datagram can have."""
    from collector.faults import MEANINGS, RECORD_FAULTS

    lines = [
        "# Faults",
        "",
        "What can be wrong with a datagram: a closed list. Faults are counted by exporter and kind, never raised and never",
        "logged one by one. A fault of a datagram ends the reading of it, or of a part: whole records before it count. A",
        "fault of a record costs that one record.",
        "",
        "| kind | costs | meaning |",
        "|---|---|---|",
        *(
            f"| `{kind.label}` | {'one record' if kind in RECORD_FAULTS else 'what follows it'} | {meaning} |"
            for kind, meaning in MEANINGS.items()
        ),
        "",
    ]
    return "\n".join(lines)


METRIC_PARTS = {
    "runtime.metrics": "The endpoint",
    "collector.metrics": "Collectors",
    "aggregation.metrics": "Aggregation (`ratemill run` only)",
    "monitoring.metrics": "Processes and jobs (`ratemill run` only)",
}


def metrics() -> str:
    """Every metric that an endpoint exposes."""
    from monitoring.metrics import declared

    lines = [
        "# Metrics",
        "",
        "What `/metrics` answers, with every collector of the home; [the guide](../how-to/monitoring.md) says how to use it.",
        "Figures by exporter are as of the last commit (`[collector] segment_seconds`); exporters beyond `[metrics]",
        "exporters_max` are added up under `exporter=\"other\"`. Counters go on over restarts unless it says otherwise. A",
        "histogram has the series `_bucket`, `_count` and `_sum`.",
        "",
    ]
    for module, found in declared().items():
        lines += [f"## {METRIC_PARTS[module]}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        lines += [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.what} |" for m in found]
        lines.append("")
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "schemas.md": schemas,
    "faults.md": faults,
    "metrics.md": metrics,
}


def pages() -> dict[Path, str]:
    """Each page and the text that it should have."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = WIDTH
    return {FOLDER / name: NOTE + text() for name, text in PAGES.items()}


def main(words: list[str]) -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if words == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
