"""The conversation up to the reply: every message, every split, every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.errors import ProtocolError
from socksproxy.negotiation import (
    MAX_EARLY,
    TRANSITIONS,
    IllegalStep,
    Negotiation,
    NotSOCKS,
    State,
    Step,
    command_name,
)
from socksproxy.wire.words import (
    Address,
    AddressType,
    Command,
    Method,
    Reply,
    Reply4,
    Request,
    Version,
)

from .support.messages import addresses, assert_fit_for_a_log, bytes_, likely

GREETING = b"\x05\x01\x00"
CHOICE = b"\x05\x00"
NO_ACCEPTABLE = b"\x05\xff"
REFUSAL4 = b"\x00\x5b" + bytes(6)
BOUND = Address.of("192.0.2.7", 4711)
UNKNOWN_TYPE = b"\x05\x08\x00\x01" + bytes(6)


def refusal5(reply: Reply) -> bytes:
    return b"\x05" + bytes((reply,)) + b"\x00\x01" + bytes(6)


class Outcome(NamedTuple):
    """
    What a conversation has come to.

    :ivar request: what is asked; None: nothing yet, or never.
    :ivar problem: the text of the ProtocolError; None: there was none.
    :ivar reply: that error's reply.
    :ivar said: all that the client was sent.
    :ivar early: what is kept for the relay.
    :ivar answer: the code that the broken client was told.
    """

    state: State
    version: Version | None
    request: Request | None = None
    problem: str | None = None
    reply: Reply | None = None
    said: bytes = b""
    early: bytes = b""
    answer: int | None = None


def converse(segments: Iterable[bytes]) -> tuple[Negotiation, Outcome]:
    """Play *segments* in as the server does: what is to be sent is taken at once, an error ends it."""
    negotiation = Negotiation()
    said, request, problem = b"", None, None
    for segment in segments:
        try:
            asked = negotiation.receive(segment)
        except ProtocolError as error:
            problem = error
            said += negotiation.take_output()
            break
        assert request is None or asked is None, "the request came twice"
        request = request or asked
        said += negotiation.take_output()
    assert negotiation.take_output() == b""
    return negotiation, Outcome(
        negotiation.state,
        negotiation.version,
        request,
        None if problem is None else str(problem),
        None if problem is None else problem.reply,
        said,
        negotiation.early if request is not None else b"",
        negotiation.answer,
    )


def splits(data: bytes) -> Iterator[list[bytes]]:
    """*data* in one segment, byte by byte, and in two at every place."""
    yield [data]
    yield [bytes((byte,)) for byte in data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


REQUESTS = [
    (
        Version.SOCKS5,
        GREETING + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb",
        Command.CONNECT,
        Address.of("192.0.2.1", 443),
        b"",
    ),
    (
        Version.SOCKS5,
        b"\x05\x04\x01\x02\x00\x80" + b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50",
        Command.CONNECT,
        Address.of("::1", 80),
        b"",
    ),
    (
        Version.SOCKS5,
        GREETING + b"\x05\x02\x00\x03\x0cexample.test\x00\x50",
        Command.BIND,
        Address.of("example.test", 80),
        b"",
    ),
    (
        Version.SOCKS5,
        GREETING + b"\x05\x03\x00\x03\xff" + b"n" * 255 + b"\xff\xff",
        Command.UDP_ASSOCIATE,
        Address.of("n" * 255, 65535),
        b"",
    ),
    # RSV is to be 0, and some clients send what their memory held.
    (
        Version.SOCKS5,
        GREETING + b"\x05\x01\xff\x01\xc0\x00\x02\x01\x01\xbb",
        Command.CONNECT,
        Address.of("192.0.2.1", 443),
        b"",
    ),
    # A command that is unknown gets as far as a request, so that it can be told so.
    (
        Version.SOCKS5,
        GREETING + b"\x05\x99\x00\x01\xc0\x00\x02\x01\x01\xbb",
        0x99,
        Address.of("192.0.2.1", 443),
        b"",
    ),
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\xc0\x00\x02\x01fred\x00",
        Command.CONNECT,
        Address.of("192.0.2.1", 80),
        b"fred",
    ),
    (
        Version.SOCKS4,
        b"\x04\x02\x00\x50\xc0\x00\x02\x01\x00",
        Command.BIND,
        Address.of("192.0.2.1", 80),
        b"",
    ),
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 512 + b"\x00",
        Command.CONNECT,
        Address.of("192.0.2.1", 80),
        b"u" * 512,
    ),
    (
        Version.SOCKS4,
        b"\x04\x77\x00\x50\xc0\x00\x02\x01\x00",
        0x77,
        Address.of("192.0.2.1", 80),
        b"",
    ),
    # 4a is 0.0.0.x with x nonzero, and nothing else is.
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\x00\x00\x00\x01fred\x00example.test\x00",
        Command.CONNECT,
        Address.of("example.test", 80),
        b"fred",
    ),
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\x00\x00\x00\xff\x00" + b"n" * 255 + b"\x00",
        Command.CONNECT,
        Address.of("n" * 255, 80),
        b"",
    ),
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\x00\x00\x00\x00\x00",
        Command.CONNECT,
        Address.of("0.0.0.0", 80),
        b"",
    ),
    (
        Version.SOCKS4,
        b"\x04\x01\x00\x50\x00\x00\x01\x00\x00",
        Command.CONNECT,
        Address.of("0.0.1.0", 80),
        b"",
    ),
]


@pytest.mark.parametrize("early", [b"", b"\x00", b"\x05\x01\x00", b"GET / HTTP/1.1\r\n\r\n" * 20])
@pytest.mark.parametrize(("version", "data", "command", "destination", "userid"), REQUESTS)
def test_request(
    version: Version, data: bytes, command: int, destination: Address, userid: bytes, early: bytes
) -> None:
    """microsocks fails on a split one, others lose what comes right behind it."""
    expected = Outcome(
        State.SERVING,
        version,
        Request(version, command, destination, userid),
        said=CHOICE if version is Version.SOCKS5 else b"",
        early=early,
    )
    for segments in splits(data + early):
        assert converse(segments)[1] == expected


@pytest.mark.parametrize(("version", "data", "command", "destination", "userid"), REQUESTS)
def test_unfinished(version: Version, data: bytes, command: int, destination: Address, userid: bytes) -> None:
    """A byte short of whole, there is no request, no error, and no end of waiting."""
    negotiation, outcome = converse([data[:-1]])
    assert outcome.request is None
    assert outcome.problem is None
    assert negotiation.state in (State.METHODS, State.REQUEST, State.REQUEST4)
    assert negotiation.receive(data[-1:]) == Request(version, command, destination, userid)


def test_request_is_given_once() -> None:
    """What comes while the request is served is kept in order, and is not a request again."""
    negotiation = Negotiation()
    data = GREETING + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
    assert negotiation.receive(data + b"one") is not None
    assert negotiation.receive(b" two") is None
    assert negotiation.receive(data) is None
    assert negotiation.early == b"one two" + data


def test_nothing_received() -> None:
    negotiation = Negotiation()
    assert negotiation.receive(b"") is None
    assert negotiation.state is State.START


class TestMethods:
    """The method is ours to choose, among those that the client offers."""

    @pytest.mark.parametrize("offered", [b"\x00", b"\x02\x01\x00", b"\x00\x00"])
    def test_nobody_is_asked(self, offered: bytes) -> None:
        for segments in splits(b"\x05" + bytes((len(offered),)) + offered):
            negotiation, outcome = converse(segments)
            assert outcome == Outcome(State.REQUEST, Version.SOCKS5, said=b"\x05\x00")
            assert negotiation.early == b""
            assert negotiation.method is None

    @pytest.mark.parametrize("offered", [b"", b"\x02", b"\x01\x02\x80", bytes(range(1, 256))])
    def test_no_acceptable(self, offered: bytes) -> None:
        """A client that offers none that is served is told FF, and so knows why."""
        data = b"\x05" + bytes((len(offered),)) + offered
        expected = Outcome(
            State.REFUSED,
            Version.SOCKS5,
            problem="no acceptable authentication method",
            reply=Reply.GENERAL_FAILURE,
            said=NO_ACCEPTABLE,
            answer=Method.NO_ACCEPTABLE,
        )
        for segments in splits(data):
            assert converse(segments)[1] == expected

    def test_request_in_the_same_segment(self) -> None:
        """What comes behind a greeting in vain is not served."""
        data = b"\x05\x01\x02" + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
        assert converse([data])[1].said == NO_ACCEPTABLE


@pytest.mark.parametrize(
    ("data", "version", "said", "answer", "reply"),
    [
        # Unknown address types.
        *(
            (
                GREETING + b"\x05\x01\x00" + bytes((kind,)),
                Version.SOCKS5,
                CHOICE + UNKNOWN_TYPE,
                Reply.ADDRESS_TYPE_NOT_SUPPORTED,
                Reply.ADDRESS_TYPE_NOT_SUPPORTED,
            )
            for kind in (0, 2, 5, 255)
        ),
        # An empty name.
        (
            GREETING + b"\x05\x01\x00\x03\x00",
            Version.SOCKS5,
            CHOICE + refusal5(Reply.HOST_UNREACHABLE),
            Reply.HOST_UNREACHABLE,
            Reply.HOST_UNREACHABLE,
        ),
        # Another version in the middle.
        (
            GREETING + b"\x04",
            Version.SOCKS5,
            CHOICE + refusal5(Reply.GENERAL_FAILURE),
            Reply.GENERAL_FAILURE,
            Reply.GENERAL_FAILURE,
        ),
        # More than a USERID may have, and no NUL in sight.
        (
            b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 513,
            Version.SOCKS4,
            REFUSAL4,
            Reply4.REJECTED,
            Reply.GENERAL_FAILURE,
        ),
        # More than a name may have, or nothing of it.
        (
            b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"n" * 256,
            Version.SOCKS4,
            REFUSAL4,
            Reply4.REJECTED,
            Reply.GENERAL_FAILURE,
        ),
        (
            b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",
            Version.SOCKS4,
            REFUSAL4,
            Reply4.REJECTED,
            Reply.GENERAL_FAILURE,
        ),
    ],
)
def test_broken(data: bytes, version: Version, said: bytes, answer: int, reply: Reply) -> None:
    """The last byte of *data* breaks the protocol, and the client is told so in its own version."""
    for segments in [*splits(data), [data + b"more of it"]]:
        negotiation, outcome = converse(segments)
        assert outcome[:3] == (State.REFUSED, version, None)
        assert (outcome.said, outcome.answer, outcome.reply) == (said, answer, reply)
        with pytest.raises(IllegalStep):
            negotiation.grant(BOUND)
    assert converse([data[:-1]])[1].problem is None


class TestNotSOCKS:
    """Clients that were pointed at the wrong port."""

    @pytest.mark.parametrize(
        "data", [b"GET / HTTP/1.1\r\n", b"CONNECT a:443 HTTP/1.1\r\n", b"Z", b"A", b"POST /"]
    )
    def test_http(self, data: bytes) -> None:
        """A browser shows what is wrong, instead of a connection that closed."""
        for segments in splits(data):
            negotiation = Negotiation()
            with pytest.raises(NotSOCKS, match="the client speaks HTTP, not SOCKS") as caught:
                negotiation.receive(segments[0])
            assert caught.value.protocol == "HTTP"
            head, _, body = negotiation.take_output().partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert lines[0] == b"HTTP/1.1 400 Bad Request"
            assert b"Connection: close" in lines
            assert b"Content-Length: %d" % len(body) in lines
            assert b"This is a SOCKS proxy" in body
            assert negotiation.state is State.REFUSED
            assert negotiation.answer is None
            assert negotiation.version is None

    @pytest.mark.parametrize(
        ("data", "protocol"),
        [
            (b"\x16\x03\x01\x02\x00\x01", "TLS"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "HTTP"),  # a capital letter is all that is looked at
            (b"\x00", "something else"),
            (b"\x03\x00\x00\x13", "something else"),  # remote desktop
            (b"\x06", "something else"),
            (b"@", "something else"),
            (b"[", "something else"),
            (b"get / http/1.1", "something else"),
            (b"\xff", "something else"),
        ],
    )
    def test_others(self, data: bytes, protocol: str) -> None:
        """Bytes that the client's protocol would misread are not sent; the log names what came."""
        negotiation = Negotiation()
        with pytest.raises(NotSOCKS) as caught:
            negotiation.receive(data)
        assert caught.value.protocol == protocol
        assert (negotiation.take_output() == b"") is (protocol != "HTTP")
        assert negotiation.state is State.REFUSED
        assert_fit_for_a_log(caught.value)


def in_state(state: State, version: Version = Version.SOCKS5) -> Negotiation:
    """A conversation in *state*, wherever it came from."""
    negotiation = Negotiation()
    negotiation.state, negotiation.version = state, version
    return negotiation


class TestSteps:
    """The table is the law: there is no way but those that it has."""

    @pytest.mark.parametrize("step", Step)
    @pytest.mark.parametrize("state", State)
    def test_every_step_in_every_state(self, state: State, step: Step) -> None:
        negotiation = in_state(state)
        target = TRANSITIONS[state].get(step)
        if target is not None:
            negotiation._step(step)
            assert negotiation.state is target
            return
        with pytest.raises(IllegalStep, match=f"{step.name} in state {state.name}"):
            negotiation._step(step)
        assert negotiation.state is state

    def test_table(self) -> None:
        """Written down a second time, so that a change of it is meant."""
        assert {
            (state.name, step.name, target.name)
            for state, steps in TRANSITIONS.items()
            for step, target in steps.items()
        } == {
            ("START", "SPOKE_SOCKS5", "METHODS"),
            ("START", "SPOKE_SOCKS4", "REQUEST4"),
            ("START", "REFUSE", "REFUSED"),
            ("METHODS", "NEEDS_NO_METHOD", "REQUEST"),
            ("METHODS", "CHOSE_METHOD", "EXCHANGE"),
            ("METHODS", "REFUSE", "REFUSED"),
            ("EXCHANGE", "ASKED", "JUDGING"),
            ("EXCHANGE", "REFUSE", "REFUSED"),
            ("JUDGING", "WENT_ON", "EXCHANGE"),
            ("JUDGING", "GRANTED_USER", "REQUEST"),
            ("JUDGING", "REFUSE", "REFUSED"),
            ("REQUEST", "READ_REQUEST", "SERVING"),
            ("REQUEST", "REFUSE", "REFUSED"),
            ("REQUEST4", "READ_REQUEST", "SERVING"),
            ("REQUEST4", "REFUSE", "REFUSED"),
            ("SERVING", "ANNOUNCE", "ANNOUNCED"),
            ("SERVING", "GRANT", "GRANTED"),
            ("SERVING", "REFUSE", "REFUSED"),
            ("ANNOUNCED", "GRANT", "GRANTED"),
            ("ANNOUNCED", "REFUSE", "REFUSED"),
        }
        assert set(TRANSITIONS) == set(State)

    def test_every_state_can_be_reached_and_left(self) -> None:
        reached, todo = set(), [State.START]
        while todo:
            state = todo.pop()
            if state not in reached:
                reached.add(state)
                todo += TRANSITIONS[state].values()
        assert reached == set(State)
        assert {state for state in State if not TRANSITIONS[state]} == {State.GRANTED, State.REFUSED}

    @pytest.mark.parametrize("state", State)
    @pytest.mark.parametrize(
        ("answer", "step", "reply"),
        [
            (lambda negotiation: negotiation.grant(BOUND), Step.GRANT, 0),
            (lambda negotiation: negotiation.announce(BOUND), Step.ANNOUNCE, 0),
            (lambda negotiation: negotiation.refuse(Reply.CONNECTION_REFUSED), Step.REFUSE, 5),
        ],
        ids=["grant", "announce", "refuse"],
    )
    def test_answers(self, state: State, answer: object, step: Step, reply: int) -> None:
        """No reply leaves in a state that has none, least of all a second one."""
        assert callable(answer)
        negotiation = in_state(state)
        if step not in TRANSITIONS[state]:
            with pytest.raises(IllegalStep):
                answer(negotiation)
            return
        assert answer(negotiation)[:2] == bytes((5, reply))
        assert negotiation.state is TRANSITIONS[state][step]


class TestReplies:
    """Each is one piece of bytes, in the client's version."""

    @pytest.mark.parametrize(
        ("bound", "five", "four"),
        [
            (BOUND, b"\x05\x00\x00\x01\xc0\x00\x02\x07\x12\x67", b"\x00\x5a\x12\x67\xc0\x00\x02\x07"),
            (
                Address.of("2001:db8::7", 4711),
                b"\x05\x00\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x12\x67",
                b"\x00\x5a\x12\x67\x00\x00\x00\x00",
            ),
        ],
        ids=["IPv4", "IPv6"],
    )
    def test_grant_and_announce(self, bound: Address, five: bytes, four: bytes) -> None:
        for version, expected in ((Version.SOCKS5, five), (Version.SOCKS4, four)):
            assert in_state(State.SERVING, version).grant(bound) == expected
            negotiation = in_state(State.SERVING, version)
            assert negotiation.announce(bound) == expected
            assert negotiation.grant(bound) == expected

    @pytest.mark.parametrize("reply", [reply for reply in Reply if reply is not Reply.SUCCEEDED])
    @pytest.mark.parametrize("state", [State.SERVING, State.ANNOUNCED])
    def test_refuse(self, reply: Reply, state: State) -> None:
        assert in_state(state, Version.SOCKS5).refuse(reply) == refusal5(reply)
        assert in_state(state, Version.SOCKS4).refuse(reply) == REFUSAL4


def test_early_data_has_a_bound() -> None:
    """Its owner stops reading in time: a client cannot fill the memory while a name is looked up."""
    negotiation = Negotiation()
    assert negotiation.receive(REQUESTS[0][1] + bytes(MAX_EARLY - 1)) is not None
    assert not negotiation.full
    negotiation.receive(b"x")
    assert negotiation.full
    assert len(negotiation.early) == MAX_EARLY


heads = likely(
    GREETING,
    GREETING + b"\x05\x01\x00\x01",
    GREETING + b"\x05\x01\x00\x03\x05",
    b"\x05\x02\x00",
    b"\x04\x01\x00\x50\xc0\x00\x02\x01",
    b"\x04\x01\x00\x50\x00\x00\x00\x01u\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01" + b"u" * 505,
)


@given(heads, st.lists(st.integers(1, 60), max_size=40))
@example(GREETING + b"\x05\x01\x00\x02", [1, 1])
@example(b"\x05\x01\x02\x05\x01", [3])
@example(b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 514, [520])
@example(b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"n" * 257, [264])
def test_any_bytes_in_any_split(data: bytes, sizes: list[int]) -> None:
    """A request, more is needed, or ProtocolError; and how it was cut changes nothing."""
    _, whole = converse([data])
    segments, at = [], 0
    for size in sizes:
        segments.append(data[at : at + size])
        at += size
    segments.append(data[at:])
    negotiation, split = converse(segments)
    assert split == whole
    if whole.request is not None:
        assert (whole.state, whole.problem) == (State.SERVING, None)
        assert data.endswith(whole.early)
    elif whole.problem is not None:
        assert whole.state is State.REFUSED
        assert whole.problem.isascii()
        assert whole.problem.isprintable()
    else:
        assert negotiation.early == data[len(data) - len(negotiation.early) :]
        assert len(negotiation.early) <= 8 + 513 + 256


@given(bytes_, addresses, st.binary(max_size=40))
def test_any_request(command: int, destination: Address, early: bytes) -> None:
    """What a client can say comes out as it was said."""
    from socksproxy.wire import socks5

    data = GREETING + socks5.build_request(command, destination)
    _, outcome = converse([data + early])
    assert outcome.request is not None
    assert outcome.request.command == command
    assert outcome.request.destination == destination
    assert outcome.early == early


@pytest.mark.parametrize(
    ("command", "name"),
    [(1, "CONNECT"), (3, "UDP_ASSOCIATE"), (0xF1, "RESOLVE_PTR"), (0, "0x00"), (0x99, "0x99"), (255, "0xFF")],
)
def test_command_name(command: int, name: str) -> None:
    assert command_name(command) == name


def test_name_from_the_wire_is_not_trusted() -> None:
    """It keeps its bytes, and its type, whatever it looks like."""
    data = GREETING + b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50"
    _, outcome = converse([data])
    assert outcome.request is not None
    assert outcome.request.destination == Address("127.0.0.1", 80, AddressType.DOMAIN_NAME)
