"""A proxy as a value. Numbers such as "e 14" are those of known faults of other clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor, unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.testing import MemoryReactorClock

from socksproxy.client import (
    HTTPConnectClientEndpoint,
    Kind,
    NoProxy,
    Proxy,
    SOCKS4ClientEndpoint,
    SOCKS5ClientEndpoint,
    UsernamePassword,
    errors,
)

from ..conftest import Serve
from ..support.hosts import Both, Hosts
from ..support.origin import Origin, echo
from ..support.proxy import Playing, until
from ..support.scripted_proxy import Recorders


@pytest.mark.parametrize(
    ("url", "kind", "host", "port", "login"),
    [
        ("socks5://proxy.example", Kind.SOCKS5, "proxy.example", 1080, None),
        ("socks5h://proxy.example:1", Kind.SOCKS5, "proxy.example", 1, None),
        ("socks://127.0.0.1", Kind.SOCKS5, "127.0.0.1", 1080, None),
        ("socks4://me@127.0.0.1/", Kind.SOCKS4, "127.0.0.1", 1080, UsernamePassword("me")),
        ("socks4a://[::1]:9050", Kind.SOCKS4A, "::1", 9050, None),
        ("http://proxy.example", Kind.HTTP, "proxy.example", 80, None),
        ("https://me:pass@proxy.example", Kind.HTTPS, "proxy.example", 443, UsernamePassword("me", "pass")),
        ("SOCKS5://a%40b:%3A%2F%25@h:9", Kind.SOCKS5, "h", 9, UsernamePassword("a@b", ":/%")),
        ("socks5://[fe80::1%25eth0]", Kind.SOCKS5, "fe80::1%eth0", 1080, None),
        ("socks5://%FF:@h", Kind.SOCKS5, "h", 1080, UsernamePassword(b"\xff", b"")),
    ],
)
def test_from_url(url: str, kind: Kind, host: str, port: int, login: Any) -> None:
    """Every scheme, default ports, and escapes in logins."""
    assert Proxy.from_url(url) == Proxy(kind=kind, host=host, port=port, login=login)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy.example:1080",
        "ftp://me:geheim@h",
        "socks5://",
        "socks5://me:geheim@:1080",
        "socks5://me:geheim@h:port",
        "socks5://me:geheim@h:70000",
        "socks5://me:geheim@h/path",
        "socks5://me:geheim@a b",
        "socks5://me:geheim@h ",
        "socks5://me:geheim@h?x=1",
        "socks5://me:geheim@[::1",
        "socks4://me:geheim@h",
        "socks5://" + "u" * 256 + ":geheim@h",
    ],
)
def test_wrong_urls(url: str) -> None:
    """One line that says what is due, without the password."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        Proxy.from_url(url)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values() -> None:
    """Proxies with one login are one key, and a login is not shown."""
    one = Proxy.from_url("socks5://me:geheim@h")
    assert "geheim" not in repr(one)
    assert len({one, Proxy.from_url("socks5://me:geheim@h"), one.with_login(None)}) == 2


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://h"}, None),
        ({"ALL_PROXY": ""}, None),
        ({"ALL_PROXY": "socks5h://all"}, "socks5://all"),
        ({"HTTPS_PROXY": "http://web:3128"}, "http://web:3128"),
        ({"https_proxy": "web:3128"}, "http://web:3128"),
        ({"ALL_PROXY": "socks5://all", "HTTPS_PROXY": "http://web"}, "socks5://all"),
        ({"ALL_PROXY": "socks5://large", "all_proxy": "socks5://small"}, "socks5://small"),
    ],
)
def test_from_environment(environment: dict[str, str], url: str | None) -> None:
    """Which variable counts."""
    found = Proxy.from_environment(environment)
    assert found == (None if url is None else Proxy.from_url(url))


def test_wrong_environment() -> None:
    """The variable is named."""
    with pytest.raises(ValueError, match=r"^ALL_PROXY: "):
        Proxy.from_environment({"ALL_PROXY": "ftp://h"})


def test_no_proxy() -> None:
    """e 14: what NO_PROXY has is reached directly, with no look-up to find that out."""
    environment = {"ALL_PROXY": "socks5://h", "NO_PROXY": "example.org, 10.0.0.0/8, other.test:81"}
    proxy = Proxy.from_environment(environment, reactor=MemoryReactorClock())
    assert proxy is not None
    assert proxy.no_proxy == NoProxy("example.org 10.0.0.0/8 other.test:81")
    assert type(proxy.connect_endpoint("www.example.org", 80)) is HostnameEndpoint
    assert type(proxy.connect_endpoint(b"www.example.org", 80)) is HostnameEndpoint
    assert type(proxy.connect_endpoint("10.1.1.1", 80)) is TCP4ClientEndpoint
    assert type(proxy.connect_endpoint("other.test", 80)) is SOCKS5ClientEndpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("socks5://h", SOCKS5ClientEndpoint),
        ("socks4://h", SOCKS4ClientEndpoint),
        ("socks4a://h", SOCKS4ClientEndpoint),
        ("http://h", HTTPConnectClientEndpoint),
        ("https://h", HTTPConnectClientEndpoint),
    ],
)
def test_connect_endpoint(url: str, endpoint: type[object]) -> None:
    """The endpoint of the URL's scheme."""
    assert type(Proxy.from_url(url).connect_endpoint("example.org", 80)) is endpoint


@pytest.mark.parametrize(
    ("host", "kind"),
    [("127.0.0.1", TCP4ClientEndpoint), ("::1", TCP6ClientEndpoint), ("h.example", HostnameEndpoint)],
)
def test_endpoint(host: str, kind: type[object]) -> None:
    """How the proxy itself is reached."""
    assert type(Proxy(kind=Kind.SOCKS5, host=host, port=1080).endpoint()) is kind


@pytest.fixture
def counting() -> Iterator[Hosts]:
    """The resolver of this reactor, which counts."""
    found = Hosts({"v4.test": ["127.0.0.1"], "both.test": ["::1", "127.0.0.1"], "none.test": []})
    before = reactor.nameResolver  # type: ignore[attr-defined]
    reactor.installNameResolver(found)  # type: ignore[attr-defined]
    yield found
    reactor.installNameResolver(before)  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4a"])
@pytest_twisted.inlineCallbacks
def test_names_are_looked_up_by_the_proxy(serve_as: Serve, counting: Hosts, scheme: str) -> Playing:
    """e 14: not one look-up here, neither for an endpoint nor for NO_PROXY."""
    with Origin(echo) as origin:
        server: Any = yield serve_as(resolver=Hosts({"far.test": ["127.0.0.1"]}))
        counting.asked.clear()
        proxy = Proxy.from_url(
            f"{scheme}://127.0.0.1:{server.address[1]}", no_proxy=NoProxy("10.0.0.0/8,near.test")
        )
        protocol: Any = yield proxy.connect_endpoint("far.test", origin.port).connect(Recorders())
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()
    assert counting.asked == []


@pytest_twisted.inlineCallbacks
def test_names_in_a_chain(serve_as: Serve, counting: Hosts) -> Playing:
    """
    e 14, 17: the name of the second proxy goes to the first one, as the destination's goes to the second.
    """
    with Origin(echo) as origin:
        one: Any = yield serve_as(resolver=Hosts({"inner.test": ["127.0.0.1"]}))
        two: Any = yield serve_as(resolver=Hosts({"far.test": ["127.0.0.1"]}))
        counting.asked.clear()
        first = Proxy.from_url(f"socks5h://127.0.0.1:{one.address[1]}")
        second = Proxy.from_url(f"socks4a://inner.test:{two.address[1]}", via=first)
        protocol: Any = yield second.connect_endpoint("far.test", origin.port).connect(Recorders())
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()
    assert counting.asked == []


@pytest.mark.parametrize("url", ["socks4://{}", "socks5://{}"])
@pytest_twisted.inlineCallbacks
def test_names_are_looked_up_here(serve_as: Serve, counting: Hosts, url: str) -> Playing:
    """e 13: the addresses of a name are tried in turn; SOCKS4 takes only those of IPv4."""
    with Origin(echo) as origin:
        server: Any = yield serve_as()
        counting.asked.clear()
        where = f"127.0.0.1:{server.address[1]}"
        proxy = Proxy.from_url(url.format(where), resolve="here")
        protocol: Any = yield proxy.connect_endpoint("both.test", origin.port).connect(Recorders())
        assert protocol.transport.getPeer().host == "127.0.0.1"
        protocol.transport.loseConnection()
        assert counting.asked == ["both.test"]
        with pytest.raises(errors.DestinationNameNotFound):
            yield proxy.connect_endpoint("none.test", origin.port).connect(Recorders())


@pytest.mark.parametrize("url", ["http://h", "https://h", "socks4://h"])
def test_what_a_protocol_cannot_do(url: str) -> None:
    """It fails, and nothing is done from here instead."""
    clock = MemoryReactorClock()
    proxy = Proxy.from_url(url, reactor=clock)
    tries: list[Deferred[Any]] = [
        proxy.associate(object()),
        proxy.resolve("example.org"),
        proxy.resolve_ptr("192.0.2.1"),
    ]
    if proxy.kind is not Kind.SOCKS4:
        tries.append(proxy.listen_endpoint("192.0.2.1").listen(Recorders()))
    for each in tries:
        problems: list[Any] = []
        each.addErrback(problems.append)
        assert problems[0].check(errors.CommandNotSupported, errors.InvalidDestination)
    assert clock.tcpClients == []


def test_datagrams_do_not_leave_a_chain() -> None:
    """e 17: UDP through a chain is refused, because it would go round the first proxy."""
    first = Proxy.from_url("socks5://127.0.0.1:1")
    problems: list[Any] = []
    Proxy.from_url("socks5://127.0.0.1:2", via=first).associate(object()).addErrback(problems.append)
    assert problems[0].check(errors.CommandNotSupported)


@pytest_twisted.inlineCallbacks
def test_resolve(serve_as: Serve) -> Playing:
    """RESOLVE and RESOLVE_PTR, as Tor has them."""
    server: Any = yield serve_as(resolver=Hosts({"far.test": ["192.0.2.77"]}))
    for scheme in ("socks5", "socks4a"):
        proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{server.address[1]}")
        assert (yield proxy.resolve("far.test")) == "192.0.2.77"
        assert (yield proxy.resolve("192.0.2.5")) == "192.0.2.5"
    with pytest.raises(errors.ProxiedConnectError):
        yield proxy.resolve("nowhere.test")
    with pytest.raises(errors.InvalidDestination):
        yield proxy.resolve_ptr("far.test")


@pytest_twisted.inlineCallbacks
def test_resolve_ptr(serve_as: Serve) -> Playing:
    """Both families; an address without a name is told as one."""
    pointers = {"192.0.2.1": "four.test", "2001:db8::1": "six.test"}
    server: Any = yield serve_as(resolver=Both({}, dict(pointers)))
    proxy = Proxy.from_url(f"socks5://127.0.0.1:{server.address[1]}")
    for address, name in pointers.items():
        assert (yield proxy.resolve_ptr(address)) == name
    with pytest.raises(errors.DestinationUnreachable):
        yield proxy.resolve_ptr("192.0.2.2")


@pytest_twisted.inlineCallbacks
def test_proxy_on_a_unix_socket(serve_as: Serve, tmp_path: Path) -> Playing:
    """Any endpoint leads to a proxy; on a Unix socket, too, no wrapper stays."""
    path = tmp_path / "s"
    yield serve_as("detached", listen=f"unix:{path}")
    with Origin(echo) as origin:
        endpoint = SOCKS5ClientEndpoint(UNIXClientEndpoint(reactor, str(path)), "127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Recorders())
        assert type(protocol.transport) is unix.Client
        assert protocol.transport.protocol == protocol
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()


def test_errors_are_twisteds() -> None:
    """A caller of an endpoint from a Proxy catches what callers catch."""
    assert issubclass(errors.ProxiedConnectError, error.ConnectError)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("127.0.0.1:1080", "has no scheme: one of http,"),
        ("proxy.example:1080", "has no scheme: one of http,"),
        ("ftp://h", "begins with 'ftp': one of http,"),
        ("socks5://h:0", "a wrong host or port"),
        ("socks5://me:gehe#im@h", "'#' and '@' are written %2F, %3F, %23 and %40"),
        ("socks5://me:gehe/im@h", "'#' and '@' are written %2F, %3F, %23 and %40"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"^the proxy's URL ") as caught:
        Proxy.from_url(url)
    assert told in str(caught.value)


@pytest_twisted.inlineCallbacks
def test_resolve_that_tells_a_name(scripted: Callable[..., Any]) -> Playing:
    """RESOLVE promises an address."""
    server: Any = yield scripted(3, b"\x05\x00", 18, b"\x05\x00\x00\x03\x01a\x00\x00")
    with pytest.raises(errors.ProxyProtocolError, match="answers RESOLVE with a name: 'a'"):
        yield Proxy.from_url(f"socks5://127.0.0.1:{server.port}").resolve("example.org")
