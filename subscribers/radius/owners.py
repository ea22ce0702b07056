"""Whose session it is: the service that an access server's user is, and which way its counters count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from subscribers.radius.events import SessionKey, Stored
from subscribers.radius.sessions import Session, sessions
from subscribers.radius.settings import Client, RadiusSettings


@dataclass(frozen=True, slots=True)
class Owned:
    """A session with what the settings of its access server make of it."""

    realm: str
    session: Session
    service: int | None
    """Row id of the service; None: its user is none of ours."""
    counts_up: bool
    """Input is what came from the subscriber."""

    def octets(self, start: int, end: int) -> tuple[int, int]:
        """Up and down in [start, end)."""
        first, second = self.session.octets(start, end)
        return (first, second) if self.counts_up else (second, first)


def owned(stored: Iterable[Stored], settings: RadiusSettings, services: dict[str, int]) -> Iterator[Owned]:
    """The sessions of these events, which must be all of theirs. `services`: name → row id.

    Realms may use the same addresses, so each has sessions of its own.
    """
    realms: dict[str, list[Stored]] = {}
    for one in stored:
        client = settings.client_of(one.source)
        realms.setdefault(client.realm if client else "", []).append(one)
    for realm, members in sorted(realms.items()):
        names: dict[SessionKey, str] = {}
        counts_up: dict[SessionKey, bool] = {}
        for one in sorted(members, key=lambda each: (each.event.at, each.source, each.classes)):
            client = settings.client_of(one.source)
            key = (one.event.nas, one.event.session, one.event.user)
            counts_up.setdefault(key, client is None or client.input == "up")
            name = _service_name(one, client)
            if name:
                names.setdefault(key, name)
        for session in sessions((one.event for one in members), settings.radius.lost_after_seconds * 1000):
            key = (session.nas, session.session, session.user)
            yield Owned(realm, session, services.get(names.get(key, "")), counts_up[key])


def _service_name(one: Stored, client: Client | None) -> str:
    rule = client.service if client else "user"
    if rule == "class":
        return one.classes[0] if one.classes else ""
    return one.event.user.partition("@")[0] if rule == "user_before_at" else one.event.user
