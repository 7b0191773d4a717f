"""Nodes in processes of their own that share a store, and ways to the store that can fail."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from threading import Thread
from typing import Any

from socksproxy.wire.words import Address, Command
from tests.support.admin import Told, asks
from tests.support.processes import TWISTD, Program
from tests.support.proxy import PATIENCE, ask_as, reply5, request5

_RESET = struct.pack("ii", 1, 0)
_CONFIG = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[authentication]
auth = ["memory:bob:secret:ann:secret"]
[log]
log = "access.log"
log-format = "json"
[[admin.listener]]
endpoint = "unix:admin.sock"
[[rule]]
name = "all"
allow = true
networks = ["127.0.0.0/8"]
[node]
name = "{name}"
"""


class Way(Enum):
    """How a :class:`StoreWay` is."""

    OPEN = "open"
    #: What comes waits until the way is open again.
    HELD = "held"
    #: The same, and no connection begins: as if a firewall dropped all.
    HOLE = "hole"
    #: Commands pass, and answers are lost.
    DEAF = "deaf"
    #: Every connection is reset.
    RESET = "reset"


class StoreWay(Thread):
    """
    A port on loopback behind which the store is.

    :param store: the store: the path of its Unix socket, or its port.
    :ivar port: where it listens.
    """

    def __init__(self, store: str | int) -> None:
        super().__init__(daemon=True)
        self._store = store
        # No room for connections that wait: until the listener accepts, the second one hangs.
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listening.getsockname()[1]
        self._how = Way.OPEN
        self._others: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._fillers: list[socket.socket] = []
        self._over = False
        self.start()

    @property
    def url(self) -> str:
        """The URL for a node."""
        return f"redis://127.0.0.1:{self.port}"

    def set(self, how: Way) -> Callable[[], None]:
        """Have it be so from now on; what is returned opens it again."""
        self._how = how
        if how is Way.HOLE:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)
        return self._open

    def _open(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._how = Way.OPEN

    def stop(self) -> None:
        """Close everything."""
        self._over = True
        self.join()
        self._open()
        for each in (self._listening, *self._others):
            each.close()

    def run(self) -> None:
        """Pass on what may pass."""
        while not self._over:
            if self._how is Way.RESET:
                for each in list(self._clients):
                    self._close(each)
            watched = [] if self._how in (Way.HELD, Way.HOLE) else [self._listening, *self._others]
            for each in select.select(watched, [], [], 0.01)[0]:
                with suppress(OSError):
                    if each is self._listening:
                        self._accept()
                    elif each in self._others:
                        self._pass_on(each)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        there = socket.socket(socket.AF_UNIX if isinstance(self._store, str) else socket.AF_INET)
        self._others[client], self._others[there] = there, client
        self._clients.add(client)
        try:
            there.connect(self._store if isinstance(self._store, str) else ("127.0.0.1", self._store))
        except OSError:
            self._close(client)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if not data or self._how is Way.RESET:
            self._close(source)
        elif source in self._clients or self._how is not Way.DEAF:
            try:
                self._others[source].sendall(data)
            except OSError:
                self._close(source)

    def _close(self, one: socket.socket) -> None:
        other = self._others.pop(one)
        del self._others[other]
        for each in (one, other):
            if self._how is Way.RESET:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._clients.discard(each)
            each.close()


class SharingNode:
    """
    A server in a process of its own.

    :param directory: for its files; its path is short, as that of a socket is in it.
    :param name: of the node.
    :param store: the URL of the store.
    :param config: what its configuration has beside the listener, a log, an admin socket and a rule.
    :param shared: further lines of ``[shared]``.
    """

    def __init__(self, directory: Path, name: str, store: str, config: str = "", shared: str = "") -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self._store = f'[shared]\nstore = "{store}"\n{shared}\n'
        self.write(config)
        self.start()

    def write(self, config: str) -> None:
        """Write its file."""
        text = _CONFIG.format(name=self.name) + self._store + config
        (self.directory / "socks.toml").write_text(text)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [*TWISTD, "-n", "--pidfile=", "socks", "--config", "socks.toml"]
        self.program = Program(command, self.directory)
        self.port = int(self.program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])

    def stop(self) -> None:
        """End it as an operator would."""
        self.program.stop()
        assert "Traceback" not in self.program.output, self.program.output

    def ask(self, method: str, path: str, body: Any = None) -> Told:
        """Ask on its admin socket."""
        return asks(self.directory / "admin.sock", method, path, body)

    @property
    def up(self) -> bool:
        """Whether the store answers it, as its log tells."""
        said = self.said
        return said.rfind("until it answers") <= said.rfind("answers again")

    @property
    def said(self) -> str:
        """All that its log has by now."""
        self.program.read()
        return self.program.output

    @property
    def outages(self) -> int:
        """How often the store has been down for it."""
        return self.said.count("until it answers")

    @property
    def sessions(self) -> int:
        """How many it has."""
        return int(self.ask("GET", "/v1/status").body["sessions"])

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its access log."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def connect(self) -> socket.socket:
        """A connection of a client."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def asked(self, command: int, user: str = "bob") -> tuple[socket.socket, Address]:
        """A connection on which *user* has asked for *command*, and the address of the reply."""
        sock = self.connect()
        sock.sendall(b"\5\1\2")
        assert sock.recv(2) == b"\5\2"
        sock.sendall(b"\1" + bytes([len(user)]) + user.encode() + b"\6secret")
        assert sock.recv(2) == b"\1\0"
        sock.sendall(request5("127.0.0.1" if command == Command.BIND else "0.0.0.0", 0, command))
        reply, address = reply5(sock)
        assert reply == 0
        return sock, address

    def session(self, port: int, user: str = "bob") -> tuple[int, socket.socket]:
        """The reply to a request of *user* for that *port*, and the connection."""
        sock = self.connect()
        try:
            return ask_as(sock, user.encode(), port), sock
        except BaseException:
            sock.close()
            raise


def until(condition: Callable[[], Any], within: float = PATIENCE) -> float:
    """Wait until *condition* holds, and return how many seconds that takes."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, "it took too long"
        time.sleep(0.01)
    return time.monotonic() - began
