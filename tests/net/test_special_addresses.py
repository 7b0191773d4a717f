"""Every special network, in every disguise."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import assume, example, given, strategies as st

from socksproxy.net.special_addresses import Special, carried, is_loopback, is_no_host, special
from tests.support.addresses import DISGUISES, disguised, local_nat64

#: The first and the last address of every special IPv4 network, and one between.
IPV4 = [
    ("127.0.0.0", Special.LOOPBACK),
    ("127.0.0.1", Special.LOOPBACK),
    ("127.255.255.255", Special.LOOPBACK),
    ("0.0.0.0", Special.UNSPECIFIED),
    ("0.0.0.1", Special.UNSPECIFIED),
    ("0.255.255.255", Special.UNSPECIFIED),
    ("169.254.0.0", Special.LINK_LOCAL),
    ("169.254.42.41", Special.LINK_LOCAL),
    ("169.254.255.255", Special.LINK_LOCAL),
    ("169.254.169.254", Special.METADATA),
    ("169.254.170.2", Special.METADATA),
    ("100.100.100.200", Special.METADATA),
    ("168.63.129.16", Special.METADATA),
    ("192.0.0.192", Special.METADATA),
    ("169.254.170.23", Special.METADATA),
    ("169.254.42.42", Special.METADATA),
    ("169.254.0.23", Special.METADATA),
    ("224.0.0.0", Special.MULTICAST),
    ("239.255.255.255", Special.MULTICAST),
    ("240.0.0.0", Special.RESERVED),
    ("255.255.255.254", Special.RESERVED),
    ("255.255.255.255", Special.BROADCAST),
]
ORDINARY_IPV4 = [
    *("1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"),
    *("223.255.255.255", "100.100.100.199", "168.63.129.17", "192.0.0.193", "192.0.2.1", "8.8.8.8"),
    # Private, but somebody's host: forbidding these is for rules.
    *("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"),
]
IPV6 = [
    ("::1", Special.LOOPBACK),
    ("::", Special.UNSPECIFIED),
    ("fe80::", Special.LINK_LOCAL),
    ("fe80::1", Special.LINK_LOCAL),
    ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Special.LINK_LOCAL),
    ("ff00::", Special.MULTICAST),
    ("ff02::1", Special.MULTICAST),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Special.MULTICAST),
    ("fec0::1", Special.RESERVED),
    ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Special.RESERVED),
    ("fd00:ec2::254", Special.METADATA),
    ("fd00:ec2::23", Special.METADATA),
    ("fd20:ce::254", Special.METADATA),
    ("fd00:42::42", Special.METADATA),
    ("fd00:c1::a9fe:a9fe", Special.METADATA),
    ("fd00:a9fe:a9fe::1", Special.METADATA),
    ("fd00:100::100:200", Special.METADATA),
    ("fe80::a9fe:a9fe", Special.METADATA),
    # IPv4-compatible: whatever is inside.
    ("::2", Special.RESERVED),
    ("::127.0.0.1", Special.RESERVED),
    ("::8.8.8.8", Special.RESERVED),
    ("::255.255.255.255", Special.RESERVED),
]
ORDINARY_IPV6 = [
    *("2001:db8::1", "2606:4700::1111", "fd00::1", "fd00:ec2::253", "::1:0:0:1"),
    *("fe7f:ffff::1", "64:ff9a::7f00:1", "64:ff9b:0:1::7f00:1", "64:ff9b:2::7f00:1", "2003:7f00:1::"),
]


@pytest.mark.parametrize(("host", "kind"), IPV4 + IPV6)
def test_special(host: str, kind: Special) -> None:
    assert special(host) is kind


@pytest.mark.parametrize("host", ORDINARY_IPV4 + ORDINARY_IPV6)
def test_ordinary(host: str) -> None:
    """Else people's hosts cannot be reached."""
    assert special(host) is None


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize(
    ("host", "kind"), [(host, kind) for host, kind in IPV4 if not host.endswith(".0.0.0")]
)
def test_disguised(host: str, kind: Special, disguise: str) -> None:
    """
    A translator or a tunnel on the way would lead to the address inside.

    Those that end in .0.0.0 are no host's, and may stand for the end of a longer prefix.
    """
    found = special(disguised(disguise, host))
    assert found is not None
    if "local" not in disguise:
        assert found is kind


@pytest.mark.parametrize("disguise", ["mapped", "translated", "NAT64", "6to4", "Teredo"])
@pytest.mark.parametrize("host", ORDINARY_IPV4)
def test_ordinary_disguised(host: str, disguise: str) -> None:
    assert special(disguised(disguise, host)) is None


@pytest.mark.parametrize("disguise", [disguise for disguise in DISGUISES if "local" in disguise])
@pytest.mark.parametrize("host", ["8.8.8.8", "10.1.2.3", "192.168.7.9"])
def test_ordinary_behind_local_nat64(host: str, disguise: str) -> None:
    """Some ordinary addresses look special at another length of the prefix; most must not."""
    assert special(disguised(disguise, host)) is None


special_ipv4 = st.one_of(
    *(
        st.ip_addresses(network=network)
        for network in ("127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
    ),
    st.sampled_from(IPV4).map(lambda row: IPv4Address(row[0])),
)


@given(special_ipv4, st.sampled_from(["mapped", "translated", "NAT64", "6to4", "Teredo"]))
def test_any_special_is_seen_inside(inner: IPv4Address, disguise: str) -> None:
    assert special(disguised(disguise, str(inner))) is special(str(inner))
    assert special(str(inner)) is not None


@given(special_ipv4, st.sampled_from([48, 56, 64, 96]), st.binary(min_size=6, max_size=6))
@example(IPv4Address("127.0.0.1"), 96, b"\x00\x00\x00\x00\x00\x00")
@example(IPv4Address("169.254.169.254"), 64, b"\x7f\x00\x00\x00\x00\x00")
def test_any_special_is_seen_behind_local_nat64(inner: IPv4Address, length: int, rest: bytes) -> None:
    """Whatever the length of the prefix, which nothing tells."""
    if length == 96 and inner.packed[1:] == bytes(3):
        assume(rest[3:] == bytes(3))
    packed = local_nat64(length, rest)
    assert callable(packed)
    assert special(str(IPv6Address(packed(inner.packed)))) is not None


@given(
    st.binary(min_size=4, max_size=4), st.binary(min_size=2, max_size=2), st.binary(min_size=8, max_size=8)
)
def test_any_6to4_site(inner: bytes, subnet: bytes, interface: bytes) -> None:
    """What follows the embedded address is the site's own business."""
    address = IPv6Address(b"\x20\x02" + inner + subnet + interface)
    assert special(str(address)) is special(str(IPv4Address(inner)))


@given(st.ip_addresses())
def test_any_address(address: IPv4Address | IPv6Address) -> None:
    """An answer for every address, the same for every spelling."""
    assert special(address.exploded) is special(str(address))
    assert carried(address)


@pytest.mark.parametrize("host", ["", "localhost", "127.1", "[::1]", "::1 ", "127.0.0.01"])
def test_only_literals(host: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        special(host)


class TestIsLoopback:
    """Who is taken for local may reach everything: only what the kernel itself would."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
    def test_local(self, host: str) -> None:
        assert is_loopback(host)

    @pytest.mark.parametrize(
        "host", ["", "localhost", "192.0.2.1", "0.0.0.0", "::", "10.0.0.1", "::2", "fe80::1", "169.254.1.1"]
    )
    def test_not_local(self, host: str) -> None:
        assert not is_loopback(host)

    @pytest.mark.parametrize("disguise", [disguise for disguise in DISGUISES if disguise != "mapped"])
    def test_a_disguise_is_not_local(self, disguise: str) -> None:
        """Such an address is routed: a neighbour can have it, and would have the run of the machine."""
        assert not is_loopback(disguised(disguise, "127.0.0.1"))


@pytest.mark.parametrize(
    ("host", "inner"),
    [
        ("::10.0.0.1", "10.0.0.1"),
        ("fe80::5efe:10.0.0.1", "10.0.0.1"),
        ("2001:db8::200:5efe:10.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
    ],
)
def test_itself_and_another(host: str, inner: str) -> None:
    """Nobody can tell from such an address where its packets go."""
    assert carried(ip_address(host)) == (ip_address(host), ip_address(inner))


@pytest.mark.parametrize(
    "host", ["::1", "::2", "2001:db8::100:5efe:a00:1", "2001:db8::5eff:a00:1", "0.0.0.1"]
)
def test_itself_alone(host: str) -> None:
    assert carried(ip_address(host)) == (ip_address(host),)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "0.0.0.0",
            "0.0.0.1",
            "0.1.2.3",
            "0.255.255.255",
            "::",
            "::2",
            "::5",
            "::0.1.2.3",
            "::0.255.255.255",
        ),
        *("::ffff:0.0.0.5", "::ffff:0.1.2.3", "64:ff9b::0.0.0.5", "64:ff9b:1::0.0.0.5", "2002:0:5::1"),
    ],
)
def test_no_host(host: str) -> None:
    """No packet comes from there (RFC 791, RFC 1122)."""
    assert is_no_host(host)


@pytest.mark.parametrize(
    "host", ["1.0.0.0", "127.0.0.1", "::1", "::1.0.0.0", "10.0.0.0", "2001:db8::", "ff02::1"]
)
def test_host(host: str) -> None:
    assert not is_no_host(host)
