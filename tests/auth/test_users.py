"""Users: see :mod:`socksproxy.auth.users`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from twisted.cred.checkers import ANONYMOUS

from socksproxy.auth.users import Realm, User, bytes_of, name_of
from socksproxy.identity import Client, ISOCKSUser

CLIENT = Client("192.0.2.7", 4713)


@given(st.binary())
def test_names_and_bytes(avatar_id: bytes) -> None:
    """Bytes that are not UTF-8 survive."""
    assert bytes_of(name_of(avatar_id)) == avatar_id
    assert name_of(name_of(avatar_id)) == name_of(avatar_id)
    assert bytes_of(avatar_id) == avatar_id


@pytest.mark.parametrize(("avatar_id", "name"), [(b"bob", "bob"), ("bob", "bob"), (ANONYMOUS, None)])
def test_realm(avatar_id: object, name: str | None) -> None:
    interface, user, logout = Realm().requestAvatar(avatar_id, CLIENT, ISOCKSUser)
    assert interface is ISOCKSUser
    assert ISOCKSUser.providedBy(user)
    assert user.name == name
    logout()


def test_realm_of_other_avatars() -> None:
    with pytest.raises(NotImplementedError):
        Realm().requestAvatar(b"bob", CLIENT)


def test_groups() -> None:
    assert User("bob", ["staff", "staff"]).groups == {"staff"}
