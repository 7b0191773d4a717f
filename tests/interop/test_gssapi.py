"""GSSAPI with real clients, a real KDC, and the server as a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from socksproxy.wire.gssapi import Level
from tests.support.kerberos import Initiator, Realm, agree
from tests.support.origin import HTTPOrigin, Origin, sha256
from tests.support.programs import ECHO, missing, require, run
from tests.support.proxy import reply5, request5
from tests.support.udp import Echo, wait_for

from .conftest import Proxy

pytest.importorskip("gssapi")

PROTECTIONS = ["none", "optional", "integrity", "confidentiality"]

Started = Callable[..., Proxy]

#: libcurl waits for a length behind FF, which the RFC does not have.
REFUSED = re.compile("rejected by the SOCKS5 server|Failed to receive GSS-API authentication response")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm() as running:
        yield running


@pytest.fixture(scope="module")
def bob(realm: Realm) -> dict[str, str]:
    return realm.log_in("bob")


@pytest.fixture(scope="module")
def gssapi_proxy(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """``gssapi_proxy("none")``: the proxy with that protection."""
    running: dict[str, Proxy] = {}

    def started(protection: str) -> Proxy:
        if protection not in running:
            running[protection] = Proxy(
                tmp_path_factory.mktemp(protection),
                *("--auth", f"gssapi:keytab={realm.keytab}:protection={protection}"),
                environment=realm.environment,
            )
        return running[protection]

    yield started
    for proxy in running.values():
        proxy.stop()


# libcurl as pycurl's wheel has it, and curl as the machine has it.

_GET = """
import io, sys
import pycurl
proxy, url, nec, service = sys.argv[1:]
curl, body = pycurl.Curl(), io.BytesIO()
for option, value in (
    (pycurl.PROXY, proxy), (pycurl.URL, url), (pycurl.NOPROXY, ""), (pycurl.TIMEOUT, 50),
    (pycurl.SOCKS5_GSSAPI_NEC, int(nec)), (pycurl.SOCKS5_GSSAPI_SERVICE, service), (pycurl.WRITEDATA, body),
):
    curl.setopt(option, value)
try:
    curl.perform()
except pycurl.error as problem:
    sys.exit(str(problem))
sys.stdout.buffer.write(body.getvalue())
"""


def libcurl(
    proxy: Proxy,
    environment: dict[str, str],
    web: HTTPOrigin,
    *,
    nec: bool = False,
    service: str = "rcmd",
) -> tuple[bytes, str]:
    try:
        import pycurl
    except ImportError:
        missing("the library pycurl")
    if "krb5" not in pycurl.version.lower() and "gss" not in pycurl.version.lower():
        pytest.skip("this pycurl's libcurl has no Kerberos")
    url = f"http://127.0.0.1:{web.port}/bytes/70001"
    command = [sys.executable, "-c", _GET, f"socks5h://localhost:{proxy.port}", url, str(int(nec)), service]
    done = run(command, environment=environment)
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("service", ["rcmd", "socks"])
@pytest.mark.parametrize("nec", [False, True], ids=["rfc", "nec"])
def test_libcurl(
    gssapi_proxy: Started, bob: dict[str, str], web: HTTPOrigin, nec: bool, service: str
) -> None:
    """It asks for confidentiality of which it has none, and is content with nothing."""
    proxy = gssapi_proxy("none")
    body, said = libcurl(proxy, bob, web, nec=nec, service=service)
    assert hashlib.sha256(body).hexdigest() == sha256(70_001), said
    proxy.check_record(web, 5, user="bob", method="gssapi")


@pytest.mark.parametrize("protection", PROTECTIONS[1:])
def test_libcurl_where_there_is_protection(
    gssapi_proxy: Started, bob: dict[str, str], web: HTTPOrigin, protection: str
) -> None:
    """It says so itself that it cannot; should it have learnt it, this is a test of that."""
    body, said = libcurl(gssapi_proxy(protection), bob, web)
    if "protection not yet implemented" in said:
        assert not body
    else:
        assert len(body) == 70_001, said


def test_without_a_ticket(gssapi_proxy: Started, realm: Realm, web: HTTPOrigin) -> None:
    seen = len(web.peers)
    body, said = libcurl(gssapi_proxy("none"), realm.environment_of("nobody"), web)
    assert (body, len(web.peers)) == (b"", seen)
    assert "GSS-API" in said


@pytest.mark.parametrize("more", [[], ["--socks5-gssapi-nec"], ["--socks5-gssapi-service", "socks"]])
def test_curl(gssapi_proxy: Started, bob: dict[str, str], web: HTTPOrigin, more: list[str]) -> None:
    proxy, program = gssapi_proxy("none"), require("curl")
    if b"GSS-API" not in run([program, "-V"]).stdout:
        pytest.skip("this curl has no GSS-API")
    done = run(
        [
            *(program, "-sS", "--max-time", "50", "--noproxy", "", "--socks5-gssapi", *more),
            *("--socks5", f"localhost:{proxy.port}", f"http://127.0.0.1:{web.port}/bytes/70001"),
        ],
        environment=bob,
    )
    if done.returncode == 97 and (
        b"Undocumented SOCKS5 mode" in done.stderr or b"per-message authentication" in done.stderr
    ):
        # From 7.69 on, for years: it has agreed on everything, and takes that for a mistake; or it
        # forgets that it has offered GSS-API when the answer is not there at once.
        pytest.skip("this curl gives up when GSS-API has succeeded")
    assert hashlib.sha256(done.stdout).hexdigest() == sha256(70_001), done.stderr
    proxy.check_record(web, 5, user="bob", method="gssapi")


# Dante's client. Debian's has no GSS-API: SOCKSPROXY_SOCKSIFY names one that was built with it.


def socksify(
    directory: Path, proxy: Proxy, encryption: str, environment: dict[str, str], program: str, port: int
) -> bytes:
    """Run the Python *program* so that what it does with *port* of 127.0.0.1 goes through *proxy*."""
    enctypes = encryption.removeprefix("nec ")
    compatible = "" if enctypes == encryption else "  clientcompatibility: necgssapi\n"
    config = directory / "socks.conf"
    # The KDC must be reached without the proxy, for which one is asked for a ticket.
    config.write_text(
        "logoutput: stderr\nroute {\n"
        f"  from: 0.0.0.0/0 to: 127.0.0.1/32 port = {port} via: localhost port = {proxy.port}\n"
        "  proxyprotocol: socks_v5\n  command: connect udpassociate\n"
        f"  method: gssapi\n  gssapi.servicename: rcmd\n  gssapi.enctype: {enctypes}\n{compatible}}}\n"
    )
    socksified = os.environ.get("SOCKSPROXY_SOCKSIFY") or require("socksify")
    done = run(
        [socksified, sys.executable, "-c", program, "127.0.0.1", str(port)],
        environment={**environment, "SOCKS_CONF": str(config), "SOCKS_AUTOADD_LANROUTES": "no"},
    )
    if b"must be linked with an external GSSAPI library" in done.stderr:
        pytest.skip("this Dante was built without GSS-API")
    assert done.returncode == 0, done.stderr
    return done.stdout


ENCRYPTIONS = pytest.mark.parametrize(
    ("protection", "encryption"),
    [
        ("none", "clear"),
        ("optional", "clear"),
        ("optional", "integrity"),
        ("integrity", "integrity"),
        ("integrity", "integrity confidentiality"),
        ("integrity", "confidentiality"),
        ("confidentiality", "confidentiality"),
        ("confidentiality", "integrity confidentiality"),
        ("integrity", "nec integrity"),
        ("confidentiality", "nec confidentiality"),
    ],
)


@ENCRYPTIONS
def test_socksify(
    gssapi_proxy: Started,
    bob: dict[str, str],
    answers: Origin,
    tmp_path: Path,
    protection: str,
    encryption: str,
) -> None:
    """A program that knows nothing of SOCKS; its half-close comes through."""
    proxy = gssapi_proxy(protection)
    said = socksify(tmp_path, proxy, encryption, bob, ECHO, answers.port)
    assert said == f"5 {hashlib.sha256(b'hello').hexdigest()}\n".encode()
    proxy.check_record(answers, 5, user="bob", method="gssapi", sent=5)


_TRANSFER = """
import hashlib, socket, sys, threading
data = bytes(range(256)) * 20_000
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sha, left = hashlib.sha256(), len(data)
    for at in range(0, len(data), 40_000):
        sock.sendall(data[at : at + 40_000])
        piece = 40_000
        while piece:
            found = sock.recv(piece)
            assert found
            sha.update(found)
            piece -= len(found)
    assert sha.hexdigest() == hashlib.sha256(data).hexdigest()
    print(len(data))
"""


@pytest.mark.parametrize("protection", ["integrity", "confidentiality"])
def test_five_megabytes_under_socksify(
    gssapi_proxy: Started, bob: dict[str, str], echoes: Origin, tmp_path: Path, protection: str
) -> None:
    proxy = gssapi_proxy(protection)
    said = socksify(tmp_path, proxy, protection, bob, _TRANSFER, echoes.port)
    assert said == b"5120000\n"
    proxy.check_record(echoes, 5, user="bob", sent=5_120_000, received=5_120_000)


_DATAGRAMS = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
for size in (1, 100, 1400, 8000):
    sock.sendto(b"x" * size, (sys.argv[1], int(sys.argv[2])))
    data, peer = sock.recvfrom(65536)
    print(len(data), *peer)
"""


@pytest.mark.parametrize("protection", ["integrity", "confidentiality"])
def test_datagrams_under_socksify(
    gssapi_proxy: Started, bob: dict[str, str], tmp_path: Path, protection: str
) -> None:
    proxy = gssapi_proxy(protection)
    with Echo() as echo:
        said = socksify(tmp_path, proxy, protection, bob, _DATAGRAMS, echo.address[1])
        place = f"127.0.0.1 {echo.address[1]}"
        assert said.decode().splitlines() == [f"{size} {place}" for size in (1, 100, 1400, 8000)]
        assert [len(data) for data, _ in echo.seen] == [1, 100, 1400, 8000]

    def associations() -> list[dict[str, Any]]:
        return [record for record in proxy.records() if record["command"] == "UDP_ASSOCIATE"]

    wait_for(associations)
    (record,) = associations()
    assert (record["user"], record["datagrams_sent"], record["datagrams_received"]) == ("bob", 4, 4)
    assert not record["dropped"]


# A client of our own.


@pytest.fixture
def here(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a client of the realm, too."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("wanted", list(Level))
@pytest.mark.usefixtures("here")
def test_python(
    gssapi_proxy: Started, bob: dict[str, str], echoes: Origin, protection: str, wanted: Level
) -> None:
    proxy = gssapi_proxy(protection)
    with agree(_connection(proxy), Initiator(bob), wanted) as sock:
        sock.sendall(request5("127.0.0.1", echoes.port))
        assert reply5(sock)[0] == 0
        _echo(sock, os.urandom(200_000))
    proxy.check_record(echoes, 5, user="bob", method="gssapi", sent=200_000, received=200_000)


def _connection(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 60)


def _echo(sock: Any, data: bytes) -> None:
    sock.sendall(data)
    echoes_back = b""
    while len(echoes_back) < len(data):
        piece = sock.recv(65536)
        assert piece
        echoes_back += piece
    assert echoes_back == data


def test_nothing_but_tickets(gssapi_proxy: Started) -> None:
    with _connection(gssapi_proxy("integrity")) as sock:
        sock.sendall(b"\x05\x02\x00\x02")
        assert sock.recv(100) == b"\x05\xff"


# What the operator reads.


def test_a_clock_that_is_wrong(gssapi_proxy: Started, realm: Realm, web: HTTPOrigin) -> None:
    proxy = gssapi_proxy("none")
    body, said = libcurl(proxy, realm.log_in_with_wrong_clock("bob", 7200), web)
    assert not body
    assert REFUSED.search(said)
    proxy.wait_for(r"127\.0\.0\.1.*gssapi.*: Unspecified GSS failure.*; Clock skew too great\n")


def test_a_key_for_another_name(
    realm: Realm, bob: dict[str, str], web: HTTPOrigin, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The machine is called differently in the file than clients call it."""
    directory = tmp_path_factory.mktemp("other")
    keytab = directory / "keytab"
    realm.add_service("rcmd/proxy.socks.test", keytab)
    proxy = Proxy(directory, "--auth", f"gssapi:keytab={keytab}", environment=realm.environment)
    try:
        body, said = libcurl(proxy, bob, web)
        assert not body
        assert REFUSED.search(said)
        proxy.wait_for(r"gssapi.*rcmd/localhost@SOCKS\.TEST.*not found in keytab")
    finally:
        proxy.stop()


def test_a_file_that_is_not_there(realm: Realm, tmp_path: Path) -> None:
    """The server does not start, and says which argument is wrong."""
    with pytest.raises(
        AssertionError, match=re.escape("--auth gssapi: keytab=/nonexistent: it cannot be read")
    ):
        Proxy(tmp_path, "--auth", "gssapi:keytab=/nonexistent", environment=realm.environment)
