"""
The conversation with a client up to its request and the reply: sans-io.

Bytes go in through :meth:`Negotiation.receive`, a :class:`~socksproxy.wire.words.Request`
comes out, and the bytes to send stand in :attr:`Negotiation.output`. This module has no
clock, no socket and no Twisted: the owner has those. An authentication method
(:class:`IMethod`) finds out who the client is. What the method cannot do by itself is a token in
:attr:`Negotiation.move`: this module does not look into the token, and the conversation waits until the
owner has done what the token says.

Strategy: every state that waits for bytes has one reader, a parser and what
follows from its message. States change only by :data:`TRANSITIONS`; a step that
the table does not have raises :class:`IllegalStep`, which is a fault of ours and
never of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from zope.interface import Attribute, Interface, implementer

from .wire import socks4, socks5
from .wire.words import (
    UNSPECIFIED,
    Address,
    Command,
    Method,
    ProtocolError,
    Reply,
    Reply4,
    Request,
    Version,
)

#: The most bytes that are kept for the relay while a request is served.
MAX_EARLY = 65536


class Say(NamedTuple):
    """A move of an exchange: send *data* to the client, and go on listening."""

    data: bytes


class LogIn(NamedTuple):
    """
    A move of an exchange: the owner asks whether *credentials* are right.

    :ivar credentials: a token; :meth:`Negotiation.judge` takes the answer.
    """

    credentials: Any


class IWrapping(Interface):
    """
    What a method has agreed on for the bytes after it: each way they are encapsulated.

    It neither blocks nor keeps more than one unfinished message of the client's.
    """

    def wrap(data: bytes) -> bytes:
        """*data* as the client is to get it: one message or several."""

    def unwrap(data: bytes) -> bytes:
        """
        What is whole in the client's stream with *data* added; the rest is kept.

        :raises ProtocolError: when it cannot be: the session ends.
        """

    def wrap_datagram(data: bytes) -> bytes:
        """One datagram, header and all, as the client is to get it."""

    def unwrap_datagram(data: bytes) -> bytes:
        """
        One datagram of the client's.

        :raises ProtocolError: when it cannot be: the datagram is dropped.
        """


class IExchange(Interface):
    """One client's conversation in a method."""

    def receive(data: bytes) -> tuple[int, object]:
        """
        Take bytes from the client.

        It is first called with what has come behind the greeting, which may be
        nothing; then whenever there is more, or with what was not taken when it last had something to say.

        :returns: how many bytes were taken, and the move: a :class:`Say`, None while the exchange needs more
            bytes, a :class:`LogIn`, or another token for the owner, which gets no bytes meanwhile.
        :raises ProtocolError: when the client breaks the method's protocol; :meth:`judged` is then asked
            for what to say last.
        """

    def judged(granted: bool) -> bytes:
        """What is to be sent once the portal has decided; nothing comes after it here."""

    def wrapping() -> IWrapping | None:
        """How the bytes after a granted exchange are encapsulated; None: they are not."""


class IMethod(Interface):
    """An authentication method."""

    number = Attribute("Its number in the client's greeting.")
    name = Attribute("Its name in the access record: a word.")
    credentials = Attribute("The interface of the credentials that it ends in.")

    def begin(client: Any) -> IExchange:
        """
        Begin a conversation.

        :param client: the :class:`~socksproxy.identity.Client`.
        """


@implementer(IExchange)
class Immediate:
    """
    An exchange that asks the client for nothing.

    The credentials are there before the method is chosen, so the answer to the greeting can still be that
    no method is acceptable.

    :param credentials: a token, as in :class:`LogIn`.
    """

    __slots__ = ("_credentials",)

    def __init__(self, credentials: object) -> None:
        self._credentials = credentials

    def receive(self, data: bytes) -> tuple[int, object]:
        """See :meth:`IExchange.receive`."""
        return 0, LogIn(self._credentials)

    def judged(self, granted: bool) -> bytes:
        """The choice of the method, or of none."""
        return _NO_AUTHENTICATION if granted else _NONE_ACCEPTABLE

    def wrapping(self) -> IWrapping | None:
        """See :meth:`IExchange.wrapping`."""
        return None


_NO_AUTHENTICATION = socks5.build_choice(Method.NO_AUTHENTICATION)
_NONE_ACCEPTABLE = socks5.build_choice(Method.NO_ACCEPTABLE)


class State(Enum):
    """Where a conversation stands. A name is shown to people; a value means nothing."""

    # Enum's own hash is a Python function: it took 2 % of a whole session's time.
    __hash__ = object.__hash__

    START = auto()
    METHODS = auto()
    EXCHANGE = auto()
    JUDGING = auto()
    REQUEST = auto()
    REQUEST4 = auto()
    SERVING = auto()
    ANNOUNCED = auto()
    GRANTED = auto()
    REFUSED = auto()


class Step(Enum):
    """What changes the state of a conversation."""

    __hash__ = object.__hash__

    SPOKE_SOCKS5 = "the first byte is version 5"
    SPOKE_SOCKS4 = "the first byte is version 4"
    NEEDS_NO_METHOD = "the server demands no authentication"
    CHOSE_METHOD = "the server chooses a method that the client offers"
    ASKED = "the method waits for the portal, or for something else that takes time"
    WENT_ON = "the method continues"
    GRANTED_USER = "the portal accepts the client"
    READ_REQUEST = "the request is complete"
    ANNOUNCE = "the first of BIND's two replies is sent"
    GRANT = "the reply that grants the request is sent"
    REFUSE = "the conversation ends in a refusal"


TRANSITIONS: dict[State, dict[Step, State]] = {
    State.START: {
        Step.SPOKE_SOCKS5: State.METHODS,
        Step.SPOKE_SOCKS4: State.REQUEST4,
        Step.REFUSE: State.REFUSED,
    },
    State.METHODS: {
        Step.NEEDS_NO_METHOD: State.REQUEST,
        Step.CHOSE_METHOD: State.EXCHANGE,
        Step.REFUSE: State.REFUSED,
    },
    State.EXCHANGE: {Step.ASKED: State.JUDGING, Step.REFUSE: State.REFUSED},
    State.JUDGING: {
        Step.WENT_ON: State.EXCHANGE,
        Step.GRANTED_USER: State.REQUEST,
        Step.REFUSE: State.REFUSED,
    },
    State.REQUEST: {Step.READ_REQUEST: State.SERVING, Step.REFUSE: State.REFUSED},
    State.REQUEST4: {Step.READ_REQUEST: State.SERVING, Step.REFUSE: State.REFUSED},
    State.SERVING: {
        Step.ANNOUNCE: State.ANNOUNCED,
        Step.GRANT: State.GRANTED,
        Step.REFUSE: State.REFUSED,
    },
    State.ANNOUNCED: {Step.GRANT: State.GRANTED, Step.REFUSE: State.REFUSED},
    State.GRANTED: {},
    State.REFUSED: {},
}


class IllegalStep(Exception):
    """A step that the present state does not have."""


class NotSOCKS(ProtocolError):
    """The client speaks another protocol: *protocol* says which it looks like."""

    def __init__(self, protocol: str) -> None:
        super().__init__(f"the client speaks {protocol}, not SOCKS")
        self.protocol = protocol


_HTTP_ANSWER_BODY = (
    b"This is a SOCKS proxy, not an HTTP proxy or a web server. Configure it as SOCKS5 or SOCKS4.\r\n"
)
_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=us-ascii\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_HTTP_ANSWER_BODY), _HTTP_ANSWER_BODY)
)
_TLS_HANDSHAKE = 0x16


class Negotiation:
    """
    One client's conversation.

    :param offers: gives the client, and the authentication methods that it may choose from, best first;
        None: no client is asked who it is.
    :ivar state: where it stands.
    :ivar output: what is to be sent now, as one write: real clients read a
        reply with one ``recv``. The owner takes it with :meth:`take_output`.
    :ivar version: the client's version, once known.
    :ivar answer: the code that a client which broke the protocol was told; None where it was told none.
    :ivar early: what came behind the request, for the relay.
    :ivar move: a token: what the owner has to do before the conversation goes on. The owner answers a
        :class:`LogIn` with :meth:`judge`, and every other token with :meth:`go_on`.
    :ivar method: the method that was chosen.
    :ivar wrapping: how bytes are encapsulated from now on, both ways; :meth:`receive` sees to the client's.
    """

    __slots__ = (
        "_exchange",
        "_offers",
        "_tolerated",
        "answer",
        "early",
        "method",
        "move",
        "output",
        "request",
        "state",
        "version",
        "wrapping",
    )

    def __init__(self, offers: Callable[[], tuple[object, Sequence[IMethod]]] | None = None) -> None:
        self._offers = offers
        self._exchange: IExchange | None = None
        self._tolerated = MAX_EARLY
        self.state = State.START
        self.output = b""
        self.answer: int | None = None
        self.early = b""
        self.version: Version | None = None
        self.request: Request | None = None
        self.method: IMethod | None = None
        self.move: object = None
        self.wrapping: IWrapping | None = None

    def take_output(self) -> bytes:
        """What is to be sent now; it is given out once."""
        output, self.output = self.output, b""
        return output

    def receive(self, data: bytes) -> Request | None:
        """
        Take bytes from the client; none, to go on with those that came before.

        :returns: the request, once, as soon as it is whole.
        :raises ProtocolError: when the client breaks the protocol. The
            conversation is over; :attr:`output` has what is to be sent before the close.
        """
        if self.wrapping is not None and data:
            data = self._unwrapped(data)
        data = self.early = self.early + data if self.early else data
        while data:
            reader = _READERS.get(self.state)
            if reader is None:
                return None
            try:
                taken = reader(self, data)
            except ProtocolError as problem:
                self._refuse(problem)
                raise
            if not taken:
                return None
            data = self.early = data[taken:]
            if self.state is State.SERVING:
                return self.request
        return None

    def discard(self, data: bytes) -> bool:
        """The conversation is over, and *data* is of no use; whether more of it is still tolerated."""
        self._tolerated -= len(data)
        return self._tolerated >= 0

    def take_move(self) -> object:
        """The token for the owner; the negotiation gives it out once."""
        move, self.move = self.move, None
        return move

    def go_on(self, move: object) -> None:
        """The owner has done what the token said, and *move* comes next; :meth:`receive` goes on."""
        self._step(Step.WENT_ON)
        self._follow(move)

    def judge(self, granted: bool) -> None:
        """
        The portal has decided; :meth:`receive` goes on once :attr:`output` is sent.

        :raises ProtocolError: as :meth:`receive` does.
        """
        assert self._exchange is not None
        self.output += self._exchange.judged(granted)
        if not granted:
            self._step(Step.REFUSE)
            return
        self._step(Step.GRANTED_USER)
        self.wrapping = self._exchange.wrapping()
        if self.wrapping is not None and self.early:
            data, self.early = self.early, b""
            self.early = self._unwrapped(data)

    def grant(self, bound: Address) -> bytes:
        """The reply that grants the request; *bound* is BND.ADDR and BND.PORT."""
        self._step(Step.GRANT)
        return self._succeeded(bound)

    def announce(self, bound: Address) -> bytes:
        """BIND's first reply; *bound* is where the peer is to connect."""
        self._step(Step.ANNOUNCE)
        return self._succeeded(bound)

    def refuse(self, reply: Reply, reply4: Reply4 = Reply4.REJECTED) -> bytes:
        """
        The reply that refuses the request.

        :param reply: the code for a client of SOCKS5.
        :param reply4: the code for a client of SOCKS4.
        """
        self._step(Step.REFUSE)
        if self.version is Version.SOCKS4:
            return socks4.build_reply(reply4, UNSPECIFIED)
        return socks5.build_reply(reply, UNSPECIFIED)

    @property
    def full(self) -> bool:
        """Whether no more should be read from the client for now."""
        return len(self.early) >= MAX_EARLY

    def _step(self, step: Step) -> None:
        try:
            self.state = TRANSITIONS[self.state][step]
        except KeyError:
            raise IllegalStep(f"{step.name} in state {self.state.name}") from None

    def _succeeded(self, bound: Address) -> bytes:
        if self.version is Version.SOCKS4:
            return socks4.build_reply(Reply4.GRANTED, bound)
        return socks5.build_reply(Reply.SUCCEEDED, bound)

    def _unwrapped(self, data: bytes) -> bytes:
        assert self.wrapping is not None
        try:
            return self.wrapping.unwrap(data)
        except ProtocolError:
            self._step(Step.REFUSE)  # there is no answer that the client could read
            raise

    def _refuse(self, problem: ProtocolError) -> None:
        """End the conversation with the answer that its present state has."""
        if isinstance(problem, NotSOCKS):
            self.output = _HTTP_ANSWER if problem.protocol == "HTTP" else b""
        elif self.state is State.REQUEST4:
            self.answer = Reply4.REJECTED
            self.output = socks4.build_reply(self.answer, UNSPECIFIED)
        elif self.state is State.REQUEST:
            self.answer = problem.reply
            self.output += socks5.build_reply(self.answer, UNSPECIFIED)
        elif self.state is State.METHODS:
            self.answer = Method.NO_ACCEPTABLE
            self.output = socks5.build_choice(self.answer)
        elif self.state is State.EXCHANGE:
            assert self._exchange is not None
            self.output += self._exchange.judged(False)
        self._step(Step.REFUSE)

    # A reader returns how many bytes it took; 0: it needs more.

    def _read_version(self, data: bytes) -> int:
        version = data[0]
        if version == Version.SOCKS5:
            self.version = Version.SOCKS5
            self._step(Step.SPOKE_SOCKS5)
            return self._read_greeting(data)
        if version == Version.SOCKS4:
            self.version = Version.SOCKS4
            self._step(Step.SPOKE_SOCKS4)
            return self._read_request4(data)
        raise NotSOCKS(_guess(version))

    def _read_greeting(self, data: bytes) -> int:
        parsed = socks5.parse_greeting(data)
        if parsed is None:
            return 0
        offered, taken = parsed
        if self._offers is None:
            if Method.NO_AUTHENTICATION not in offered:
                raise ProtocolError("no acceptable authentication method")
            self._step(Step.NEEDS_NO_METHOD)
            self.output += _NO_AUTHENTICATION
            return taken
        client, methods = self._offers()
        for method in methods:
            if method.number in offered:
                return taken + self._begin_exchange(method, client, data[taken:])
        raise ProtocolError("no acceptable authentication method")

    def _begin_exchange(self, method: IMethod, client: object, rest: bytes) -> int:
        self._step(Step.CHOSE_METHOD)
        self.method = method
        self._exchange = method.begin(client)
        # Where nothing is asked, there is still time to refuse the method itself.
        if not isinstance(self._exchange, Immediate):
            self.output += socks5.build_choice(method.number)
        return self._read_exchange(rest)

    def _read_exchange(self, data: bytes) -> int:
        assert self._exchange is not None
        total = 0
        while True:
            taken, move = self._exchange.receive(data[total:])
            self._follow(move)
            total += taken
            if not isinstance(move, Say) or total == len(data):
                return total

    def _follow(self, move: object) -> None:
        if isinstance(move, Say):
            self.output += move.data
        elif move is not None:
            self._step(Step.ASKED)
            self.move = move

    def _read_request(self, data: bytes) -> int:
        return self._take_request(socks5.parse_request(data))

    def _read_request4(self, data: bytes) -> int:
        return self._take_request(socks4.parse_request(data))

    def _take_request(self, parsed: tuple[Request, int] | None) -> int:
        if parsed is None:
            return 0
        self.request, taken = parsed
        self._step(Step.READ_REQUEST)
        return taken


_READERS: dict[State, Callable[[Negotiation, bytes], int]] = {
    State.START: Negotiation._read_version,
    State.METHODS: Negotiation._read_greeting,
    State.EXCHANGE: Negotiation._read_exchange,
    State.REQUEST: Negotiation._read_request,
    State.REQUEST4: Negotiation._read_request4,
}


class _Done(Negotiation):
    """A conversation that has been had. Nothing about it can change, so that all sessions share one."""

    __slots__ = ()

    state = State.GRANTED
    early = b""
    version = method = wrapping = None

    def __init__(self) -> None:
        """Nothing is set: the class has it all."""

    def discard(self, data: bytes) -> bool:
        """See :meth:`Negotiation.discard`."""
        return False


#: Stands for the conversation of each session that is established.
DONE: Negotiation = _Done()


def _guess(first: int) -> str:
    """What a client that opens with the byte *first* probably speaks."""
    if first == _TLS_HANDSHAKE:
        return "TLS"
    if 0x41 <= first <= 0x5A:  # GET, CONNECT, POST ...
        return "HTTP"
    return "something else"


def command_name(command: int) -> str:
    """The name of *command*, or its number in hexadecimal."""
    try:
        return Command(command).name
    except ValueError:
        return f"0x{command:02X}"


__all__ = [
    "DONE",
    "MAX_EARLY",
    "TRANSITIONS",
    "IExchange",
    "IMethod",
    "IWrapping",
    "IllegalStep",
    "Immediate",
    "LogIn",
    "Negotiation",
    "NotSOCKS",
    "Say",
    "State",
    "Step",
    "command_name",
]
