"""``twistd socks``: see :mod:`socksproxy.service.server`."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from zope.interface.verify import verifyObject

from socksproxy import SOCKSFactory, Timeouts, UDPSettings
from socksproxy.app import Options, makeService
from socksproxy.auth import AuthSettings
from socksproxy.config.plan import Listener
from socksproxy.limits import Limits, ServerLimits
from socksproxy.net.dns_resolver import DNSResolver
from socksproxy.net.endpoints import BACKLOG
from socksproxy.service.opening import CannotStart
from socksproxy.service.privileges import NEEDLESS_ROOT
from socksproxy.service.server import SOCKSService
from socksproxy.settings import ServerSettings
from socksproxy.values import Filtering
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.words import AddressType

from ..support.certificates import self_signed
from ..support.logs import log_publisher
from ..support.machine import needs_ipv6
from ..support.processes import PATIENCE, PYTHON_M_TWISTED, TWIST, TWISTD, Program
from ..support.service import SYSTEMD, parsed

# The options.


def test_defaults() -> None:
    """``twistd socks`` alone is what it was with Twisted's own: 127.0.0.1, port 1080, no log."""
    reactor = MemoryReactorClock()
    options = parsed(reactor=reactor)
    assert [listener.description for listener in options.plan.listeners] == ["tcp:127.0.0.1:1080"]
    assert options.plan.settings.timeouts == Timeouts(handshake=10, connect=30, idle=NEVER)
    assert options.plan.settings.limits == ServerLimits()
    assert options["outgoing"] == []
    assert options.plan.access_log is None
    assert options.plan.settings.resolver is None
    assert options.plan.drain == 0
    assert options.plan.workers == 1
    service = makeService(options)
    assert isinstance(service, SOCKSService)
    service.options.plan = attrs.evolve(options.plan, open=True)  # a MemoryReactor has every port on 0.0.0.0
    service.privilegedStartService()
    service.startService()
    port, factory, backlog, interface = reactor.tcpServers[0]
    assert (port, backlog, interface) == (1080, BACKLOG, "127.0.0.1")
    assert isinstance(factory, SOCKSFactory)
    assert len(reactor.tcpServers) == 1


def test_options_of_the_one_before(tmp_path: Path) -> None:
    """Command lines written for Twisted's own ``socks`` go on to work."""
    log = tmp_path / "socks.log"
    for arguments in (
        ("-i", "127.0.0.2", "-p", "1081", "-l", str(log)),
        ("--interface", "127.0.0.2", "--port", "1081", "--log", str(log)),
        ("--interface=127.0.0.2", "--port=1081", f"--log={log}"),
    ):
        reactor = MemoryReactorClock()
        service = makeService(parsed(*arguments, reactor=reactor))
        service.options.plan = attrs.evolve(service.plan, open=True)
        service.startService()
        assert reactor.tcpServers[0][0] == 1081
        assert reactor.tcpServers[0][3] == "127.0.0.2"
        assert service.plan.access_log is not None
        assert service.plan.access_log.path == str(log)
        service.stopService()
    assert log.exists()


def test_everything_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator says reaches the factory."""
    options = parsed(
        *("--handshake-timeout", "1.5", "--connect-timeout", "2", "--idle-timeout", "3e2"),
        *("--half-closed-timeout", "0", "--keepalive", "61", "--keepalive-interval", "7"),
        *("--tcp-user-timeout", "9", "--max-sessions", "10", "--max-sessions-per-client", "2"),
        *("--outgoing", "127.0.0.1", "--resolver", "dns:127.0.0.1:5353", "--busy-poll", "50"),
    )
    assert options.plan.settings.timeouts == Timeouts(
        handshake=1.5,
        connect=2,
        idle=300,
        half_closed=NEVER,
        keepalive=61,
        keepalive_interval=7,
        user_timeout=9,
    )
    assert options.plan.settings.limits == ServerLimits(
        server=Limits(sessions=10), client=Limits(sessions=2, binds=32, associations=4096)
    )
    assert options["outgoing"] == ["127.0.0.1"]
    assert isinstance(options.plan.settings.resolver, DNSResolver)
    service = makeService(options)
    assert isinstance(service, SOCKSService)
    settings = service.factory.settings
    assert settings.advertise.address("192.0.2.1", AddressType.IPV4) is None
    assert {
        field.name: getattr(settings, field.name)
        for field in attrs.fields(ServerSettings)
        if field.name not in ("advertise", "proxy_from")
    } == {
        "policy": None,
        "portal": None,
        "auth": AuthSettings(timeout=8.0, failures=10),
        "resolver": options.plan.settings.resolver,
        "methods": (),
        "engine": True,
        "outgoing": ("127.0.0.1",),
        "upstreams": {},
        "pools": {},
        "via": None,
        "routes": {},
        "sticky": None,
        "shared": None,
        "helpers": {},
        "prefer": None,
        "timeouts": options.plan.settings.timeouts,
        "limits": options.plan.settings.limits,
        "usage": None,
        "observer": None,
        "bind": options.plan.settings.bind,
        "udp": UDPSettings(),
        "resolve_commands": True,
        "busy_poll": 50,
        "log_probes": False,
    }


def test_everything_said_of_udp() -> None:
    """Likewise of UDP ASSOCIATE, and its defaults are those of the class."""
    assert parsed().plan.settings.udp == UDPSettings()
    options = parsed(
        *("--udp-ports", "40000-40999", "--udp-filter", "endpoint-independent", "--udp-relatch"),
        *("--udp-idle-timeout", "0", "--udp-grace", "2.5", "--max-associations-per-client", "7"),
        *("--advertise", "203.0.113.7", "--advertise", "198.51.100.7@10.0.0.0/8"),
    )
    assert options.plan.settings.udp == UDPSettings(
        ports=(40000, 40999),
        filtering=Filtering.ENDPOINT_INDEPENDENT,
        relatch=True,
        idle=NEVER,
        grace=2.5,
    )
    assert options.plan.settings.limits.client == Limits(binds=32, associations=7)
    assert options["advertise"] == ["203.0.113.7", "198.51.100.7@10.0.0.0/8"]
    assert parsed("--udp-port", "1080").plan.settings.udp == UDPSettings(port=1080)


@pytest.mark.parametrize("interface", ["::1", "[::1]"])
def test_ipv6_interface(interface: str) -> None:
    """``-i`` knows IPv6, which Twisted's own did not."""
    (listener,) = parsed("-i", interface, "-p", "1234").plan.listeners
    assert listener.description == "tcp6:[::1]:1234"
    assert isinstance(listener.endpoint, TCP6ServerEndpoint)


def test_several_listeners(tmp_path: Path) -> None:
    """``--listen`` replaces -i and -p, and can be given again."""
    path = tmp_path / "socks"
    listeners = parsed("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}").plan.listeners
    assert isinstance(listeners[0].endpoint, TCP4ServerEndpoint)
    assert isinstance(listeners[1].endpoint, UNIXServerEndpoint)
    assert len(listeners) == 2


def test_named_listeners(tmp_path: Path) -> None:
    """Several may have one name: one for each family."""
    path = tmp_path / "socks"
    said = [f"front={TCP}", f"front={TCP}", TCP, f"Staff_1=unix:{path}", f"unix:{path}", f"x=haproxy:{TCP}"]
    listeners = parsed(*(f"--listen={text}" for text in said)).plan.listeners
    assert [listener.name for listener in listeners] == ["front", "front", None, "Staff_1", None, "x"]
    assert [listener.description for listener in listeners] == [
        *(TCP, TCP, TCP),
        *(f"unix:{path}", f"unix:{path}", f"haproxy:{TCP}"),
    ]


@pytest.mark.parametrize("name", ["unix", "", "1a", "a b", "a.b", "a" * 65])
def test_no_name_for_a_listener(name: str) -> None:
    with pytest.raises(UsageError, match="a listener's name is of letters"):
        parsed("--listen", f"{name}={TCP}")


AUTH = ("--auth", "memory:bob:secret")
TCP = "tcp:0:interface=127.0.0.1"


@pytest.mark.parametrize("interface", ["0.0.0.0", "::", "192.0.2.1"])
def test_who_asks_may_be_reached(interface: str) -> None:
    """Where everybody has to show who they are, nothing has to be said for others to reach it."""
    options = parsed("-i", interface, *AUTH)
    assert options.plan.guarded
    assert options.plan.settings.portal is not None
    assert not parsed("-i", "127.0.0.1").plan.guarded


@pytest.mark.parametrize(
    "more",
    [["--auth", "anonymous"], [*AUTH, "--auth", "anonymous"], [*AUTH, "--socks4-userid", "trust"]],
)
def test_who_asks_but_not_everybody(more: list[str]) -> None:
    """A name that nobody vouches for is none."""
    with pytest.raises(UsageError, match="is not on a loopback address"):
        parsed("-i", "0.0.0.0", *more)
    assert not parsed("-i", "0.0.0.0", "--open", *more).plan.guarded
    assert not parsed(*more).plan.guarded


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--auth", "nonsense"], "--auth nonsense: no such type, see --help-auth"),
        (["--auth", "memory:bob"], "--auth memory: argstring must be in format"),
        (["--auth", "file:/nonexistent"], "--auth file: /nonexistent cannot be read"),
        (["--auth-timeout", "0"], "--auth-timeout 0: not a number of seconds above 0"),
        (["--auth-failures", "-1"], "--auth-failures -1: not a whole number above 0, or 0 for any number"),
        (["--auth-cache", "x"], "--auth-cache x: not a number of seconds, or 0"),
        (["--socks4-userid", "trust"], "--socks4-userid trust: needs --auth: otherwise clients give no name"),
        (["--socks4-userid", "believe", *AUTH], "--socks4-userid believe: trust is all there is"),
        (["--socks4-userid", "trust", "--auth", "ident"], "--socks4-userid trust: --auth ident verifies it"),
        (["--auth", "tls"], "--auth tls: ca=FILE must name"),
        (["-p", "x"], "--port x: not a number from 0 to 65535"),
        (["--udp-port", "0"], "--udp-port 0: not a number from 1 to 65535"),
        (["--udp-port", "65536"], "--udp-port 65536: not a number from 1 to 65535"),
        (["--udp-port", "x"], "--udp-port x: not a number from 1 to 65535"),
        (["--udp-ports", "5-4"], "--udp-ports '5-4': ports are 1 to 65535, the lower one first"),
        (["--udp-ports", "a-b"], "--udp-ports 'a-b' is not a range of ports"),
        (["--udp-ports", "5-6", "--udp-port", "5"], "--udp-ports has a port for each client.*not both"),
        (["--udp-filter", "none"], "--udp-filter none: none of endpoint-independent, address-dependent, "),
        (["--udp-idle-timeout", "-1"], "--udp-idle-timeout -1: not a number of seconds, or 0"),
        (["--udp-grace", "soon"], "--udp-grace soon: not a number of seconds"),
        (["--max-associations-per-client", "0"], "--max-associations-per-client 0: not a whole number"),
        (["--advertise", "proxy.test"], "--advertise 'proxy.test': 'proxy.test' is not a literal address"),
        (["--advertise", "::"], "--advertise '::': no client can reach ::"),
        (["--advertise", "192.0.2.1@x"], "--advertise '192.0.2.1@x': 'x' is not a network"),
        (["-p", "65536"], "--port 65536: not a number"),
        (["-p", "-1"], "--port -1: not a number"),
        (["-p", "٣"], "--port ٣: not a number"),
        (["-p", ""], "--port : not a number"),
        (["-i", "::1::"], "--interface ::1::: not an address"),
        (["-i", "0.0.0.0"], "tcp:0.0.0.0:1080 is not on a loopback address.*add --auth, or --open"),
        (["-i", ""], "add --auth, or --open"),
        (["-i", "192.0.2.1"], "add --auth, or --open"),
        (["-i", "::"], "add --auth, or --open"),
        (["-i", "example.com"], "add --auth, or --open"),
        (["--listen", "tcp:0"], "tcp:0 is not on a loopback address.*add --auth, or --open"),
        (["--listen", "tcp6:0"], "tcp6:0 is not on a loopback address.*add --auth, or --open"),
        (["--listen", "haproxy:tcp:0"], "haproxy:tcp:0 is not on a loopback address.*add --auth, or --open"),
        (["--listen", "tcp:0:interface=127.0.0.1", "--listen", "tcp:0"], "tcp:0 is not"),
        (["--listen", "tcp:0:interface=127.0.0.1", "-p", "0"], "--listen says all"),
        (["--listen", "tcp:0:interface=127.0.0.1", "-i", "127.0.0.1"], "--listen says all"),
        (["--listen", ""], "--listen : not an endpoint"),
        (["--listen", "tcp"], "--listen tcp: not an endpoint"),
        (["--listen", "tcp:x"], "--listen tcp:x: not an endpoint"),
        (["--listen", "nonsense:1"], "--listen nonsense:1: not an endpoint such as tcp:1080"),
        (["--listen", "tcp:1:color=red"], "--listen tcp:1:color=red: not an endpoint"),
        (
            ["--listen", "ssl:0:privateKey=/nonexistent/key.pem"],
            "no such file or directory: /nonexistent/key.pem",
        ),
        (
            ["--listen", "systemd:domain=INET:index=7"],
            "--listen systemd:domain=INET:index=7: not an endpoint",
        ),
        (["--outgoing", "example.com"], "--outgoing example.com: not a literal"),
        (["--outgoing", "fe80::1%lo"], "not a literal"),
        (["--outgoing", "192.0.2.1"], "--outgoing 192.0.2.1: not an address of this machine"),
        (["--resolver", "x"], "--resolver 'x'"),
        (["--resolver", "dns:example.com"], "--resolver 'dns:example.com'"),
        (["--resolver", "dns:127.0.0.1:0"], "--resolver 'dns:127.0.0.1:0'"),
        (["--handshake-timeout", "0"], "--handshake-timeout 0: not a number of seconds above 0"),
        (["--handshake-timeout", "soon"], "--handshake-timeout soon: not"),
        (["--connect-timeout", "-1"], "--connect-timeout -1: not"),
        (["--connect-timeout", "nan"], "--connect-timeout nan: not"),
        (["--idle-timeout", "inf"], "--idle-timeout inf: not a number of seconds, or 0 for never"),
        (
            ["--half-closed-timeout", "-1"],
            "--half-closed-timeout -1: not a number of seconds, or 0 for never",
        ),
        (["--keepalive", "1.5"], "--keepalive 1.5: not a whole number from 1 to 32767, or 0 for none"),
        (["--keepalive", "32768"], "--keepalive 32768: not a whole number from 1 to 32767, or 0 for none"),
        (["--keepalive-interval", "0"], "--keepalive-interval 0: not a whole number from 1 to 32767"),
        (
            ["--tcp-user-timeout", "2147483"],
            "--tcp-user-timeout 2147483: not a whole number from 1 to 2147482",
        ),
        (["--drain", "-1"], "--drain -1: not a number of seconds, or 0 for none"),
        (["--busy-poll", "-1"], "--busy-poll -1: not a whole number from 1 to 1000, or 0 for not at all"),
        (["--busy-poll", "1001"], "--busy-poll 1001: not a whole number from 1 to 1000, or 0"),
        (["--workers", "0"], "--workers 0: neither auto nor a number from 1 to 256"),
        (["--workers", "257"], "--workers 257: neither"),
        (["--workers", "all"], "--workers all: neither"),
        (["--max-sessions", "0"], "--max-sessions 0: not a whole number above 0"),
        (["--max-sessions", "many"], "--max-sessions many: not"),
        (["--max-sessions-per-client", "1.5"], "--max-sessions-per-client 1.5: not"),
        (["--log", "/nonexistent/socks.log"], "--log /nonexistent/socks.log: no such file or directory"),
        (["--log-format", "xml", "--log", "/dev/null"], "--log-format xml: neither text nor json"),
        (["--log-format", "json"], "--log-format needs --log"),
        (["127.0.0.1"], "127.0.0.1: not an option"),
        (["--color", "red"], "option --color not recognized"),
    ],
)
def test_wrong(arguments: list[str], text: str) -> None:
    """The operator is told in one line which option is wrong, and what would be right."""
    with pytest.raises(UsageError, match=text) as caught:
        parsed(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-i", "127.0.0.1"],
        ["-i", "127.8.8.8"],
        ["-i", "localhost"],
        ["-i", "::1"],
        ["--listen", "tcp:0:interface=127.0.0.1"],
        ["--listen", r"tcp:0:interface=\:\:1"],
        ["--listen", "haproxy:tcp:0:interface=127.0.0.1"],
        ["--listen", "unix:/nonexistent/socks"],
        ["--listen", "tcp:0", "--open"],
        ["-i", "0.0.0.0", "--open"],
    ],
)
def test_not_open_to_others(arguments: list[str]) -> None:
    """What only this machine reaches needs no ``--open``."""
    assert len(parsed(*arguments).plan.listeners) == 1


@pytest.mark.parametrize(("cores", "count"), [({3}, 1), ({0, 2, 5}, 3), (set(range(1000)), 256)])
def test_workers_auto(cores: set[int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each core that this process may use, which may be fewer than there are."""
    from twisted.internet import reactor

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores, raising=False)
    assert parsed("--workers", "auto", reactor=reactor).plan.workers == count


def test_workers_auto_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell, it is the number of cores."""
    from twisted.internet import reactor

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert parsed("--workers", "auto", reactor=reactor).plan.workers == 3


def test_global_reactor() -> None:
    """``twistd`` gives no reactor: the installed one serves."""
    from twisted.internet import reactor

    assert Options().reactor is reactor


# The service, on real sockets.


@pytest.fixture
def logged() -> Iterator[list[tuple[str, str]]]:
    """What an operator reads: (level, text)."""
    seen: list[tuple[str, str]] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "socksproxy":
            seen.append((event["log_level"].name, event["log_format"].format(**event)))

    log_publisher.addObserver(observe)
    yield seen
    log_publisher.removeObserver(observe)


def real(*arguments: str) -> Options:
    from twisted.internet import reactor

    return parsed(*arguments, reactor=reactor)


def connects(family: int, address: Any) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


@pytest_twisted.ensureDeferred
async def test_listens_and_closes(tmp_path: Path, logged: list[tuple[str, str]]) -> None:
    """The log tells where clients are accepted, and after the end nothing is."""
    path = tmp_path / "socks"
    service = makeService(
        real(
            *("--listen", "tcp:0:interface=127.0.0.1"),
            *("--listen", f"unix:{path}"),
            *("--listen", "haproxy:tcp:0:interface=127.0.0.1"),
        )
    )
    assert verifyObject(IService, service)
    service.privilegedStartService()
    service.startService()
    ports = [port.getHost() for port in service.ports]
    assert len(ports) == 3
    number, wrapped = ports[0].port, ports[2].port  # type: ignore[attr-defined]
    texts = [text for _, text in logged]
    assert f"listening on tcp:127.0.0.1:{number}" in texts
    assert f"listening on unix:{path}" in texts
    assert f"listening on tcp:127.0.0.1:{wrapped} (haproxy:tcp:0:interface=127.0.0.1)" in texts
    assert connects(socket.AF_INET, ("127.0.0.1", number))
    assert connects(socket.AF_UNIX, str(path))
    assert service.factory.sessions.context.listeners.include("127.0.0.1", number)
    await service.stopService()
    assert not connects(socket.AF_INET, ("127.0.0.1", number))
    assert not path.exists()
    assert service.ports == []


@needs_ipv6
@pytest_twisted.ensureDeferred
async def test_listens_on_ipv6(logged: list[tuple[str, str]]) -> None:
    """IPv6 is written as an endpoint and a browser's settings want it."""
    service = makeService(real("-i", "::1", "-p", "0"))
    service.startService()
    number = service.ports[0].getHost().port  # type: ignore[attr-defined]
    assert ("info", f"listening on tcp6:[::1]:{number}") in logged
    assert connects(socket.AF_INET6, ("::1", number))
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_open_warns(logged: list[tuple[str, str]]) -> None:
    """``--open`` is not forgotten: each start says what it means."""
    service = makeService(real("-i", "0.0.0.0", "-p", "0", "--open"))
    service.startService()
    number = service.ports[0].getHost().port  # type: ignore[attr-defined]
    warned = [text for level, text in logged if level == "warn" and text != NEEDLESS_ROOT]
    assert len(warned) == 1
    assert warned[0].startswith(f"tcp:0.0.0.0:{number}: every client that reaches it can use the proxy")
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_guarded_is_no_surprise(logged: list[tuple[str, str]]) -> None:
    """Where everybody has to show who they are, it opens to others, and there is nothing to warn of."""
    service = makeService(real("-i", "0.0.0.0", "-p", "0", *AUTH))
    service.startService()
    assert service.ports[0].getHost().host == "0.0.0.0"  # type: ignore[attr-defined]
    assert [text for level, text in logged if level == "warn" and text != NEEDLESS_ROOT] == []
    await service.stopService()


class Endpoint:
    """An endpoint that tells nothing before it listens."""

    def __init__(self, listen: Callable[[Any], Deferred[Any]]) -> None:
        self.listen = listen


def service_on(*listens: Callable[[Any], Deferred[Any]]) -> SOCKSService:
    from twisted.internet import reactor

    listeners: list[Any] = [Listener("special:thing", Endpoint(listen)) for listen in listens]  # type: ignore[arg-type]
    options = parsed(reactor=reactor)
    options.plan = attrs.evolve(options.plan, listeners=listeners)
    return SOCKSService(options, SOCKSFactory(reactor))


class Port:
    """A listening port."""

    def __init__(self, host: object) -> None:
        self.host = host
        self.closed = False

    def getHost(self) -> object:
        return self.host

    def stopListening(self) -> None:
        self.closed = True


@pytest_twisted.ensureDeferred
async def test_open_by_surprise(logged: list[tuple[str, str]]) -> None:
    """An endpoint of a kind that nobody here knows cannot open the proxy to everybody."""
    from twisted.internet import reactor

    opened: list[Any] = []

    def listen(factory: Any) -> Deferred[Any]:
        waiting = TCP4ServerEndpoint(reactor, 0).listen(factory)
        waiting.addCallback(lambda port: opened.append(port.getHost()) or port)
        return waiting  # type: ignore[no-any-return]

    service = service_on(listen)
    with pytest.raises(
        CannotStart, match=r"tcp:0\.0\.0\.0:\d+ is not a loopback address.*add --auth, or --open"
    ):
        service.startService()
    assert [level for level, _ in logged if level == "critical"] == ["critical"]
    await service.stopService()
    await deferLater(reactor, 0)
    assert not connects(socket.AF_INET, ("127.0.0.1", opened[0].port))


def test_unknown_kind_of_address() -> None:
    """What is neither IP nor a Unix socket may be reached by anybody."""
    port = Port("somewhere")
    with pytest.raises(CannotStart, match="somewhere is not a loopback address"):
        service_on(lambda factory: succeed(port)).startService()
    assert port.closed


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (CannotListenError("127.0.0.1", 1, OSError(98, "Address already in use")), "address already in use"),
        (PermissionError(13, "Permission denied", "/x"), "permission denied"),
        (OverflowError("bind(): port must be\n0-65535."), "bind(): port must be 0-65535."),
        (KeyError(), "KeyError"),
    ],
)
def test_cannot_listen(problem: Exception, reason: str, logged: list[tuple[str, str]]) -> None:
    """The operator reads one line with the system's reason."""
    with pytest.raises(CannotStart) as caught:
        service_on(lambda factory: fail(problem)).privilegedStartService()
    assert str(caught.value) == f"special:thing: {reason}"
    assert caught.value.code == 1
    assert logged[-1] == ("critical", f"cannot listen: special:thing: {reason}")


def test_fails_later(monkeypatch: pytest.MonkeyPatch, logged: list[tuple[str, str]]) -> None:
    """A proxy that cannot listen does not go on without a listener."""
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    waiting: Deferred[Any] = Deferred()
    service = service_on(lambda factory: waiting)
    service.startService()
    assert raised == []
    waiting.errback(OSError(5, "No luck"))
    assert raised == [signal.SIGTERM]
    assert logged[-1] == ("critical", "cannot listen: special:thing: no luck")


@pytest_twisted.ensureDeferred
async def test_stopped_before_it_listens(
    monkeypatch: pytest.MonkeyPatch, logged: list[tuple[str, str]]
) -> None:
    """A restart during a slow start is no error."""
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    waiting: Deferred[Any] = Deferred()
    service = service_on(lambda factory: waiting)
    service.startService()
    await service.stopService()
    assert waiting.called
    assert raised == []
    assert not [text for level, text in logged if level == "critical"]


def test_descriptor_limit_stays(monkeypatch: pytest.MonkeyPatch, logged: list[tuple[str, str]]) -> None:
    """A system that does not let the limit be raised has a proxy all the same."""

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    service_on().startService()
    ours = [line for line in logged if line[1] != NEEDLESS_ROOT]
    assert ours == [("warn", "cannot raise the limit of descriptors: not allowed to raise maximum limit")]


@pytest_twisted.ensureDeferred
async def test_log_rotation(tmp_path: Path) -> None:
    """After SIGUSR1 the lines are in the new file, and twistd's own log is rotated too."""
    from twisted.internet import reactor

    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        path = tmp_path / "access.log"
        service = makeService(real("-p", "0", "-l", str(path), "--log-format", "json"))
        service.startService()
        ours = signal.getsignal(signal.SIGUSR1)
        path.rename(tmp_path / "access.log.1")
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):
            if path.exists():
                break
            await deferLater(reactor, 0.01)
        assert path.exists()
        assert seen == [signal.SIGUSR1]
        await service.stopService()
        assert signal.getsignal(signal.SIGUSR1) is not ours
    finally:
        signal.signal(signal.SIGUSR1, before)


# The programs.


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


IN_FRONT = {
    "twistd -n": (*TWISTD, "-n", "--pidfile="),
    "twist": (*TWIST, "--log-format=text"),
    "python -m twisted": (*PYTHON_M_TWISTED, "--log-format=text"),
}


@pytest.mark.parametrize("name", IN_FRONT)
@pytest.mark.parametrize("tapname", ["socks", "socksproxy"])
def test_port_in_use(name: str, tapname: str, taken: int, start: Callable[..., Program]) -> None:
    """One clear line and a status that is not 0: what starts it knows that it has not."""
    program = start([*IN_FRONT[name], tapname, "-p", str(taken)])
    assert program.wait() == 1
    assert f"cannot listen: tcp:127.0.0.1:{taken}: address already in use" in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize("name", IN_FRONT)
@pytest.mark.parametrize("arguments", [("-p", "x"), ("--listen", "tcp:1080"), ("--outgoing", "192.0.2.1")])
def test_wrong_option(name: str, arguments: tuple[str, str], start: Callable[..., Program]) -> None:
    """A command line that cannot be followed ends with the reason."""
    program = start([*IN_FRONT[name], "socks", *arguments])
    assert program.wait() in (1, 64)
    assert arguments[1] in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize("name", IN_FRONT)
def test_runs_and_ends(name: str, start: Callable[..., Program]) -> None:
    """It accepts clients when it says so, and ends by the signal that every init system sends."""
    program = start([*IN_FRONT[name], "socks", "-p", "0"])
    number = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with socket.create_connection(("127.0.0.1", number), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\x00"
        program.process.terminate()
        # The session ends with the proxy.
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert program.wait() == -signal.SIGTERM
    assert "Traceback" not in program.output


def test_daemon(tmp_path: Path) -> None:
    """In the background too: its parent waits until clients are accepted, and SIGTERM ends it."""
    path = tmp_path / "socks"
    command = [*TWISTD, "--pidfile=pid", "--logfile=log", "socks", "--listen", f"unix:{path}"]
    done = subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    number = int((tmp_path / "pid").read_text())
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"\x05\x01\x00")
            assert client.recv(2) == b"\x05\x00"
    finally:
        os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not path.exists()
    assert f"listening on unix:{path}" in (tmp_path / "log").read_text()


def test_daemon_cannot_listen(tmp_path: Path, taken: int) -> None:
    """The parent of a daemon that cannot start says why, fails, and leaves no PID file."""
    command = [*TWISTD, "--pidfile=pid", "--logfile=log", "socks", "-p", str(taken)]
    done = subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"tcp:127.0.0.1:{taken}: address already in use" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    # The daemon tells its parent first, and tidies up then.
    deadline = time.monotonic() + PATIENCE
    while (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log = (tmp_path / "log").read_text()
    assert f"cannot listen: tcp:127.0.0.1:{taken}: address already in use" in log
    assert "Traceback" not in log


LATE_TAC = """
import attrs
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.task import deferLater

from socksproxy import SOCKSFactory
from socksproxy.app import Options
from socksproxy.config.plan import Listener
from socksproxy.service.server import SOCKSService


class Endpoint:
    def listen(self, factory):
        return deferLater(reactor, 0.01, lambda: 1 / 0)


application = Application("late")
options = Options(reactor)
options.parseOptions([])
options.plan = attrs.evolve(options.plan, listeners=[Listener("slow:1", Endpoint())])
SOCKSService(options, SOCKSFactory(reactor)).setServiceParent(application)
"""


def test_fails_while_it_runs(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """An endpoint that fails after the start ends the process all the same, with a status that is not 0."""
    (tmp_path / "late.tac").write_text(LATE_TAC)
    program = twistd("-y", "late.tac")
    assert program.wait() == -signal.SIGTERM
    assert "cannot listen: slow:1: division by zero" in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize(("host", "more"), [("127.0.0.1", ()), ("0.0.0.0", ("--open",)), ("0.0.0.0", ())])
def test_socket_activation(host: str, more: tuple[str, ...], start: Callable[..., Program]) -> None:
    """systemd's socket is used; nothing tells where it is but the socket, and it is asked."""
    with socket.socket() as listening:
        listening.bind((host, 0))
        listening.listen()
        number = listening.getsockname()[1]
        systemd = (sys.executable, "-c", SYSTEMD, str(listening.fileno()))
        program = start(
            [
                *systemd,
                *TWISTD,
                "-n",
                "--pidfile=",
                "socks",
                "--listen=systemd:domain=INET:name=socks",
                *more,
            ],
            pass_fds=[listening.fileno()],
        )
        if host == "127.0.0.1" or more:
            program.wait_for(rf"listening on tcp:{re.escape(host)}:{number} \(systemd:")
        else:
            assert program.wait() == 1
            assert f"tcp:0.0.0.0:{number} is not a loopback address" in program.output
            assert "Traceback" not in program.output


def test_raises_descriptor_limit(twistd: Callable[..., Program]) -> None:
    """With the usual soft limit of 1024 some 500 clients would be all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = twistd(
        "socks", "-p", "0", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    )
    program.wait_for("listening on")
    assert f"descriptors: {hard} at the most" in program.output
    limits = Path(f"/proc/{program.process.pid}/limits").read_text()
    assert re.search(rf"Max open files\s+{hard}\s+{hard}", limits)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_opens_before_privileges_go(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """With ``twistd --uid`` what only root may open is opened, and the proxy is not root."""
    tmp_path.chmod(stat.S_IRWXU)
    path, log = tmp_path / "socks", tmp_path / "access.log"
    program = twistd("--uid=65534", "--gid=65534", "socks", "--listen", f"unix:{path}", "-l", str(log))
    program.wait_for("listening on")
    program.wait_for("set uid/gid 65534/65534")
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    assert re.search(r"Uid:\s+65534\s+65534", status)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"\x05\x01\xff")
        assert client.recv(2) == b"\x05\xff"
        assert client.recv(1) == b""
    deadline = time.monotonic() + PATIENCE
    while "client=unix" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tls(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """The way to the proxy itself can be encrypted, by Twisted's ``ssl:`` endpoint."""
    import ssl

    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    program = twistd("socks", "--listen", f"ssl:0:interface=127.0.0.1:privateKey={pem}")
    number = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+) \(ssl:")[1])
    context = ssl.create_default_context(cafile=str(pem))
    with (
        socket.create_connection(("127.0.0.1", number), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\x00"


def test_help(start: Callable[..., Program]) -> None:
    """The help names every option, fits a terminal, and is ours."""
    program = start([*TWISTD, "socks", "--help"])
    assert program.wait() == 0
    for name in (
        *("interface", "port", "log", "log-format", "listen", "outgoing", "resolver", "open"),
        *("handshake-timeout", "connect-timeout", "idle-timeout", "max-sessions", "max-sessions-per-client"),
        *("workers", "drain"),
    ):
        assert f"--{name}" in program.output
    assert "SOCKS4, SOCKS4a and SOCKS5 proxy" in program.output
    assert max(map(len, program.output.splitlines())) <= 80


def test_version(start: Callable[..., Program]) -> None:
    """``--version`` is this proxy's, which a report of a fault needs."""
    program = start([*TWISTD, "socks", "--version"])
    assert program.wait() == 0
    assert program.output.startswith("twisted-socksproxy 0.")


def test_zsh_completion(start: Callable[..., Program]) -> None:
    """The shell completes the options and what can follow them."""
    program = start([*TWISTD, "socks", "--_shell-completion", "zsh:3"])
    assert program.wait() == 0
    assert "--listen" in program.output
    assert "--log-format" in program.output
    assert "text json" in program.output
    assert "Traceback" not in program.output
    # zsh takes what follows a plain colon for another argument, and complains of a list without an end.
    lists = re.findall(r"(?<!\\):(\(.*\))'", program.output)
    assert len(lists) >= 4
    assert not [words for words in lists if re.search(r"(?<!\\):", words)]
