"""Where the product's own files are: its packages lie side by side, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds every package."""


def data_file(*parts: str) -> Path:
    """A file or folder of `data/`, which is shipped but never imported."""
    path = ROOT.joinpath("data", *parts)
    assert path.exists(), f"{path} is not shipped with the product"
    return path
