"""The kinds of credentials: see :mod:`socksproxy.auth.credentials`."""

from __future__ import annotations

from typing import Any

import pytest
from zope.interface.verify import verifyObject

from socksproxy.auth.credentials import (
    Anonymous,
    Certificate,
    CertifiedName,
    GSSAPIName,
    IAnonymous,
    ICertificate,
    ICertifiedName,
    IGSSAPIName,
    IPeerCredentials,
    IUserid,
    IUsernamePassword,
    Password,
    PeerCredentials,
    Userid,
    share_of,
)
from socksproxy.identity import Client

CLIENT = Client("192.0.2.7", 4713)


@pytest.mark.parametrize(
    ("interface", "credentials", "shown"),
    [
        (IAnonymous, Anonymous(), "Anonymous()"),
        (IUsernamePassword, Password(b"bob", b"secret", "share"), "Password(username=b'bob')"),
        (ICertificate, Certificate(b"secret"), "Certificate()"),
        (ICertifiedName, CertifiedName("bob"), "CertifiedName(name='bob')"),
        (IPeerCredentials, PeerCredentials(1, 2, 3), "PeerCredentials(pid=1, uid=2, gid=3)"),
        (IUserid, Userid(b"bob", CLIENT, ("192.0.2.1", 1080)), f"Userid(userid=b'bob', client={CLIENT})"),
        (IGSSAPIName, GSSAPIName("bob@EXAMPLE.ORG"), "GSSAPIName(principal='bob@EXAMPLE.ORG')"),
    ],
)
def test_credentials(interface: Any, credentials: Any, shown: str) -> None:
    """Each provides its interface, and shows no secret."""
    assert verifyObject(interface, credentials)
    assert repr(credentials) == shown


def test_password() -> None:
    password = Password(b"bob", b"secret")
    assert password.checkPassword(b"secret")
    assert not password.checkPassword(b"Secret")


def test_share() -> None:
    """Foreign credentials have none."""
    assert share_of(Password(b"bob", b"secret", "share")) == "share"
    assert share_of(Password(b"bob", b"secret")) is None
    assert share_of(object()) is None
