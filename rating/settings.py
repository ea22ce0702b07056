"""The section [rollout]: what a rollout of the whole system asks for before it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from core.settings import Document, read_section, setting


@dataclass(frozen=True)
class RolloutSettings:
    """[rollout]: when the whole system may go on from test to pilot and to everybody."""

    compared_periods: int = setting(
        3, what="The last periods, one after the other, that must be compared with the other billing without an open cent.",
        unit="periods", lowest=1, highest=24)


def rollout_settings(document: Document) -> RolloutSettings:
    """The section [rollout] of ratemill.toml."""
    return read_section(document, "rollout", RolloutSettings)
