"""Fingerprints of names and passwords: see :mod:`socksproxy.auth.fingerprints`."""

from __future__ import annotations

from hypothesis import given, strategies as st

from socksproxy.auth.fingerprints import Fingerprints

FINGERPRINTS = Fingerprints(lambda size: bytes(size))


@given(st.binary(), st.binary(), st.binary(), st.binary())
def test_equal_only_if_both_are(
    name: bytes, password: bytes, other_name: bytes, other_password: bytes
) -> None:
    same = (name, password) == (other_name, other_password)
    assert (FINGERPRINTS.of(name, password) == FINGERPRINTS.of(other_name, other_password)) is same


def test_the_border_counts() -> None:
    assert FINGERPRINTS.of(b"bo", b"bsecret") != FINGERPRINTS.of(b"bob", b"secret")


def test_another_key() -> None:
    assert Fingerprints().of(b"bob", b"secret") != Fingerprints().of(b"bob", b"secret")
