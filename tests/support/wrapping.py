"""
A wrapping without any cryptography, and a client's socket that speaks it or another one.
"""

from __future__ import annotations

import socket
from typing import Any

from zope.interface import implementer

from socksproxy.negotiation import IWrapping
from socksproxy.wire.words import ProtocolError

#: Bytes of a message's payload at the most.
MOST = 5000
_MAGIC = 0xA7
_SWAP = bytes(byte ^ 0x5A for byte in range(256))


@implementer(IWrapping)
class Swapped:
    """A mark, a length of two bytes, and the payload with some bits of every byte changed."""

    def __init__(self) -> None:
        self._received = b""

    def wrap(self, data: bytes) -> bytes:
        """See :meth:`socksproxy.negotiation.IWrapping.wrap`."""
        pieces = (data[at : at + MOST] for at in range(0, len(data), MOST))
        return b"".join(map(self.wrap_datagram, pieces))

    def unwrap(self, data: bytes) -> bytes:
        """See :meth:`socksproxy.negotiation.IWrapping.unwrap`."""
        data, whole = self._received + data, []
        while data:
            if data[0] != _MAGIC:
                raise ProtocolError("not encapsulated")
            end = 3 + int.from_bytes(data[1:3], "big")
            if len(data) < 3 or len(data) < end:
                break
            whole.append(data[3:end].translate(_SWAP))
            data = data[end:]
        self._received = data
        return b"".join(whole)

    def wrap_datagram(self, data: bytes) -> bytes:
        """See :meth:`socksproxy.negotiation.IWrapping.wrap_datagram`."""
        if len(data) > MOST:
            raise ProtocolError("too long")
        return bytes((_MAGIC,)) + len(data).to_bytes(2, "big") + data.translate(_SWAP)

    def unwrap_datagram(self, data: bytes) -> bytes:
        """See :meth:`socksproxy.negotiation.IWrapping.unwrap_datagram`."""
        if data[:1] != bytes((_MAGIC,)) or int.from_bytes(data[1:3], "big") != len(data) - 3:
            raise ProtocolError("not encapsulated")
        return data[3:].translate(_SWAP)


class WrappedSocket:
    """
    A stream socket whose bytes are encapsulated; one thread may send while another one receives.

    :param sock: carries them.
    :param wrapping: the client's side.
    """

    def __init__(self, sock: socket.socket, wrapping: Any) -> None:
        self._sock = sock
        self._wrapping = wrapping
        self._received = b""
        self._unsent = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def __enter__(self) -> WrappedSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def sendall(self, data: bytes) -> None:
        """See :meth:`socket.socket.sendall`."""
        # Piece by piece: other buffers than the kernel's are not what a test wants to fill.
        for at in range(0, len(data), 1 << 16):
            self._sock.sendall(self._wrapping.wrap(data[at : at + (1 << 16)]))

    def send(self, data: bytes) -> int:
        """See :meth:`socket.socket.send`; what is taken may wait here."""
        taken = 0
        if not self._unsent:
            self._unsent, taken = self._wrapping.wrap(data), len(data)
        self._unsent = self._unsent[self._sock.send(self._unsent) :]
        return taken

    def recv(self, size: int) -> bytes:
        """See :meth:`socket.socket.recv`."""
        while not self._received:
            data = self._sock.recv(1 << 16)
            if not data:
                return b""
            self._received = self._wrapping.unwrap(data)
        data, self._received = self._received[:size], self._received[size:]
        return data

    def shutdown(self, how: int) -> None:
        """See :meth:`socket.socket.shutdown`; what waits here is sent before."""
        unsent, self._unsent = self._unsent, b""
        self._sock.sendall(unsent)
        self._sock.shutdown(how)
