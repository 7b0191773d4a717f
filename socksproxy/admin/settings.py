"""
The settings of the admin sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import attrs

from ..net.endpoints import place_described
from ..net.special_addresses import is_loopback
from ..values.errors import ConfigError

#: Seconds for which a server that is drained still accepts clients, so that balancers have time for checks.
NOTICE = 10.0


class AdminLevel(IntEnum):
    """What clients of an admin listener may do; each level includes those below it."""

    MONITOR = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def called(cls, word: str) -> AdminLevel:
        """
        The level of that *word*.

        :raises ConfigError: when there is none.
        """
        for level in cls:
            if level.name.lower() == word:
                return level
        raise ConfigError("there are monitor, operator and admin")


#: Characters of a token, at the least.
_SHORTEST_TOKEN = 16


def token_in(data: bytes) -> str:
    """
    The token that a file with *data* has.

    :raises ValueError: when it has none that is long enough, or that a header cannot carry.
    """
    token = data.decode("latin-1").strip(" \t\r\n")
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"a token has at least {_SHORTEST_TOKEN} characters of ASCII, and no spaces")
    return token


@attrs.frozen(kw_only=True)
class AdminListener:
    """
    One admin listener.

    :ivar endpoint: unix:PATH:mode=600, or tcp:, ssl: or systemd: as for listen.
    :ivar level: monitor, operator or admin. Default: admin on Unix sockets, else monitor.
    :ivar token_file: a file with a token, which every request must have.
    :ivar client_ca: a file with certificates of authorities, in PEM; every client must have a certificate of
        one of them. Only with ssl:.
    :raises ConfigError: when values do not go together; its path is the key.
    """

    endpoint: str
    level: AdminLevel = attrs.field()
    token_file: str | None = None
    client_ca: str | None = None

    @level.default
    def _usual_level(self) -> AdminLevel:
        return AdminLevel.ADMIN if self.is_unix else AdminLevel.MONITOR

    def __attrs_post_init__(self) -> None:
        kind = self._kind
        if kind not in ("unix", "tcp", "tcp6", "ssl", "systemd"):
            raise ConfigError("must begin with unix:, tcp:, tcp6:, ssl: or systemd:", path=("endpoint",))
        if self.client_ca is not None and kind != "ssl":
            raise ConfigError("only with an endpoint ssl:", path=("client-ca",), shown=False)
        if self.is_unix or self.proves:
            return
        needs = "token-file, or ssl: with client-ca, is needed"
        if self.level > AdminLevel.MONITOR:
            raise ConfigError(f"{needs} for a level above monitor", path=("level",), shown=False)
        place = place_described(self.endpoint)
        if place is not None and not isinstance(place, str) and not is_loopback(place[0]):
            raise ConfigError(f"not a loopback address: {needs}", path=("endpoint",))

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket, as far as its description tells."""
        return self._kind == "unix" or (self._kind == "systemd" and "domain=unix" in self.endpoint.lower())

    @property
    def _kind(self) -> str:
        return self.endpoint.partition(":")[0].lower()

    @property
    def proves(self) -> bool:
        """Whether a client has to prove that it may ask."""
        return self.token_file is not None or self.client_ca is not None


@attrs.frozen(kw_only=True)
class AdminSettings:
    """
    The admin sockets of a server.

    :ivar listeners: where they are.
    :ivar names: names of the server, besides its addresses, that requests may have in Host.
    :ivar agent: the endpoint that tells HAProxy's agent check how much of the server is free.
    :ivar notice: seconds for which a server that is drained still accepts clients.
    """

    listeners: Sequence[AdminListener] = ()
    names: Sequence[str] = ()
    agent: str | None = None
    notice: float = NOTICE
