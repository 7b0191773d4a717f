"""Ports of our own, and what clients are told of them."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.net.ports import Advertised, bindable, host_of, opened
from socksproxy.values.ports import PortRange
from socksproxy.wire.words import AddressType

IPV4, IPV6 = AddressType.IPV4, AddressType.IPV6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40000-40999", (40000, 40999)),
        ("1-65535", (1, 65535)),
        ("5000", (5000, 5000)),
        ("5000-5000", (5000, 5000)),
        ("007", (7, 7)),
        ("1 - 2", (1, 2)),
    ],
)
def test_range(text: str, expected: tuple[int, int]) -> None:
    assert PortRange.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "5-",
        "-5",
        "5-4",
        "0",
        "0-5",
        "65535-65536",
        "65536",
        "a-b",
        "1-2-3",
        "+1",
        "1_0",
        "²",
    ],
)
def test_range_refused(text: str) -> None:
    """One line that shows what was said."""
    with pytest.raises(ValueError, match="port") as caught:
        PortRange.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=12))
def test_range_of_anything(text: str) -> None:
    """A range that is one, or ValueError."""
    try:
        first, last = PortRange.parse(text)
    except ValueError:
        return
    assert 0 < first <= last < 65536


class Opener:
    """Opens ports but those in *taken*, and remembers what it was asked for."""

    def __init__(self, *taken: int) -> None:
        self.taken = set(taken)
        self.tried: list[int] = []

    def __call__(self, port: int) -> str:
        self.tried.append(port)
        if port in self.taken:
            raise OSError(errno.EADDRINUSE, "in use")
        return f"port {port}"


def test_any_port() -> None:
    """Without a range the system chooses."""
    opener = Opener()
    assert opened(None, opener, lambda count: 1 // 0) == "port 0"
    assert opener.tried == [0]


def test_begins_anywhere_and_goes_round() -> None:
    """From a random port on, each once."""
    opener = Opener(12, 13, 10)
    asked: list[int] = []

    def chance(count: int) -> int:
        asked.append(count)
        return 2

    assert opened(PortRange(10, 13), opener, chance) == "port 11"
    assert opener.tried == [12, 13, 10, 11]
    assert asked == [4]


def test_all_taken() -> None:
    opener = Opener(10, 11)
    with pytest.raises(OSError, match="all ports from 10 to 11 are taken") as caught:
        opened(PortRange(10, 11), opener, lambda count: count - 1)
    assert caught.value.errno == errno.EADDRINUSE
    assert opener.tried == [11, 10]


def test_another_failure_ends_it() -> None:
    """Where the address is not ours, no port will do."""
    tried: list[int] = []

    def opener(port: int) -> None:
        tried.append(port)
        raise OSError(errno.EADDRNOTAVAIL, "not ours")

    with pytest.raises(OSError, match="not ours"):
        opened(PortRange(10, 20), opener, lambda count: 0)
    assert tried == [10]


def test_real_sockets() -> None:
    """With the system's own refusal of a port that is taken."""
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        first.listen()
        number = first.getsockname()[1]

        def open_port(port: int) -> socket.socket:
            second = socket.socket()
            try:
                second.bind(("127.0.0.1", port))
            except OSError:
                second.close()
                raise
            return second

        with pytest.raises(OSError, match="are taken"):
            opened(PortRange(number, number), open_port, lambda count: 0)


def test_nothing_advertised() -> None:
    assert Advertised().address("192.0.2.1", IPV4) is None


def test_advertised_by_family() -> None:
    """A client is told an address of the kind that the reply is about, whatever its own is."""
    advertised = Advertised(["203.0.113.5", "2001:db8::5"])
    for client in ("192.0.2.1", "2001:db8::1", None):
        assert advertised.address(client, IPV4) == "203.0.113.5"
        assert advertised.address(client, IPV6) == "2001:db8::5"
        assert advertised.address(client, AddressType.DOMAIN_NAME) is None
    assert Advertised(["203.0.113.5"]).address("192.0.2.1", IPV6) is None


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ("10.1.2.3", "203.0.113.3"),
        ("10.1.9.9", "203.0.113.2"),
        ("10.9.9.9", "203.0.113.1"),
        ("::ffff:10.1.2.3", "203.0.113.3"),
        ("192.0.2.1", "203.0.113.9"),
        ("2001:db8::1", "203.0.113.6"),
        ("2001:db9::1", "203.0.113.9"),
        (None, "203.0.113.9"),
    ],
)
def test_narrowest_network_first(client: str | None, told: str) -> None:
    """Whatever the order in which the operator says them; without a network comes last."""
    entries = [
        "203.0.113.9",
        "203.0.113.1@10.0.0.0/8",
        "203.0.113.3@10.1.2.0/24",
        "203.0.113.2@10.1.0.0/16",
        "203.0.113.6@2001:db8::/32",
    ]
    for order in (entries, entries[::-1]):
        assert Advertised(order).address(client, IPV4) == told


def test_only_for_a_network() -> None:
    advertised = Advertised(["203.0.113.5@10.0.0.0/8"])
    assert advertised.address("10.0.0.1", IPV4) == "203.0.113.5"
    assert advertised.address("11.0.0.1", IPV4) is None
    assert advertised.address(None, IPV4) is None


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("proxy.example", "'proxy.example' is not a literal address"),
        ("", "'' is not a literal address"),
        ("@10.0.0.0/8", "'' is not a literal address"),
        ("0.0.0.0", "no client can reach 0.0.0.0"),
        ("::@::/0", "no client can reach ::"),
        ("203.0.113.5@", "'' is not a network such as 10.0.0.0/8"),
        ("203.0.113.5@10.0.0.1/8", "'10.0.0.1/8' is not a network such as 10.0.0.0/8"),
        ("203.0.113.5@lan", "'lan' is not a network"),
    ],
)
def test_entries_refused(entry: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Advertised(["203.0.113.1", entry])
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "host", "bindable_name"),
    [
        (("192.0.2.1", 7), "192.0.2.1", ("192.0.2.1", 7)),
        (("::ffff:192.0.2.1", 7, 0, 0), "192.0.2.1", ("192.0.2.1", 7)),
        (("2001:db8::1", 7, 0, 0), "2001:db8::1", ("2001:db8::1", 7)),
        (("fe80::1", 7, 0, 3), "fe80::1%3", ("fe80::1", 7, 0, 3)),
    ],
)
def test_zones(name: tuple[Any, ...], host: str, bindable_name: tuple[Any, ...]) -> None:
    """A link-local address cannot be bound without its zone."""
    assert host_of(name) == host
    assert bindable(host, 7) == bindable_name
