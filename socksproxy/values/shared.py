"""
The settings of the store that several nodes share: a Valkey or a Redis, and how it is reached.
"""

from __future__ import annotations

import re
from socket import gethostname
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from .errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PORT, _SENTINEL_PORT = 6379, 26379
#: Characters of the URL of an admin API: it is told to all nodes.
_LONGEST_URL = 300
#: The schemes of TCP, and whether TLS and Sentinel are in use.
_SCHEMES = {
    "redis": (False, False),
    "rediss": (True, False),
    "redis+sentinel": (False, True),
    "rediss+sentinel": (True, True),
}
_EXAMPLE = "redis://HOST:6379/0, rediss://..., unix:///run/valkey.sock or redis+sentinel://HOST,HOST/SERVICE"


@attrs.frozen(kw_only=True)
class StoreAddress:
    """
    Where the store is.

    :ivar places: host and port of the server, or of each Sentinel; empty: the server has a Unix socket.
    :ivar path: the Unix socket; None: there is none.
    :ivar service: the name by which Sentinels know the server; None: there are no Sentinels.
    :ivar tls: whether the connection uses TLS.
    :ivar database: the number of the database.
    :ivar user: the name that this program logs in with; None: the default user.
    :ivar password: the password in the URL; None: there is none.
    """

    places: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    tls: bool = False
    database: int = 0
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        """The address for messages, without the password."""
        if self.path is not None:
            return self.path
        places = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places
        )
        return places if self.service is None else f"{places} ({self.service})"

    @property
    def place(self) -> StoreAddress:
        """The same address without the login."""
        return attrs.evolve(self, user=None, password=None)

    @classmethod
    def of(cls, url: str) -> StoreAddress:
        """
        The address that *url* gives.

        :raises ConfigError: when it gives none. The message never has the URL, which may hold a password.
        """
        try:
            parts = urlsplit(url)
            user, password = (part and unquote(part) for part in (parts.username, parts.password))
            if parts.scheme == "unix" and parts.path.startswith("/"):
                database = int(
                    dict(pair.split("=", 1) for pair in parts.query.split("&") if pair).get("db", 0)
                )
                return cls(path=unquote(parts.path), database=database, user=user or None, password=password)
            if parts.scheme in _SCHEMES:
                return _of_tcp(parts, user or None, password)
        except ValueError:
            pass
        raise ConfigError(f"not the URL of a store, such as {_EXAMPLE}", shown=False)


def _of_tcp(parts: SplitResult, user: str | None, password: str | None) -> StoreAddress:
    tls, sentinels = _SCHEMES[parts.scheme]
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not sentinels and len(hosts) > 1:
        raise ValueError("several hosts")
    path = parts.path.strip("/").split("/")
    service = path.pop(0) if sentinels else None
    number = "".join(path)
    if len(path) > 1 or (sentinels and not service) or parts.query or parts.fragment:
        raise ValueError("the path")
    port = _SENTINEL_PORT if sentinels else _PORT
    return StoreAddress(
        places=tuple(_place(host, port) for host in hosts),
        service=service,
        tls=tls,
        database=int(number) if number else 0,
        user=user,
        password=password,
    )


def _place(text: str, otherwise: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    port = otherwise if parts.port is None else parts.port
    if not parts.hostname or not port:
        raise ValueError("no host")
    return parts.hostname, port


def check_name(name: str) -> str:
    """
    The *name* of a site or a node.

    :raises ConfigError: when it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            'a name has up to 64 letters, digits, ".", "-" and "_", and begins with a letter or a digit'
        )
    return name


def own_name() -> str:
    """The name of this machine, as a node has it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", gethostname())[:64].lstrip("-_.") or "node"


def check_admin_url(url: str) -> str:
    """
    The *url* at which other machines reach the admin API of a node.

    :raises ConfigError: when it cannot be one.
    """
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname and parts.port) and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("http", "https") or parts.path.strip("/") or len(url) > _LONGEST_URL:
        raise ConfigError("not the URL of an admin listener, such as http://HOST:9090 or https://HOST:9090")
    return url.rstrip("/")


@attrs.frozen(kw_only=True)
class NodeSettings:
    """
    What is of one node alone.

    :ivar name: the name of this node among those that share a store. Default: that of the machine.
    :ivar admin: where other machines reach the admin API of this node, http://HOST:PORT or https://HOST:PORT,
        at one of its admin listeners.
    """

    name: str = attrs.field(factory=own_name)
    admin: str | None = None


@attrs.frozen(kw_only=True)
class SharedSettings:
    """
    The store that several nodes share, so that limits hold for all of them.

    :ivar store: the URL of the store: redis://, rediss://, unix:///path, or redis+sentinel:// with several
        Sentinels.
    :ivar password_file: a file with one line, the password of the store.
    :ivar ca_file: certificates that vouch for the store; otherwise those of the system do.
    :ivar site: the prefix of all keys, so that several sites can share one store.
    :ivar required: whether the server needs the store in order to start. If it does not, it starts without
        the store, and needs "nodes".
    :ivar nodes: how many nodes there are at least, also while fewer run, or the store has not told.
    """

    store: StoreAddress
    password_file: str | None = attrs.field(default=None, repr=False)
    ca_file: str | None = None
    site: str = "socks"
    required: bool = True
    nodes: int | None = None
    #: The content of the file.
    password: str | None = attrs.field(default=None, repr=False)
    #: The name of this node, of ``[node]``.
    node: str = attrs.field(factory=own_name)
