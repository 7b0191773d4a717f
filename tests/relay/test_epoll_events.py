"""The names of what epoll tells."""

from __future__ import annotations

import select
import sys

import pytest

from socksproxy.relay import epoll_events as events


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
def test_the_systems_own() -> None:
    for name, systems in {
        "READ": "EPOLLIN",
        "URGENT": "EPOLLPRI",
        "WRITE": "EPOLLOUT",
        "ERROR": "EPOLLERR",
        "HANG_UP": "EPOLLHUP",
        "PEER_CLOSED": "EPOLLRDHUP",
        "EDGE": "EPOLLET",
    }.items():
        assert getattr(events, name) == getattr(select, systems), name


def test_what_may_be_had_by_reading() -> None:
    """Whoever reads learns of an error and of an end; room to write is no reason to read."""
    for event in (events.READ, events.URGENT, events.ERROR, events.HANG_UP, events.PEER_CLOSED):
        assert event & events.READABLE
    assert not events.WRITE & events.READABLE
    assert not events.READ & events.UNEVEN
    # The kernel tells of errors unasked.
    assert events.READABLE & ~events.EVERYTHING == events.BROKEN
