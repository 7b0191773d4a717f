"""From what a caller gives to a request."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from socksproxy.client import errors
from socksproxy.client.destinations import destination_of, handshake_for, request_for
from socksproxy.wire.words import Address, AddressType, Command, Version


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", Address("192.0.2.1", 80, AddressType.IPV4)),
        ("::FFFF:1.2.3.4", Address("::ffff:1.2.3.4", 80, AddressType.IPV6)),
        ("[2001:DB8::1]", Address("2001:db8::1", 80, AddressType.IPV6)),
        (b"Example.ORG", Address("example.org", 80, AddressType.DOMAIN_NAME)),
        ("example.org.", Address("example.org.", 80, AddressType.DOMAIN_NAME)),
    ],
)
def test_destination(host: str | bytes, address: Address) -> None:
    """Literal addresses stay what they are; names are in small letters and ASCII."""
    assert destination_of(host, 80) == address


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)), st.integers(-10, 70000))
def test_any_host(host: str | bytes, port: int) -> None:
    """e 6: any text gives a request, or the one error."""
    try:
        destination = destination_of(host, port)
    except errors.InvalidDestination:
        return
    handshake_for(request_for(Version.SOCKS5, Command.CONNECT, destination), None)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("fe80::1%eth0", "'fe80::1%eth0': an address with a zone means something on this machine alone"),
        ("ex%41mple", "'ex%41mple' is neither an address nor a name that the DNS allows"),
        ("%", "'%' is neither an address nor a name that the DNS allows"),
    ],
)
def test_what_is_wrong(host: str, told: str) -> None:
    with pytest.raises(errors.InvalidDestination) as caught:
        destination_of(host, 80)
    assert str(caught.value) == told


def test_mapped_address() -> None:
    """SOCKS4 gets the IPv4 address that an IPv4-mapped one is; no other IPv6 address has a form."""
    destination = destination_of("::ffff:1.2.3.4", 80)
    assert request_for(Version.SOCKS4, 1, destination).destination == Address.of("1.2.3.4", 80)
    with pytest.raises(errors.InvalidDestination):
        handshake_for(request_for(Version.SOCKS4, 1, destination_of("::1", 80)), None)
