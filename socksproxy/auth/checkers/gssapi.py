"""
GSS-API authentication (RFC 1961): Kerberos, or another mechanism that the client's and our library share.

The client and the library exchange tokens until they have a context. Then the client and we agree on a level
of protection, which decides whether every later byte of the connection and every datagram is encapsulated.

Needs the package ``gssapi``, the extra ``[gssapi]``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from gssapi import raw
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ...errors import NotAuthenticated
from ...logs.printable import printable
from ...negotiation import IExchange, IMethod, IWrapping, LogIn, Say
from ...runtime.files import read_regular_file
from ...values.errors import ConfigError
from ...values.parsers import Parser, one_of
from ...wire.gssapi import (
    MAX_TOKEN,
    Level,
    Message,
    MessageType,
    build_abort,
    build_encapsulated,
    build_message,
    parse_encapsulated,
    parse_message,
)
from ...wire.words import Method, ProtocolError
from ..credentials import GSSAPIName, IGSSAPIName
from .arguments import arguments
from .threads import CheckThreads

#: curl and Dante ask for tickets for ``rcmd`` by default; ``socks`` is the registered name.
SERVICES = ("rcmd", "socks")
#: Tokens that are read at once: the disk takes the time, for the cache against replays.
THREADS = 4
#: Tokens of a client before there is a context. Kerberos needs one or two.
MAX_ROUNDS = 8

# Without IAKERB, with which the server would talk to the KDC for clients that are not authenticated yet.
_MECHANISMS = [raw.MechType.kerberos, raw.OID.from_int_seq("1.3.6.1.5.5.2")]

# Any, because the package's annotations contradict each other.
_Context: TypeAlias = Any


class Protection(Enum):
    """The protection of the bytes after the exchange, as the operator chooses it."""

    #: None, and the client is told so. curl can do nothing else, though it asks for more.
    NONE = "none"
    #: The protection that the client asks for.
    OPTIONAL = "optional"
    INTEGRITY = "integrity"
    CONFIDENTIALITY = "confidentiality"

    def choose(self, wanted: Level) -> Level:
        """The level for a client that asks for *wanted*; the client may leave if it wants another one."""
        # With SELECTIVE we would have to know which bytes to protect.
        wanted = Level.CONFIDENTIALITY if wanted is Level.SELECTIVE else wanted
        if self is Protection.NONE:
            return Level.NONE
        return max(wanted, _LEAST[self])


_LEAST = {
    Protection.OPTIONAL: Level.NONE,
    Protection.INTEGRITY: Level.INTEGRITY,
    Protection.CONFIDENTIALITY: Level.CONFIDENTIALITY,
}


class Accepted(NamedTuple):
    """
    What came of a client's token.

    :ivar context: what there is of the context.
    :ivar token: for the client; it may be empty.
    :ivar principal: who it is, once the context is whole; None: more tokens are due.
    """

    context: _Context
    token: bytes
    principal: str | None


class ContextAcceptor:
    """
    The server's side of contexts. Its methods may block.

    :param keytab: the file with the server's keys; None: the library chooses it.
    :param services: the services whose tickets are accepted, with any host in their names.
    :raises ValueError: when there is a key for none of *services*.
    """

    def __init__(self, keytab: str | None = None, services: Sequence[str] = SERVICES) -> None:
        self._services = tuple(services)
        # Bytes, because the package converts a str and frees the result before it is used.
        self._store = None if keytab is None else {b"keytab": os.fsencode(keytab)}
        problems = [self._problem_with(service) for service in services]
        if None not in problems:
            raise ValueError("; ".join(dict.fromkeys(filter(None, problems))) or "no service")
        self._keys = self._acquire(None)

    def _problem_with(self, service: str) -> str | None:
        try:
            self._acquire(raw.import_name(service.encode(), raw.NameType.hostbased_service))
        except raw.GSSError as problem:
            return status_text(problem)
        return None

    def _acquire(self, name: raw.Name | None) -> raw.Creds:
        if self._store is None:
            return raw.acquire_cred(name, mechs=_MECHANISMS, usage="accept").creds
        store: Any = self._store
        return raw.acquire_cred_from(store, name, mechs=_MECHANISMS, usage="accept").creds

    def accept(self, token: bytes, context: _Context | None) -> Accepted:
        """
        Take a client's *token*.

        :param context: the context of the tokens before; None: this is the first one.
        :raises NotAuthenticated: when the token is not accepted; the text is the library's.
        """
        try:
            result = raw.accept_sec_context(token, self._keys, context)
            principal = None if result.more_steps else self._initiator(result.context)
        except raw.GSSError as problem:
            raise NotAuthenticated(status_text(problem)) from None
        answer = result.token or b""
        if len(answer) > MAX_TOKEN:
            raise NotAuthenticated("the answer is too long for a message")
        return Accepted(result.context, answer, principal)

    def _initiator(self, context: _Context) -> str:
        found: Any = raw.inquire_context(context)
        target, initiator = _text(found.target_name), _text(found.initiator_name)
        if target.partition("/")[0] not in self._services:
            wanted = " or ".join(self._services)
            raise NotAuthenticated(f"the ticket is for {printable(target)}, not for {wanted}")
        if raw.RequirementFlag.anonymity in found.flags:
            raise NotAuthenticated("the client is anonymous")
        if raw.RequirementFlag.integrity not in found.flags:
            raise NotAuthenticated("the mechanism cannot protect anything")
        return initiator


@implementer(IMethod)
class GSSAPIMethod:
    """
    See :class:`~socksproxy.negotiation.IMethod`.

    :param acceptor: has the server's keys.
    :param pool: the threads in which *acceptor* may block.
    :param protection: the protection that the server wants.
    """

    number = Method.GSSAPI
    name = "gssapi"
    credentials = IGSSAPIName

    def __init__(
        self, acceptor: ContextAcceptor, pool: CheckThreads, protection: Protection = Protection.INTEGRITY
    ) -> None:
        self.acceptor = acceptor
        self.pool = pool
        self.protection = protection

    def begin(self, client: Any) -> IExchange:
        return GSSAPIExchange(self, None if client is None else client.share)


@implementer(IExchange)
class GSSAPIExchange:
    """
    One client's exchange: tokens until there is a context, then the protection level.

    :param method: the method, which all exchanges share.
    :param share: the client, as queues tell clients apart; None: it is not known.
    """

    __slots__ = ("_answer", "_context", "_level", "_method", "_principal", "_rounds", "_share")

    def __init__(self, method: GSSAPIMethod, share: str | None = None) -> None:
        self._method = method
        self._share = share
        self._context: _Context | None = None
        self._principal: str | None = None
        self._level = Level.NONE
        self._answer = b""
        self._rounds = 0

    def receive(self, data: bytes) -> tuple[int, object]:
        parsed = parse_message(data)
        if parsed is None:
            return 0, None
        message, taken = parsed
        return taken, self._take(message)

    def _take(self, message: Message) -> object:
        if message.type is MessageType.ABORT:
            raise ProtocolError("GSSAPI: the client has given up")
        due = MessageType.AUTHENTICATION if self._principal is None else MessageType.PROTECTION_LEVEL
        if message.type is not due:
            raise ProtocolError(f"GSSAPI message type {message.type.value} where {due.value} was due")
        if self._principal is None:
            return self._take_token(message.token)
        self._agree(message.token)
        return LogIn(GSSAPIName(self._principal))

    def _take_token(self, token: bytes) -> Deferred[Say | LogIn]:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise ProtocolError("GSSAPI: too many tokens")
        method = self._method
        asked = method.pool.run(method.acceptor.accept, token, self._context, share=self._share)
        return asked.addCallback(self._accepted)

    def _accepted(self, accepted: Accepted) -> Say | LogIn:
        self._context, self._principal = accepted.context, accepted.principal
        # A client that does not ask us to authenticate gets no token, and sends its next message unasked.
        return Say(build_message(MessageType.AUTHENTICATION, accepted.token) if accepted.token else b"")

    def _agree(self, token: bytes) -> None:
        """
        Agree on the protection level that the client asks for in *token*.

        The level is encapsulated (RFC 1961, sections 4.3 and 4.4). NEC's implementation, the model of others
        (curl with ``--socks5-gssapi-nec``, Dante with ``nec``), sends the bare octet. No mechanism has so
        short a token, so both forms are served, and the answer has the form of the question.
        """
        assert self._context is not None
        bare = len(token) == 1
        try:
            wanted = token if bare else raw.unwrap(self._context, token).message
            level = self._level = self._method.protection.choose(_level_of(wanted))
            _check(self._context, level)
            answer = bytes((level,))
            if not bare:
                answer = raw.wrap(self._context, answer, False).message
        except raw.GSSError as problem:
            raise ProtocolError(f"GSSAPI: {status_text(problem)}") from None
        self._answer = build_message(MessageType.PROTECTION_LEVEL, answer)

    def judged(self, granted: bool) -> bytes:
        return self._answer if granted else build_abort()

    def wrapping(self) -> IWrapping | None:
        if self._level is Level.NONE:
            return None
        assert self._context is not None
        return GSSAPIWrapping(self._context, self._level is Level.CONFIDENTIALITY)


@implementer(IWrapping)
class GSSAPIWrapping:
    """
    Encapsulates the bytes after an exchange (RFC 1961, section 5).

    :param context: an established context.
    :param confidential: whether the bytes are encrypted; else they are only protected against changes.
    """

    __slots__ = ("_confidential", "_context", "_most", "_received")

    def __init__(self, context: _Context, confidential: bool) -> None:
        self._context = context
        self._confidential = confidential
        self._most = raw.wrap_size_limit(context, MAX_TOKEN, confidential)
        self._received = bytearray()

    def wrap(self, data: bytes) -> bytes:
        if len(data) <= self._most:
            return self._encapsulate(data) if data else b""
        pieces = (data[at : at + self._most] for at in range(0, len(data), self._most))
        return b"".join(map(self._encapsulate, pieces))

    def unwrap(self, data: bytes) -> bytes:
        received, whole = self._received, bytearray()
        received += data
        while (parsed := parse_message(received)) is not None:
            message, taken = parsed
            if message.type is not MessageType.ENCAPSULATION:
                raise ProtocolError(f"GSSAPI message type {message.type.value} where 3 was due")
            del received[:taken]
            whole += self._open(message.token)
        return bytes(whole)

    def wrap_datagram(self, data: bytes) -> bytes:
        if len(data) > self._most:
            raise ProtocolError("a datagram that is too long for a GSSAPI message")
        return self._encapsulate(data)

    def unwrap_datagram(self, data: bytes) -> bytes:
        return self._open(parse_encapsulated(data))

    def _encapsulate(self, data: bytes) -> bytes:
        try:
            token, encrypted = raw.wrap(self._context, data, self._confidential)
        except raw.GSSError as problem:
            raise ProtocolError(f"GSSAPI: {status_text(problem)}") from None
        if self._confidential and not encrypted:
            raise ProtocolError("GSSAPI: the mechanism has not encrypted what it was to")
        return build_encapsulated(token)

    def _open(self, token: bytes) -> bytes:
        try:
            data, encrypted, _ = raw.unwrap(self._context, token)
        except raw.GSSError as problem:
            raise ProtocolError(f"GSSAPI: {status_text(problem)}") from None
        if self._confidential and not encrypted:
            raise ProtocolError("GSSAPI: the client has not encrypted what it was to")
        return data


@implementer(ICredentialsChecker)
class GSSAPIChecker:
    """
    Takes the names that the library has verified, and brings the method to the factory.

    :param method: the method.
    :param realm: names of this Kerberos realm are shown without it; None: every user's name is the whole
        principal.
    """

    credentialInterfaces = (IGSSAPIName,)

    def __init__(self, method: GSSAPIMethod, realm: str | None = None) -> None:
        self._method = method
        self._realm = realm

    def methods(self) -> list[GSSAPIMethod]:
        """The methods that end in credentials for this checker."""
        return [self._method]

    def requestAvatarId(self, credentials: Any) -> Any:
        principal = credentials.principal
        return principal if self._realm is None else stripped(principal, self._realm)


def _services(text: str) -> list[str]:
    services = text.split(",")
    if not all(
        name.isascii() and name.isprintable() and name and not set(name) & set("/@ ") for name in services
    ):
        raise ConfigError("not a list of services such as rcmd,socks", text)
    return services


_PROTECTIONS = [each.value for each in Protection]
_PARSERS: dict[str, Parser] = {
    "service": _services,
    "keytab": str,
    "protection": one_of(_PROTECTIONS, f"none of {', '.join(_PROTECTIONS)}", Protection),
    "realm": one_of(("strip", "keep"), "none of strip, keep"),
}


def make_checker(argument: str, pool: CheckThreads | None = None) -> GSSAPIChecker:
    """
    The checker of ``--auth gssapi:[service=NAMES][:keytab=FILE][:protection=LEVEL][:realm=strip|keep]``.

    :param pool: the threads in which the library may block; None: threads of the checker's own.
    :raises InvalidAuthArgumentString: when *argument* is wrong.
    """
    given = arguments("gssapi", argument, _PARSERS)
    method = GSSAPIMethod(
        _acceptor(given.get("keytab"), given.get("service", SERVICES)),
        pool or CheckThreads.shared_fairly(name="gssapi", threads=THREADS),
        given.get("protection", Protection.INTEGRITY),
    )
    try:
        return GSSAPIChecker(method, None if given.get("realm") == "keep" else local_realm())
    except ValueError as problem:
        raise _wrong(f"realm=strip: krb5.conf must have a default_realm: {problem}") from None


def _acceptor(keytab: str | None, services: Sequence[str]) -> ContextAcceptor:
    try:
        if keytab is not None:
            read_regular_file(keytab)
            # The file is opened for each client, and twistd changes its directory before the first client
            # comes.
            keytab = os.path.abspath(keytab)
        return ContextAcceptor(keytab, services)
    except OSError as problem:
        raise _wrong(f"keytab={keytab}: it cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        where = "the system's keytab" if keytab is None else f"keytab={keytab}"
        raise _wrong(f"{where}: no key for service={','.join(services)}: {problem}") from None


def _wrong(problem: str) -> InvalidAuthArgumentString:
    return InvalidAuthArgumentString(f"gssapi: {problem}")


def stripped(principal: str, realm: str) -> str:
    """*principal* without the *realm*; a name of another realm stays whole."""
    name = principal.removesuffix(f"@{realm}")
    # A backslash makes the "@" a part of the name.
    return name if name and not name.endswith("\\") else principal


def local_realm() -> str:
    """
    The default realm of this machine's Kerberos configuration.

    :raises ValueError: when there is none.
    """
    try:
        name = raw.canonicalize_name(raw.import_name(b"x", raw.NameType.user), raw.MechType.kerberos)
    except raw.GSSError as problem:
        raise ValueError(status_text(problem)) from None
    return _text(name).partition("@")[2]


def status_text(problem: raw.GSSError) -> str:
    """The library's texts for the major and the minor status, fit for a log."""
    texts = [
        *problem.get_all_statuses(problem.maj_code, True),
        # The text for no minor code is "Unknown error", or worse.
        *(problem.get_all_statuses(problem.min_code, False) if problem.min_code else ()),
    ]
    return printable("; ".join(" ".join(text.rstrip(".").split()) for text in texts))


def _text(name: raw.Name) -> str:
    return raw.display_name(name, name_type=False).name.decode("utf-8", "surrogateescape")


def _check(context: _Context, level: Level) -> None:
    flags: Any = raw.inquire_context(context).flags
    if level is Level.CONFIDENTIALITY and raw.RequirementFlag.confidentiality not in flags:
        raise ProtocolError("GSSAPI: the mechanism cannot keep anything confidential")


def _level_of(data: bytes) -> Level:
    if len(data) != 1:
        raise ProtocolError("a GSSAPI protection level has one byte")
    try:
        return Level(data[0])
    except ValueError:
        raise ProtocolError(f"unknown GSSAPI protection level {data[0]}") from None
