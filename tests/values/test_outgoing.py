"""Addresses that connections leave from: see :mod:`socksproxy.values.outgoing`."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from socksproxy import Address
from socksproxy.values.errors import ConfigError
from socksproxy.values.outgoing import (
    UNSAID,
    Asker,
    FreeAddress,
    Outgoing,
    Sources,
    leaving,
    outgoing_of,
    problems_with,
)


def test_one_of_each_family() -> None:
    both = outgoing_of(["2001:db8::7", "192.0.2.7"])
    assert both == Outgoing("192.0.2.7", "2001:db8::7")
    assert outgoing_of(both) is both
    assert both.source(Address.of("198.51.100.1", 80)) == ("192.0.2.7", 0)
    assert both.source(Address.of("2001:db8::1", 80)) == ("2001:db8::7", 0)
    assert Outgoing().source(Address.of("198.51.100.1", 80)) is None


def test_over() -> None:
    """What is not given, another scope decides."""
    ours, others = Outgoing("192.0.2.7"), Outgoing("192.0.2.8", "2001:db8::8")
    assert ours.over(others) == Outgoing("192.0.2.7", "2001:db8::8")


@pytest.mark.parametrize(
    ("hosts", "reason", "path"),
    [
        ("192.0.2.7", "not a list", ()),
        (5, "not a list", ()),
        (["192.0.2.7", "a.example"], "not a literal IPv4 or IPv6 address", (1,)),
        (["fe80::1%eth0"], "not a literal IPv4 or IPv6 address", (0,)),
        ([5], "not a literal IPv4 or IPv6 address", (0,)),
        (["::1", "192.0.2.7", "::2"], "one IPv6 address is enough", (2,)),
    ],
)
def test_wrong(hosts: Any, reason: str, path: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        outgoing_of(hosts)
    assert (caught.value.reason, caught.value.path) == (reason, path)


def asker(client: str = "192.0.2.1", user: str | None = None, reached: str | None = None) -> Any:
    return lambda: Asker(client, user, reached)


def picks(sources: Sources, count: int = 40, **said: Any) -> list[str | None]:
    return [leaving(asker(**said), UNSAID, UNSAID, sources).ipv4 for _ in range(count)]


def test_in_turn() -> None:
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert picks(Sources(hosts, lambda below: 0), 6) == hosts * 2
    assert set(picks(Sources([*hosts, "random"]), 200)) == set(hosts)


def test_hashed() -> None:
    """Every process, and every start, chooses the same."""
    words = ["hash-user", *(f"192.0.2.{number}" for number in range(1, 201))]
    assert picks(Sources(words), 3, user="bob") == ["192.0.2.142"] * 3
    users = {picks(Sources(words), 1, user=f"user{number}")[0] for number in range(200)}
    assert 100 < len(users) < 160
    assert picks(Sources(words), 1) == picks(Sources(["hash-client", *words[1:]]), 1, user="bob")


@pytest.mark.parametrize("choice", ["round-robin", "random", "hash-client"])
def test_prefix(choice: str) -> None:
    """The first address of an IPv6 prefix is that of its routers: it is never drawn."""
    sources = Sources(["2001:db8:5::/64", "192.0.2.0/30", choice])
    found = [leaving(asker(f"c{number}"), UNSAID, UNSAID, sources) for number in range(100)]
    assert len({each.ipv6 for each in found}) == 100
    assert {each.ipv4 for each in found} == {"192.0.2.1", "192.0.2.2"}
    assert all(isinstance(each.ipv6, FreeAddress) and each.ipv6.startswith("2001:db8:5:") for each in found)
    tiny = Sources(["2001:db8:5::/127", "2001:db8:6::/126", choice])
    drawn = {leaving(asker(f"c{number}"), UNSAID, UNSAID, tiny).ipv6 for number in range(200)}
    assert "2001:db8:6::" not in drawn
    assert "2001:db8:5::1" in drawn


def test_same() -> None:
    same = Sources("same")
    assert list(same) == ["same"]
    assert leaving(asker(reached="192.0.2.9"), UNSAID, UNSAID, same) == Outgoing("192.0.2.9", None, True)
    assert leaving(asker(reached="::9"), UNSAID, UNSAID, same) == Outgoing(None, "::9", True)
    both = Sources(["same", "192.0.2.7", "2001:db8::7"])
    assert leaving(asker(reached="192.0.2.9"), UNSAID, UNSAID, both) == Outgoing(
        "192.0.2.9", "2001:db8::7", True
    )
    assert leaving(asker(), UNSAID, UNSAID, both) == Outgoing("192.0.2.7", "2001:db8::7", True)
    assert leaving(asker(), UNSAID, UNSAID, Sources(["same", "fallback"])) == Outgoing()


def test_families() -> None:
    """Rule, user, and then the server only where one of them says so."""
    four, six, server = Sources(["192.0.2.1"]), Sources(["2001:db8::1"]), Sources(["192.0.2.8", "192.0.2.9"])
    loose = Sources(["2001:db8::1", "fallback"])
    assert leaving(asker(), four, six, server) == Outgoing("192.0.2.1", "2001:db8::1", True)
    refused = leaving(asker(), UNSAID, six, server)
    with pytest.raises(OSError, match="no outgoing address"):
        refused.source(Address.of("198.51.100.1", 80))
    assert leaving(asker(), UNSAID, loose, server).ipv4 in server
    # Fixed addresses of the server are the route's to add.
    assert leaving(asker(), loose, UNSAID, four) == Outgoing(None, "2001:db8::1")


@pytest.mark.parametrize(
    ("words", "reason", "number"),
    [
        (["192.0.2.1", "random", "round-robin"], "random is said already", 2),
        (["fallback"], "there is no address in the list", 0),
        (["192.0.2.1", "192.0.2.1"], "stands there already", 1),
        (["2001:db8::5/64"], "not a prefix such as 2001:db8:5::/64: 2001:db8::5/64 has host bits set", 0),
        (["sane"], "not a literal IPv4 or IPv6 address, a prefix, or a word such as same", 0),
    ],
)
def test_wrong_words(words: list[str], reason: str, number: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Sources(words)
    assert (caught.value.reason, caught.value.path) == (reason, (number,))
    assert [problem.reason for problem in problems_with(words)] == [reason]


def test_copies() -> None:
    """Another process gets the settings as they are."""
    sources = Sources(["192.0.2.1", "2001:db8:5::/64", "hash-user"])
    copy = pickle.loads(pickle.dumps(sources))
    assert (copy, copy.choice, copy.ipv6) == (sources, "hash-user", sources.ipv6)
