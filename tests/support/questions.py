"""Rules and questions that hypothesis draws."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from socksproxy.identity import Client
from socksproxy.net.own_listeners import OwnListeners
from socksproxy.policy.matching import question_of
from socksproxy.policy.sets import NameTable, NetworkTable, Sets
from socksproxy.wire.words import Address, Command

USERS = ("bob", "eve", "ann")


GROUPS = ("staff", "guests")


#: Few and near each other, so that they meet.
HOSTS = (
    "10.0.0.1",
    "10.0.0.255",
    "10.0.1.0",
    "127.0.0.1",
    "169.254.169.254",
    "192.0.2.7",
    "255.255.255.255",
    "::1",
    "::ffff:10.0.0.1",
    "2001:db8::1",
    "2001:db8:0:1::",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1:a00:0:100::",
    "64:ff9b:1:a:0:100::",
    "2002:a00:1::1",
    "2001:0:c000:207::f5ff:fffe",
    "fe80::1",
    "ff02::1",
    "::10.0.0.1",
    "2001:db8::5efe:a00:1",
    "2001:db8::200:5efe:7f00:1",
    "0.0.0.0",
    "::",
)


NETWORKS = (
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.1",
    "0.0.0.0/0",
    "::/0",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "2001:db8::/32",
    "2001:db8::1",
    "64:ff9b::/96",
    "2002::/16",
    "::1",
    "private",
    "loopback",
    "metadata",
    "special",
    "mine",
    "many",
)


NAMES = ("a.example", "b.a.example", "example", "ads.test", "x-1.test", "xn--bcher-kva.example")


PATTERNS = (
    "a.example",
    "*.example",
    "*.a.example",
    "*",
    "*.test",
    "x-?.test",
    "a*.example",
    "*ample",
    "x*",
    "*.a.*",
    "@ads",
    "@lots",
    "example",
)


SETS = Sets(
    {"mine": ["10.0.1.0/24", "2001:db8::/33"], "many": NetworkTable([(1, 10 << 24 | 1)], [(1, 5)])},
    {"ads": ["ads.test", "*.ads.test", "b*.example"], "lots": NameTable([".a.example", "ads.test"])},
)


#: A Monday and a Sunday, before and after midnight.
MOMENTS = (1_700_438_400.0, 1_700_441_999.0, 1_700_434_799.0, 1_700_395_200.0, 1_700_470_000.0)


def some(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=3)


RULES = st.lists(
    st.fixed_dictionaries(
        {
            "allow": st.booleans(),
            "users": some(USERS),
            "groups": some(GROUPS),
            "authenticated": st.sampled_from([None, None, None, True, False]),
            "clients": some(("192.0.2.0/24", "192.0.2.7", "unix", "2001:db8::/32", "loopback", "many")),
            "listeners": some(("front", "unix", "192.0.2.1:1080", "unix:/run/a")),
            "versions": some((4, 5)),
            "commands": some(("connect", "bind", "associate", "resolve")),
            "names": some(PATTERNS),
            "networks": some(NETWORKS),
            "ports": some((80, "80-90", (1, 65535), 0, "443-443")),
            "days": some(("mon", "sat-sun", "fri-mon")),
            "hours": some(("08:00-18:00", "22:00-02:00", "00:00-24:00")),
        }
    ),
    max_size=7,
)


CLIENTS = st.builds(
    Client,
    st.sampled_from([None, "192.0.2.7", "2001:db8::1", "127.0.0.1", "fe80::1%eth0", ""]),
    st.just(5000),
    st.sampled_from([None, *USERS]),
    st.none(),
    st.frozensets(st.sampled_from(GROUPS)),
    st.sampled_from([None, "front", "unix", "unix:/run/a"]),
    st.sampled_from([4, 5]),
    st.none(),
    st.sampled_from([(), ("unix",), ("192.0.2.1:1080",), ("unix:/run/a", "unix")]),
)


PORTS = st.sampled_from([0, 79, 80, 90, 443, 1080, 65535])


QUESTIONS = st.builds(
    question_of,
    CLIENTS,
    st.sampled_from(Command),
    st.builds(Address.of, st.sampled_from([*HOSTS, *NAMES, "a.example."]), PORTS),
    st.none() | st.sampled_from(NAMES),
)


def own() -> OwnListeners:
    listeners = OwnListeners()
    listeners.add("10.0.0.1", 1080)
    return listeners
