"""Who may ask: see :mod:`socksproxy.admin.guard`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.guard import Guard
from socksproxy.admin.settings import AdminLevel, AdminListener, token_in

UNIX = UNIXAddress(b"/run/admin")
LOOPBACK = IPv4Address("TCP", "127.0.0.1", 9)
LOOPBACK6 = IPv6Address("TCP", "::1", 9)
OUTSIDE = IPv4Address("TCP", "192.0.2.1", 9)


def transport(address: Any, certificate: object = None) -> Any:
    return SimpleNamespace(getHost=lambda: address, getPeerCertificate=lambda: certificate)


def status(guard: Guard, address: Any, version: bytes = b"HTTP/1.1", **headers: list[str] | str) -> int:
    """The status of a refusal; 200: there is none."""
    said = {name: [value] if isinstance(value, str) else value for name, value in headers.items()}
    try:
        guard.admit(Headers(said), transport(address), version)
    except RequestRefused as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        (UNIX, "localhost", 200),
        (UNIX, "LOCALHOST.", 200),
        (UNIX, "localhost:80", 200),
        (UNIX, "127.0.0.1", 200),
        (UNIX, "[::1]:9", 200),
        (UNIX, "evil.example", 403),
        (UNIX, "localhost.evil.example", 403),
        (UNIX, "192.0.2.1", 403),
        (UNIX, "", 403),
        (UNIX, "own.example", 200),
        (UNIX, "Own.Example:9090", 200),
        (LOOPBACK, "127.0.0.1:9", 200),
        (LOOPBACK, "localhost:9", 200),
        (LOOPBACK, "rebound.evil.example:9", 403),
        (LOOPBACK, "127.0.0.1.evil.example", 403),
        (LOOPBACK6, "[::1]:9", 200),
        (OUTSIDE, "192.0.2.1:9", 200),
        (OUTSIDE, "192.0.2.2:9", 403),
        (OUTSIDE, "localhost", 403),
        (OUTSIDE, "127.0.0.1", 403),
    ],
)
def test_host(address: Any, host: str, expected: int) -> None:
    """A name that somebody else has made lead here is none of ours."""
    guard = Guard(AdminListener(endpoint="unix:/run/admin"), ["own.example"])
    assert status(guard, address, host=host) == expected


def test_without_host() -> None:
    """A health check of HTTP/1.0 has no Host; a browser always has one."""
    guard = Guard(AdminListener(endpoint="unix:/run/admin"))
    assert status(guard, UNIX, b"HTTP/1.0") == 200
    assert status(guard, UNIX) == 400
    assert status(guard, UNIX, host=["localhost", "evil.example"]) == 400


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:9", 200),
        ("http://127.0.0.1:9", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
    ],
)
def test_origin(origin: str, expected: int) -> None:
    """A page of another origin gets no answer."""
    guard = Guard(AdminListener(endpoint="unix:a"))
    assert status(guard, LOOPBACK, host="localhost:9", origin=origin) == expected


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer 0123456789abcdef", 200),
        ("bearer 0123456789abcdef", 200),
        ("Bearer 0123456789abcdeg", 401),
        ("Bearer 0123456789abcde", 401),
        ("Bearer", 401),
        ("Basic 0123456789abcdef", 401),
        ("", 401),
        ("Bearer \u00fc123456789abcdef", 401),
    ],
)
def test_token(authorization: str, expected: int) -> None:
    guard = Guard(
        AdminListener(endpoint="tcp:9", token_file="t", level=AdminLevel.ADMIN), (), "0123456789abcdef"
    )
    assert status(guard, LOOPBACK, host="localhost", authorization=authorization) == expected
    assert status(guard, LOOPBACK, host="localhost") == 401


def test_certificate() -> None:
    """TLS has checked it; here it has to be there."""
    guard = Guard(AdminListener(endpoint="ssl:9", client_ca="ca"))
    headers = Headers({"host": ["localhost"]})
    guard.admit(headers, transport(LOOPBACK, object()), b"HTTP/1.1")
    with pytest.raises(RequestRefused, match="certificate"):
        guard.admit(headers, transport(LOOPBACK), b"HTTP/1.1")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json(kind: str) -> None:
    Guard(AdminListener(endpoint="unix:a")).permit(
        AdminLevel.ADMIN, "POST", Headers({"content-type": [kind]})
    )


@pytest.mark.parametrize(
    "kinds", [[], ["text/plain"], ["application/x-www-form-urlencoded"], ["application/json"] * 2, [""]]
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_not_json(kinds: list[str], method: str) -> None:
    """A form of a page, which needs nobody's leave, changes nothing."""
    with pytest.raises(RequestRefused) as caught:
        Guard(AdminListener(endpoint="unix:a")).permit(
            AdminLevel.MONITOR, method, Headers({"content-type": kinds})
        )
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "data", [b"", b"short", b"0123456789abcdef with", b"\xff" * 20, b"0123456789\nabcdefg"]
)
def test_wrong_token_file(data: bytes) -> None:
    with pytest.raises(ValueError, match="a token has at least 16"):
        token_in(data)


def test_token_file() -> None:
    assert token_in(b"0123456789abcdef\n") == "0123456789abcdef"
