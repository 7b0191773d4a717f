"""What a rule takes, and what is said of mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy import Timeouts
from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.matching import Schedule
from socksproxy.policy.rules import Rule, RuleError, RuleTimeouts
from socksproxy.policy.sets import Sets
from socksproxy.values.timeouts import NEVER
from socksproxy.wire.words import Address, Command


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("users", ["bob", "bob"], ("bob",)),
        ("clients", ["10.0.0.0/8", "unix", "private"], ("10.0.0.0/8", "unix", "private")),
        ("clients", ["192.0.2.1"], ("192.0.2.1/32",)),
        ("networks", ["2001:DB8::/32"], ("2001:db8::/32",)),
        ("networks", ["::ffff:10.0.0.0/104"], ("10.0.0.0/8",)),
        ("networks", ["::ffff:10.1.2.3"], ("10.1.2.3/32",)),
        ("versions", [4, "socks5"], (4, 5)),
        ("commands", ["resolve"], (Command.RESOLVE, Command.RESOLVE_PTR)),
        ("commands", [Command.BIND], (Command.BIND,)),
        ("names", ["A.Example.", "*.B.example"], ("a.example", "*.b.example")),
        (
            "names",
            ["b\u00fccher.example", "*.B\u00dcCHER.example"],
            ("xn--bcher-kva.example", "*.xn--bcher-kva.example"),
        ),
        ("names", ["Ad?.*.test"], ("ad?.*.test",)),
        ("ports", [80, "443", "1-2", (3, 4)], ((80, 80), (443, 443), (1, 2), (3, 4))),
        ("days", ["fri-mon"], ("mon", "fri", "sat", "sun")),
        ("days", ["Mon", "tue-wed"], ("mon", "tue", "wed")),
        ("hours", ["8:00-18:00"], ("08:00-18:00",)),
        ("outgoing", ["192.0.2.1", "2001:db8::1"], ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_forms(field: str, given: Any, kept: Any) -> None:
    """Whatever form it is given in, it is kept in one, which it takes again."""
    rule = Rule(name="r", allow=True, **{field: given})
    assert getattr(rule, field) == kept
    assert Rule(name="r", allow=True, **{field: kept}) == rule


@pytest.mark.parametrize(
    ("field", "given", "value", "right"),
    [
        ("name", "", "", "letters"),
        ("name", "a b", "a b", "letters"),
        ("name", "default", "default", "another name"),
        ("allow", "yes", "yes", "true or false"),
        ("users", "bob", "bob", "a list"),
        ("users", [], [], "leave it out"),
        ("users", [7], 7, "name of a user"),
        ("groups", [""], "", "name of a group"),
        ("authenticated", 1, 1, "true or false"),
        ("clients", ["10.0.0.1/8"], "10.0.0.1/8", "10.0.0.0/8 or 10.0.0.1"),
        ("clients", ["10.0.0"], "10.0.0", "192.0.2.0/24"),
        ("clients", [10], 10, "an address, a network"),
        ("networks", ["unix"], "unix", "only for clients"),
        ("networks", ["fe80::1%eth0"], "fe80::1%eth0", "no zone"),
        ("networks", ["a.example"], "a.example", "address or a network"),
        ("networks", ["10.0.0.0/33"], "10.0.0.0/33", "address or a network"),
        ("listeners", [1], 1, "name of a listener"),
        ("versions", [6], 6, "4 or 5"),
        ("commands", ["udp"], "udp", "connect, bind, associate, resolve"),
        ("names", ["a..example"], "a..example", "no name"),
        ("names", ["192.0.2.1"], "192.0.2.1", "into networks"),
        ("names", ["2001:db8::1"], "2001:db8::1", "into networks"),
        ("names", ["0177.0.0.1"], "0177.0.0.1", "no name"),
        ("names", [".*.example"], ".*.example", "a name, with no pattern"),
        ("names", ["a[bc].*"], "a[bc].*", "letters"),
        ("names", ["b\u00fc*.example"], "b\u00fc*", "no name"),
        ("names", ["@Ads"], "@Ads", "name of a set"),
        ("ports", [65536], 65536, "0 to 65535"),
        ("ports", ["90-80"], "90-80", "lower first"),
        ("ports", ["http"], "http", "a port or a range"),
        ("ports", [True], True, "a port or a range"),
        ("days", ["monday"], "monday", "mon, tue"),
        ("days", [1], 1, "mon, tue"),
        ("hours", ["8-18"], "8-18", "08:00-18:00"),
        ("hours", ["08:00-25:00"], "08:00-25:00", "08:00-18:00"),
        ("hours", ["08:60-09:00"], "08:60-09:00", "08:00-18:00"),
        ("hours", ["08:00-08:00"], "08:00-08:00", "00:00-24:00"),
        ("outgoing", ["a.example"], "a.example", "not a literal IPv4 or IPv6 address"),
        ("outgoing", ["192.0.2.1", "random", "hash-user"], "hash-user", "random is said already"),
        ("limits", "slow", "slow", "must be Limits"),
        ("timeouts", 5, 5, "RuleTimeouts"),
        ("timeouts", Timeouts(), Timeouts(), "the handshake is over"),
        ("timeouts", RuleTimeouts(idle=-1), -1, "a number of seconds"),
        ("timeouts", RuleTimeouts(connect=0), 0, "above 0, or NEVER"),
        ("timeouts", RuleTimeouts(connect=True), True, "a number of seconds"),
        ("timeouts", RuleTimeouts(NEVER, 0.5), None, "ok"),
        ("log", None, None, "ok"),
    ],
)
def test_mistakes(field: str, given: Any, value: Any, right: str) -> None:
    """The error names the rule, the field and the value, and tells what would be right."""
    fields = {"name": "r", "allow": True, field: given}
    if right == "ok":
        assert Rule(**fields)
        return
    with pytest.raises(RuleError) as caught:
        Rule(**fields)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.field, problem.value) == (fields["name"], field, value)
    assert right in problem.right
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(RuleError) as caught:
        Rule(name="r", allow=True, ports=[-1], users=[], zone="Europe/Berlin")
    assert [problem.field for problem in caught.value.problems] == ["users", "ports", "zone"]


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", 7])
def test_no_such_zone(zone: Any) -> None:
    with pytest.raises(RuleError, match="time zone that this machine knows"):
        Rule(name="r", allow=True, days=["mon"], zone=zone)


def test_rules_together() -> None:
    """Sets that there are not, with the nearest that there is; two rules of one name."""
    sets = Sets({"servers": ["10.0.0.1"]}, {"ads": ["a.example"]})
    with pytest.raises(RuleError) as caught:
        RulePolicy(
            [
                Rule(
                    name="a",
                    allow=True,
                    networks=["server", "lopback", "servers"],
                    clients=["unix", "privat"],
                ),
                Rule(name="a", allow=True, names=["@adds", "@ads"]),
            ],
            sets,
        )
    assert [(problem.field, problem.value, problem.right) for problem in caught.value.problems] == [
        ("clients", "privat", "there is no such set; private?"),
        ("networks", "server", "there is no such set; servers?"),
        ("networks", "lopback", "there is no such set; loopback?"),
        ("names", "@adds", "there is no such set; @ads?"),
        ("name", "a", "another name: there is one of this name"),
    ]


def test_sets_with_mistakes() -> None:
    with pytest.raises(RuleError) as caught:
        Sets({"private": [], "Mine": [], "ours": ["10.0.0.1/8", "x"]}, {"ads": ["@other", "a..b"]})
    assert [(problem.rule, problem.field, problem.value) for problem in caught.value.problems] == [
        ("private", "name", "private"),
        ("Mine", "name", "Mine"),
        ("ours", "networks", "10.0.0.1/8"),
        ("ours", "networks", "x"),
        ("ads", "names", "@other"),
        ("ads", "names", "a..b"),
    ]
    assert str(caught.value).startswith("set 'private', name:")


MONDAY = 1_700_438_400.0  # 2023-11-20 00:00 UTC
HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize(
    ("fields", "moment", "holds"),
    [
        ({"days": ["mon"]}, 0, True),
        ({"days": ["mon"]}, -1, False),
        ({"days": ["mon"]}, DAY - 1, True),
        ({"days": ["mon"]}, DAY, False),
        ({"days": ["mon"], "zone": "Asia/Tokyo"}, -1, True),
        ({"days": ["mon"], "zone": "Asia/Tokyo"}, 15 * HOUR, False),
        ({"hours": ["08:00-18:00"]}, 8 * HOUR, True),
        ({"hours": ["08:00-18:00"]}, 8 * HOUR - 1, False),
        ({"hours": ["08:00-18:00"]}, 18 * HOUR - 1, True),
        ({"hours": ["08:00-18:00"]}, 18 * HOUR, False),
        ({"hours": ["01:00-02:00", "03:00-04:00"]}, 3.5 * HOUR, True),
        ({"hours": ["01:00-02:00", "03:00-04:00"]}, 2.5 * HOUR, False),
        ({"days": ["mon"], "hours": ["22:00-02:00"]}, 23 * HOUR, True),
        ({"days": ["mon"], "hours": ["22:00-02:00"]}, DAY + HOUR, True),
        ({"days": ["mon"], "hours": ["22:00-02:00"]}, HOUR, False),
        ({"days": ["mon"], "hours": ["22:00-02:00"]}, DAY + 2 * HOUR, False),
        ({"days": ["sun"], "hours": ["22:00-02:00"]}, HOUR, True),
        ({"days": ["mon"], "hours": ["20:00-24:00"]}, DAY - 1, True),
        ({"days": ["mon"], "hours": ["20:00-24:00"]}, DAY, False),
        # Clocks go back on 2023-10-29: there are two hours from 2:00 to 3:00, and both are meant.
        ({"hours": ["02:00-03:00"], "zone": "Europe/Berlin"}, -22 * DAY + 0.5 * HOUR, True),
        ({"hours": ["02:00-03:00"], "zone": "Europe/Berlin"}, -22 * DAY + 1.5 * HOUR, True),
        ({"hours": ["02:00-03:00"], "zone": "Europe/Berlin"}, -22 * DAY + 2.5 * HOUR, False),
    ],
)
def test_schedule(fields: dict[str, Any], moment: float, holds: bool) -> None:
    """*moment* is in seconds from the beginning of a Monday."""
    rule = Rule(name="r", allow=True, **{"zone": "UTC", **fields})
    assert Schedule(rule).holds(MONDAY + moment) is holds


def test_no_zone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "XXX+03:00")
    time.tzset()
    try:
        rule = Rule(name="r", allow=True, hours=["21:00-22:00"])
        assert Schedule(rule).holds(MONDAY)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_time_goes_on() -> None:
    """What holds at a minute is asked again in the next."""
    now = [MONDAY]
    rule = Rule(name="r", allow=True, hours=["00:00-00:01"], zone="UTC")
    policy = RulePolicy([rule], clock=lambda: now[0])
    seen = []
    for now[0] in (MONDAY, MONDAY + 59, MONDAY + 60, MONDAY + DAY):
        seen.append(policy.permits(Client(None), Command.CONNECT, Address.of("203.0.113.1", 80)))
    assert seen == [True, True, False, True]
