"""
Clients that come through a balancer: who they are stands in the header of the PROXY protocol.

Strategy: a session begins when the balancer connects, so that the session counts and has a deadline. Until
the header is whole, an :class:`Arrival` stands in the channel for the session. The session hears nothing of
the header.
"""

from __future__ import annotations

from typing import Protocol

from twisted.cred.credentials import ICredentials

from ..auth.credentials import CertifiedName
from ..commands.channel import Channel
from ..events import End, Ended
from ..identity import Client, Told
from ..net.names import plain
from ..session.registry import Registry
from ..session.session import UNIDENTIFIED, Session
from ..wire.proxy import ProxyHeader, parse_header
from ..wire.words import ProtocolError

#: What a channel has before the header is whole, and after a header without addresses and names.
NO_HEADER = ProxyHeader()


class BalancedChannel(Channel, Protocol):
    """A channel behind a balancer."""

    def identified(self, header: ProxyHeader, session: Session) -> None:
        """The *header* is whole, and what follows is for the *session*."""


class Arrival:
    """
    Reads the header, and identifies the session's client by it.

    :param channel: hands its bytes over.
    :param session: knows nothing of its client yet.
    :param balancer: the other end of the connection.
    """

    __slots__ = ("_balancer", "_channel", "_data", "_session")

    def __init__(self, channel: BalancedChannel, session: Session, balancer: Client) -> None:
        self._channel = channel
        self._session = session
        self._balancer = balancer
        self._data: bytes | bytearray = b""

    def received(self, data: bytes) -> None:
        """See :meth:`socksproxy.session.session.Session.received`."""
        if self._session.client is not UNIDENTIFIED:  # since an earlier part of one read
            self._session.received(data)
            return
        self._data += data
        try:
            parsed = parse_header(self._data)
        except ProtocolError as problem:
            self._refuse(str(problem))
            return
        if parsed is not None:
            header, size = parsed
            self._identify(header, bytes(self._data[size:]))
        elif isinstance(self._data, bytes):
            self._data = bytearray(self._data)

    def _identify(self, header: ProxyHeader, rest: bytes) -> None:
        session = self._session
        self._channel.identified(header, session)
        session.identify(_client(header, self._balancer))
        if rest and session.ended is None:
            session.received(rest)

    def _refuse(self, problem: str) -> None:
        session = self._session
        session.client = self._balancer
        session.complain(problem)
        session.ended = Ended(End.PROTOCOL, f"protocol error: {problem}")
        self._channel.abort()

    def read_closed(self) -> None:
        """See :meth:`socksproxy.session.session.Session.read_closed`."""
        if self._data and self._session.client is UNIDENTIFIED:
            self._refuse("a PROXY header that is cut short")
        else:
            self._session.read_closed()

    def lost(self, reset: bool) -> None:
        """See :meth:`socksproxy.session.session.Session.lost`."""
        if self._session.client is UNIDENTIFIED:
            self._session.client = self._balancer  # as whom the record knows it
        self._session.lost(reset)

    def abort(self) -> None:
        """See :meth:`socksproxy.session.session.Session.abort`."""
        self._session.abort()


def arrive(sessions: Registry, channel: BalancedChannel, balancer: Client) -> Arrival | None:
    """
    A balancer has connected.

    :param balancer: the other end of the connection; a Unix socket's permissions say who may be there.
    :returns: what its bytes are for; None: the channel is to be closed unheard.
    """
    context = sessions.context
    if balancer.host is not None and not context.settings.proxy_from.include(balancer.host):
        context.complain(balancer, "refused: no balancer of --proxy-from")
        return None
    session = sessions.begin(channel, UNIDENTIFIED)
    return None if session is None else Arrival(channel, session, balancer)


def _client(header: ProxyHeader, balancer: Client) -> Client:
    """Whom *header* tells; where it tells no address, the *balancer* itself is the client."""
    told = None
    if header.unique_id or header.name:
        told = Told(_text(header.unique_id), _text(header.name))
    if header.source is None:
        return balancer._replace(told=Told(_text(header.unique_id), _text(header.name), check=True))
    host, port = header.source
    return Client(plain(host), port, told=told)


def _text(value: bytes) -> str | None:
    return value.decode("utf-8", "surrogateescape") or None


def reached(header: ProxyHeader) -> tuple[str, int] | None:
    """Where the client of *header* has reached the balancer; None: the header does not tell."""
    if header.destination is None:
        return None
    host, port = header.destination
    return plain(host), port


def shown(header: ProxyHeader) -> ICredentials | None:
    """What *header* tells of its client; the connection itself tells of the balancer only."""
    name = _text(header.name)
    return None if name is None else CertifiedName(name)
