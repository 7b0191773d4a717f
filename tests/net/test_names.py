"""From what a client calls a host to what can be looked up, dialed or logged."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.errors import NameNotFound
from socksproxy.net.names import canonical, plain
from socksproxy.wire.words import Address, AddressType

from ..support.messages import name_of

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


def named(host: str, port: int = 80) -> Address:
    """*host* as SOCKS5 with address type 3, or SOCKS4a, brings it."""
    return Address(host, port, AddressType.DOMAIN_NAME)


class TestLiterals:
    """A name that is an address counts as that address: no resolver is asked, and the policy sees it."""

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("[192.0.2.1]", "192.0.2.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("::", "::"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("[2001:db8::192.0.2.1]", "2001:db8::c000:201"),
        ],
    )
    def test_name_that_is_an_address(self, host: str, address: str) -> None:
        assert canonical(named(host, 443)) == Address.of(address, 443)

    @pytest.mark.parametrize("host", ["::ffff:192.0.2.1", "::FFFF:c000:201", "[0:0:0:0:0:ffff:192.0.2.1]"])
    def test_mapped_name(self, host: str) -> None:
        """Else a rule on 192.0.2.1 and ``--outgoing`` for IPv4 are gone round."""
        assert canonical(named(host)) == Address.of("192.0.2.1", 80)

    def test_mapped_address(self) -> None:
        assert canonical(Address("::ffff:127.0.0.1", 80, AddressType.IPV6)) == Address.of("127.0.0.1", 80)

    @pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::"])
    def test_other_addresses_stay(self, host: str) -> None:
        assert canonical(Address.of(host, 80)) == Address.of(host, 80)

    @pytest.mark.parametrize(
        "host",
        [
            *(
                "127.1",
                "127.0.1",
                "2130706433",
                "0x7f.1",
                "0X7F000001",
                "0177.0.0.1",
                "0",
                "0x",
                "127.0.0.01",
            ),
            *("256.1.1.1", "1.2.3", "127.0.0.1.", "2130706433.", "0x7f.0.0.1"),
            # Full-width digits and dots, of which IDNA makes ASCII.
            *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\uff12130706433"),
            *("\uff11\uff12\uff17.1", "0\uff587f000001", "1.2.3.4\uff0e", "4294967295", "08.1", "1.2.3.256"),
        ],
    )
    def test_numeric_forms(self, host: str) -> None:
        """``inet_aton`` takes them: getaddrinfo would give an address that no rule has seen."""
        with pytest.raises(NameNotFound):
            canonical(named(host))

    @pytest.mark.parametrize(
        "host", ["[", "]", "[]", "[::1", "::1]", "[[::1]]", "[name.test]", "fe80::1%lo", "::1%1", "[::1]:80"]
    )
    def test_what_is_nearly_one(self, host: str) -> None:
        with pytest.raises(NameNotFound):
            canonical(named(host))

    @given(st.ip_addresses(v=4), st.booleans())
    def test_any_ipv4(self, address: IPv4Address, brackets: bool) -> None:
        host = f"[{address}]" if brackets else str(address)
        assert canonical(named(host)) == Address(str(address), 80, AddressType.IPV4)

    @given(st.ip_addresses(v=6), st.sampled_from(["{}", "[{}]"]), st.sampled_from(["compressed", "exploded"]))
    @example(IPv6Address("::ffff:1.2.3.4"), "{}", "exploded")
    def test_any_ipv6(self, address: IPv6Address, form: str, spelling: str) -> None:
        found = canonical(named(form.format(getattr(address, spelling))))
        if address.ipv4_mapped is None:
            assert found.type is AddressType.IPV6
            assert IPv6Address(found.host) == address
        else:
            assert found == Address(str(address.ipv4_mapped), 80, AddressType.IPV4)


class TestNames:
    """What goes to a resolver is in ASCII, in lower case, and within the DNS's lengths."""

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("example.test", "example.test"),
            ("Example.TEST", "example.test"),
            ("a", "a"),
            ("localhost", "localhost"),
            ("example.test.", "example.test."),
            ("_dmarc.a_b.test", "_dmarc.a_b.test"),
            ("a--b.xn--bcher-kva.test", "a--b.xn--bcher-kva.test"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("3com.test", "3com.test"),
            ("0xg.test", "0xg.test"),
            ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
            (LONGEST, LONGEST),
            (LONGEST + ".", LONGEST + "."),
            ("b\u00fccher.test", "xn--bcher-kva.test"),
            ("B\u00dcCHER.test", "xn--bcher-kva.test"),
            ("b\u00fccher\u3002test", "xn--bcher-kva.test"),
            ("\uff45xample.test", "example.test"),
            # IDNA 2003 makes other owners' names of these.
            ("stra\u00dfe.test", "xn--strae-oqa.test"),
            ("Fa\u1e9e.test", "xn--fa-hia.test"),
            ("\u03b2\u03cc\u03bb\u03bf\u03c2.test", "xn--nxasmm1c.test"),
            ("\u0dc1\u0dca\u200d\u0dbb\u0dd3.test", "xn--10cl1a0b660p.test"),
            ("b\u00fccher.-_srv-.test", "xn--bcher-kva.-_srv-.test"),
            ("b\u00fc\u00adcher\uff61test", "xn--bcher-kva.test"),
            # What idna refuses, and what is in use.
            *((name, name) for name in ("-a.test", "a-.test", "a.-", "-", "--.a", "r3---sn-4g5e6nze.test")),
            *((name, name) for name in ("163.com", "123456789012", "4294967296", "123456789012.")),
            *((name, name) for name in ("0xdeadbeef0", "ab--cd.test", "xn--.test", "xn--a.test")),
            *((name, name) for name in ("_.test", "1.test.")),
        ],
    )
    def test_accepted(self, host: str, name: str) -> None:
        assert canonical(named(host, 8080)) == named(name, 8080)

    @pytest.mark.parametrize(
        "host",
        [
            *("", ".", "..", "a..b", ".a", "a..", "a.test.."),
            *("a b", "a\x00b", "a\nb", "a.test\n", "a/b", "a@b", "a:80", "a*", "a\\b", "a%b", "\x7f", "a,b"),
            *("a" * 64, "x." + "b" * 64 + ".test", LONGEST + "e", LONGEST + "e."),
            *(
                "\udcff",
                "a\udc80.test",
                "\u00fc..test",
                "\u202ea.test",
                "\u00fc" * 60,
                "\u00fc-\uff0fetc",
                "\u3002",
            ),
            # IDNA 2008 has no symbols, and checks how letters stand together.
            *(
                "i\u2764.test",
                "\u2603.test",
                "-b\u00fccher.test",
                "b\u00fc_cher.test",
                "\u200db.test",
                "ab--\u00fc",
            ),
            *("\u05d0b.test", "\u0660\u06f0.test", "a\u2024b\u00fc", "\u00fc b.test"),
            # The Kelvin sign and the long s are letters of ASCII to a pattern that ignores case.
            *("a\u212a\udcff", "\u017f\udcff"),
        ],
    )
    def test_refused(self, host: str) -> None:
        """Each could be misread in a log, by a resolver or by a rule."""
        with pytest.raises(NameNotFound) as caught:
            canonical(named(host))
        assert str(caught.value) == "the destination's name is not one that the DNS allows"

    @given(st.binary(min_size=1, max_size=255))
    @example("ß.test".encode())
    @example(b"xn--\xff")
    def test_any_bytes(self, raw: bytes) -> None:
        """Whatever a client sends: a literal, a name that the DNS allows, or NameNotFound."""
        try:
            found = canonical(named(name_of(raw)))
        except NameNotFound:
            return
        if found.type is not AddressType.DOMAIN_NAME:
            assert Address.of(found.host, 80) == found
            return
        assert found.host == found.host.lower()
        assert set(found.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert len(found.host.rstrip(".")) <= 253
        assert canonical(found) == found

    @given(st.text("0123456789abcdefxX.", min_size=1, max_size=20))
    @example("0x7f.1")
    @example("1.0xf.")
    def test_no_name_is_an_address_in_disguise(self, host: str) -> None:
        """The C library is the judge: what inet_aton takes never goes to a resolver as a name."""
        try:
            found = canonical(named(host))
        except NameNotFound:
            return
        if found.type is AddressType.DOMAIN_NAME:
            with pytest.raises(OSError, match="illegal IP address"):
                socket.inet_aton(found.host)


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::ffff:1:2", "::ffff:1:2"),
        ("::192.0.2.1", "::192.0.2.1"),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
        ("::ffff:0:192.0.2.1", "::ffff:0:192.0.2.1"),
    ],
)
def test_plain(host: str, bare: str) -> None:
    """A client on a dual-stack listener has one name in the limits and the log, however it came."""
    assert plain(host) == bare
