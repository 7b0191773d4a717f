"""Which replies pass the filter, and the headers that they get."""

from __future__ import annotations

import pytest

from socksproxy import Address
from socksproxy.limits.buckets import Meters
from socksproxy.udp.targets import DatagramRoute
from socksproxy.values import Filtering
from socksproxy.wire.datagram import build_header

from ..support.association import World


def test_sources_are_bounded() -> None:
    world = World(destinations=16)
    world.send("198.51.100.1")
    for port in range(1, 1000):
        assert world.passes("198.51.100.1", port)
        assert len(world.association.replies.headers) <= 16


@pytest.mark.parametrize("filtering", Filtering)
def test_replies_of_a_rule(filtering: Filtering) -> None:
    """Those from another port of a host that a rule limits are under its limits, too, if they pass at all."""
    world = World(filtering=filtering)
    association = world.association
    given: list[tuple[str, Meters]] = []

    def meters_under(rule: str) -> Meters:
        given.append((rule, Meters()))
        return given[-1][1]

    association.route = lambda address, name: DatagramRoute(
        None, None, None if address.port == 80 else "few", meters_under
    )
    for port in (80, 53, 54):
        world.send("198.51.100.1", port=port)
    world.send("198.51.100.2", port=80)
    assert [rule for rule, _ in given] == ["few"]
    limited = {
        (host, port): association.metering is not None
        and association.metering._of_replies.get(header) is given[0][1]
        for host, port in (
            ("198.51.100.1", 53),
            ("198.51.100.1", 80),
            ("198.51.100.1", 99),
            ("198.51.100.2", 99),
        )
        if (header := association.replies.header_for((host, port), host, port)) is not None
    }
    assert limited.pop(("198.51.100.1", 53))
    assert limited.pop(("198.51.100.1", 99), True)
    assert not any(limited.values())


@pytest.mark.parametrize(
    ("filtering", "port", "host"),
    [
        (Filtering.ENDPOINT_INDEPENDENT, True, True),
        (Filtering.ADDRESS_DEPENDENT, True, False),
        (Filtering.ADDRESS_AND_PORT_DEPENDENT, False, False),
    ],
)
def test_filtering(filtering: Filtering, port: bool, host: bool) -> None:
    world = World(filtering=filtering)
    assert world.passes("198.51.100.1", 53) is (filtering is Filtering.ENDPOINT_INDEPENDENT)
    world.send("198.51.100.1")
    assert world.passes("198.51.100.1", 53)
    assert world.passes("198.51.100.1", 54) is port
    assert world.passes("198.51.100.2", 53) is host
    world.policy.denied = {"198.51.100.3"}
    assert not world.passes("198.51.100.3", 53), "whom one may not send to"
    world.policy.late = {"198.51.100.4": []}
    assert not world.passes("198.51.100.4", 53)
    assert world.passes("198.51.100.1", 53)


def test_headers_of_replies() -> None:
    """ATYP 1 or 4, never 3, and no FRAG."""
    world = World()
    for host in ("198.51.100.1", "2001:db8::1"):
        world.send(host)
        assert world.association.replies.header_for("key", host, 99) == build_header(Address.of(host, 99))
    assert set(world.association.replies.headers) == {"key"}
    world.association.replies.forget()
    assert world.association.replies.headers == {}
