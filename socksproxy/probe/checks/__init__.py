"""The checks, by subject, in the order in which they run and print."""

from __future__ import annotations

from . import bind, connect, greeting, login, patience, relaying, resolve, udp

#: All checks. Wrong passwords come last: a server may lock the client out then.
ALL = [
    *greeting.CHECKS,
    *connect.CHECKS,
    *relaying.CHECKS,
    *bind.CHECKS,
    *udp.CHECKS,
    *resolve.CHECKS,
    *patience.CHECKS,
    *login.CHECKS,
]
