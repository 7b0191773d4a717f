"""What the identd of a client's machine says of it: see :mod:`socksproxy.auth.checkers.ident`."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, findCheckerFactory, makeChecker
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy import Client
from socksproxy.auth.checkers.ident import IdentChecker, TrustedUserid, parse_answer
from socksproxy.auth.credentials import IUserid, Userid
from socksproxy.errors import IdentMismatch, IdentUnreachable, NotAuthenticated, describe, reply_for
from socksproxy.wire.words import Reply, Reply4
from tests.support.identd import Identd, answer, reactor, userid
from tests.support.machine import needs_ipv6
from tests.support.programs import require
from tests.support.proxy import PATIENCE, ClockedReactor, closed_port, until

PORTS = (40001, 1080)


def shown(name: bytes = b"bob", host: str | None = "127.0.0.1", local: str | None = "127.0.0.1") -> Userid:
    """The userid of a client on *host* who has reached *local*."""
    return Userid(name, Client(host, PORTS[0]), None if local is None else (local, PORTS[1]))


Listening = Callable[..., "Deferred[Identd]"]


@pytest.fixture
def identd() -> Iterator[Listening]:
    """``await identd(say, host)``: start an :class:`Identd`; it is stopped after the test."""
    running: list[Identd] = []

    def started(say: Callable[[Any, bytes], object], host: str = "127.0.0.1") -> Deferred[Identd]:
        running.append(Identd(say))
        return running[-1].start(host)

    yield started
    for server in running:
        pytest_twisted.blockon(server.stop())


async def refusal(checker: Any, credentials: Userid) -> NotAuthenticated:
    """Why *checker* refuses."""
    with pytest.raises(NotAuthenticated) as refused:
        await checker.requestAvatarId(credentials)
    return refused.value


# An identd that answers.


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest_twisted.ensureDeferred
async def test_the_user(identd: Listening, host: str) -> None:
    """The port pair is the client's and ours, in this order, each as the identd's machine sees it."""
    server = await identd(userid(b"bob"), host)
    checker = IdentChecker(server.port)
    assert await checker.requestAvatarId(shown(b"bob", host, host)) == "bob"
    assert server.queries == [(host, b"40001, 1080\r\n")]
    await until(lambda: server.lost == 1)


@pytest_twisted.ensureDeferred
async def test_source(identd: Listening) -> None:
    """An identd tells who has a connection to the one who asks: that is the address the client reached."""
    server = await identd(userid(b"bob"))
    checker = IdentChecker(server.port)
    assert await checker.requestAvatarId(shown(local="127.0.0.2")) == "bob"
    assert await checker.requestAvatarId(shown(local="::ffff:127.0.0.3")) == "bob"
    assert [peer for peer, _ in server.queries] == ["127.0.0.2", "127.0.0.3"]


@pytest_twisted.ensureDeferred
async def test_source_that_is_not_ours(identd: Listening) -> None:
    """Behind a balancer the client has reached an address that we cannot ask from."""
    server = await identd(userid(b"bob"))
    problem = await refusal(IdentChecker(server.port), shown(local="192.0.2.1"))
    assert isinstance(problem, IdentUnreachable)
    assert server.queries == []


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"%s : USERID : UNIX : bob\r\n", b"bob"),
        (b"%s:USERID:UNIX:bob\r\n", b"bob"),
        (b"%s:USERID:UNIX:bob\n", b"bob"),
        (b" \t40001,1080\t: USERID :UNIX , UTF-8 : bob\r\n", b"bob"),
        (b"40001 , 01080 : USERID : OTHER :bob\r\n", b"bob"),
        (b"%s : USERID : UNIX : a:b\r\n", b"a:b"),
        (b"%s : USERID : UNIX : bob\r\nand more\r\n", b"bob"),
        # A space is the name's, if the request says so.
        (b"%s : USERID : UNIX : bob\r\n", b" bob"),
        (b"%s : USERID : UNIX :  bob \r\n", b" bob "),
        (b"%s : USERID : UNIX : b\xc3\xbcb\r\n", b"b\xc3\xbcb"),
        (b"%s : USERID : UNIX : b\xfcb\r\n", b"b\xfcb"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_granted(identd: Listening, said: bytes, name: bytes) -> None:
    server = await identd(answer(said))
    found = await IdentChecker(server.port).requestAvatarId(shown(name))
    assert found == name.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", [b"Bob", b"bo", b"bobb", b"bob ", b"  bob", b"bob\r", b"alice"])
@pytest_twisted.ensureDeferred
async def test_another_user(identd: Listening, name: bytes) -> None:
    server = await identd(userid(b"bob"))
    problem = await refusal(IdentChecker(server.port), shown(name))
    assert isinstance(problem, IdentMismatch)
    assert (problem.reply4, reply_for(problem)) == (Reply4.IDENT_MISMATCH, Reply.NOT_ALLOWED)
    assert describe(problem) == "identd tells another user"


@pytest_twisted.ensureDeferred
async def test_white_space_is_the_name(identd: Listening) -> None:
    """Two spaces are one too many, and the one behind the name counts (RFC 1413, section 6)."""
    for said in (b"%s : USERID : UNIX :  bob\r\n", b"%s : USERID : UNIX : bob \r\n"):
        server = await identd(answer(said))
        assert isinstance(await refusal(IdentChecker(server.port), shown(b"bob")), IdentMismatch)


@pytest_twisted.ensureDeferred
async def test_byte_by_byte(identd: Listening) -> None:
    def say(transport: Any, query: bytes) -> None:
        transport.setTcpNoDelay(True)
        for number, byte in enumerate(query + b" : USERID : UNIX : bob\r\n"):
            reactor.callLater(number / 1000, transport.write, bytes([byte]))

    server = await identd(say)
    assert await IdentChecker(server.port).requestAvatarId(shown()) == "bob"
    await until(lambda: server.lost == 1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"%s : ERROR : NO-USER\r\n", "identd says NO-USER"),
        (b"%s:ERROR:HIDDEN-USER\r\n", "identd says HIDDEN-USER"),
        (b"%s : ERROR : X\x1b[2Jsecret\r\n", "identd says ERROR"),
        (b"40001, 1081 : USERID : UNIX : bob\r\n", "identd does not answer the question"),
        (b"1080, 40001 : USERID : UNIX : bob\r\n", "identd does not answer the question"),
        (b"%s : USERID : bob\r\n", "identd does not answer the question"),
        (b"%s : userid : UNIX : bob\r\n", "identd does not answer the question"),
        (b"%s : NAME : UNIX : bob\r\n", "identd does not answer the question"),
        (b"\r\n%s : USERID : UNIX : bob\r\n", "identd does not answer the question"),
        (b"220 mail.example ESMTP\r\n", "identd does not answer the question"),
        (b"", "identd closes without an answer"),
        # The end of this name may be missing.
        (b"%s : USERID : UNIX : bob", "identd closes without an answer"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_answer(identd: Listening, said: bytes, why: str) -> None:
    server = await identd(answer(said))
    problem = await refusal(IdentChecker(server.port), shown())
    assert isinstance(problem, IdentUnreachable)
    assert (problem.reply4, reply_for(problem)) == (Reply4.NO_IDENT, Reply.NOT_ALLOWED)
    assert describe(problem) == why
    await until(lambda: server.lost == 1)


@pytest_twisted.ensureDeferred
async def test_endless_answer(identd: Listening) -> None:
    """Whoever says more than fits is cut off, before its time is up."""
    sent = []

    def say(transport: Any, query: bytes) -> None:
        if transport.connected:
            transport.write(query + b" : USERID : UNIX : " + b"b" * 2000)
            sent.append(1)
            reactor.callLater(0, say, transport, b"")

    server = await identd(say)
    problem = await refusal(IdentChecker(server.port, PATIENCE * 10), shown())
    assert describe(problem) == "identd does not come to an end"
    await until(lambda: server.lost == 1)


@pytest_twisted.ensureDeferred
async def test_longest_name(identd: Listening) -> None:
    """512 bytes are a name (RFC 1413, section 6)."""
    server = await identd(userid(b"n" * 512))
    assert await IdentChecker(server.port).requestAvatarId(shown(b"n" * 512)) == "n" * 512


# An identd that does not.


@pytest_twisted.ensureDeferred
async def test_no_identd() -> None:
    problem = await refusal(IdentChecker(closed_port()), shown())
    assert isinstance(problem, IdentUnreachable)
    assert describe(problem) == "identd: connection refused"


@pytest_twisted.ensureDeferred
async def test_hanging(identd: Listening) -> None:
    """Connecting and answering have one deadline together, and then the connection is closed."""
    server = await identd(lambda transport, query: None)
    clock = Clock()
    fired = outcome(IdentChecker(server.port, 5, ClockedReactor(clock)).requestAvatarId(shown()))
    await until(lambda: server.queries)
    clock.advance(4.9)
    assert not fired
    clock.advance(0.2)
    assert fired[0].check(IdentUnreachable)
    assert str(fired[0].value) == "identd does not answer in 5 s"
    await until(lambda: server.lost == 1)
    assert not clock.getDelayedCalls()


def outcome(asking: Deferred[Any]) -> list[Any]:
    """What *asking* will have fired with."""
    fired: list[Any] = []
    asking.addBoth(fired.append)
    return fired


def test_silence() -> None:
    """A packet filter lets no answer through."""
    memory = MemoryReactorClock()
    fired = outcome(IdentChecker(113, 5, memory).requestAvatarId(shown(host="192.0.2.7", local="192.0.2.1")))
    [(host, port, _, _, source)] = memory.tcpClients
    assert (host, port, source) == ("192.0.2.7", 113, ("192.0.2.1", 0))  # type: ignore[comparison-overlap]
    memory.advance(4.9)
    assert not fired
    memory.advance(0.2)
    assert isinstance(fired[0], Failure)
    assert fired[0].check(IdentUnreachable)
    assert str(fired[0].value) == "identd does not answer in 5 s"
    assert memory.connectors[0].stoppedConnecting


def test_cancelled_while_connecting() -> None:
    memory = MemoryReactorClock()
    asking = IdentChecker(reactor=memory).requestAvatarId(shown())
    fired = outcome(asking)
    asking.cancel()
    assert fired[0].check(CancelledError)
    assert memory.connectors[0].stoppedConnecting
    assert not memory.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_cancelled_while_asking(identd: Listening) -> None:
    server = await identd(lambda transport, query: None)
    asking = IdentChecker(server.port).requestAvatarId(shown())
    await until(lambda: server.queries)
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await until(lambda: server.lost == 1)


@pytest.mark.parametrize("nowhere", [{"host": None, "local": None}, {"local": None}, {"host": None}])
def test_unix(nowhere: dict[str, None]) -> None:
    memory = MemoryReactorClock()
    fired = outcome(IdentChecker(reactor=memory).requestAvatarId(shown(**nowhere)))  # type: ignore[arg-type]
    assert fired[0].check(IdentUnreachable)
    assert describe(fired[0].value) == "a client on a Unix socket has no identd"
    assert not memory.tcpClients


def test_no_userid() -> None:
    """Nothing is no name, whatever an identd says; it is not even asked."""
    memory = MemoryReactorClock()
    fired = outcome(IdentChecker(reactor=memory).requestAvatarId(shown(b"")))
    assert fired[0].check(IdentMismatch)
    assert not memory.tcpClients


# The parser.


LIKELY = st.from_regex(rb"40001, ?1080 ?: ?(USERID|ERROR) ?:[^\n]{0,30}", fullmatch=True)


@given(st.binary(max_size=60) | LIKELY)
def test_any_answer(line: bytes) -> None:
    """A name that stands in it, or our error, and never another."""
    with contextlib.suppress(IdentUnreachable):
        name = parse_answer(line, PORTS)
        assert line.endswith(b":" + name)
        assert b"USERID" in line


@given(st.binary(max_size=512), st.tuples(st.integers(1, 65535), st.integers(1, 65535)))
def test_any_name(name: bytes, ports: tuple[int, int]) -> None:
    assert parse_answer(b"%d,%d:USERID:UNIX:%s" % (*ports, name), ports) == name
    with pytest.raises(IdentUnreachable):
        parse_answer(b"%d,%d:USERID:UNIX:%s" % (*ports, name), (ports[0], ports[1] - 1))


# A real one.


@pytest.mark.interop
@pytest_twisted.ensureDeferred
async def test_oidentd() -> None:
    """Debian's identd knows this process as the user that it is, by a connection that there is."""
    program, number = require("oidentd"), closed_port()
    process = subprocess.Popen(
        [program, "--foreground", "--nosyslog", "--address", "127.0.0.1", "--port", str(number)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: process.poll() is not None or listens(number))
        with socket.create_server(("127.0.0.1", 0)) as ours:
            local = ours.getsockname()
            with socket.create_connection(local) as own:
                checker, client = IdentChecker(number), Client(*own.getsockname())
                me = getpass.getuser()
                assert await checker.requestAvatarId(Userid(me.encode(), client, local)) == me
                problem = await refusal(checker, Userid(b"somebody", client, local))
                assert problem.reply4 is Reply4.IDENT_MISMATCH
                problem = await refusal(checker, Userid(me.encode(), client, (local[0], client.port)))
                assert str(problem) == "identd says NO-USER"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(number: int) -> bool:
    """Whether somebody listens on the port *number*."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number)):
        return True
    return False


# Without identd.


def test_trusted() -> None:
    checker = TrustedUserid()
    assert verifyObject(ICredentialsChecker, checker)
    assert outcome(checker.requestAvatarId(shown(b"b\xc3\xbcb"))) == ["büb"]
    assert outcome(checker.requestAvatarId(shown(b"\xff", None, None))) == ["\udcff"]
    fired = outcome(checker.requestAvatarId(shown(b"")))
    assert fired[0].check(UnauthorizedLogin)
    assert fired[0].value.reply4 is Reply4.REJECTED


# The command line.


def test_plugin() -> None:
    factory = findCheckerFactory("ident")
    assert verifyObject(ICheckerFactory, factory)
    assert factory.credentialInterfaces == (IUserid,)
    checker = makeChecker("ident")
    assert verifyObject(ICredentialsChecker, checker)
    assert (checker.port, checker.timeout) == (113, 5)
    checker = makeChecker("ident:timeout=0.5:port=1113")
    assert (checker.port, checker.timeout) == (1113, 0.5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("port=0", "ident: port=0 is not a number from 1 to 65535"),
        ("port=65536", "ident: port=65536 is not a number from 1 to 65535"),
        ("port=١١٣", "ident: port=١١٣ is not a number from 1 to 65535"),
        ("timeout=0", "ident: timeout=0 is not a number of seconds above 0"),
        ("timeout=inf", "ident: timeout=inf is not a number of seconds above 0"),
        ("timeout=soon", "ident: timeout=soon is not a number of seconds above 0"),
        ("port=1:port=2", "ident: port= is there twice, and once is enough"),
        ("prot=1", "ident: prot=1 is not port= or timeout= and a value"),
        ("113", "ident: 113 is not port= or timeout= and a value"),
        ("port", "ident: port= has no value"),
        ("port=", "ident: port= has no value"),
        ("port=1:", "ident: port=1: is not NAME=VALUE, with colons between several"),
        (":port=1", "ident: :port=1 is not NAME=VALUE, with colons between several"),
        ("port=1::timeout=1", "ident: port=1::timeout=1 is not NAME=VALUE, with colons between several"),
        ("port=1\\", "ident: port=1\\ is not NAME=VALUE, with colons between several"),
    ],
)
def test_bad_arguments(text: str, why: str) -> None:
    with pytest.raises(InvalidAuthArgumentString) as refused:
        makeChecker(f"ident:{text}")
    assert str(refused.value) == why
