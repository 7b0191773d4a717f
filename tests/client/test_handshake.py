"""The client's side of a handshake. Numbers such as "e 1" are those of known faults of other clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.client.handshake import (
    Exchange,
    Handshake,
    HandshakeFailed,
    Login,
    Problem,
    UsernamePassword,
    Work,
    Wrapping,
)
from socksproxy.wire import socks4, socks5
from socksproxy.wire.words import Address, AddressType, Command, ProtocolError, Request, Version

V4, V5 = Version.SOCKS4, Version.SOCKS5
NAME = Address.of("example.org", 80)
#: BND.ADDR 192.0.2.1, BND.PORT 80.
BOUND = b"\x01\xc0\x00\x02\x01\x00\x50"


def asked(
    version: Version = V5,
    destination: Address = NAME,
    *,
    login: Login | None = None,
    command: int = Command.CONNECT,
    userid: bytes = b"",
) -> Handshake:
    return Handshake(Request(version, command, destination, userid), login)


def talk(handshake: Handshake, pieces: Sequence[bytes]) -> list[bytes]:
    """What *handshake* sends: first, and after each of the proxy's *pieces*."""
    return [handshake.begin(), *map(handshake.receive, pieces)]


def failure(handshake: Handshake, pieces: Sequence[bytes]) -> HandshakeFailed:
    """How *handshake* ends with the last of *pieces*, which b"" ends: it must fail there and not earlier."""
    talk(handshake, pieces[:-1])
    assert not handshake.done
    with pytest.raises(HandshakeFailed) as caught:
        handshake.receive(pieces[-1])
    assert str(caught.value).isprintable()
    return caught.value


# What is sent.


@pytest.mark.parametrize(
    ("handshake", "request_bytes"),
    [
        (asked(V5, Address.of("192.0.2.7", 80)), b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"),
        (asked(V5, Address.of("::1", 80)), b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"),
        (
            asked(V5, Address.of("::ffff:1.2.3.4", 443)),
            b"\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\x01\x02\x03\x04\x01\xbb",
        ),
        (asked(V5, NAME), b"\x05\x01\x00\x03\x0bexample.org\x00\x50"),
        (asked(V5, Address.of("n" * 255, 80)), b"\x05\x01\x00\x03\xff" + b"n" * 255 + b"\x00\x50"),
        (asked(V5, NAME, command=Command.RESOLVE), b"\x05\xf0\x00\x03\x0bexample.org\x00\x50"),
    ],
)
def test_socks5_request(handshake: Handshake, request_bytes: bytes) -> None:
    """e 3: some cut IPv6 addresses to 4 bytes, or send literal addresses as names."""
    assert talk(handshake, [b"\x05\x00"]) == [b"\x05\x01\x00", request_bytes]


@pytest.mark.parametrize(
    ("handshake", "request_bytes"),
    [
        (asked(V4, Address.of("192.0.2.7", 80), userid=b"me"), b"\x04\x01\x00\x50\xc0\x00\x02\x07me\0"),
        (asked(V4, NAME), b"\x04\x01\x00\x50\x00\x00\x00\x01\0example.org\0"),
        (asked(V4, NAME, command=Command.BIND), b"\x04\x02\x00\x50\x00\x00\x00\x01\0example.org\0"),
    ],
)
def test_socks4_request(handshake: Handshake, request_bytes: bytes) -> None:
    """Version 4 has one message; a name makes it 4a."""
    assert handshake.begin() == request_bytes


@pytest.mark.parametrize(
    ("version", "destination"),
    [
        (V4, Address.of("::1", 80)),
        (V4, Address.of("0.0.0.7", 80)),
        (V5, Address.of("n" * 256, 80)),
        (V5, Address.of("", 80)),
        (V5, Address("fe80::1%lo", 80, AddressType.IPV6)),
        (V5, Address.of("example.org", 65536)),
    ],
)
def test_what_cannot_be_asked(version: Version, destination: Address) -> None:
    """It fails before a connection is made, and not as half a request."""
    with pytest.raises(ValueError, match=r"\w"):
        asked(version, destination)


# Methods and logins.

LOGIN = b"\x01\x02me\x06secret"
ME = UsernamePassword("me", "secret")


@pytest.mark.parametrize(
    ("login", "offered"),
    [(None, b"\x00"), (ME, b"\x00\x02"), (UsernamePassword("me", "secret", insist=True), b"\x02")],
)
def test_offered_methods(login: Login | None, offered: bytes) -> None:
    """e 11: a client that offers one method alone fails where the server chooses the other."""
    assert asked(login=login).begin() == bytes((5, len(offered))) + offered


def test_a_proxy_that_wants_the_login() -> None:
    """Three rounds; the request waits for the status."""
    sent = talk(asked(login=ME), [b"\x05\x02", b"\x01\x00", b"\x05\x00\x00" + BOUND])
    assert sent[1:] == [LOGIN, b"\x05\x01\x00\x03\x0bexample.org\x00\x50", b""]


def test_a_proxy_that_wants_no_login() -> None:
    """e 11: the same login, and no password goes over the wire."""
    sent = talk(asked(login=ME), [b"\x05\x00", b"\x05\x00\x00" + BOUND])
    assert sent[1:] == [b"\x05\x01\x00\x03\x0bexample.org\x00\x50", b""]


@pytest.mark.parametrize(
    ("user", "secret"),
    [(b"u" * 255, b"p" * 255), ("ü" * 127 + "x", "ж" * 127), (b"me", b""), (b"\xff\x00", b"\x80")],
)
def test_login_of_any_length(user: str | bytes, secret: str | bytes) -> None:
    """e 12: names of more than 127 bytes are mis-sent where the length is counted in letters or signed."""
    user_bytes, secret_bytes = (f.encode() if isinstance(f, str) else f for f in (user, secret))
    message = talk(asked(login=UsernamePassword(user, secret)), [b"\x05\x02"])[1]
    fields = bytes([len(user_bytes)]) + user_bytes + bytes([len(secret_bytes)]) + secret_bytes
    assert message == b"\x01" + fields


@pytest.mark.parametrize(("user", "secret"), [("u" * 256, "p"), ("u", "p" * 256), ("ü" * 128, "p")])
def test_login_that_is_too_long(user: str, secret: str) -> None:
    """e 12: 256 bytes are refused before a byte is sent, and the text does not show the password."""
    with pytest.raises(ValueError, match="at most 255 bytes") as caught:
        UsernamePassword(user, secret)
    assert secret * 9 not in str(caught.value)


def test_a_login_does_not_show_its_password() -> None:
    """Else passwords end in logs and tracebacks."""
    assert "me" in repr(ME)
    assert "secret" not in repr(ME)
    assert UsernamePassword(b"me", b"secret") == ME
    assert len({ME, UsernamePassword("me", "secret"), UsernamePassword("me", "other")}) == 2


# How a handshake fails.

REQUESTED = [b"\x05\x00"]


@pytest.mark.parametrize(
    ("login", "pieces", "problem", "reply"),
    [
        # e 11: FF and 7F are two things.
        (None, [b"\x05\xff"], Problem.NO_METHOD, 0xFF),
        (ME, [b"\x05\xff"], Problem.NO_METHOD, 0xFF),
        (None, [b"\x05\x7f"], Problem.PROTOCOL, None),
        (None, [b"\x05\x02"], Problem.PROTOCOL, None),
        (UsernamePassword("me", "x", insist=True), [b"\x05\x00"], Problem.PROTOCOL, None),
        # e 6: other protocols, and an end in each phase.
        (None, [b"\x04\x00"], Problem.PROTOCOL, None),
        (None, [b"HTTP/1.1 400 Bad Request\r\n\r\n"], Problem.PROTOCOL, None),
        (None, [b""], Problem.PROTOCOL, None),
        (None, [b"\x05", b""], Problem.PROTOCOL, None),
        (ME, [b"\x05\x02", b""], Problem.PROTOCOL, None),
        (ME, [b"\x05\x02", b"\x01\x01"], Problem.LOGIN, 1),
        (ME, [b"\x05\x02", b"\x01\xff"], Problem.LOGIN, 255),
        (ME, [b"\x05\x02", b"\x05\x00"], Problem.PROTOCOL, None),
        (None, [*REQUESTED, b""], Problem.CLOSED, None),
        (None, [*REQUESTED, b"\x05", b""], Problem.CLOSED, None),
        (None, [*REQUESTED, b"\x05\x00\x00\x01\x00", b""], Problem.CLOSED, None),
        (None, [*REQUESTED, b"\x04\x5a"], Problem.PROTOCOL, None),
        (None, [*REQUESTED, b"\x05\x00\x00\x02"], Problem.PROTOCOL, None),
        # e 5: replies that are cut short keep their code.
        (None, [*REQUESTED, b"\x05\x05"], Problem.REFUSED, 5),
        (None, [*REQUESTED, b"\x05\x05\x00\x03\x00"], Problem.REFUSED, 5),
        (None, [*REQUESTED, b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"], Problem.REFUSED, 5),
        (None, [*REQUESTED, b"\x05", b"\x05"], Problem.REFUSED, 5),
        (None, [*REQUESTED, b"\x05\xff\xff\xff"], Problem.REFUSED, 255),
    ],
)
def test_socks5_failures(
    login: Login | None, pieces: list[bytes], problem: Problem, reply: int | None
) -> None:
    """Each failure is told as what it is, as soon as it can be known."""
    found = failure(asked(login=login), pieces)
    assert (found.problem, found.reply) == (problem, reply)


@pytest.mark.parametrize("reply", range(1, 256))
def test_every_reply(reply: int) -> None:
    """e 5: REP is judged alone, whatever follows it."""
    assert failure(asked(), [*REQUESTED, bytes((5, reply))]).reply == reply


@pytest.mark.parametrize(
    ("pieces", "problem", "reply"),
    [
        ([b"\x00\x5b"], Problem.REFUSED, 91),
        ([b"\x00\x5b" + bytes(6)], Problem.REFUSED, 91),
        ([b"\x04\x5b"], Problem.REFUSED, 91),
        ([b"\x00\x5c"], Problem.LOGIN, 92),
        ([b"\x00\x5d"], Problem.LOGIN, 93),
        ([b"\x00\x00"], Problem.REFUSED, 0),
        ([b"\x05\xff"], Problem.PROTOCOL, None),
        ([b"H"], Problem.PROTOCOL, None),
        ([b""], Problem.CLOSED, None),
        ([b"\x00\x5a\x00", b""], Problem.CLOSED, None),
    ],
)
def test_socks4_failures(pieces: list[bytes], problem: Problem, reply: int | None) -> None:
    """The same for version 4."""
    found = failure(asked(V4), pieces)
    assert (found.problem, found.reply) == (problem, reply)


# Answers.


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        # e 4: a port in native order makes 20480 of 80.
        (BOUND, Address("192.0.2.1", 80, AddressType.IPV4)),
        (b"\x04" + bytes(15) + b"\x01\x00\x50", Address("::1", 80, AddressType.IPV6)),
        # e 2: names of every length, and bytes that are no UTF-8.
        (b"\x03\x00\x00\x50", Address("", 80, AddressType.DOMAIN_NAME)),
        (b"\x03\x01a\x00\x50", Address("a", 80, AddressType.DOMAIN_NAME)),
        (b"\x03\xff" + b"n" * 255 + b"\x00\x50", Address("n" * 255, 80, AddressType.DOMAIN_NAME)),
        (b"\x03\x02\xff\xfe\x00\x50", Address("\udcff\udcfe", 80, AddressType.DOMAIN_NAME)),
    ],
)
@pytest.mark.parametrize("rsv", [0, 1, 255])
def test_bound_address(fields: bytes, bound: Address, rsv: int) -> None:
    """e 2, 4, 11: every form of BND.ADDR, and any RSV."""
    handshake = asked()
    talk(handshake, [b"\x05\x00", bytes((5, 0, rsv)) + fields])
    assert handshake.done
    assert handshake.answers == [bound]
    assert handshake.rest == b""


BANNER = b"SSH-2.0-OpenSSH_9.2\r\n\x05\x00"


@pytest.mark.parametrize(
    ("handshake", "stream"),
    [
        (asked, b"\x05\x00\x05\x00\x00" + BOUND + BANNER),
        (lambda: asked(login=ME), b"\x05\x02\x01\x00\x05\x00\x00\x03\x01a\x00\x50" + BANNER),
        (lambda: asked(V4), b"\x00\x5a\x00\x50\xc0\x00\x02\x01" + BANNER),
        (
            lambda: asked(command=Command.BIND),
            b"\x05\x00\x05\x00\x00" + BOUND + b"\x05\x00\x00" + BOUND + BANNER,
        ),
    ],
)
def test_bytes_behind_the_reply(handshake: Callable[[], Handshake], stream: bytes) -> None:
    """e 1: bytes in the reply's segment are the destination's, wherever the stream is cut."""
    for cut in range(1, len(stream)):
        one = handshake()
        talk(one, [piece for piece in (stream[:cut], stream[cut:]) if piece])
        assert one.done
        assert one.rest == BANNER
    one = handshake()
    talk(one, [stream[at : at + 1] for at in range(len(stream))])
    assert one.rest == BANNER


def test_bind_has_two_replies() -> None:
    """e 18: the first tells the port, the second the peer."""
    handshake = asked(command=Command.BIND)
    talk(handshake, [b"\x05\x00", b"\x05\x00\x00" + BOUND])
    assert (handshake.answers, handshake.done) == ([Address.of("192.0.2.1", 80)], False)
    handshake.receive(b"\x05\x00\x00\x01\xc0\x00\x02\x02\x00\x51")
    assert (handshake.answers[1:], handshake.done) == ([Address.of("192.0.2.2", 81)], True)


@pytest.mark.parametrize(("second", "problem"), [(b"", Problem.CLOSED), (b"\x05\x06", Problem.REFUSED)])
def test_bind_fails_between_its_replies(second: bytes, problem: Problem) -> None:
    """e 18: the end, or an error, instead of the second reply."""
    found = failure(asked(command=Command.BIND), [b"\x05\x00", b"\x05\x00\x00" + BOUND, second])
    assert found.problem is problem


# Methods that are added.


class Rot:
    """A protection for tests: each byte plus one."""

    def wrap(self, data: bytes) -> bytes:
        return bytes((byte + 1) % 256 for byte in data)

    def unwrap(self, data: bytes) -> bytes:
        return bytes((byte - 1) % 256 for byte in data)


class Riddle:
    """A login of two rounds. Its messages are made by calls that may block."""

    methods = b"\x80"

    def __init__(self) -> None:
        self.done = False
        self.wrapping: Wrapping | None = Rot()
        self._rounds = 0

    def exchange(self, method: int) -> Exchange | None:
        assert method == 0x80
        return self

    def begin(self) -> bytes | Work:
        return lambda: b"ask"

    def receive(self, data: bytearray) -> tuple[int, bytes | Work]:
        if len(data) < 3:
            return 0, b""
        self._rounds += 1
        if data[:3] != b"no%d" % self._rounds:
            raise ProtocolError("a wrong answer")
        self.done = self._rounds == 2
        return 3, b"" if self.done else (lambda: b"again")


def test_a_login_of_calls_that_block() -> None:
    """The caller decides where they run; bytes that come meanwhile wait; what follows is protected."""
    handshake, rot = asked(login=Riddle()), Rot()
    assert talk(handshake, [b"\x05\x80"]) == [b"\x05\x01\x80", b""]
    assert handshake.work is not None
    assert handshake.resume(handshake.work()) == b"ask"
    assert handshake.receive(b"no1") == b""
    assert handshake.work is not None
    assert handshake.resume(handshake.work()) == b"again"
    reply = rot.wrap(b"\x05\x00\x00" + BOUND + BANNER)
    assert handshake.receive(b"no2" + reply) == rot.wrap(b"\x05\x01\x00\x03\x0bexample.org\x00\x50")
    assert handshake.done
    assert handshake.rest == BANNER


def test_a_login_that_is_answered_wrongly() -> None:
    """An exchange can say that its proxy breaks the protocol."""
    handshake = asked(login=Riddle())
    talk(handshake, [b"\x05\x80"])
    assert handshake.work is not None
    handshake.resume(handshake.work())
    with pytest.raises(HandshakeFailed, match="a wrong answer"):
        handshake.receive(b"no9")


# Any stream.

TRUE = {
    V5: b"\x05\x02\x01\x00\x05\x00\x00\x03\x02ab\x00\x50",
    V4: b"\x00\x5a\x00\x50\xc0\x00\x02\x01",
}
streams = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda stream, at, more: stream[:at] + more,
        st.sampled_from([*TRUE.values(), b"\x05\x00" + TRUE[V5][4:]]),
        st.integers(0, 14),
        st.binary(max_size=40),
    ),
)


def outcome(version: Version, pieces: Sequence[bytes]) -> object:
    handshake = asked(version, login=ME)
    sent = handshake.begin()
    try:
        for piece in pieces:
            sent += handshake.receive(piece)
    except HandshakeFailed as problem:
        return problem.problem, problem.reply
    return sent, handshake.answers, handshake.done, handshake.rest


@given(st.sampled_from([V4, V5]), streams, st.lists(st.integers(0, 300)))
@example(V5, b"\x05\x00\x05\x00\x00\x03\x00\x00\x50", [1])
def test_any_stream_however_it_is_cut(version: Version, stream: bytes, cuts: list[int]) -> None:
    """e 1, 2, 5, 6: any bytes end in an answer, a wait or one failure, the same for every segmentation."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert outcome(version, pieces) == outcome(version, [stream] if stream else [])


@given(streams, st.binary(max_size=40))
def test_what_follows_a_reply_is_never_lost(start: bytes, rest: bytes) -> None:
    """e 1: a complete handshake and any bytes: all of them are the destination's."""
    for version, stream in TRUE.items():
        handshake = asked(version, login=ME)
        talk(handshake, [stream + rest])
        assert (handshake.done, handshake.rest) == (True, rest)


def test_a_client_that_blocks() -> None:
    """The program of the module's text, with a socket."""
    ours, theirs = socket.socketpair()

    def proxy() -> None:
        with theirs:
            assert theirs.recv(100) == b"\x05\x01\x00"
            theirs.sendall(b"\x05\x00")
            theirs.recv(100)
            theirs.sendall(b"\x05\x00\x00" + BOUND + BANNER)

    thread = threading.Thread(target=proxy)
    thread.start()
    handshake = asked()
    with ours:
        ours.settimeout(10)
        send = handshake.begin()
        while not handshake.done:
            ours.sendall(send)
            send = handshake.receive(ours.recv(4096))
    thread.join()
    assert handshake.answers == [Address.of("192.0.2.1", 80)]
    assert handshake.rest == BANNER


def test_the_builders_are_the_servers() -> None:
    """Both ends of the protocol read and write with the same modules."""
    sent = talk(asked(), [b"\x05\x00"])
    parsed = socks5.parse_request(sent[1])
    assert parsed is not None
    assert parsed[0].destination == NAME
    parsed = socks4.parse_request(asked(V4).begin())
    assert parsed is not None
    assert parsed[0].destination == NAME


def test_bytes_while_a_call_blocks() -> None:
    """The proxy has nothing to say then: the call is not made twice, and nothing piles up."""

    class Blocking:
        methods = b"\x01"

        def exchange(self, method: int) -> Any:
            return self

        def begin(self) -> Any:
            return lambda: b"token"

    request = Request(Version.SOCKS5, Command.CONNECT, Address.of("192.0.2.9", 80))
    handshake = Handshake(request, Blocking())
    handshake.begin()
    assert handshake.receive(b"\x05\x01") == b""
    assert handshake.work is not None
    with pytest.raises(HandshakeFailed) as caught:
        handshake.receive(b"x")
    assert caught.value.problem is Problem.PROTOCOL
