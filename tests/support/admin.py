"""Clients of admin sockets."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor

from socksproxy import SOCKSFactory
from socksproxy.admin.api import routes_of
from socksproxy.admin.control import Control, control_of
from socksproxy.admin.ports import AdminPorts
from socksproxy.admin.settings import AdminLevel, AdminListener, AdminSettings

#: Seconds.
_PATIENCE = 90


class Told(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def body(self) -> Any:
        """What the JSON says."""
        return json.loads(self.data)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path | str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def asks(
    where: Path | str | tuple[str, int], method: str, path: str, body: Any = None, **headers: str
) -> Told:
    """Ask on the admin socket at *where*; a thread does it. Underscores in names of headers are hyphens."""
    connection: http.client.HTTPConnection
    if isinstance(where, tuple):
        connection = http.client.HTTPConnection(*where, timeout=_PATIENCE)
    else:
        connection = _UnixConnection(where)
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    if method not in ("GET", "HEAD"):
        said.setdefault("Content-Type", "application/json")
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, said)
        response = connection.getresponse()
        return Told(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def raw(path: Path | str, data: bytes) -> bytes:
    """What comes back for *data*, until the end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE)
        client.connect(str(path))
        client.sendall(data)
        answer = b""
        while more := client.recv(65536):
            answer += more
    return answer


@contextmanager
def administered(
    factory: SOCKSFactory,
    path: Path,
    level: AdminLevel = AdminLevel.ADMIN,
    control: Control | None = None,
    **more: Any,
) -> Iterator[AdminPorts]:
    """The admin socket of *factory* at *path*."""
    listener = AdminListener(endpoint=f"unix:{path}", level=level, **more)
    settings = AdminSettings(listeners=[listener])
    table = routes_of(control or control_of(factory))
    ports = AdminPorts(reactor, settings, lambda: table, lambda: None)
    ports.enter()
    try:
        yield ports
    finally:
        ports.close()
