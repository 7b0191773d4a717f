"""Authentication methods in the conversation: every split, every verdict, methods of somebody else's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.auth.credentials import Anonymous, PeerCredentials
from socksproxy.auth.methods import NoAuthentication, UsernamePassword
from socksproxy.errors import ProtocolError
from socksproxy.identity import Client
from socksproxy.negotiation import IExchange, IMethod, IWrapping, LogIn, Negotiation, Say, State
from socksproxy.wire.words import Address, Request
from tests.support.methods import Reversed

CLIENT = Client("192.0.2.9", 4711)
REQUEST = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
DESTINATION = Address.of("192.0.2.1", 443)


@implementer(IExchange)
class Riddle:
    """Asks twice; the second answer is looked at by somebody who takes time."""

    def __init__(self, waits: list[Deferred[Any]]) -> None:
        self._heard = b""
        self._asked = False
        self._waits = waits

    def receive(self, data: bytes) -> tuple[int, object]:
        if not self._asked:
            self._asked = True
            return 0, Say(b"first?")
        if not data:
            return 0, None
        self._heard += data[:1]
        if len(self._heard) == 1:
            return 1, Say(b"second?")
        if len(self._heard) == 2:
            waiting: Deferred[Any] = Deferred()
            self._waits.append(waiting)
            return 1, waiting
        return 1, LogIn(Anonymous())

    def judged(self, granted: bool) -> bytes:
        return b"right" if granted else b"wrong"

    def wrapping(self) -> IWrapping | None:
        return Reversed()


@implementer(IMethod)
class Riddles:
    """A method of a third party's."""

    number = 0x85
    name = "riddle"
    credentials = IAnonymous

    def __init__(self) -> None:
        self.waits: list[Deferred[Any]] = []

    def begin(self, client: Client) -> IExchange:
        assert client is CLIENT
        return Riddle(self.waits)


def splits(data: bytes) -> Iterator[list[bytes]]:
    """*data* in one segment, byte by byte, and in two at every place."""
    yield [data]
    yield [bytes((byte,)) for byte in data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


class Conversation:
    """A conversation whose owner grants or denies at once, or when it is told to."""

    def __init__(self, methods: Sequence[Any], verdict: bool | None = True) -> None:
        self.negotiation = Negotiation(lambda: (CLIENT, methods))
        self.verdict = verdict
        self.said = b""
        self.request: Request | None = None
        self.shown: Any = None

    def play(self, segments: Iterable[bytes]) -> Conversation:
        for segment in segments:
            self.hear(segment)
        return self

    def hear(self, data: bytes) -> None:
        negotiation = self.negotiation
        request = negotiation.receive(data)
        self.say()
        if request is not None:
            assert self.request is None
            self.request = request
        move = negotiation.take_move()
        if isinstance(move, LogIn):
            self.shown = move.credentials
            if self.verdict is not None:
                self.judge(self.verdict)

    def judge(self, granted: bool) -> None:
        self.negotiation.judge(granted)
        self.say()
        if granted:
            self.hear(b"")

    def say(self) -> None:
        self.said += self.negotiation.take_output()


@pytest.mark.parametrize("method", [NoAuthentication(), UsernamePassword(), Riddles()])
def test_interfaces(method: Any) -> None:
    assert verifyObject(IMethod, method)
    assert verifyObject(IExchange, method.begin(CLIENT))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"\x00", 0),
        (b"\x00\x02", 2),
        (b"\x02\x85", 0x85),
        (b"\x80\x00", 0),
        (b"\x01", None),
        (b"", None),
    ],
)
def test_the_servers_first_that_the_client_offers(offered: bytes, chosen: int | None) -> None:
    for segments in splits(b"\x05" + bytes((len(offered),)) + offered):
        conversation = Conversation([Riddles(), UsernamePassword(), NoAuthentication()])
        if chosen is None:
            with pytest.raises(ProtocolError, match="no acceptable authentication method"):
                conversation.play(segments)
            assert conversation.negotiation.take_output() == b"\x05\xff"
            continue
        conversation.play(segments)
        assert conversation.said.startswith(bytes((5, chosen)))
        assert conversation.negotiation.method is not None
        assert conversation.negotiation.method.number == chosen


class TestUsernamePassword:
    """RFC 1929."""

    @pytest.mark.parametrize(
        ("username", "password"),
        [
            (b"bob", b"secret"),
            ("bärbel".encode(), "gehäm".encode()),
            (b"\xff\x00", b"\n"),
            (b"u" * 255, b"p" * 255),
        ],
    )
    def test_granted(self, username: bytes, password: bytes) -> None:
        """In every split, with all three messages in one segment too."""
        data = (
            b"\x05\x02\x00\x02\x01" + bytes((len(username),)) + username + bytes((len(password),)) + password
        )
        for segments in splits(data + REQUEST):
            conversation = Conversation([UsernamePassword()]).play(segments)
            assert conversation.said == b"\x05\x02\x01\x00"
            assert IUsernamePassword.providedBy(conversation.shown)
            assert conversation.shown.username == username
            assert conversation.shown.checkPassword(password)
            assert not conversation.shown.checkPassword(password + b"x")
            assert conversation.request is not None
            assert conversation.request.destination == DESTINATION

    def test_denied(self) -> None:
        """The status says so; what comes behind it is not served."""
        for segments in splits(b"\x05\x01\x02\x01\x03bob\x05wrong" + REQUEST):
            conversation = Conversation([UsernamePassword()], verdict=False).play(segments)
            assert conversation.said == b"\x05\x02\x01\x01"
            assert conversation.request is None
            assert conversation.negotiation.state is State.REFUSED

    @pytest.mark.parametrize(
        ("message", "problem"),
        [
            (b"\x05", "sub-negotiation version 5"),
            (b"\x00\x03bob", "sub-negotiation version 0"),
            (b"\x01\x00\x03pwd", "an empty username"),
            (b"\x01\x03bob\x00", "an empty password"),
        ],
    )
    def test_broken(self, message: bytes, problem: str) -> None:
        """RFC 1929 has one answer: a status that is not 0, and the close."""
        for segments in splits(b"\x05\x01\x02" + message):
            conversation = Conversation([UsernamePassword()])
            with pytest.raises(ProtocolError, match=problem):
                conversation.play(segments)
            assert conversation.said + conversation.negotiation.take_output() == b"\x05\x02\x01\x01"
            assert conversation.negotiation.state is State.REFUSED

    @given(st.binary(max_size=600), st.lists(st.integers(1, 40), max_size=30))
    def test_anything(self, data: bytes, sizes: list[int]) -> None:
        """Whatever comes, it ends in a question to the portal, in an error, or in waiting for more."""
        conversation = Conversation([UsernamePassword()], verdict=None)
        conversation.hear(b"\x05\x01\x02")
        rest = data
        try:
            for size in [*sizes, len(data)]:
                conversation.hear(rest[:size])
                rest = rest[size:]
        except ProtocolError:
            assert conversation.negotiation.state is State.REFUSED
            assert conversation.shown is None
            return
        if conversation.shown is None:
            assert conversation.negotiation.state is State.EXCHANGE
            return
        assert conversation.negotiation.state is State.JUDGING
        username = conversation.shown.username
        head = b"\x01" + bytes((len(username),)) + username
        assert data.startswith(head)
        assert conversation.shown.checkPassword(data[len(head) + 1 : len(head) + 1 + data[len(head)]])

    def test_nothing_is_read_before_the_verdict(self) -> None:
        conversation = Conversation([UsernamePassword()], verdict=None)
        conversation.play([b"\x05\x01\x02\x01\x03bob\x03pwd", REQUEST])
        assert (conversation.said, conversation.request) == (b"\x05\x02", None)
        conversation.judge(True)
        assert conversation.said == b"\x05\x02\x01\x00"
        assert conversation.request is not None

    def test_no_secret_in_the_repr(self) -> None:
        conversation = Conversation([UsernamePassword()]).play([b"\x05\x01\x02\x01\x03bob\x06secret"])
        assert repr(conversation.shown) == "Password(username=b'bob')"


class TestNoAuthentication:
    """Method 0 with a portal behind it."""

    def test_granted(self) -> None:
        for segments in splits(b"\x05\x01\x00" + REQUEST):
            conversation = Conversation([NoAuthentication()]).play(segments)
            assert conversation.said == b"\x05\x00"
            assert IAnonymous.providedBy(conversation.shown)
            assert conversation.request is not None

    def test_denied(self) -> None:
        """It is not chosen then, and the client knows at once that another one would be needed."""
        for segments in splits(b"\x05\x01\x00" + REQUEST):
            conversation = Conversation([NoAuthentication()], verdict=False).play(segments)
            assert (conversation.said, conversation.request) == (b"\x05\xff", None)

    def test_what_the_transport_knows(self) -> None:
        shown = PeerCredentials(1, 2, 3)
        method = NoAuthentication(shown, "peercred")
        assert method.name == "peercred"
        assert Conversation([method]).play([b"\x05\x01\x00"]).shown is shown


class TestThirdParty:
    """A method with several rounds, somebody who takes time, and bytes that are encapsulated afterwards."""

    @pytest.mark.parametrize("granted", [True, False])
    def test_rounds(self, granted: bool) -> None:
        wrapped = Reversed().wrap(REQUEST)
        for segments in splits(b"\x05\x01\x85" + b"ab"):
            method = Riddles()
            conversation = Conversation([method], verdict=granted).play(segments)
            assert conversation.said == b"\x05\x85first?second?"
            (waiting,) = method.waits
            conversation.hear(b"c" + wrapped[:3])
            waiting.callback(Say(b"third?"))
            conversation.negotiation.go_on(waiting.result)
            conversation.hear(b"")
            conversation.play([wrapped[3:]] if granted else [])
            assert conversation.said == b"\x05\x85first?second?third?" + (b"right" if granted else b"wrong")
            assert (conversation.request is not None) is granted
            assert (conversation.negotiation.wrapping is not None) is granted

    def test_bytes_that_cannot_be_unwrapped(self) -> None:
        method = Riddles()
        conversation = Conversation([method]).play([b"\x05\x01\x85ab"])
        conversation.negotiation.go_on(LogIn(Anonymous()))
        move = conversation.negotiation.take_move()
        assert isinstance(move, LogIn)
        conversation.judge(True)
        with pytest.raises(ProtocolError, match="an empty frame"):
            conversation.hear(b"\x00")
        assert conversation.negotiation.state is State.REFUSED
        assert conversation.negotiation.take_output() == b""

    def test_a_deferred_that_has_fired(self) -> None:
        """It is the owner's, like any other."""

        @implementer(IExchange)
        class AtOnce(Riddle):
            def receive(self, data: bytes) -> tuple[int, object]:
                return 0, succeed(LogIn(Anonymous()))

        class Method(Riddles):
            def begin(self, client: Client) -> IExchange:
                return AtOnce([])

        conversation = Conversation([Method()]).play([b"\x05\x01\x85"])
        assert conversation.negotiation.state is State.JUDGING
        assert conversation.request is None
