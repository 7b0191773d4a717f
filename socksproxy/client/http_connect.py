"""
The client's side of HTTP CONNECT (RFC 9110, section 9.3.6): bytes in, bytes out, as :mod:`.handshake` has it.

Needs the package ``h11``, the extra ``[http]``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

import h11

from ..wire.words import UNSPECIFIED, Address, Reply
from .handshake import HandshakeFailed, Problem, UsernamePassword, Work, Wrapping

#: Bytes of the head of a response.
MAX_HEAD = 16384


class HTTPHandshake:
    """
    One CONNECT. The interface is that of :class:`~socksproxy.client.handshake.Handshake`.

    :param destination: where to.
    :param login: sent as Basic; None: none.
    """

    work: Work | None = None
    wrapping: Wrapping | None = None

    def __init__(self, destination: Address, login: UsernamePassword | None = None) -> None:
        self._destination = destination
        self._login = login
        self._connection = h11.Connection(h11.CLIENT, MAX_HEAD)
        self.answers: list[Address] = []
        self.done = False
        self.asking = False

    def begin(self) -> bytes:
        """The request."""
        self.asking = True
        target = str(self._destination)
        headers = [("Host", target)]
        if self._login is not None:
            credentials = b":".join(self._login.credentials)
            headers.append(("Proxy-Authorization", f"Basic {b64encode(credentials).decode('ascii')}"))
        request = h11.Request(method="CONNECT", target=target, headers=headers)
        head = self._connection.send(request)
        return (head or b"") + (self._connection.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> bytes:
        """See :meth:`socksproxy.client.handshake.Handshake.receive`."""
        if not data:
            if self.asking:
                raise HandshakeFailed(Problem.CLOSED)
            raise HandshakeFailed(Problem.PROTOCOL, "it closes the connection before the request")
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = self._connection.next_event()
        except h11.RemoteProtocolError as problem:
            raise HandshakeFailed(Problem.PROTOCOL, f"its answer is not HTTP: {problem}") from None
        if isinstance(event, h11.Response):
            self._judge(event)
        return b""

    def _judge(self, response: h11.Response) -> None:
        status = response.status_code
        if status // 100 == 2:
            self.answers.append(UNSPECIFIED)
            self.done, self.asking = True, False
            return
        if status in _WANTS_LOGIN:
            problem = Problem.NO_METHOD if self._login is None else Problem.LOGIN
        elif status in _NO_PROXY:
            problem = Problem.PROTOCOL
        else:
            problem = Problem.REFUSED
        meaning = _meaning(status, response.headers)
        raise HandshakeFailed(problem, f"status {status}", status, meaning)

    def resume(self, result: bytes) -> bytes:
        """HTTP has no work that blocks."""
        return result

    @property
    def rest(self) -> bytes:
        """The bytes behind the response: the destination's first ones."""
        return self._connection.trailing_data[0]


#: Tinyproxy answers a wrong login with 401.
_WANTS_LOGIN = frozenset({401, 407})
#: Such a server is no proxy, or wants another protocol.
_NO_PROXY = frozenset({400, 405, 426})

_BY_STATUS = {
    403: Reply.NOT_ALLOWED,
    404: Reply.HOST_UNREACHABLE,
    504: Reply.TTL_EXPIRED,
}
# RFC 9209, section 2.3.
_BY_PROXY_STATUS = {
    "connection_refused": Reply.CONNECTION_REFUSED,
    "connection_timeout": Reply.TTL_EXPIRED,
    "destination_ip_prohibited": Reply.NOT_ALLOWED,
    "destination_ip_unroutable": Reply.NETWORK_UNREACHABLE,
    "destination_unavailable": Reply.HOST_UNREACHABLE,
    "dns_error": Reply.HOST_UNREACHABLE,
    "dns_timeout": Reply.HOST_UNREACHABLE,
}
# Squid: the name of the error and errno, as Linux has them.
_BY_SQUID = {
    "ERR_CONNECT_FAIL 101": Reply.NETWORK_UNREACHABLE,
    "ERR_CONNECT_FAIL 110": Reply.TTL_EXPIRED,
    "ERR_CONNECT_FAIL 111": Reply.CONNECTION_REFUSED,
    "ERR_CONNECT_FAIL 113": Reply.HOST_UNREACHABLE,
    "ERR_DNS_FAIL 0": Reply.HOST_UNREACHABLE,
}


def _meaning(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Reply:
    """The SOCKS5 reply that says what the response says."""
    for name, value in headers:
        text = value.decode("latin-1")
        if name == b"proxy-status":
            error = text.partition("error=")[2].partition(";")[0].partition(",")[0].strip()
            if error in _BY_PROXY_STATUS:
                return _BY_PROXY_STATUS[error]
        elif name == b"x-squid-error" and text.strip() in _BY_SQUID:
            return _BY_SQUID[text.strip()]
    return _BY_STATUS.get(status, Reply.GENERAL_FAILURE)
