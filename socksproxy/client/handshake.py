"""
The client's side of a SOCKS handshake: bytes in, bytes out. No Twisted, no clock, no input or output.

Any program can drive a :class:`Handshake`. This is the whole of a client that blocks::

    handshake = Handshake(Request(Version.SOCKS5, Command.CONNECT, Address.of("example.org", 80)))
    with socket.create_connection(("127.0.0.1", 1080)) as sock:
        send = handshake.begin()
        while not handshake.done:
            sock.sendall(send)
            send = handshake.receive(sock.recv(4096))  # b"" says that the proxy has closed
            if handshake.work is not None:  # GSSAPI alone: a call that may block
                send += handshake.resume(handshake.work())
        bound = handshake.answers[0]  # BND.ADDR and BND.PORT
        early = handshake.rest  # what the destination has sent meanwhile

Each method raises :class:`HandshakeFailed` when the handshake has failed. The caller then closes the
connection. The caller also limits the time: a proxy may be silent.

A BIND has two answers: :attr:`Handshake.answers` has one element after the first reply. The connection of
UDP ASSOCIATE stays open as long as the association is in use. The answer to RESOLVE is an address whose port
says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeAlias

from ..wire import password, socks4, socks5
from ..wire.password import Credentials, build_credentials
from ..wire.words import Address, Command, Method, ProtocolError, Reply, Reply4, Request, Version

#: A call that may block. Its result goes to :meth:`Handshake.resume`.
Work: TypeAlias = Callable[[], bytes]


class Problem(Enum):
    """What has failed."""

    #: The proxy breaks the protocol, or closes the connection before the request is sent.
    PROTOCOL = "the proxy breaks the protocol"
    #: The proxy accepts none of the methods that were offered.
    NO_METHOD = "the proxy accepts none of the offered methods"
    #: The proxy does not accept the login.
    LOGIN = "the proxy refuses the login"
    #: The proxy has answered the request with an error.
    REFUSED = "the proxy refuses the request"
    #: The proxy has closed the connection instead of an answer to the request.
    CLOSED = "the proxy has closed the connection without an answer"


class HandshakeFailed(Exception):
    """
    A handshake has failed.

    :ivar problem: what has failed.
    :ivar detail: more about it; it may be empty.
    :ivar reply: the number that the proxy has told: REP, CD or the status of HTTP where the request is
        refused, the status where the login is refused, the method where none is acceptable; None: there is
        none.
    :ivar meaning: what a refusal says, as REP of SOCKS5 says it, whatever the proxy speaks.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str = "",
        reply: int | None = None,
        meaning: int = Reply.GENERAL_FAILURE,
    ) -> None:
        super().__init__(f"{problem.value} ({detail})" if detail else problem.value)
        self.problem = problem
        self.detail = detail
        self.reply = reply
        self.meaning = meaning


class Wrapping(Protocol):
    """The protection of all bytes that follow a login."""

    def wrap(self, data: bytes) -> bytes:
        """*data* as it is sent."""

    def unwrap(self, data: bytes) -> bytes:
        """The plain bytes of what is complete with *data*; the rest waits inside."""


class Exchange(Protocol):
    """
    The messages of one login.

    :ivar done: whether the proxy has accepted the login.
    :ivar wrapping: once it is done, the protection of what follows; None: there is none.
    """

    done: bool
    wrapping: Wrapping | None

    def begin(self) -> bytes | Work:
        """The first message."""

    def receive(self, data: bytearray) -> tuple[int, bytes | Work]:
        """
        Take the proxy's next message from *data*.

        :returns: how many bytes the message has, 0 where more are needed, and what to send next.
        :raises HandshakeFailed: when the login is refused.
        :raises ProtocolError: for what is no message of the method.
        """


class Login(Protocol):
    """
    How the client shows who it is.

    :ivar methods: the methods that are offered, in this order, a byte each.
    """

    @property
    def methods(self) -> bytes: ...

    def exchange(self, method: int) -> Exchange | None:
        """The messages of *method*, which the proxy has chosen; None: the method has none."""


class _PasswordExchange:
    """The messages of RFC 1929."""

    wrapping: Wrapping | None = None

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.done = False

    def begin(self) -> bytes:
        return self._message

    def receive(self, data: bytearray) -> tuple[int, bytes]:
        parsed = password.parse_status(data)
        if parsed is None:
            return 0, b""
        status, taken = parsed
        if status != password.SUCCESS:
            raise HandshakeFailed(Problem.LOGIN, f"status {status}", status)
        self.done = True
        return taken, b""


class UsernamePassword:
    """
    The login of RFC 1929. A ``str`` is sent in UTF-8.

    :param username: at most 255 bytes.
    :param password: at most 255 bytes. The RFC has at least one byte; there are servers that accept none.
    :param insist: whether the proxy must ask for the login; if not, a proxy that takes all clients
        is accepted, too.
    :raises ValueError: for a field that is too long.
    """

    __slots__ = ("_message", "credentials", "methods")

    def __init__(self, username: str | bytes, password: str | bytes = b"", *, insist: bool = False) -> None:
        self.credentials = Credentials(_encoded(username), _encoded(password))
        self._message = build_credentials(self.credentials)
        open_too = () if insist else (Method.NO_AUTHENTICATION,)
        self.methods = bytes((*open_too, Method.USERNAME_PASSWORD))

    def exchange(self, method: int) -> Exchange | None:
        """See :meth:`Login.exchange`."""
        return _PasswordExchange(self._message) if method == Method.USERNAME_PASSWORD else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UsernamePassword):
            return NotImplemented
        return (self._message, self.methods) == (other._message, other.methods)

    def __hash__(self) -> int:
        return hash((self._message, self.methods))

    def __repr__(self) -> str:
        return f"UsernamePassword({self.credentials.username!r}, ...)"


def _encoded(field: str | bytes) -> bytes:
    return field.encode() if isinstance(field, str) else field


class Handshake:
    """
    One handshake, of SOCKS4, SOCKS4a (SOCKS4 with a name) or SOCKS5.

    :param request: the version, the command, the destination and, for SOCKS4, the USERID.
    :param login: who the client is, for SOCKS5; None: the client does not say.
    :raises ValueError: for a request that cannot be expressed: an IPv6 address in SOCKS4, a name of more than
        255 bytes, a port over 65535.
    :ivar answers: the addresses of the replies so far: one, or two for BIND.
    :ivar done: whether all replies are there.
    :ivar work: a call that may block and whose result :meth:`resume` is waiting for; None: there is none.
    :ivar wrapping: how GSSAPI protects the bytes on the connection from now on; None: they are plain. The
        caller wraps all bytes that it sends after the handshake, and unwraps all that it receives.
    """

    __slots__ = (
        "_buffer",
        "_exchange",
        "_login",
        "_replies",
        "_request",
        "_step",
        "answers",
        "done",
        "work",
        "wrapping",
    )

    def __init__(self, request: Request, login: Login | None = None) -> None:
        self._buffer = bytearray()
        self._login = login
        self._exchange: Exchange | None = None
        self._replies = 2 if request.command == Command.BIND else 1
        # A function, not a bound method, which would be a cycle.
        self._step: Callable[[Handshake], bytes | None]
        self.answers: list[Address] = []
        self.done = False
        self.work: Work | None = None
        self.wrapping: Wrapping | None = None
        if request.version is Version.SOCKS4:
            self._step = Handshake._take_reply4
            self._request = socks4.build_request(request)
        else:
            self._step = Handshake._take_choice
            self._request = socks5.build_request(request.command, request.destination)

    def begin(self) -> bytes:
        """What is sent first."""
        if self._step is Handshake._take_reply4:
            return self._request
        return socks5.build_greeting(self._offered())

    def receive(self, data: bytes) -> bytes:
        """
        Take what the proxy has sent, in pieces of any size.

        :param data: empty where the proxy has closed the connection.
        :returns: what to send next; it may be empty.
        :raises HandshakeFailed: when the handshake has failed.
        """
        if not data:
            raise self._closed()
        if self.work is not None:
            raise HandshakeFailed(Problem.PROTOCOL, "it sends more before it has a token of GSSAPI")
        try:
            self._buffer += data if self.wrapping is None else self.wrapping.unwrap(data)
            return self._go_on()
        except ProtocolError as problem:
            raise HandshakeFailed(Problem.PROTOCOL, str(problem)) from None

    def resume(self, result: bytes) -> bytes:
        """
        Go on with the *result* of :attr:`work`.

        :returns: what to send next.
        """
        self.work = None
        return result

    @property
    def asking(self) -> bool:
        """Whether the request is sent and the proxy has not answered."""
        return self._step in _AWAIT_REPLY and not self.done

    @property
    def rest(self) -> bytes:
        """The plain bytes behind the last reply: the destination's first ones."""
        return bytes(self._buffer)

    def _go_on(self) -> bytes:
        send = b""
        while not self.done and self.work is None:
            said = self._step(self)
            if said is None:
                break
            send += said
        return send

    def _closed(self) -> HandshakeFailed:
        if self.asking:
            return HandshakeFailed(Problem.CLOSED)
        return HandshakeFailed(Problem.PROTOCOL, "it closes the connection before the request")

    def _offered(self) -> bytes:
        return _OPEN if self._login is None else self._login.methods

    # What is due next. Each takes a message from the buffer and gives what to send; None: more is needed.

    def _take_choice(self) -> bytes | None:
        parsed = socks5.parse_choice(self._buffer)
        if parsed is None:
            return None
        method, taken = parsed
        del self._buffer[:taken]
        if method == Method.NO_ACCEPTABLE:
            raise HandshakeFailed(Problem.NO_METHOD, reply=method)
        if method not in self._offered():
            raise ProtocolError(f"method {method} was not offered")
        self._exchange = None if self._login is None else self._login.exchange(method)
        if self._exchange is None:
            return self._ask()
        self._step = Handshake._take_login
        return self._say(self._exchange.begin())

    def _take_login(self) -> bytes | None:
        exchange = self._exchange
        assert exchange is not None
        taken, said = exchange.receive(self._buffer)
        if not taken:
            return None
        del self._buffer[:taken]
        if not exchange.done:
            return self._say(said)
        self.wrapping = exchange.wrapping
        if self.wrapping is not None:
            self._buffer = bytearray(self.wrapping.unwrap(bytes(self._buffer)))
        return self._ask()

    def _say(self, said: bytes | Work) -> bytes:
        if isinstance(said, bytes):
            return said
        self.work = said
        return b""

    def _ask(self) -> bytes:
        self._step = Handshake._take_reply5
        return self._request if self.wrapping is None else self.wrapping.wrap(self._request)

    def _take_reply5(self) -> bytes | None:
        # What is behind REP says nothing of a failure, and some proxies cut it short or send an empty name.
        reply = socks5.parse_verdict(self._buffer)
        if reply:
            raise HandshakeFailed(Problem.REFUSED, f"reply {reply}", reply, meaning=reply)
        return self._answer(socks5.parse_reply(self._buffer))

    def _take_reply4(self) -> bytes | None:
        reply = socks4.parse_verdict(self._buffer)
        if reply is not None and reply != Reply4.GRANTED:
            problem = Problem.LOGIN if reply in _IDENT else Problem.REFUSED
            raise HandshakeFailed(problem, f"reply {reply}", reply)
        return self._answer(socks4.parse_reply(self._buffer))

    def _answer(self, parsed: tuple[socks5.SOCKS5Reply | socks4.SOCKS4Reply, int] | None) -> bytes | None:
        if parsed is None:
            return None
        message, taken = parsed
        del self._buffer[:taken]
        self.answers.append(message.address)
        self.done = len(self.answers) == self._replies
        return b""


_AWAIT_REPLY = (Handshake._take_reply4, Handshake._take_reply5)
_OPEN = bytes((Method.NO_AUTHENTICATION,))
_IDENT = (Reply4.NO_IDENT, Reply4.IDENT_MISMATCH)
