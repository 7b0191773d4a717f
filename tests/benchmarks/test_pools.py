"""The figures of pools: the script runs, with few members."""

from __future__ import annotations

from pools import chosen, memory, route_of
from socksproxy.routes.interfaces import Trail
from socksproxy.values.pools import Choose


def test_choices_and_memory() -> None:
    """A choice is a member's, and memory is measured."""
    for choose in Choose:
        route = route_of(20, choose)
        assert chosen(route, Trail(None)).name in {member.name for member in route.members}
    assert 500 < memory(50, Choose.FIRST) < 20000
