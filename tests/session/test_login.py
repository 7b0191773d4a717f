"""
Sessions whose clients are asked who they are: :mod:`socksproxy.session.login`.

After each test nothing may be left: no session, no descriptor, and no user who is not logged out.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy.auth.checkers.threads import CheckFailed, CheckTimedOut, NotChecked, TooManyChecks
from socksproxy.identity import Client, ISOCKSUser
from socksproxy.negotiation import IExchange, LogIn
from socksproxy.values.auth import AuthSettings
from socksproxy.wire.words import Address, Command, Reply

from ..conftest import Serve
from ..support.methods import Reversed
from ..support.origin import Origin, echo
from ..support.policy import Policy
from ..support.proxy import Playing, Proxy, closed_port, echoes, reply5, request4, request5, until
from ..support.relay import is_reset, read_exactly, read_to_end, reset
from ..support.sessions import the_session

HOST = "127.0.0.1"
BOB = b"\x01\x03bob\x06secret"
WRONG = b"\x01\x03bob\x05wrong"


@implementer(ISOCKSUser)
class Known:
    """A user, and whom they may reach."""

    def __init__(self, name: str | None, permits: Callable[..., Any]) -> None:
        self.name = name
        self._permits = permits

    def permits(self, client: Client, command: Command, destination: Address) -> Any:
        assert client.avatar is self
        return self._permits(client, command, destination)


@implementer(IRealm)
class Guests:
    """
    A realm that counts.

    :ivar within: the names of those who are logged in, in order.
    :ivar minds: what came with each login.
    :ivar left: how many logouts there were.
    """

    def __init__(self) -> None:
        self.within: list[str | None] = []
        self.minds: list[Any] = []
        self.left = 0
        self.permits: Callable[..., Any] = lambda *_: True
        self.waiting: Deferred[Any] | None = None
        self.breaks = False

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        assert ISOCKSUser in interfaces
        self.minds.append(mind)
        name = None if avatarId is ANONYMOUS else avatarId.decode()
        self.within.append(name)

        def logout() -> None:
            self.within.remove(name)
            self.left += 1
            if self.breaks:
                raise ZeroDivisionError

        answer = ISOCKSUser, Known(name, self.permits), logout
        return answer if self.waiting is None else self.waiting.addCallback(lambda _: answer)


class Passwords:
    """bob's is secret; it may take as long as :attr:`waiting`."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.waiting: Deferred[Any] | None = None
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1

        def check(_: object) -> bytes:
            if credentials.username != b"bob" or not credentials.checkPassword(b"secret"):
                raise UnauthorizedLogin
            return b"bob"

        return succeed(None).addCallback(check) if self.waiting is None else self.waiting.addCallback(check)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


class House:
    """A portal, a proxy before it, and an origin to reach."""

    def __init__(self, *more: Any) -> None:
        self.realm = Guests()
        self.passwords = Passwords()
        self.portal = Portal(self.realm, [self.passwords, *more])  # type: ignore[list-item]

    @property
    def empty(self) -> bool:
        return not self.realm.within


def authenticate(sock: socket.socket, said: bytes = BOB, offered: bytes = b"\x02") -> bytes:
    """Greet with the methods *offered* and say *said*; what the server answered."""
    sock.sendall(b"\x05" + bytes((len(offered),)) + offered)
    choice = sock.recv(2)
    if choice != b"\x05\x02":
        return choice
    sock.sendall(said)
    return sock.recv(2)


def ask(sock: socket.socket, host: str, port: int) -> int:
    """Request a connection of a server that knows who asks; the reply."""
    sock.sendall(request5(host, port))
    return reply5(sock)[0]


@pytest_twisted.inlineCallbacks
def test_granted(serve: Serve, origin: Origin) -> Playing:
    """The mind is the client, the policy hears the name, the record has both, and the logout is one."""
    house, policy = House(), Policy({})
    proxy: Proxy = yield serve(portal=house.portal, policy=policy)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock) == b"\x01\x00"
            assert ask(sock, HOST, origin.port) == Reply.SUCCEEDED
            echoes(sock)

        yield proxy.play(scenario)
        assert house.realm.within == ["bob"]
        (mind,) = house.realm.minds
        assert (mind.host, mind.user) == ("127.0.0.1", None)
        assert [client.user for client, *_ in policy.asked] == ["bob"]
    record = yield proxy.record()
    assert (record["user"], record["method"], record["ended"]) == ("bob", "password", "client")
    assert (house.realm.left, house.empty) == (1, True)


@pytest_twisted.inlineCallbacks
def test_everything_in_one_segment(serve: Serve, origin: Origin) -> Playing:
    """Clients that do not wait for the choice and the status, with data for the destination behind them."""
    house = House()
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            sock.sendall(b"\x05\x01\x02" + BOB + request5(HOST, origin.port) + b"early")
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
            assert reply5(sock, 10)[0] == Reply.SUCCEEDED
            assert read_exactly(sock, 5) == b"early"

        yield proxy.play(scenario)
    yield proxy.record()
    assert house.empty


@pytest.mark.parametrize("early", [b"", b"early"])
@pytest_twisted.inlineCallbacks
def test_half_closes_while_the_password_is_checked(serve: Serve, origin: Origin, early: bytes) -> Playing:
    """A client that has said everything in one segment is served, though it has closed its direction."""
    house = House()
    waiting: Deferred[None] = Deferred()
    house.passwords.waiting = waiting
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:
        sock.sendall(b"\x05\x01\x02" + BOB + request5(HOST, origin.port) + early)
        sock.shutdown(socket.SHUT_WR)
        yield until(lambda: proxy.sessions.live and the_session(proxy).half_closed)
        waiting.callback(None)

        def scenario() -> None:
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
            assert reply5(sock, 10)[0] == Reply.SUCCEEDED
            assert read_to_end(sock) == early

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["user"], record["sent"], record["received"]) == ("bob", len(early), len(early))
    assert house.empty


@pytest.mark.parametrize("missing", [1, 9])
@pytest_twisted.inlineCallbacks
def test_half_closes_before_the_request_is_whole(serve: Serve, missing: int) -> Playing:
    """A client that has closed its direction cannot send what is missing: its session ends at once."""
    house = House()
    waiting: Deferred[None] = Deferred()
    house.passwords.waiting = waiting
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:
        sock.sendall(b"\x05\x01\x02" + BOB + request5(HOST, 80)[:-missing])
        sock.shutdown(socket.SHUT_WR)
        yield until(lambda: proxy.sessions.live and the_session(proxy).half_closed)
        waiting.callback(None)
        assert (yield proxy.play(read_to_end, sock)) == b"\x05\x02\x01\x00"
    record = yield proxy.record()
    assert (record["ended"], record["command"]) == ("client", None)
    assert house.empty


@pytest.mark.parametrize("said", [WRONG, b"\x01\x05alice\x06secret"])
@pytest_twisted.inlineCallbacks
def test_denied(serve: Serve, said: bytes) -> Playing:
    """A status that is not 0 and the close (RFC 1929, section 2); what comes behind it is not served."""
    house = House()
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock, said + request5("127.0.0.1", closed_port())) == b"\x01\x01"
            assert read_to_end(sock) == b""

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["ended"] == "refused: not authenticated"
    assert (record["user"], record["method"], record["command"]) == (None, "password", None)
    assert house.realm.minds == []


@pytest.mark.parametrize(
    ("problem", "status"),
    [(TooManyChecks("full"), b""), (CheckTimedOut("late"), b""), (CheckFailed("broken"), b"\x01\x01")],
)
@pytest_twisted.inlineCallbacks
def test_not_checked(serve: Serve, problem: NotChecked, status: bytes) -> Playing:
    """
    A password that waited in vain is not called wrong: the connection ends without a status.

    A checker that breaks for some users only would tell who they are, if it were the same then.
    """
    house = House()
    house.passwords.waiting = fail(problem)
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:
        assert (yield proxy.play(authenticate, sock)) == status
    record = yield proxy.record()
    assert record["ended"] == "refused: not authenticated"


@pytest.mark.parametrize("said", [b"\x05\x03bob\x06secret", b"\x01\x00\x06secret", b"\x01\x03bob\x00"])
@pytest_twisted.inlineCallbacks
def test_broken(serve: Serve, said: bytes) -> Playing:
    house = House()
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock, said) == b"\x01\x01"
            assert read_to_end(sock) == b""

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["ended"].startswith("protocol error: ")
    assert record["method"] == "password"
    assert house.passwords.asked == 0


@pytest.mark.parametrize("offered", [b"\x00", b"", b"\x01\x80"])
@pytest_twisted.inlineCallbacks
def test_no_method(serve: Serve, offered: bytes) -> Playing:
    house = House()
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock, offered=offered) == b"\x05\xff"
            assert read_to_end(sock) == b""

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["reply"] == 255


@pytest_twisted.inlineCallbacks
def test_anonymous_beside_named(serve: Serve, origin: Origin) -> Playing:
    """Whoever can show a password is asked for it, and whoever cannot is nobody in particular."""
    house = House(AllowAnonymousAccess())
    proxy: Proxy = yield serve(portal=house.portal)
    for number, (offered, name, method) in enumerate(
        [(b"\x00\x02", "bob", "password"), (b"\x00", None, "anonymous")]
    ):
        with proxy.connect() as sock:

            def scenario(sock: socket.socket = sock, offered: bytes = offered) -> None:
                expected = b"\x01\x00" if 2 in offered else b"\x05\x00"
                assert authenticate(sock, offered=offered) == expected
                assert ask(sock, HOST, origin.port) == Reply.SUCCEEDED
                echoes(sock)

            yield proxy.play(scenario)
            assert house.realm.within == [name]
        record = yield proxy.record(number)
        assert (record["user"], record["method"]) == (name, method)
    assert house.empty


@pytest.mark.parametrize(
    ("permits", "reply"),
    [
        (lambda *_: True, Reply.SUCCEEDED),
        (lambda *_: False, Reply.NOT_ALLOWED),
        (lambda *_: succeed(True), Reply.SUCCEEDED),
        (lambda *_: succeed(False), Reply.NOT_ALLOWED),
        (lambda *_: 1 // 0, Reply.NOT_ALLOWED),
    ],
    ids=["yes", "no", "yes later", "no later", "broken"],
)
@pytest.mark.parametrize("policy", [True, False, "later"])
@pytest_twisted.inlineCallbacks
def test_user_and_policy(
    serve: Serve, origin: Origin, permits: Callable[..., Any], reply: Reply, policy: Any
) -> Playing:
    """Both are asked, and both have to permit it."""
    house = House()
    house.realm.permits = permits
    decide = Policy({"127.0.0.1": (lambda: succeed(True)) if policy == "later" else policy})
    proxy: Proxy = yield serve(portal=house.portal, policy=decide)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock) == b"\x01\x00"
            assert ask(sock, HOST, origin.port) == (reply if policy else Reply.NOT_ALLOWED)

        yield proxy.play(scenario)
    yield proxy.record()
    assert house.empty


# SOCKS4.


@pytest_twisted.inlineCallbacks
def test_socks4_has_no_password(serve: Serve) -> Playing:
    house = House()
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            sock.sendall(request4("127.0.0.1", closed_port()))
            assert read_exactly(sock, 8)[:2] == b"\x00\x5b"
            assert read_to_end(sock) == b""

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["reply"], record["version"], record["command"]) == (91, 4, "CONNECT")
    assert record["ended"] == "refused: SOCKS4 has no password"


@pytest_twisted.inlineCallbacks
def test_socks4_anonymous(serve: Serve, origin: Origin) -> Playing:
    house = House(AllowAnonymousAccess())
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            sock.sendall(request4(HOST, origin.port) + b"ping")
            assert read_exactly(sock, 8)[:2] == b"\x00\x5a"
            assert read_exactly(sock, 4) == b"ping"

        yield proxy.play(scenario)
        assert house.realm.within == [None]
    record = yield proxy.record()
    assert (record["user"], record["method"]) == (None, "anonymous")
    assert house.empty


# The portal takes its time.


@pytest.mark.parametrize("leave", ["close", "reset", "half-close", "too much"])
@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_leaves_while_the_portal_thinks(serve: Serve, leave: str, version: int) -> Playing:
    """Nothing comes of the answer, but that a user who is let in after all is let out again."""
    house = House()
    house.realm.waiting = waiting = Deferred[Any]()
    if version == 4:
        house.portal.registerChecker(AllowAnonymousAccess())
    proxy: Proxy = yield serve(portal=house.portal)
    sock = proxy.connect()
    try:
        said = b"\x05\x01\x02" + BOB if version == 5 else request4("127.0.0.1", closed_port())
        yield proxy.play(sock.sendall, said)
        yield until(lambda: house.realm.within)

        def go() -> None:
            if leave == "half-close":
                sock.shutdown(socket.SHUT_WR)
                assert read_to_end(sock).lstrip(b"\x05\x02") == b""
            elif leave == "too much":
                try:
                    sock.sendall(bytes(1 << 20))
                    assert is_reset(sock)
                except (ConnectionResetError, BrokenPipeError):
                    pass
            elif leave == "reset":
                reset(sock)
            else:
                sock.close()

        yield proxy.play(go)
        record = yield proxy.record()
    finally:
        sock.close()
    assert record["user"] is None
    assert (
        record["ended"]
        in {
            "close": ("client", "client reset"),
            "reset": ("client reset",),
            "half-close": ("client",),
            "too much": ("protocol error: data instead of a request",),
        }[leave]
    )
    waiting.callback(None)
    assert house.empty
    assert house.realm.left == 1


@pytest_twisted.inlineCallbacks
def test_portal_that_hangs(serve: Serve) -> Playing:
    """It denies, by the method's own word, before the handshake's time is over."""
    house, clock = House(), Clock()
    house.passwords.waiting = Deferred[Any]()
    proxy: Proxy = yield serve(portal=house.portal, clock=clock, auth=AuthSettings(timeout=3.0))
    with proxy.connect() as sock:
        yield proxy.play(sock.sendall, b"\x05\x01\x02" + BOB)
        yield until(lambda: house.passwords.asked)
        clock.advance(2.9)
        assert len(proxy.sessions.live) == 1
        clock.advance(0.2)

        def scenario() -> None:
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x01"
            assert read_to_end(sock) == b""

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["ended"] == "refused: not authenticated"


@pytest.mark.parametrize("gone", [False, True])
@pytest_twisted.inlineCallbacks
def test_who_does_not_wait(serve: Serve, gone: bool) -> Playing:
    """A client that goes while its password is checked has failed; one for which we have no time has not."""
    house, clock = House(), Clock()
    house.passwords.waiting = Deferred[Any]()
    auth = AuthSettings(timeout=30.0, failures=1)
    proxy: Proxy = yield serve(portal=house.portal, clock=clock, auth=auth)
    with proxy.connect() as sock:
        yield proxy.play(sock.sendall, b"\x05\x01\x02" + BOB)
        yield until(lambda: house.passwords.asked)
        if gone:
            reset(sock)
        else:
            clock.advance(11)
            clock.advance(1)
    record = yield proxy.record()
    assert record["ended"] == ("client reset" if gone else "handshake timeout")
    house.passwords.waiting = None
    with proxy.connect() as sock:
        assert (yield proxy.play(authenticate, sock)) == (b"\x01\x01" if gone else b"\x01\x00")


@pytest_twisted.inlineCallbacks
def test_handshake_timeout_goes_on(serve: Serve) -> Playing:
    """Who is known has not asked for anything yet, and has no more time than others for it."""
    house, clock = House(), Clock()
    proxy: Proxy = yield serve(portal=house.portal, clock=clock)
    with proxy.connect() as sock:
        answer = yield proxy.play(authenticate, sock)
        assert answer == b"\x01\x00"
        clock.advance(11)
        clock.advance(1)
        assert (yield proxy.play(is_reset, sock))
    record = yield proxy.record()
    assert (record["ended"], record["user"]) == ("handshake timeout", "bob")
    assert house.empty


# However it ends, the logout is one.


@pytest.mark.parametrize("end", ["refused", "unreachable", "broken request", "aborted", "logout breaks"])
@pytest_twisted.inlineCallbacks
def test_one_logout(serve: Serve, origin: Origin, end: str, caplog: Any) -> Playing:
    house = House()
    house.realm.permits = lambda *_: end != "refused"
    house.realm.breaks = end == "logout breaks"
    proxy: Proxy = yield serve(portal=house.portal)
    with proxy.connect() as sock:

        def scenario() -> None:
            assert authenticate(sock) == b"\x01\x00"
            if end == "broken request":
                sock.sendall(b"\x04")
            else:
                ask(sock, *((HOST, origin.port) if end != "unreachable" else ("127.0.0.1", closed_port())))

        yield proxy.play(scenario)
        if end == "aborted":
            proxy.factory.stop_sessions()
    yield proxy.record()
    assert house.empty
    assert house.realm.left == 1


# A method of somebody else's.


@implementer(IExchange)
class Knock:
    """The client says "knock", and what follows is encapsulated."""

    def receive(self, data: bytes) -> tuple[int, object]:
        return (5, LogIn(Knocked(data[:5]))) if len(data) >= 5 else (0, None)

    def judged(self, granted: bool) -> bytes:
        return b"in" if granted else b"no"

    def wrapping(self) -> Reversed:
        return Reversed()


class IKnocked(ICredentials):
    """What somebody said."""


@implementer(IKnocked)
class Knocked:
    def __init__(self, said: bytes) -> None:
        self.said = said


class Knocking:
    """A checker that brings its method along."""

    credentialInterfaces = (IKnocked,)
    number, name, credentials = 0x88, "knock", IKnocked

    def methods(self) -> list[Any]:
        return [self]

    def begin(self, client: Client) -> Knock:
        return Knock()

    def requestAvatarId(self, credentials: Any) -> bytes:
        if credentials.said != b"knock":
            raise UnauthorizedLogin
        return b"knocker"


@pytest.mark.parametrize("brought", [True, False], ids=["by the checker", "by the factory"])
@pytest_twisted.inlineCallbacks
def test_method_of_a_third_party(serve: Serve, brought: bool) -> Playing:
    """It is preferred to ours; request and reply are encapsulated as it says."""
    checker = Knocking()
    house = House(checker)
    if not brought:
        checker.methods = list  # type: ignore[method-assign]
    proxy: Proxy = yield serve(portal=house.portal, methods=[] if brought else [checker])
    wrapping = Reversed()
    for number, said in enumerate((b"knock", b"kick!")):
        with proxy.connect() as sock:

            def scenario(sock: socket.socket = sock, said: bytes = said) -> None:
                sock.sendall(b"\x05\x03\x00\x02\x88" + said)
                if said != b"knock":
                    assert read_to_end(sock) == b"\x05\x88no"
                    return
                assert read_exactly(sock, 4) == b"\x05\x88in"
                sock.sendall(wrapping.wrap(request5("127.0.0.1", closed_port())))
                assert wrapping.unwrap(read_to_end(sock))[:2] == b"\x05\x05"

            yield proxy.play(scenario)
        record = yield proxy.record(number)
        assert (record["method"], record["user"]) == ("knock", "knocker" if said == b"knock" else None)
    assert house.empty


def test_checkers_that_are_no_keys() -> None:
    """One of somebody else's may be without a hash, and brings its methods once, whatever it checks."""

    class Odd(Knocking):
        credentialInterfaces = (IKnocked, IUsernamePassword)  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    proxy = Proxy(portal=Portal(Guests(), [Odd()]))  # type: ignore[list-item]
    assert proxy.sessions.context.authentication is not None
    methods = proxy.sessions.context.authentication.methods_for(lambda: None)
    assert [method.number for method in methods] == [0x88, 2]


def test_methods_need_a_portal() -> None:
    with pytest.raises(ValueError, match="methods need a portal"):
        Proxy(methods=[Knocking()])


def test_what_is_offered_is_what_can_be_checked() -> None:
    """A portal that knows no passwords has no use for them."""
    proxy = Proxy(portal=Portal(Guests(), [AllowAnonymousAccess()]))
    assert proxy.sessions.context.authentication is not None
    methods = proxy.sessions.context.authentication.methods_for(lambda: None)
    assert [method.credentials for method in methods] == [IAnonymous]
