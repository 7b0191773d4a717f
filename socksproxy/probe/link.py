"""One TCP connection of a check. Every wait ends, in words that a report can print."""

from __future__ import annotations

import time
from collections.abc import Callable
from socket import IPPROTO_TCP, SHUT_WR, SO_LINGER, SOL_SOCKET, TCP_NODELAY, socket
from struct import pack
from typing import TypeVar

from ..wire.words import ProtocolError
from .outcome import Failed

T = TypeVar("T")

#: Seconds between two bytes that have to arrive in segments of their own.
_APART = 0.004
#: Bytes that may come before an end; a server that sends more for ever would fill the memory.
_MOST_BEFORE_THE_END = 1024 * 1024


class ServerClosed(Failed):
    """The connection ended where an answer was due."""


class ServerSilent(Failed):
    """There was no answer in time."""


class Link:
    """
    A connection: of the probe to the server, or of the server to a target.

    :param connection: the socket, connected.
    :param timeout: seconds for each wait.
    :param name: who is at the other end.
    """

    def __init__(self, connection: socket, timeout: float, name: str = "the server") -> None:
        self.socket = connection
        self.timeout = timeout
        self._name = name
        connection.settimeout(timeout)
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """
        Send *data*.

        :raises Failed: when the other end takes nothing or has closed.
        """
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise ServerSilent(f"{self._name} read nothing for {self.timeout:g} s") from None
        except OSError:
            raise ServerClosed(f"{self._name} closed the connection") from None

    def send_apart(self, data: bytes) -> None:
        """Send *data*, each byte in a segment of its own."""
        for value in data:
            self.send(bytes((value,)))
            time.sleep(_APART)

    def receive_some(self, timeout: float | None = None) -> bytes:
        """
        Some bytes; none: the other end has closed.

        :param timeout: seconds; None: those of the link.
        :raises ServerSilent: when there are none in time.
        """
        seconds = self.timeout if timeout is None else max(timeout, 0.001)
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            raise ServerSilent(f"{self._name} sent nothing for {seconds:g} s") from None
        except OSError:
            return b""
        finally:
            self.socket.settimeout(self.timeout)

    def receive(self, size: int) -> bytes:
        """
        *size* bytes, and no more.

        :raises Failed: when there are fewer.
        """
        data = bytearray()
        until = time.monotonic() + self.timeout
        while len(data) < size:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                some = self.socket.recv(size - len(data))
            except TimeoutError:
                raise ServerSilent(f"{self._name} sent {_counted(data)} within {self.timeout:g} s") from None
            except OSError:
                some = b""
            if not some:
                raise ServerClosed(f"{self._name} closed the connection after {_counted(data)}")
            data += some
        return bytes(data)

    def read(self, parse: Callable[[bytes], tuple[T, int] | None], data: bytes = b"") -> T:
        """
        The message that *parse* finds, and not a byte after it.

        :param data: its first bytes, where they have been received.

        :raises Failed: when it does not come, or breaks the protocol.
        """
        while True:
            try:
                parsed = parse(data)
            except ProtocolError as problem:
                raise Failed(f"{self._name} sent {data.hex(' ')}: {problem}") from None
            if parsed is not None:
                return parsed[0]
            data += self.receive(1)

    def finish_writing(self) -> None:
        """Half-close: no byte follows."""
        try:
            self.socket.shutdown(SHUT_WR)
        except OSError:
            raise ServerClosed(f"{self._name} closed the connection") from None

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        self.socket.close()

    def wait_for_end(self, within: float | None = None) -> bytes:
        """
        What comes until the other end closes.

        :param within: seconds; None: those of the link.
        :raises ServerSilent: when it does not close in time.
        :raises Failed: when it sends more than a client would expect.
        """
        seconds = self.timeout if within is None else within
        until = time.monotonic() + seconds
        data = bytearray()
        while True:
            try:
                some = self.receive_some(until - time.monotonic())
            except ServerSilent:
                raise ServerSilent(f"{self._name} kept the connection open for {seconds:g} s") from None
            if not some:
                return bytes(data)
            data += some
            if len(data) > _MOST_BEFORE_THE_END:
                raise Failed(f"{self._name} sent {len(data)} bytes where the end of the connection was due")


def _counted(data: bytes | bytearray) -> str:
    return f"{len(data)} bytes ({data[:16].hex(' ')})" if data else "nothing"
