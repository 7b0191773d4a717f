"""Signatures of configurations."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, strategies as st

from socksproxy.sources.found import SourceProblem
from socksproxy.sources.signing import check_signature, private_key, public_key, signed

KEY = Ed25519PrivateKey.generate()
NOW = datetime(2026, 11, 30, 3, 4, 5, 6, tzinfo=timezone.utc)


@given(st.binary(max_size=200))
def test_any_content(content: bytes) -> None:
    """What is signed has a signature that fits, and can be signed again."""
    once = signed(content, KEY, NOW)
    assert check_signature(once, KEY.public_key()) == "2026-11-30T03:04:05.000006Z"
    twice = signed(once, KEY, NOW + timedelta(seconds=1))
    assert check_signature(twice, KEY.public_key()) > check_signature(once, KEY.public_key())
    assert len(twice) == len(once)


def test_any_change() -> None:
    """No byte can be another one, and none can go; only the end of the last line is not signed."""
    whole = signed(b"[log]\nlog = 'a'", KEY, NOW)
    for place in range(len(whole) - 1):
        other = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for wrong in (other, whole[:place] + whole[place + 1 :], whole[:place]):
            with pytest.raises(SourceProblem, match="signature"):
                check_signature(wrong, KEY.public_key())
    for more in (b"[udp]\n", b"# \n"):
        with pytest.raises(SourceProblem, match="has no signature"):
            check_signature(whole + more, KEY.public_key())
    with pytest.raises(SourceProblem, match="the signature does not fit"):
        check_signature(whole, Ed25519PrivateKey.generate().public_key())


def test_keys() -> None:
    """Keys are those that openssl writes."""
    plain = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert check_signature(signed(b"", private_key(plain), NOW), public_key(public))
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    other = ec.generate_private_key(ec.SECP256R1())
    curve = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for wrong, words in (
        (locked, "without a password"),
        (public, "not a private key"),
        (curve, "of Ed25519"),
    ):
        with pytest.raises(SourceProblem, match=words):
            private_key(wrong)
    theirs = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for wrong, words in ((plain, "not a public key"), (theirs, "of Ed25519"), (b"", "not a public key")):
        with pytest.raises(SourceProblem, match=words):
            public_key(wrong)
