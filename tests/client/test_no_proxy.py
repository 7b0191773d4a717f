"""NO_PROXY."""

from __future__ import annotations

import pytest

from socksproxy.client import NoProxy


@pytest.mark.parametrize(
    ("text", "host", "port", "matches"),
    [
        ("", "example.org", 80, False),
        ("*", "example.org", 80, True),
        ("*", "192.0.2.1", 80, True),
        ("*:80", "192.0.2.1", 443, False),
        ("example.org", "example.org", 80, True),
        ("example.org", "EXAMPLE.org.", 80, True),
        ("Example.ORG", "www.example.org", 80, True),
        ("example.org", "badexample.org", 80, False),
        ("example.org", "example.org.evil.test", 80, False),
        (".example.org", "example.org", 80, False),
        (".example.org", "www.example.org", 80, True),
        ("*.example.org", "www.example.org", 80, True),
        ("*.example.org", "example.org", 80, False),
        ("example.org:8080", "example.org", 8080, True),
        ("example.org:8080", "www.example.org", 80, False),
        ("192.0.2.1", "192.0.2.1", 80, True),
        ("192.0.2.1", "192.0.2.11", 80, False),
        ("192.0.2.1", "1.192.0.2.1", 80, False),
        ("192.0.2.1:80", "192.0.2.1", 443, False),
        ("192.0.2.0/24", "192.0.2.200", 80, True),
        ("192.0.2.0/24", "192.0.3.1", 80, False),
        ("192.0.2.0/24", "::ffff:192.0.2.7", 80, True),
        ("192.0.2.0/24", "host.example", 80, False),
        ("2001:db8::/32", "2001:db8::1", 80, True),
        ("2001:db8::/32", "[2001:db8::1]", 80, True),
        ("2001:db8::1", "2001:db8:0::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:80", "::1", 443, False),
        ("a.test, b.test  c.test", "b.test", 80, True),
        ("a.test, b.test  c.test", "c.test", 80, True),
        ("localhost", "127.0.0.1", 80, False),
        ("300.0.0.0/8, 1.2.3.4/99, :80, .", "300.0.0.1", 80, False),
    ],
)
def test_matches(text: str, host: str, port: int, matches: bool) -> None:
    """e 14: names match names and addresses match addresses; nothing is looked up."""
    assert NoProxy(text).matches(host, port) is matches
    assert NoProxy(text).matches(host.encode(), port) is matches


def test_values() -> None:
    """Two equal lists are one."""
    assert NoProxy("a.test,b.test") == NoProxy("a.test b.test")
    assert len({NoProxy("a"), NoProxy("a"), NoProxy("b")}) == 2
    assert repr(NoProxy("a.test")) == "NoProxy('a.test')"
