"""Addresses that stand for names."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from socksproxy.socksify.stand_ins import MOST, StandIns, is_stand_in


def test_a_name_has_two_addresses_that_lead_back() -> None:
    names = StandIns()
    ipv4, ipv6 = names.addresses_of("www.Example.org.")
    assert (ip_address(ipv4).version, ip_address(ipv6).version) == (4, 6)
    assert names.name_of(ipv4) == names.name_of(ipv6) == "www.example.org"
    assert is_stand_in(ipv4)
    assert is_stand_in(ipv6)
    assert names.addresses_of("WWW.example.ORG") == (ipv4, ipv6)
    assert names.addresses_of("other.example.org") != (ipv4, ipv6)


@pytest.mark.parametrize(
    "host", ["198.18.0.0", "198.18.0.9", "198.19.255.255", "100:0:0:1::9", "192.0.2.1", "::1"]
)
def test_an_address_that_stands_for_nothing(host: str) -> None:
    assert StandIns().name_of(host) is None


@pytest.mark.parametrize("host", ["198.17.255.255", "198.20.0.0", "100::1", "::ffff:198.18.0.1"])
def test_addresses_beside_the_ranges(host: str) -> None:
    assert not is_stand_in(host)


def test_the_name_that_was_not_used_longest_makes_room() -> None:
    names = StandIns(most=2)
    first, second = names.addresses_of("a")[0], names.addresses_of("b")[0]
    assert names.name_of(first) == "a"  # a use
    assert names.addresses_of("c")[0] == second
    assert names.name_of(second) == "c"
    assert names.name_of(first) == "a"
    assert names.addresses_of("b")[0] == second


def test_all_addresses_are_in_the_ranges() -> None:
    names = StandIns()
    for number in range(MOST + 10):
        addresses = names.addresses_of(f"host{number}")
    assert all(map(is_stand_in, addresses))
    assert names.name_of(addresses[0]) == names.name_of(addresses[1]) == f"host{MOST + 9}"
