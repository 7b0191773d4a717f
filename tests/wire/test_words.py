"""The words of the protocols: addresses told apart and shown."""

from __future__ import annotations

import pytest

from socksproxy.wire.words import Address, AddressType, ProtocolError, Reply, SOCKSError


@pytest.mark.parametrize(
    ("host", "type_", "shown"),
    [
        ("192.0.2.1", AddressType.IPV4, "192.0.2.1:80"),
        ("2001:db8::1", AddressType.IPV6, "[2001:db8::1]:80"),
        ("::ffff:192.0.2.1", AddressType.IPV6, "[::ffff:192.0.2.1]:80"),
        ("example.com", AddressType.DOMAIN_NAME, "example.com:80"),
        ("192.0.2", AddressType.DOMAIN_NAME, "192.0.2:80"),
        ("192.0.2.256", AddressType.DOMAIN_NAME, "192.0.2.256:80"),
        ("0300.0.2.1", AddressType.DOMAIN_NAME, "0300.0.2.1:80"),
        ("a\x00b", AddressType.DOMAIN_NAME, "a\x00b:80"),
        ("\udcff", AddressType.DOMAIN_NAME, "\udcff:80"),
    ],
)
def test_an_address_has_the_type_of_its_text(host: str, type_: AddressType, shown: str) -> None:
    """Else a literal address is looked up as a name, or a name is dialed as an address."""
    address = Address.of(host, 80)
    assert address == (host, 80, type_)
    assert str(address) == shown


def test_an_error_carries_its_reply() -> None:
    """Else the client is told something else than what happened."""
    assert SOCKSError.reply is Reply.GENERAL_FAILURE
    assert ProtocolError("text").reply is Reply.GENERAL_FAILURE
    assert ProtocolError("text", Reply.ADDRESS_TYPE_NOT_SUPPORTED).reply == 8
