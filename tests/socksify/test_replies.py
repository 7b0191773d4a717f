"""Replies as errno."""

from __future__ import annotations

import errno

import pytest

from socksproxy.client.handshake import HandshakeFailed, Problem
from socksproxy.socksify.replies import errno_for


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        (1, errno.ENETUNREACH),
        (2, errno.EACCES),
        (3, errno.ENETUNREACH),
        (4, errno.EHOSTUNREACH),
        (5, errno.ECONNREFUSED),
        (6, errno.ETIMEDOUT),
        (7, errno.EOPNOTSUPP),
        (8, errno.ENETUNREACH),
        (9, errno.ENETUNREACH),
        (0xF0, errno.EHOSTUNREACH),
        (0xF7, errno.EHOSTUNREACH),
        (0xFF, errno.ENETUNREACH),
    ],
)
def test_a_reply(reply: int, number: int) -> None:
    assert errno_for(HandshakeFailed(Problem.REFUSED, meaning=reply)) == number


@pytest.mark.parametrize(
    ("problem", "number"),
    [
        (Problem.LOGIN, errno.EACCES),
        (Problem.NO_METHOD, errno.EACCES),
        (Problem.PROTOCOL, errno.EPROTO),
        (Problem.CLOSED, errno.ECONNRESET),
    ],
)
def test_a_failure_of_the_proxy_is_never_refused(problem: Problem, number: int) -> None:
    assert errno_for(HandshakeFailed(problem)) == number
