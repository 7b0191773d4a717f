"""Why datagrams are dropped: see :mod:`socksproxy.udp.drops`."""

from __future__ import annotations

import errno

import pytest

from socksproxy.udp.drops import Drop, drop_for


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EMSGSIZE, Drop.TOO_BIG),
        (errno.EAGAIN, Drop.OVERFLOW),
        (errno.ENOBUFS, Drop.OVERFLOW),
        (errno.ENETUNREACH, Drop.UNREACHABLE),
        (errno.EACCES, Drop.DENIED),
        (errno.EPERM, Drop.DENIED),
        (0, Drop.UNREACHABLE),
    ],
)
def test_drops_by_error(number: int, reason: Drop) -> None:
    assert drop_for(OSError(number, "")) is reason
