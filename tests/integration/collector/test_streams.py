"""The receiver of TCP and TLS: what it keeps, what it refuses, what it counts, whom it does not let wait."""

from __future__ import annotations

import errno
import random
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from exports import BASIC, basic, framed, ipfix, template
from stream_home import Receiving, entries_of, make_home, receiving, wait_until

from collector import authority, streams
from collector.certificates import Watched, client_context, server_context
from collector.counters import SESSIONS_JOURNALED, open_counters
from collector.kernels import codes
from collector.receiver import parse_listen
from collector.settings import Collector
from core.actor import Actor
from core.errors import RatemillError, SettingsError, UsageError
from storage import files
from storage.home import Home

BEGINS, ENDS, MALFORMED, CUT, LOST = (codes.SESSION_BEGINS, codes.SESSION_ENDS, codes.STREAM_MALFORMED,
                                      codes.STREAM_CUT, codes.SESSIONS_LOST)
HELLO = ipfix(framed(2, template(256, BASIC)))


def messages_of(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [HELLO, *(ipfix(framed(256, *[basic(n)] * source.randrange(1, 80)), sequence=n) for n in range(count))]


def flags_and_payloads(home: Home) -> list[tuple[int, bytes]]:
    return [(one.flags, one.payload) for one in entries_of(home)]


# messages -------------------------------------------------------------------------------------------------------------
def test_messages_lie_in_the_journal_in_their_order_with_their_session(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    sent = messages_of(500)
    with receiving(home) as one:
        with one.connect("127.0.0.7") as client:
            port = client.getsockname()[1]
            client.sendall(b"".join(sent))
        one.wait_for(received=501, durable=501, sessions_open=0)
    entries = [entry for entry in entries_of(home) if entry.flags != LOST]
    assert [entry.payload for entry in entries] == [*sent, b""]
    assert [entry.flags for entry in entries] == [BEGINS, *[0] * 500, ENDS]
    assert {(entry.source, entry.source_port, entry.port, entry.transport) for entry in entries} == {
        ("127.0.0.7", port, one.port, 6)}
    assert one.figures().octets == sum(map(len, sent))


def test_a_message_of_the_greatest_length_and_one_of_the_least_are_taken(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    great = struct.pack("!HHIII", 10, 65535, 0, 0, 0) + bytes(65519)
    least = struct.pack("!HHIII", 10, 16, 0, 0, 0)
    with receiving(home) as one:
        with one.connect() as client:
            for _ in range(70):
                client.sendall(great + least)
        one.wait_for(durable=140)
    payloads = [entry.payload for entry in entries_of(home) if entry.payload]
    assert payloads == [great, least] * 70


@pytest.mark.parametrize("garbage", [
    b"GET / HTTP/1.1\r\n\r\n", b"\x00\x09\x00\x20" + bytes(28), b"\x00\x0a\x00\x0f" + bytes(40),
    b"\x16\x03\x01\x02\x00\x01\x00\x01", bytes(4)])
def test_what_is_no_ipfix_ends_its_session_with_a_fault(tmp_path: Path, garbage: bytes,
                                                       capfd: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path)
    with receiving(home) as one:
        with one.connect() as client:
            client.sendall(HELLO + garbage + HELLO)
            assert _is_closed(client)
        with one.connect() as other:
            other.sendall(HELLO)
            one.wait_for(received=3)
        one.wait_for(durable=3, sessions_open=0)
        assert one.figures().sessions_broken == 1
    found = [pair for pair in flags_and_payloads(home) if pair[0] != LOST]
    assert found == [(BEGINS, HELLO), (ENDS | MALFORMED, garbage[:4]), (BEGINS, HELLO), (ENDS, b"")]
    assert "what it sends is no IPFIX" in capfd.readouterr().err


def _is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("size", [1, 3, 4, 15, 100])
def test_a_session_that_ends_inside_a_message_is_counted(tmp_path: Path, size: int) -> None:
    home = make_home(tmp_path)
    message = ipfix(framed(256, *[basic()] * 20))
    with receiving(home) as one:
        with one.connect() as client:
            client.sendall(HELLO + message[:size])
        one.wait_for(durable=2, sessions_open=0)
    assert flags_and_payloads(home)[-2:] == [(BEGINS, HELLO), (ENDS | CUT, message[: min(size, streams.EVIDENCE_MAX)])]


def test_a_connection_without_a_message_leaves_no_entry(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home) as one:
        with one.connect():
            one.wait_for(sessions_open=1)
        one.wait_for(sessions_open=0, sessions=1)
    assert entries_of(home) == [] or {entry.flags for entry in entries_of(home)} == {LOST}


def test_udp_and_tcp_are_received_side_by_side(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home, "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://[::1]:0") as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, one.connect() as client, socket.create_connection(
                ("::1", one.streams[1].port)) as six:
            for n in range(200):
                sender.sendto(b"datagram %d" % n, ("127.0.0.1", one.udp[0].address.port))
                client.sendall(HELLO)
                six.sendall(HELLO)
            one.wait_for(received=600)
        one.wait_for(durable=600)
    found = entries_of(home)
    assert sorted(entry.source for entry in found if entry.payload == HELLO) == ["127.0.0.1"] * 200 + ["::1"] * 200
    assert sum(entry.transport == 17 for entry in found) == 200


# bounds ---------------------------------------------------------------------------------------------------------------
def test_one_address_may_not_take_all_connections(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home, settings=Collector(connections_per_address_max=3, journal_sync_ms=20)) as one:
        clients = [one.connect() for _ in range(3)]
        one.wait_for(sessions_open=3)
        with one.connect() as fourth:
            assert _is_closed(fourth)
        with one.connect("127.0.0.2") as other:
            other.sendall(HELLO)
            one.wait_for(received=1)
        assert one.figures().sessions_refused == 1
        for client in clients:
            client.close()


def test_connections_that_send_nothing_do_not_keep_an_exporter_out(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home, settings=Collector(connections_max=4, connections_per_address_max=4, journal_sync_ms=20)) as one:
        silent = [one.connect(f"127.0.0.{n + 10}") for n in range(4)]
        one.wait_for(sessions_open=4)
        senders = []
        for n in range(4):
            senders.append(one.connect(f"127.0.1.{n + 1}"))
            senders[-1].sendall(HELLO)
            one.wait_for(received=n + 1)
        assert all(_is_closed(client) for client in silent)
        with one.connect("127.0.2.1") as late:
            assert _is_closed(late), "those that send are not closed for a newcomer"
        assert (one.figures().sessions_open, one.figures().sessions_refused) == (4, 5)
        for client in [*silent, *senders]:
            client.close()


def test_a_silent_connection_is_closed_and_a_talking_one_is_not(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home, settings=Collector(connection_idle_seconds_max=1, journal_sync_ms=20)) as one:
        with one.connect() as silent, one.connect() as talking:
            talking.sendall(HELLO)
            silent.settimeout(0.2)
            while True:
                talking.sendall(HELLO)
                try:
                    assert silent.recv(1) == b""
                    break
                except TimeoutError:
                    continue
            talking.sendall(HELLO)
            wait_until(lambda: one.figures().sessions_open == 1)
        assert one.figures().sessions_idle == 1


def test_unfinished_messages_of_all_sessions_are_bounded(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    begun = struct.pack("!HHIII", 10, 65535, 0, 0, 0) + bytes(30_000)
    with receiving(home, settings=Collector(connection_octets_total_max=2**16, journal_sync_ms=20)) as one:
        clients = []
        for n in range(3):
            clients.append(one.connect())
            clients[-1].sendall(begun)
            one.wait_for(sessions=n + 1)
        wait_until(lambda: one.figures().sessions_open == 2)
        assert _is_closed(clients[0]), "the one that was silent for longest"
        clients[2].sendall(bytes(65535 - len(begun)))
        one.wait_for(received=2)  # the message, and the one that was cut
        for client in clients:
            client.close()


def test_a_thousand_connections_leave_nothing_behind(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with receiving(home) as one:
        with one.connect() as client:
            client.sendall(HELLO)
        one.wait_for(durable=1, sessions_open=0)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for n in range(999):
            with one.connect() as client:
                if n % 3:
                    client.sendall(HELLO if n % 3 == 1 else HELLO[:9])
        one.wait_for(sessions=1000, sessions_open=0)
        assert one.figures().sessions_refused == 0, "they were never many at once"
        thread = one.receiver._streams
        assert thread is not None
        assert (len(thread._sessions), len(thread._of_address), thread._held) == (0, 0, 0)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert open_counters(home, "main")[SESSIONS_JOURNALED] == 0


def test_a_slow_session_holds_up_nobody(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    message = ipfix(framed(256, *[basic()] * 50))
    with receiving(home) as one, one.connect() as slow, one.connect() as fast:
        for n, octet in enumerate(message):
            slow.sendall(bytes([octet]))
            fast.sendall(message)
            one.wait_for(received=n + 1 + (n + 1 == len(message)))


# the journal ----------------------------------------------------------------------------------------------------------
class _FullDisk(files.SystemFileSystem):
    def __init__(self) -> None:
        self.is_full = False

    def write(self, descriptor: int, data: files.Buffer) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(descriptor, data)


@pytest.fixture
def disk() -> Iterator[_FullDisk]:
    full = _FullDisk()
    before = files.use(full)
    yield full
    files.use(before)


def test_a_full_disk_holds_the_exporter_back_and_loses_nothing(tmp_path: Path, disk: _FullDisk) -> None:
    """More than all buffers hold is sent while the disk is full: TCP itself has to keep it."""
    home = make_home(tmp_path)
    sent = [ipfix(framed(256, bytes(60_000)), sequence=n) for n in range(700)]
    with receiving(home, "tcp://127.0.0.1:0", "127.0.0.1:0") as one, one.connect() as client:
        client.settimeout(0.2)
        client.sendall(sent[0])
        one.wait_for(durable=1)
        disk.is_full = True
        stream, at = b"".join(sent[1:]), 0
        while not one.figures().streams_held:
            try:
                at += client.send(stream[at : at + 200_000])
            except TimeoutError:
                continue
        held = one.figures()
        assert (held.refused, held.lost) == (0, 0)
        assert held.received < len(sent)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"udp", ("127.0.0.1", one.udp[0].address.port))
            wait_until(lambda: one.figures().received == held.received + 1)
        disk.is_full = False
        client.settimeout(60)
        client.sendall(stream[at:])
        one.wait_for(durable=len(sent) + 1)
        assert one.figures().streams_held == 0
        assert one.figures().streams_held_ms > 0
    assert [entry.payload for entry in entries_of(home) if entry.transport == 6 and entry.payload] == sent
    assert (one.figures().refused, one.figures().lost) == (0, 0)
    assert one.failure is None


def test_what_a_full_disk_refuses_at_the_end_is_counted(tmp_path: Path, disk: _FullDisk,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STOP_SECONDS", 0.1)
    home = make_home(tmp_path)
    with receiving(home) as one, one.connect() as client:
        disk.is_full = True
        client.sendall(b"".join(messages_of(99)))
        one.wait_for(received=100)
    assert one.failure is not None
    assert "could not be written" in one.failure.message
    assert (one.figures().durable, one.figures().refused) == (0, 100)
    disk.is_full = False
    with receiving(home) as again, again.connect() as client:
        client.sendall(HELLO)
        again.wait_for(durable=1)
    assert again.failure is None
    assert (again.figures().received, again.figures().refused, again.figures().lost) == (101, 100, 0)


def test_what_was_sent_before_the_stop_is_read(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    sent = messages_of(3000)
    one = Receiving(home)
    with one.connect() as client:
        client.sendall(HELLO)
        one.wait_for(received=1)
        client.sendall(b"".join(sent))
        one.stop()
    assert one.failure is None
    assert [entry.payload for entry in entries_of(home) if entry.payload] == [HELLO, *sent]
    assert open_counters(home, "main")[SESSIONS_JOURNALED] == 0


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1:0", "127.0.0.1:0"])
def test_the_sessions_of_a_killed_receiver_are_over_when_the_next_one_begins(tmp_path: Path, listen: str) -> None:
    home = make_home(tmp_path)
    with receiving(home) as one, one.connect() as client:
        client.sendall(HELLO)
        one.wait_for(durable=1)
        count = len(entries_of(home))
    open_counters(home, "main")[SESSIONS_JOURNALED] = 1  # as a kill -9 would have left it
    with receiving(home, listen) as one:
        wait_until(lambda: len(entries_of(home)) > count + 1)
    assert [entry.flags for entry in entries_of(home)][-1] == LOST
    assert open_counters(home, "main")[SESSIONS_JOURNALED] == 0


# TLS ------------------------------------------------------------------------------------------------------------------
ACTOR = Actor("test", "test")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a CA, and with certificates of the collector and of an exporter."""
    home = make_home(tmp_path_factory.mktemp("keys"))
    authority.make(home, ACTOR, hosts=["127.0.0.1", "localhost"])
    authority.make(home, ACTOR, client="edge-1")
    return home


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Another home with a CA of its own."""
    home = make_home(tmp_path_factory.mktemp("strangers"))
    authority.make(home, ACTOR, hosts=["127.0.0.1", "localhost"])
    authority.make(home, ACTOR, client="edge-1")
    return home


def tls_settings(keys: Home, **changes: object) -> Collector:
    folder = keys.path / "tls"
    return Collector(**{"tls_certificate": str(folder / "collector.pem"), "tls_key": str(folder / "collector.key"),
                        "tls_client_ca": str(folder / "ca.pem"), "journal_sync_ms": 20, **changes})  # type: ignore[arg-type]


def exporter_context(believes: Home, shows: Home | None) -> ssl.SSLContext:
    shown = shows.path / "tls" if shows else None
    return client_context(str(believes.path / "tls" / "ca.pem"), str(shown / "edge-1.pem") if shown else "",
                          str(shown / "edge-1.key") if shown else "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_over_tls_are_those_that_were_sent(tmp_path: Path, keys: Home, version: ssl.TLSVersion) -> None:
    home = make_home(tmp_path)
    sent = messages_of(2000)
    context = exporter_context(keys, keys)
    context.minimum_version = context.maximum_version = version
    with receiving(home, "tls://127.0.0.1:0", settings=tls_settings(keys)) as one:
        with context.wrap_socket(one.connect(), server_hostname="localhost") as client:
            assert client.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[int(version)]
            client.sendall(b"".join(sent))
            client.unwrap().close()
        one.wait_for(durable=2001, sessions_open=0)
    assert [entry.payload for entry in entries_of(home) if entry.payload] == sent
    assert one.figures().handshakes_failed == 0


@pytest.mark.parametrize("shows", ["nothing", "a certificate of another CA", "the certificate of a server"])
def test_an_exporter_without_a_right_certificate_is_refused(tmp_path: Path, keys: Home, strangers: Home, shows: str) -> None:
    home = make_home(tmp_path)
    context = exporter_context(keys, strangers if "another" in shows else None)
    if "server" in shows:
        context.load_cert_chain(keys.path / "tls" / "collector.pem", keys.path / "tls" / "collector.key")
    with receiving(home, "tls://127.0.0.1:0", settings=tls_settings(keys)) as one:
        plain = one.connect()
        refused = pytest.raises((ssl.SSLError, ConnectionError), match="ALERT|EOF|reset")
        with refused, context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(HELLO)
            client.recv(1)  # TLS 1.3: the client learns it after its own handshake
        one.wait_for(handshakes_failed=1, sessions_open=0)
    assert (one.figures().received, entries_of(home)) == (0, [])


def test_without_a_client_ca_anybody_may_send(tmp_path: Path, keys: Home) -> None:
    home = make_home(tmp_path)
    with (receiving(home, "tls://127.0.0.1:0", settings=tls_settings(keys, tls_client_ca="")) as one,
          exporter_context(keys, None).wrap_socket(one.connect(), server_hostname="localhost") as client):
        client.sendall(HELLO)
        one.wait_for(received=1)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", HELLO, b"\x16\x03\x01\xff\xff" + bytes(300), b""])
def test_what_is_no_tls_is_refused_on_its_port_and_counted(tmp_path: Path, keys: Home, said: bytes) -> None:
    home = make_home(tmp_path)
    with receiving(home, "tls://127.0.0.1:0", settings=tls_settings(keys)) as one:
        with one.connect() as client:
            client.sendall(said)
            with suppress(OSError):  # it may have been refused before it could end
                client.shutdown(socket.SHUT_WR)
            wait_until(lambda: one.figures().handshakes_failed == 1)
        one.wait_for(sessions_open=0)
    assert (one.figures().received, entries_of(home)) == (0, [])


def test_a_handshake_that_does_not_go_on_is_given_up(tmp_path: Path, keys: Home) -> None:
    home = make_home(tmp_path)
    with receiving(home, "tls://127.0.0.1:0", settings=tls_settings(keys, handshake_seconds_max=1)) as one:
        with one.connect() as client:
            client.sendall(b"\x16\x03\x01")
            assert _is_closed(client)
        one.wait_for(handshakes_failed=1, sessions_open=0)


def test_old_tls_is_refused(tmp_path: Path, keys: Home) -> None:
    assert server_context(keys.path, tls_settings(keys)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_new_certificate_is_used_without_a_restart(tmp_path: Path, strangers: Home) -> None:
    authority.make(home := make_home(tmp_path), ACTOR, hosts=["localhost"])
    settings = tls_settings(home)
    watched = Watched(home.path, settings)
    before = watched()
    watched.reload()
    assert watched() is before
    (home.path / "tls" / "collector.key").write_bytes((strangers.path / "tls" / "collector.key").read_bytes())
    watched.reload()
    assert watched() is before, "a key that does not fit yet changes nothing"
    authority.make(home, ACTOR, hosts=["localhost"], renew=True)
    watched.reload()
    assert watched() is not before


@pytest.mark.parametrize(("change", "said"), [
    ({"tls_certificate": ""}, "needs tls_certificate and tls_key"), ({"tls_key": ""}, "needs tls_certificate and tls_key"),
    ({"tls_certificate": "tls/none.pem"}, "tls_certificate: .*none.pem does not exist"),
    ({"tls_key": "tls/edge-1.key"}, "edge-1.key is not the key of"),
    ({"tls_key": "tls/ca.pem"}, "no private key"), ({"tls_certificate": "tls/ca.key"}, "no certificate in PEM"),
    ({"tls_client_ca": "tls/ca.key"}, "tls_client_ca: .*holds no certificate"), ({"tls_key": "tls"}, "can't be read"),
])
def test_wrong_files_are_named_with_their_key(keys: Home, change: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        server_context(keys.path, tls_settings(keys, **change))
    assert caught.value.hint


def test_a_key_with_a_passphrase_is_refused_without_asking(keys: Home, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((keys.path / "tls" / "collector.key").read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(SettingsError, match="no private key that can be used"):
        server_context(keys.path, tls_settings(keys, tls_key=str(locked)))


# addresses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "transport", "host", "port"), [
    ("127.0.0.1:2055", "udp", "127.0.0.1", 2055), ("udp://127.0.0.1:2055", "udp", "127.0.0.1", 2055),
    (":2055", "udp", "0.0.0.0", 2055), ("tcp://:4739", "tcp", "0.0.0.0", 4739), ("tls://[::]:4740", "tls", "::", 4740)])
def test_an_address_to_listen_on_has_a_transport(text: str, transport: str, host: str, port: int) -> None:
    found = parse_listen(text)
    assert (found.transport, found.host, found.port) == (transport, host, port)
    assert parse_listen(str(found)) == found


@pytest.mark.parametrize("text", ["http://127.0.0.1:80", "tcp://127.0.0.1", "://127.0.0.1:1", "tls://::1:4740",
                                  "tcp:/127.0.0.1:1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not ADDRESS:PORT"):
        parse_listen(text)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    home = make_home(tmp_path / "one")
    with receiving(home) as one, pytest.raises(RatemillError, match="the port is in use: tcp://127.0.0.1") as caught:
        Receiving(make_home(tmp_path / "two"), f"tcp://127.0.0.1:{one.port}")
    assert "ss -ltnp" in caught.value.hint
