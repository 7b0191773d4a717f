"""HAProxy in front of a server, with and without PROXY headers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import peers
from paths import SOCKET
from processes import CannotStart, Server

_CONFIG = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen socks
    bind 127.0.0.1:{port}
    server ours unix@{socket} {header}
"""


def start(behind: Server, header: str, cpus: Collection[int] = ()) -> Server:
    """
    Start HAProxy in front of *behind*.

    :param header: the option of HAProxy that sends a header; ``none``: it sends none.
    :raises CannotStart: when HAProxy is not on this machine, or does not start.
    """
    binary = peers.which("haproxy")
    if binary is None:
        raise CannotStart("haproxy is not here")

    def command(port: int, directory: Path) -> list[str]:
        socket = behind.directory / SOCKET
        text = _CONFIG.format(port=port, socket=socket, header="" if header == "none" else header)
        file = directory / "haproxy.cfg"
        file.write_text(text, "utf-8")
        return [binary, "-db", "-f", str(file)]

    return Server(command, cpus)
