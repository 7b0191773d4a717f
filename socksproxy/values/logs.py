"""
Where a log goes: a file, syslog or the journal.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from typing import Any

import attrs

from .errors import ConfigError

#: Facilities of syslog (RFC 5424, section 6.2.1), without those of the kernel and of clocks.
FACILITIES = {
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "authpriv": 10,
    **{f"local{number}": 16 + number for number in range(8)},
}

DEV_LOG = "/dev/log"
JOURNAL = "/run/systemd/journal/socket"

#: What the name of a place begins with that is no file.
_SYSLOG, _JOURNALD = "syslog", "journald"
#: Separates the parts of a place: a colon that has no backslash before it, and is not part of an address.
_COLON = re.compile(r"(?<!\\):(?![^\[]*\])")
_PORT = re.compile("[0-9]{1,5}")
#: APP-NAME of RFC 5424, section 6.2.5.
_NAME = re.compile(r"[!-~]{1,48}")
_MOST_SHOWN = 'such as "syslog:tcp:logs.example:601"'


class LogKind(Enum):
    """The kind of a place; the value is the word for people."""

    FILE = "file"
    JOURNALD = "journald"
    #: A Unix socket, with one datagram for each line.
    LOCAL = "local syslog"
    TCP = "syslog over TCP"
    TLS = "syslog over TLS"


@attrs.frozen(kw_only=True)
class LogPlace:
    """
    Where a log goes.

    :ivar text: as the operator wrote it; a path is absolute.
    :ivar kind: what the place is.
    :ivar path: of a file or a Unix socket.
    :ivar host: of a server.
    :ivar port: of a server.
    :ivar facility: of syslog.
    :ivar name: the program's name in syslog and in the journal.
    :ivar old: whether messages have the form of RFC 3164, which local readers of syslog may want.
    :ivar ca: the file with the certificates of the authorities that the server's certificate may be from;
        None: those of the system.
    """

    text: str
    kind: LogKind
    path: str = ""
    host: str = ""
    port: int = 0
    facility: int = FACILITIES["daemon"]
    name: str = "socksproxy"
    old: bool = False
    ca: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a file or a stream of this process."""
        return self.kind is LogKind.FILE


def log_place(text: str) -> LogPlace:
    """
    The place of a log that *text* names.

    ``FILE``, ``journald[:SOCKET]``, ``syslog[:SOCKET]``, ``syslog:tcp:HOST:PORT`` or
    ``syslog:tls:HOST:PORT``, all but the first with ``:KEY=VALUE`` behind.

    :raises ConfigError: when it names none.
    """
    kind, *parts = _COLON.split(text)
    if kind not in (_SYSLOG, _JOURNALD):
        # twistd changes its directory later.
        path = os.path.abspath(text)
        return LogPlace(text=path, kind=LogKind.FILE, path=path)
    words = [part for part in parts if "=" not in part]
    if parts[: len(words)] != words:
        raise ConfigError("the keys stand at the end", text)
    keys = _keys(text, kind, [part.replace("\\:", ":") for part in parts[len(words) :]])
    if kind == _JOURNALD:
        place = LogPlace(text=text, kind=LogKind.JOURNALD, path=_socket(text, words, JOURNAL), **keys)
    elif words[:1] in (["tcp"], ["tls"]):
        place = LogPlace(text=text, **_server(text, words), **keys)
    else:
        place = LogPlace(text=text, kind=LogKind.LOCAL, path=_socket(text, words, DEV_LOG), **keys)
    if place.ca is not None and place.kind is not LogKind.TLS:
        raise ConfigError("ca is for syslog:tls", text)
    if place.old and place.kind is not LogKind.LOCAL:
        raise ConfigError("format=rfc3164 is for the socket of a local syslog", text)
    return place


def _socket(text: str, words: list[str], default: str) -> str:
    if len(words) > 1 or (words and not words[0].startswith("/")):
        raise ConfigError(f"not the path of a socket, or a server, {_MOST_SHOWN}", text)
    return words[0].replace("\\:", ":") if words else default


def _server(text: str, words: list[str]) -> dict[str, Any]:
    kind, *rest = words
    if len(rest) != 2 or not rest[0] or not (_PORT.fullmatch(rest[1]) and 0 < int(rest[1]) < 65536):
        raise ConfigError(f"needs a host and a port, {_MOST_SHOWN}", text)
    host = rest[0].removeprefix("[").removesuffix("]")
    return {"kind": LogKind.TCP if kind == "tcp" else LogKind.TLS, "host": host, "port": int(rest[1])}


def _keys(text: str, kind: str, parts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key == "facility" and kind == _SYSLOG:
            if value not in FACILITIES:
                raise ConfigError(f"facility is none of {', '.join(FACILITIES)}", text)
            found[key] = FACILITIES[value]
        elif key == "name":
            if not _NAME.fullmatch(value):
                raise ConfigError("name is at most 48 letters, digits and signs", text)
            found[key] = value
        elif key == "format" and kind == _SYSLOG:
            if value not in ("rfc5424", "rfc3164"):
                raise ConfigError("format is neither rfc5424 nor rfc3164", text)
            found["old"] = value == "rfc3164"
        elif key == "ca" and kind == _SYSLOG:
            found[key] = os.path.abspath(value)
        else:
            right = "facility, name, format and ca" if kind == _SYSLOG else "name alone"
            raise ConfigError(f"{key}: no such key; there is {right}", text)
    return found
