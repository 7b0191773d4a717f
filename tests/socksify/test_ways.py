"""Where a destination is reached."""

from __future__ import annotations

import errno
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from socksproxy.socksify.stand_ins import StandIns
from socksproxy.socksify.ways import Bypass, Ways
from socksproxy.wire.words import Address


@pytest.fixture
def names() -> StandIns:
    return StandIns()


@pytest.fixture
def ways(names: StandIns) -> Ways:
    return Ways(names, [ip_network("192.0.2.0/25"), ip_network("2001:db8:1::/48")])


@pytest.mark.parametrize(
    "host", ["127.0.0.53", "127.0.0.1", "8.8.8.8", "192.0.2.1", "::1", "2001:db8::53", "0.0.0.0"]
)
def test_every_name_server_is_ours(ways: Ways, host: str) -> None:
    assert ways.way_to(Address.of(host, 53)) is Bypass.NAMES


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "192.0.2.127", "2001:db8:1::9"]
)
def test_what_stays_direct(ways: Ways, host: str) -> None:
    assert ways.way_to(Address.of(host, 80)) is Bypass.DIRECT


@pytest.mark.parametrize("host", ["192.0.2.128", "10.0.0.1", "169.254.169.254", "2001:db8:2::9", "fc00::1"])
def test_what_is_for_the_proxy(ways: Ways, host: str) -> None:
    assert ways.way_to(Address.of(host, 80)) == Address.of(host, 80)


def test_a_stand_in_is_its_name_for_the_proxy(ways: Ways, names: StandIns) -> None:
    for host in names.addresses_of("www.example.org"):
        assert ways.way_to(Address.of(host, 443)) == Address.of("www.example.org", 443)


@pytest.mark.parametrize(
    ("host", "number"),
    [
        ("198.18.0.77", errno.EHOSTUNREACH),
        ("100:0:0:1::77", errno.EHOSTUNREACH),
        ("224.0.0.251", errno.ENETUNREACH),
        ("255.255.255.255", errno.ENETUNREACH),
        ("ff02::fb", errno.ENETUNREACH),
        ("fe80::1", errno.ENETUNREACH),
    ],
)
def test_where_no_way_leads(ways: Ways, host: str, number: int) -> None:
    with pytest.raises(OSError, match=r"the|no") as caught:
        ways.way_to(Address.of(host, 80))
    assert caught.value.errno == number


def test_no_descriptor_does_not_mean_direct(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an address is this machine's is not known then."""

    def fail(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("socket.socket", fail)
    with pytest.raises(OSError, match="too many"):
        ways.way_to(Address.of("203.0.113.1", 80))


def test_the_broadcast_address_of_a_network(ways: Ways) -> None:
    """It can be bound, as an own address can. Loopback has one on every machine, beside those of others."""
    table = Path("/proc/net/fib_trie")
    found = re.findall(r"-- (\S+)\n +/32 link BROADCAST", table.read_text() if table.exists() else "")
    others = [host for host in found if not host.startswith("127.")]
    if not others:
        pytest.skip("no interface with a broadcast address")
    with pytest.raises(OSError, match="no proxy leads") as caught:
        ways.way_to(Address.of(others[0], 137))
    assert caught.value.errno == errno.ENETUNREACH
