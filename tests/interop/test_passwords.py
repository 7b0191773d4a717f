"""
Who a client is, as each client program can say it: with a password (RFC 1929), or by the userid of SOCKS4.

What a program cannot do is in :data:`CANNOT` and fails here if it can after all; ``docs/authentication.rst``
has the table for readers.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from passlib.hash import sha512_crypt

from socksproxy.auth.checkers.htpasswd import new_hash
from tests.support.origin import HTTPOrigin, Origin, blocks
from tests.support.programs import own_address, require, run

from ..support.clients import library, node_client, openbsd_nc
from .conftest import Proxy

#: What is fetched, for clients that do not speak HTTP themselves and for the rest.
FETCH = b"GET /bytes/5 HTTP/1.0\r\n\r\n"
BODY = b"".join(blocks(5))

#: A client in Python, for programs that put others behind a proxy: HOST PORT.
FETCHING = f"""
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendall({FETCH!r})
    sys.stdout.buffer.write(sock.makefile("rb").read())
"""

LONGEST = "n" * 255

#: Users and their passwords, by what is special about them.
USERS = {
    "plain": ("bob", "secret"),
    "utf-8": ("jürgen", "pässwörd-☃"),
    "127 bytes": ("n" * 127, "p" * 127),
    "254 bytes": ("n" * 254, "p" * 254),
    "longest": (LONGEST, "p" * 255),
    "signs": ("bob@example.com", ":p@ss/%41?#&+;[]"),
    "space": ("amy", "two words"),
    "memory": ("carol", "kept-in-memory"),
    "file": ("dave", "in-plain-text"),
}
#: Those who are none, likewise.
OTHERS = {
    "wrong": ("bob", "Secret"),
    "unknown": ("eve", "secret"),
    "last byte of 255": (LONGEST, "p" * 254 + "q"),
}


class Way(NamedTuple):
    """
    How a client is to go.

    :ivar port: the proxy's.
    :ivar directory: for a file of settings.
    :ivar user: None: no name.
    :ivar password: None: no password.
    :ivar version: the protocol's.
    """

    port: int
    directory: Path
    user: str | None = None
    password: str | None = None
    version: int = 5

    def url(self, scheme: str) -> str:
        """With what is special in a URL percent-encoded."""
        # Libraries in Python overlook a name that has no colon behind it.
        words = [quote(word, safe="") for word in (self.user or "", self.password or "")]
        login = "" if self.user is None else f"{':'.join(words)}@"
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    @property
    def login(self) -> str:
        """With a colon between, of which the name has none."""
        return f"{self.user}:{self.password}" if self.password is not None else f"{self.user}"

    def environment(self, prefix: str) -> dict[str, str]:
        """Variables with the name and the password."""
        named = {f"{prefix}_USERNAME": self.user, f"{prefix}_PASSWORD": self.password}
        return {name: value for name, value in named.items() if value is not None}


# Each gets what is fetched; anything else, or an exception, means that it was refused.


def curl(way: Way, origin: HTTPOrigin) -> bytes:
    # It decodes this as it does a URL.
    user = [] if way.user is None else ["--proxy-user", way.login.replace("%", "%25")]
    return _curl([f"--socks{way.version}", f"127.0.0.1:{way.port}", *user], origin)


def curl_url(way: Way, origin: HTTPOrigin) -> bytes:
    return _curl(["--proxy", way.url(f"socks{way.version}")], origin)


def _curl(way: list[str], origin: HTTPOrigin) -> bytes:
    done = run([require("curl"), "--silent", "--max-time", "50", "--noproxy", "", *way, _url(origin)])
    return done.stdout


def ncat(way: Way, origin: HTTPOrigin) -> bytes:
    options = ["--proxy", f"127.0.0.1:{way.port}", "--proxy-type", f"socks{way.version}"]
    if way.user is not None:
        options += ["--proxy-auth", way.login]
    return run([require("ncat"), *options, origin.host, str(origin.port)], data=FETCH).stdout


def nc(way: Way, origin: HTTPOrigin) -> bytes:
    options = ["-N", "-X", str(way.version), "-x", f"127.0.0.1:{way.port}"]
    return run([openbsd_nc(), *options, origin.host, str(origin.port)], data=FETCH).stdout


def socat(way: Way, origin: HTTPOrigin) -> bytes:
    target = f"SOCKS4:127.0.0.1:{origin.host}:{origin.port},socksport={way.port},socksuser={way.user}"
    return run([require("socat"), "-t", "30", "-", target], data=FETCH).stdout


def proxychains(way: Way, origin: HTTPOrigin) -> bytes:
    config = way.directory / "proxychains.conf"
    login = " ".join(word for word in (way.user, way.password) if word is not None)
    config.write_text(f"[ProxyList]\nsocks{way.version} 127.0.0.1 {way.port} {login}\n", "utf-8")
    return _wrapped([require("proxychains4"), "-q", "-f", str(config)], {}, origin)


def socksify(way: Way, origin: HTTPOrigin) -> bytes:
    # It takes a method that needs nothing, wherever it is offered, and no password from its file.
    method = "none" if way.user is None or way.version == 4 else "username"
    config = way.directory / "socks.conf"
    config.write_text(
        "route {\n"
        f"  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {way.port}\n"
        f"  proxyprotocol: socks_v{way.version}\n  protocol: tcp\n  method: {method}\n  command: connect\n"
        "}\n"
    )
    settings = {"SOCKS_CONF": str(config), "SOCKS_AUTOADD_LANROUTES": "no", **way.environment("SOCKS")}
    return _wrapped([require("socksify")], settings, origin)


def tsocks(way: Way, origin: HTTPOrigin) -> bytes:
    config = way.directory / "tsocks.conf"
    config.write_text(f"server = 127.0.0.1\nserver_port = {way.port}\nserver_type = {way.version}\n")
    settings = {"TSOCKS_CONF_FILE": str(config), **way.environment("TSOCKS")}
    return _wrapped([require("tsocks")], settings, origin)


def torsocks(way: Way, origin: HTTPOrigin) -> bytes:
    config = way.directory / "torsocks.conf"
    config.write_text(f"TorAddress 127.0.0.1\nTorPort {way.port}\nOnionAddrRange 127.42.42.0/24\n")
    settings = {"TORSOCKS_CONF_FILE": str(config), **way.environment("TORSOCKS")}
    return _wrapped([require("torsocks")], settings, origin)


def _wrapped(wrapper: list[str], environment: dict[str, str], origin: HTTPOrigin) -> bytes:
    client = [sys.executable, "-c", FETCHING, origin.host, str(origin.port)]
    return run([*wrapper, *client], environment=environment).stdout


def pysocks(way: Way, origin: HTTPOrigin) -> bytes:
    socks = library("socks")
    with socks.socksocket() as sock:
        sock.settimeout(60)
        kind = getattr(socks, f"SOCKS{way.version}")
        sock.set_proxy(kind, "127.0.0.1", way.port, username=way.user, password=way.password)
        sock.connect((origin.host, origin.port))
        return _fetched(sock)


def python_socks(way: Way, origin: HTTPOrigin) -> bytes:
    client = library("python_socks.sync").Proxy.from_url(way.url(f"socks{way.version}"))
    with client.connect(dest_host=origin.host, dest_port=origin.port, timeout=60) as sock:
        return _fetched(sock)


def _fetched(sock: socket.socket) -> bytes:
    sock.sendall(FETCH)
    return sock.makefile("rb").read()


def requests(way: Way, origin: HTTPOrigin) -> bytes:
    library("socks")
    with library("requests").Session() as session:
        session.trust_env = False
        session.proxies = {"http": way.url(f"socks{way.version}")}
        return bytes(session.get(_url(origin), timeout=60).content)


def aiohttp(way: Way, origin: HTTPOrigin) -> bytes:
    module, aiohttp_socks = library("aiohttp"), library("aiohttp_socks")

    async def get() -> bytes:
        connector = aiohttp_socks.ProxyConnector.from_url(way.url(f"socks{way.version}"))
        async with module.ClientSession(connector=connector) as session, session.get(_url(origin)) as got:
            return bytes(await got.read())

    return asyncio.run(asyncio.wait_for(get(), 60))


def httpx(way: Way, origin: HTTPOrigin) -> bytes:
    module, httpx_socks = library("httpx"), library("httpx_socks")
    transport = httpx_socks.SyncProxyTransport.from_url(way.url(f"socks{way.version}"))
    with module.Client(transport=transport, timeout=60) as client:
        return bytes(client.get(_url(origin)).content)


def npm_socks(way: Way, origin: HTTPOrigin) -> bytes:
    login = [word for word in (way.user, way.password) if word is not None]
    return node_client(way.port, way.version, origin.host, origin.port, FETCH.decode(), *login)


def _url(origin: HTTPOrigin) -> str:
    return f"http://{origin.host}:{origin.port}/bytes/5"


Client = Callable[[Way, HTTPOrigin], bytes]

CLIENTS: list[Client] = [
    curl,
    curl_url,
    ncat,
    proxychains,
    socksify,
    tsocks,
    torsocks,
    pysocks,
    python_socks,
    requests,
    aiohttp,
    httpx,
    npm_socks,
]

_ASCII = "it sends ASCII alone"
_LENGTHS = "it writes lengths above 127 as two bytes"

#: What programs cannot, and why.
CANNOT: dict[tuple[Callable[..., bytes], str], str] = {
    (proxychains, "space"): "spaces divide the fields of its file",
    (torsocks, "longest"): "its names have 254 bytes at the most",
    (pysocks, "254 bytes"): _LENGTHS,
    (pysocks, "longest"): _LENGTHS,
    (requests, "254 bytes"): _LENGTHS,
    (requests, "longest"): _LENGTHS,
    (python_socks, "utf-8"): _ASCII,
    (aiohttp, "utf-8"): _ASCII,
    (httpx, "utf-8"): _ASCII,
}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options for USERS, all in one proxy."""
    directory = tmp_path_factory.mktemp("users")
    hashed = {
        kind: new_hash(USERS[kind][1].encode(), cost=4) for kind in ("plain", "utf-8", "signs", "space")
    }
    # bcrypt takes no more than 72 bytes into account.
    for kind in ("127 bytes", "254 bytes", "longest"):
        hashed[kind] = sha512_crypt.using(rounds=1000).hash(USERS[kind][1]).encode()
    htpasswd, plain = directory / "htpasswd", directory / "plain"
    lines = [USERS[kind][0].encode() + b":" + hash_ + b"\n" for kind, hash_ in hashed.items()]
    htpasswd.write_bytes(b"".join(lines))
    plain.write_text(":".join(USERS["file"]) + "\n")
    for file in (htpasswd, plain):
        file.chmod(0o600)
    memory = ":".join(USERS["memory"])
    return ["--auth", f"htpasswd:{htpasswd}", "--auth", f"memory:{memory}", "--auth", f"file:{plain}"]


def running(tmp_path_factory: pytest.TempPathFactory, *options: str) -> Iterator[Proxy]:
    # All clients here are at one address, which would be refused for what some of them do.
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), "--auth-failures", "0", *options)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, users: list[str]) -> Iterator[Proxy]:
    """Nobody is served without a password."""
    yield from running(tmp_path_factory, *users)


@pytest.fixture(scope="module")
def half_open(tmp_path_factory: pytest.TempPathFactory, users: list[str]) -> Iterator[Proxy]:
    """Who says nothing is served, too."""
    yield from running(tmp_path_factory, *users, "--auth", "anonymous")


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, users: list[str]) -> Iterator[Proxy]:
    """Who speaks SOCKS4 is whom it says."""
    yield from running(tmp_path_factory, *users, "--socks4-userid", "trust")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[HTTPOrigin]:
    """An origin that is not on loopback, where tsocks and torsocks would not go through a proxy."""
    with HTTPOrigin(own_address()) as origin:
        yield origin


@pytest.fixture
def origin_of(request: pytest.FixtureRequest) -> Callable[[Client], HTTPOrigin]:
    def found(client: Client) -> HTTPOrigin:
        name = "elsewhere" if client in (tsocks, torsocks) else "web"
        origin: HTTPOrigin = request.getfixturevalue(name)
        return origin

    return found


class Outcome(NamedTuple):
    """
    What came of a session.

    :ivar served: whether the client got what it wanted.
    :ivar record: the session's.
    """

    served: bool
    record: dict[str, Any]


def go(client: Client, proxy: Proxy, origin: HTTPOrigin, way: Way) -> Outcome:
    before = len(proxy.records())
    try:
        served = client(way, origin).endswith(BODY)
    except Exception as problem:
        # Each library has exceptions of its own; the record tells whether it was about the password.
        served = False
        print(f"{type(problem).__name__}: {problem}")
    return Outcome(served, proxy.record_after(before))


def named(client: Client) -> str:
    return client.__name__


each_client = pytest.mark.parametrize("client", CLIENTS, ids=named)
Find = Callable[[Client], HTTPOrigin]


@each_client
@pytest.mark.parametrize("kind", USERS)
def test_right(guarded: Proxy, origin_of: Find, tmp_path: Path, client: Client, kind: str) -> None:
    """Names and passwords come through as they are, whichever checker knows them."""
    user, password = USERS[kind]
    origin = origin_of(client)
    served, record = go(client, guarded, origin, Way(guarded.port, tmp_path, user, password))
    if (client, kind) in CANNOT:
        assert not served, f"{named(client)} can what it could not: {CANNOT[client, kind]}"
        return
    assert served, record
    assert (record["user"], record["method"], record["version"]) == (user, "password", 5)
    assert record["reached"] == f"{origin.host}:{origin.port}"


@each_client
@pytest.mark.parametrize("kind", OTHERS)
def test_wrong(guarded: Proxy, origin_of: Find, tmp_path: Path, client: Client, kind: str) -> None:
    """Who is nobody gets nowhere."""
    user, password = OTHERS[kind]
    if (client, "longest") in CANNOT and user == LONGEST:
        pytest.skip(CANNOT[client, "longest"])
    served, record = go(client, guarded, origin_of(client), Way(guarded.port, tmp_path, user, password))
    assert not served
    assert (record["user"], record["method"]) == (None, "password")
    assert record["ended"] == "refused: not authenticated"


#: How sessions end whose client has no password; most offer no method that would ask for one.
NOT_OFFERED = "protocol error: no acceptable authentication method"
WITHOUT: dict[Callable[..., bytes], str] = {
    # It offers to be asked, and then has nothing to say.
    tsocks: "client",
}


@each_client
def test_missing(guarded: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """Who has no password gets nowhere."""
    served, record = go(client, guarded, origin_of(client), Way(guarded.port, tmp_path))
    assert not served
    assert (record["user"], record["destination"]) == (None, None)
    assert record["ended"] == WITHOUT.get(client, NOT_OFFERED)


def test_netcat(guarded: Proxy, web: HTTPOrigin, tmp_path: Path) -> None:
    """OpenBSD's nc has no passwords (-P is for HTTP alone)."""
    served, record = go(nc, guarded, web, Way(guarded.port, tmp_path))
    assert not served
    assert record["ended"] == NOT_OFFERED


@pytest.mark.parametrize("client", [curl, socksify, pysocks, requests, python_socks, npm_socks], ids=named)
def test_empty(guarded: Proxy, web: HTTPOrigin, tmp_path: Path, client: Client) -> None:
    """A name and an empty password, which RFC 1929 does not have; libraries in Python take it for none."""
    served, record = go(client, guarded, web, Way(guarded.port, tmp_path, "bob", ""))
    assert not served
    by_library = client in (pysocks, requests, python_socks)
    assert record["ended"] == (NOT_OFFERED if by_library else "protocol error: an empty password")


def test_curl_offers(tmp_path: Path) -> None:
    """curl that is built with GSSAPI offers it beside a password, unless it is told --socks5-basic."""
    greetings: list[bytes] = []

    def refuse(sock: socket.socket) -> None:
        greetings.append(sock.recv(300))
        sock.sendall(b"\x05\xff")

    with Origin(refuse) as server:
        way = Way(server.port, tmp_path, *USERS["plain"]).url("socks5")
        for more in ([], ["--socks5-basic"]):
            run([require("curl"), "--silent", "--noproxy", "", *more, "--proxy", way, "http://127.0.0.1:9/"])
    has_gssapi = b"GSS-API" in run([require("curl"), "--version"]).stdout
    assert greetings == [b"\x05\x03\x00\x01\x02" if has_gssapi else b"\x05\x02\x00\x02", b"\x05\x02\x00\x02"]


# Without a name, beside those who have one.


@each_client
def test_nobody(half_open: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """Who says nothing is served without a name; tsocks always wants to be asked for a password."""
    served, record = go(client, half_open, origin_of(client), Way(half_open.port, tmp_path))
    if client is tsocks:
        assert not served
        return
    assert served, record
    assert (record["user"], record["method"]) == (None, "anonymous")


@each_client
def test_somebody(half_open: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """Who has a name is known by it: a password goes before nothing."""
    way = Way(half_open.port, tmp_path, *USERS["plain"])
    served, record = go(client, half_open, origin_of(client), way)
    assert served, record
    assert (record["user"], record["method"]) == ("bob", "password")


@each_client
def test_wrong_is_not_nobody(half_open: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """Who has a wrong password is not served as if it had none."""
    way = Way(half_open.port, tmp_path, *OTHERS["wrong"])
    served, record = go(client, half_open, origin_of(client), way)
    assert not served
    assert record["ended"] == "refused: not authenticated"


# SOCKS4.

CLIENTS4: list[Client] = [
    curl,
    curl_url,
    ncat,
    nc,
    socat,
    proxychains,
    socksify,
    tsocks,
    pysocks,
    python_socks,
    requests,
    aiohttp,
    httpx,
    npm_socks,
]

each_client4 = pytest.mark.parametrize("client", CLIENTS4, ids=named)

#: Whose userid is not for their user to say.
OWN_USERID: dict[Callable[..., bytes], str] = {
    nc: "",
    socksify: "",
    tsocks: pwd.getpwuid(os.getuid()).pw_name,
}


@each_client4
def test_userid(trusting: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """The userid is taken for the name, where there is one."""
    way = Way(trusting.port, tmp_path, "erin", version=4)
    served, record = go(client, trusting, origin_of(client), way)
    userid = OWN_USERID.get(client, "erin")
    assert served is bool(userid), record
    assert (record["user"], record["method"], record["version"]) == (userid or None, "userid", 4)
    assert record["reply"] == (90 if userid else 91)


@each_client4
def test_userid_is_no_password(guarded: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """SOCKS4 is no way around a password."""
    way = Way(guarded.port, tmp_path, "bob", version=4)
    served, record = go(client, guarded, origin_of(client), way)
    assert not served
    assert (record["user"], record["reply"]) == (None, 91)
    assert record["ended"] == "refused: SOCKS4 has no password"


@each_client4
def test_nobody_by_socks4(half_open: Proxy, origin_of: Find, tmp_path: Path, client: Client) -> None:
    """Where nobody needs a name, SOCKS4 is served; what it claims to be is not believed."""
    way = Way(half_open.port, tmp_path, "bob", version=4)
    served, record = go(client, half_open, origin_of(client), way)
    assert served, record
    assert (record["user"], record["method"]) == (None, "anonymous")


def test_passwords_where_userids_are_trusted(trusting: Proxy, web: HTTPOrigin, tmp_path: Path) -> None:
    """SOCKS5 needs its password all the same."""
    assert go(curl, trusting, web, Way(trusting.port, tmp_path, *USERS["plain"])).record["user"] == "bob"
    assert not go(curl, trusting, web, Way(trusting.port, tmp_path, *OTHERS["wrong"])).served
    assert not go(curl, trusting, web, Way(trusting.port, tmp_path)).served
