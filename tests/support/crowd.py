"""
Thousands of clients in one thread, and an origin for them as a process: ``python crowd.py PORT-FILE``.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

#: How many connections are being made at once: less than any listen queue holds.
_WINDOW = 200
_RESET = struct.pack("ii", 1, 0)


def origin(port_file: str) -> None:
    """Echo whatever comes, on a port that *port_file* tells, until killed."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)
    listening.setblocking(False)
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    socks: dict[int, socket.socket] = {}
    Path(port_file).write_text(f"{listening.getsockname()[1]}\n")
    while True:
        for fd, _ in epoll.poll():
            if fd == listening.fileno():
                _accept(listening, epoll, socks)
                continue
            sock = socks[fd]
            try:
                data = sock.recv(65536)
                sock.sendall(data)
            except OSError:
                data = b""
            if not data:
                del socks[fd]
                sock.close()


def _accept(listening: socket.socket, epoll: select.epoll, socks: dict[int, socket.socket]) -> None:
    while True:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLIN)


class Crowd:
    """
    Clients that all do the same at the same time.

    :param address: the proxy's.
    :param patience: seconds that anything may take.
    """

    def __init__(self, address: tuple[str, int], patience: float) -> None:
        self._address = address
        self._patience = patience
        self.socks: list[socket.socket] = []
        self._got: dict[socket.socket, bytes] = {}

    def open(self, count: int) -> None:
        """Connect *count* clients more."""
        epoll = select.epoll()
        left, opening = count, 0
        while left or opening:
            while left and opening < _WINDOW:
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(self._address)
                epoll.register(sock, select.EPOLLOUT | select.EPOLLONESHOT)
                self.socks.append(sock)
                self._got[sock] = b""
                left, opening = left - 1, opening + 1
            events = epoll.poll(self._patience)
            if not events:
                raise AssertionError(f"{opening} connections are not made")
            for _, mask in events:
                if mask & (select.EPOLLERR | select.EPOLLHUP):
                    raise AssertionError("a connection failed")
                opening -= 1
        epoll.close()

    def send(self, data: bytes, socks: Iterable[socket.socket] | None = None) -> None:
        """Let all say *data*, or *socks*."""
        for sock in self.socks if socks is None else socks:
            assert sock.send(data) == len(data)

    def wait(
        self,
        size: int,
        among: Sequence[socket.socket] | None = None,
        least: int | None = None,
        within: float | None = None,
    ) -> list[socket.socket]:
        """
        Those who have received *size* bytes that are not taken yet.

        :param among: who is waited for; None: all.
        :param least: how many of them; None: all.
        :param within: seconds, after which those are returned who have; None: they must in the usual time.
        :raises AssertionError: when they have not in time, or one met its end.
        """
        epoll = select.epoll()
        socks = self.socks if among is None else among
        short = {sock.fileno(): sock for sock in socks if len(self._got[sock]) < size}
        for fd in short:
            epoll.register(fd, select.EPOLLIN)
        most_short = 0 if least is None else len(socks) - least
        deadline = time.monotonic() + (self._patience if within is None else within)
        while len(short) > most_short:
            events = epoll.poll(max(0.0, deadline - time.monotonic()))
            if not events:
                assert within is not None, f"{len(short)} of {len(socks)} have no answer"
                break
            for fd, _ in events:
                sock = short[fd]
                data = sock.recv(size - len(self._got[sock]))
                assert data, f"an end after {self._got[sock]!r}"
                self._got[sock] += data
                if len(self._got[sock]) == size:
                    epoll.unregister(fd)
                    del short[fd]
        epoll.close()
        return [sock for sock in socks if len(self._got[sock]) >= size]

    def take(self, sock: socket.socket, size: int) -> bytes:
        """The first *size* bytes of what *sock* has received."""
        got = self._got[sock]
        self._got[sock] = got[size:]
        return got[:size]

    def close(self, socks: Iterable[socket.socket] | None = None) -> None:
        """Let all close, or *socks*, in order, and see that the proxy does."""
        leaving = list(self.socks if socks is None else socks)
        for sock in leaving:
            sock.shutdown(socket.SHUT_WR)
        for sock in leaving:
            sock.settimeout(self._patience)
            assert sock.recv(1) == b""
            # A port in TIME_WAIT for each would be many.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
            del self._got[sock]
        self.socks = [sock for sock in self.socks if sock in self._got]

    def leave(self) -> None:
        """Close what is left, however it is."""
        for sock in self.socks:
            sock.close()
        self.socks.clear()


if __name__ == "__main__":
    origin(sys.argv[1])
