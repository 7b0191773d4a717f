"""How sessions end in one word, and their ids."""

from __future__ import annotations

import errno

import pytest
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.error import TimeoutError as ConnectTimeout

from socksproxy.errors import (
    CommandNotSupported,
    ConnectedToItself,
    ConnectTimedOut,
    NameNotFound,
    NoFreePort,
    NotAllowed,
    NotAuthenticated,
    ProtocolError,
    QuotaUsedUp,
    TooManyLookups,
    TooManySessions,
)
from socksproxy.events import Cause, End, SessionIds, end_for


@pytest.mark.parametrize(
    ("problem", "end"),
    [
        (QuotaUsedUp(), End.QUOTA),
        (TooManySessions(), End.LIMIT),
        (NoFreePort(), End.LIMIT),
        (OSError(errno.EMFILE, "too many open files"), End.LIMIT),
        (NotAuthenticated(), End.AUTH),
        (UnauthorizedLogin(), End.AUTH),
        (NotAllowed(), End.DENIED),
        (PermissionError(errno.EACCES, "a packet filter"), End.DENIED),
        (NameNotFound(), End.DNS),
        (TooManyLookups(), End.LIMIT),
        (OSError(errno.EADDRNOTAVAIL, ""), End.UNREACHABLE),
        (OSError(errno.ECONNREFUSED, ""), End.REFUSED),
        (ConnectedToItself(), End.REFUSED),
        (OSError(errno.EHOSTUNREACH, ""), End.UNREACHABLE),
        (OSError(errno.ENETUNREACH, ""), End.UNREACHABLE),
        (ConnectTimedOut(), End.TIMEOUT),
        (ConnectTimeout(), End.TIMEOUT),
        (CommandNotSupported(), End.PROTOCOL),
        (ProtocolError("none"), End.PROTOCOL),
        (RuntimeError(), End.FAULT),
    ],
)
def test_refusals(problem: Exception, end: End) -> None:
    """Each refusal has the word by which a program groups it."""
    assert end_for(problem) is end


def test_causes() -> None:
    """Every cause has words for people and a word of the list."""
    assert all(cause.value.words and isinstance(cause.value.end, End) for cause in Cause)


def test_ids() -> None:
    """Neither a restart nor a replacement of a worker gives an id again."""
    before = SessionIds(1000, 1)
    ids = [before.name(before.next()) for _ in range(2)]
    assert ids == ["1000.1.1", "1000.1.2"]
    replacement = SessionIds(1000, 2)
    assert replacement.name(replacement.next()) == "1000.2.1"
    assert SessionIds().generation > 1000


def test_ids_of_two_factories() -> None:
    """The factories of one process do not share an id, even those made in one millisecond."""
    first, second = SessionIds(), SessionIds()
    assert first.name(1) != second.name(1)
