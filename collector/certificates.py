"""TLS for IPFIX: what [collector] tls_… names as an SSL context, with errors that say which line is wrong.

RFC 7011 §11 asks both sides to show a certificate; TLS is 1.2 or later (RFC 9325).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from collector.settings import Collector, check_tls
from core import clock
from core.errors import RatemillError, SettingsError
from runtime import log

LOOK_NS = 5_000_000_000
"""How often the files are looked at."""


def files_of(home: Path, settings: Collector) -> list[tuple[str, Path]]:
    """(key, file) of those that are named; a relative path begins at the home."""
    return [(key, home / value) for key in ("tls_certificate", "tls_key", "tls_client_ca") if (value := getattr(settings, key))]


def server_context(home: Path, settings: Collector) -> ssl.SSLContext:
    """What a listener for tls:// shows and asks for. Raises SettingsError, naming the key."""
    check_tls(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # an exporter never reads: a ticket that lies unread would turn its goodbye into a reset
    _load_chain(context, home / settings.tls_certificate, home / settings.tls_key, "tls_certificate", "tls_key")
    if settings.tls_client_ca:
        _load_authorities(context, home / settings.tls_client_ca, "tls_client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """What our own exporter believes and shows. Raises SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        _load_authorities(context, Path(ca), "--ca")
    else:
        context.load_default_certs()
    if certificate:
        _load_chain(context, Path(certificate), Path(key or certificate), "--certificate", "--key")
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path, certificate_name: str, key_name: str) -> None:
    for name, path in ((certificate_name, certificate), (key_name, key)):
        _must_be_readable(name, path)
    if "-----BEGIN CERTIFICATE-----" not in certificate.read_text(errors="replace"):
        raise SettingsError(f"{certificate_name}: {certificate} holds no certificate in PEM form",
                            "give the certificate, then those of its chain, each as BEGIN CERTIFICATE … END CERTIFICATE")
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise SettingsError(f"{key_name}: {key} is not the key of {certificate}",
                                "name the key that the certificate was made with") from None
        raise SettingsError(f"{key_name}: {key} is no private key that can be used ({error.reason or error})",
                            "give it in PEM form and without a passphrase") from None


def _load_authorities(context: ssl.SSLContext, path: Path, name: str) -> None:
    _must_be_readable(name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise SettingsError(f"{name}: {path} holds no certificate in PEM form ({error.reason or error})",
                            "give the certificates of the CAs, each as BEGIN CERTIFICATE … END CERTIFICATE") from None


def _must_be_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise SettingsError(f"{name}: {path} does not exist", "`ratemill collect certificate` makes one") from None
    except OSError as error:
        raise SettingsError(f"{name}: {path} can't be read: {error.strerror}",
                            "give this user the right to read it; a key needs no more (mode 600)") from None


class Watched:
    """The context of the files as they are now: they may be replaced while sessions go on."""

    def __init__(self, home: Path, settings: Collector) -> None:
        """Raises SettingsError."""
        self._home, self._settings = home, settings
        self._context = server_context(home, settings)
        self._seen = self._stamps()
        self._looked = clock.monotonic_ns()
        self._trouble = ""

    def __call__(self) -> ssl.SSLContext:
        now = clock.monotonic_ns()
        if now - self._looked >= LOOK_NS:
            self._looked = now
            self._look()
        return self._context

    def reload(self) -> None:
        """Look at the files with the next session; may be called by a signal handler."""
        self._looked -= LOOK_NS

    def _look(self) -> None:
        """Take new files; if they are wrong, the old ones stay in use until they are right."""
        stamps = self._stamps()
        if stamps == self._seen and not self._trouble:
            return
        try:
            self._context = server_context(self._home, self._settings)
        except RatemillError as error:
            if error.message != self._trouble:
                log.error("receiver", f"the new certificate is not used: {error.message}", hint=error.hint)
            self._trouble = error.message
            return
        self._seen, self._trouble = stamps, ""
        log.info("receiver", "certificate read anew", file=self._home / self._settings.tls_certificate)

    def _stamps(self) -> Sequence[tuple[int, int, int]]:
        found = []
        for _, path in files_of(self._home, self._settings):
            try:
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, about.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return found
