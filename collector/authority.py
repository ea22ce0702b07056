"""The home's own certificate authority: HOME/tls/ca.pem signs the collector's certificate and those of exporters.

Keys are P-256, certificates say what they are for (server or client), and files are readable by their owner only. What is
there is never overwritten without `renew`; the CA's key never leaves the folder.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core import clock, randomness
from core.actor import Actor
from core.errors import RatemillError, UsageError
from core.periods import format_instant, to_ms
from security import audit
from storage import files, sql
from storage.home import Home

FOLDER = "tls"
CA_DAYS = 3650
BACKDATED = timedelta(hours=1)
"""Certificates are valid from a little before now: clocks of exporters differ."""

_Key = ec.EllipticCurvePrivateKey


@dataclass
class Made:
    """What the command did; paths are relative to the home."""

    certificate: str
    key: str
    subject: str
    hosts: list[str]
    not_after: int
    is_client: bool
    made: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {"ca": f"{FOLDER}/ca.pem", "certificate": self.certificate, "key": self.key, "subject": self.subject,
                "hosts": self.hosts, "not_after": format_instant(self.not_after), "made": self.made}

    def advice(self) -> list[str]:
        """What to do with the files."""
        if self.is_client:
            return [f"give {self.certificate}, {self.key} and {FOLDER}/ca.pem to the exporter"]
        return ["to use it, write into ratemill.toml:", "[collector]", f'tls_certificate = "{self.certificate}"',
                f'tls_key = "{self.key}"', f'tls_client_ca = "{FOLDER}/ca.pem"']


def make(home: Home, actor: Actor, *, hosts: Sequence[str] = (), client: str = "", days: int = 825,
         renew: bool = False) -> Made:
    """Make the CA if there is none, and a certificate with its key: of the collector, or of the exporter `client`.

    Raises UsageError for names that are none, RatemillError if files are damaged.
    """
    names = [] if client else _checked(hosts or _own_names())
    if client and hosts:
        raise UsageError("--host and --client exclude each other", "a client is known by its certificate, not by its address")
    if (client and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", client)) or client in ("ca", "collector"):
        raise UsageError(f"--client {client} is no name of 1 to 63 letters, digits, '.', '_' and '-'", "for example edge-1")
    folder = home.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    made: list[str] = []
    ca, ca_key = _authority(folder, made)
    stem = client or "collector"
    path, key_path = folder / f"{stem}.pem", folder / f"{stem}.key"
    before = _read(path).serial_number if path.exists() else None
    if before is None or renew or not key_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = client or names[0]
        files.write_whole(key_path, _pem(key), private=True)
        files.write_whole(path, _sign(subject, names, key, ca, ca_key, days, bool(client)).public_bytes(
            serialization.Encoding.PEM), private=True)
        made += [home.relative(path), home.relative(key_path)]
    done = _describe(home, path, key_path, bool(client), made)
    if made:
        with sql.transaction(sql.engine(home)) as connection:
            audit.record(connection, actor, "collect certificate", stem,
                         before=None if before is None else {"serial": str(before)},
                         after={**done.document(), "serial": str(_read(path).serial_number)})
    return done


def _describe(home: Home, path: Path, key_path: Path, is_client: bool, made: list[str]) -> Made:
    found = _read(path)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        hosts = []
    subject = str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    return Made(home.relative(path), home.relative(key_path), subject, hosts, to_ms(found.not_valid_after_utc), is_client, made)


def _own_names() -> list[str]:
    name = socket.gethostname()
    known = [name] if re.fullmatch(r"[A-Za-z0-9.-]{1,64}", name) and name != "localhost" else []
    return [*known, "localhost", "127.0.0.1", "::1"]


def _checked(hosts: Sequence[str]) -> list[str]:
    for host in hosts:
        if _address(host) is None and not re.fullmatch(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", host):
            raise UsageError(f"--host {host} is neither a name nor an address",
                             "for example collector.example.net or 192.0.2.1")
    return list(dict.fromkeys(hosts))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# certificates ---------------------------------------------------------------------------------------------------------
def _authority(folder: Path, made: list[str]) -> tuple[x509.Certificate, _Key]:
    """The home's CA, made if there is none."""
    path, key_path = folder / "ca.pem", folder / "ca.key"
    if path.exists() and key_path.exists():
        return _read(path), _read_key(key_path)
    if path.exists() or key_path.exists():
        raise RatemillError(f"{folder} holds only one of ca.pem and ca.key",
                            "restore the other from a backup, or move this one away")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ratemill {randomness.token(4)}")])
    now = _now()
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(_serial()).not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256()))
    files.write_whole(key_path, _pem(key), private=True)
    files.write_whole(path, certificate.public_bytes(serialization.Encoding.PEM), private=True)
    made += [f"{FOLDER}/ca.pem", f"{FOLDER}/ca.key"]
    return certificate, key


def _sign(subject: str, hosts: Sequence[str], key: _Key, ca: x509.Certificate, ca_key: _Key, days: int,
          is_client: bool) -> x509.Certificate:
    now = _now()
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
        .issuer_name(ca.subject).public_key(key.public_key()).serial_number(_serial())
        .not_valid_before(now - BACKDATED).not_valid_after(min(now + timedelta(days=days), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False))
    names: list[x509.GeneralName] = []
    for host in hosts or ([subject] if is_client else []):
        address = _address(host)
        names.append(x509.DNSName(host) if address is None else x509.IPAddress(address))
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(ca_key, hashes.SHA256())


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=digital_signature, content_commitment=False, key_encipherment=False,
                         data_encipherment=False, key_agreement=False, key_cert_sign=key_cert_sign, crl_sign=crl_sign,
                         encipher_only=False, decipher_only=False)


def _now() -> datetime:
    return datetime.fromtimestamp(clock.now_ms() // 1000, UTC)


def _serial() -> int:
    return int(randomness.token(19), 16) | 1  # 152 bits, never 0 (RFC 5280 §4.1.2.2)


def _pem(key: _Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RatemillError(f"{path} is no certificate: {error}",
                            "restore it, or move it away to have a new one made") from None


def _read_key(path: Path) -> _Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("not a key on an elliptic curve")
    except (OSError, ValueError, TypeError) as error:
        raise RatemillError(f"{path} is no private key of ours: {error}", "restore it from a backup") from None
    return key
