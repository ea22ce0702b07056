"""TOML files that people write and the product judges: plans, traffic classes, mappings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from core.errors import ImportRefused, Problem
from core.toml_lines import Lines

SIZE_MAX = 16 << 20


def read(path: Path, too_large: str) -> tuple[dict[str, Any], Lines]:
    """A file's document, and where its keys stand. `too_large` says what to do with one that is. Raises ImportRefused with
    the one problem of a file that is absent, too large, not UTF-8 or not TOML."""
    def refused(line: int, problem: str, hint: str) -> ImportRefused:
        return ImportRefused([Problem(str(path), line, "", problem, hint)])

    try:
        if path.stat().st_size > SIZE_MAX:
            raise refused(1, f"the file is larger than {SIZE_MAX >> 20} MiB", too_large)
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), Lines(text)
    except OSError as error:
        raise refused(1, f"can't be read: {error.strerror}", "name a file that is there") from None
    except UnicodeDecodeError as error:
        raise refused(error.object[:error.start].count(b"\n") + 1, "is not UTF-8 text", "save the file as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = re.search(r"line (\d+)", str(error))
        raise refused(int(where[1]) if where else 1, f"is not TOML: {error}",
                      "correct the line; the format is described at https://toml.io") from None
