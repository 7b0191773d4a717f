"""The messages of RFC 1929."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.wire import password
from socksproxy.wire.password import Credentials

from ..support.messages import Parser, bytes_, check_any, check_fault, check_stream, likely

fields = st.binary(min_size=1, max_size=255)


@pytest.mark.parametrize(
    ("data", "credentials"),
    [
        (b"\x01\x02me\x06secret", Credentials(b"me", b"secret")),
        (b"\x01\x01\x00\x01\x00", Credentials(b"\x00", b"\x00")),
        (b"\x01\x02\x01\x01\x02\x01\x01", Credentials(b"\x01\x01", b"\x01\x01")),
        (b"\x01\x02\xff\xfe\x01\x80", Credentials(b"\xff\xfe", b"\x80")),
        (b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255, Credentials(b"u" * 255, b"p" * 255)),
    ],
)
def test_credentials(data: bytes, credentials: Credentials) -> None:
    """Else somebody with the right password is turned away, or a request sent behind it is lost."""
    check_stream(password.parse_credentials, data, credentials)
    assert password.build_credentials(credentials) == data


@pytest.mark.parametrize("data", [b"\x01\x00", b"\x01\x02me\x00"])
def test_an_empty_field(data: bytes) -> None:
    """The RFC has 1 to 255 bytes; an empty password must not match an empty entry by accident."""
    check_fault(password.parse_credentials, data)


@pytest.mark.parametrize("version", [0, 2, 5, 255])
@pytest.mark.parametrize("parse", [password.parse_credentials, password.parse_status])
def test_another_version(parse: Parser, version: int) -> None:
    """Its version is 1, though the conversation's is 5: a client that mixes them up is told so."""
    check_fault(parse, bytes((version,)))


@pytest.mark.parametrize("status", [password.SUCCESS, 1, 255])
def test_status(status: int) -> None:
    """Else a client believes that it was let in."""
    check_stream(password.parse_status, bytes((1, status)), status)
    assert password.build_status(status) == bytes((1, status))


@pytest.mark.parametrize(
    "credentials",
    [Credentials(b"u" * 256, b"p"), Credentials(b"u", b"p" * 256)],
)
def test_credentials_that_cannot_be_expressed(credentials: Credentials) -> None:
    """The caller hears which field it is and how long, and a log never its content."""
    with pytest.raises(ValueError, match=r"^a (username|password) has at most 255 bytes, not \d+$"):
        password.build_credentials(credentials)


def test_empty_fields_are_sent() -> None:
    """The RFC has no empty field; some servers accept an empty password, and the client asks them."""
    assert password.build_credentials(Credentials(b"u", b"")) == b"\x01\x01u\x00"
    assert password.build_credentials(Credentials(b"", b"")) == b"\x01\x00\x00"


@pytest.mark.parametrize("status", [-1, 256])
def test_a_status_that_cannot_be_expressed(status: int) -> None:
    """It is one byte."""
    with pytest.raises(ValueError, match="range"):
        password.build_status(status)


def test_a_password_is_not_shown() -> None:
    """Else passwords end in logs and tracebacks."""
    credentials = Credentials(b"me", b"secret")
    for shown in (
        repr(credentials),
        str(credentials),
        f"{credentials}",
        f"{[credentials]}",
        f"{credentials!r}",
    ):
        assert "me" in shown
        assert "secret" not in shown


@given(fields, fields)
def test_round_trip(username: bytes, secret: bytes) -> None:
    """Any bytes are a password: nothing is decoded, cut or stripped."""
    credentials = Credentials(username, secret)
    check_stream(password.parse_credentials, password.build_credentials(credentials), credentials)


@given(bytes_)
def test_status_round_trip(status: int) -> None:
    """Only 0 is success; every other byte arrives as itself."""
    check_stream(password.parse_status, password.build_status(status), status)


@given(likely(b"\x01", b"\x01\x02me", b"\x01\x02me\x02"))
@example(b"\x01\x00\x00")
def test_any_bytes(data: bytes) -> None:
    """Else bytes from anybody raise something that the server does not expect, and is caught nowhere."""
    credentials = check_any(password.parse_credentials, data)
    if credentials is not None:
        assert data.startswith(password.build_credentials(credentials))
    status = check_any(password.parse_status, data)
    if status is not None:
        assert data.startswith(password.build_status(status))
