"""The table of routes: see :mod:`socksproxy.admin.routes`."""

from __future__ import annotations

import pytest

from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.routes import ApiRoute, Asked, Routes, parameters_of
from socksproxy.admin.settings import AdminLevel

TABLE = Routes(
    [
        ApiRoute("GET", "/v1/users", AdminLevel.MONITOR, print),
        ApiRoute("GET", "/v1/users/{name}", AdminLevel.MONITOR, print),
        ApiRoute("DELETE", "/v1/users/{name}", AdminLevel.ADMIN, print),
        ApiRoute("POST", "/v1/users/{name}/kick", AdminLevel.OPERATOR, print),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "route", "names"),
    [
        ("GET", b"/v1/users", "/v1/users", {}),
        ("HEAD", b"/v1/users", "/v1/users", {}),
        ("GET", b"/v1/users/bob", "/v1/users/{name}", {"name": "bob"}),
        ("DELETE", b"/v1/users/a%2Fb", "/v1/users/{name}", {"name": "a/b"}),
        ("GET", b"/v1/users/%C3%BC%20", "/v1/users/{name}", {"name": "\u00fc "}),
        ("POST", b"/v1/users/kick/kick", "/v1/users/{name}/kick", {"name": "kick"}),
    ],
)
def test_found(method: str, path: bytes, route: str, names: dict[str, str]) -> None:
    found, told = TABLE.find(method, path)
    assert (found.path, told) == (route, names)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", b"/", 404),
        ("GET", b"//v1/users", 404),
        ("GET", b"/v1//users", 404),
        ("GET", b"/v1%2fusers", 404),
        ("GET", b"/v1/users/", 404),
        ("GET", b"/v1/users/a/b", 404),
        ("GET", b"/V1/users", 404),
        ("PUT", b"/v1/users", 405),
        ("get", b"/v1/users", 405),
        ("HEAD", b"/v1/users/bob/kick", 405),
        ("GET", b"v1/users", 400),
        ("GET", b"http://evil.example/v1/users", 400),
        ("GET", b"*", 400),
        ("GET", b"/v1/users/%f", 400),
        ("GET", b"/v1/users/%ff", 400),
    ],
)
def test_not_found(method: str, path: bytes, status: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        TABLE.find(method, path)
    assert caught.value.status == status


def test_parameters() -> None:
    assert parameters_of(b"") == {}
    assert parameters_of(b"a=1&b=%C3%BC+x&c=") == {"a": "1", "b": "\u00fc x", "c": ""}


@pytest.mark.parametrize(
    "query", [b"a", b"a=1&a=2", b"a=%ff", b"\xff=1", b"&".join([b"a%d=1" % n for n in range(99)])]
)
def test_wrong_parameters(query: bytes) -> None:
    with pytest.raises(RequestRefused):
        parameters_of(query)


def test_allow() -> None:
    Asked({}, {"a": "1"}, {"b": 2}, "").allow("a", "b", "c")
    for names in ((), ("a",), ("b",)):
        with pytest.raises(RequestRefused):
            Asked({}, {"a": "1"}, {"b": 2}, "").allow(*names)
