"""How much of an association's payload may pass: see :mod:`socksproxy.udp.metering`."""

from __future__ import annotations

from socksproxy.limits.buckets import Meter, Meters
from socksproxy.udp.metering import Metering
from socksproxy.udp.targets import Target


class CountedMeter(Meter):
    """Counts how often it has left its queues."""

    def __init__(self) -> None:
        super().__init__(())
        self.left = 0

    def leave(self) -> None:
        self.left += 1
        super().leave()


def a_pair() -> tuple[Meters, CountedMeter, CountedMeter]:
    up, down = CountedMeter(), CountedMeter()
    return Meters(up, down), up, down


def a_target(host: str, port: int, meters: Meters | None) -> Target:
    target = Target(b"header")
    target.sockaddr, target.meters = (host, port), meters
    return target


def test_the_meters_of_a_rule_come_first() -> None:
    of_all, up, down = a_pair()
    of_rule, rule_up, _ = a_pair()
    metering = Metering(of_all)
    assert metering.upload(a_target("192.0.2.1", 53, None)) is up
    assert metering.upload(a_target("192.0.2.1", 53, of_rule)) is rule_up
    assert metering.download(b"any") is down
    assert Metering(None).upload(a_target("192.0.2.1", 53, None)) is None
    assert Metering(None).download(b"any") is None


def test_one_pair_for_each_rule() -> None:
    """However many destinations are under a rule, the association has one place in its queues."""
    metering = Metering(None)
    made: list[str] = []

    def make(rule: str) -> Meters | None:
        made.append(rule)
        return a_pair()[0] if rule == "few" else None

    assert not metering.by_rule
    assert metering.of_rule("few", make) is metering.of_rule("few", make) is not None
    assert metering.of_rule("none", make) is metering.of_rule("none", make) is None
    assert made == ["few", "none"]
    assert metering.by_rule


def test_replies() -> None:
    """Replies have the limits of what is sent to their source, or else to another port of its host."""
    of_all, _, down = a_pair()
    of_rule, _, rule_down = a_pair()
    metering = Metering(of_all)
    targets = [a_target("192.0.2.1", 53, of_rule), a_target("192.0.2.1", 80, None)]
    for header, host, port in ((b"a", "192.0.2.1", 53), (b"b", "192.0.2.1", 80), (b"c", "192.0.2.1", 99)):
        metering.add_replies(header, host, port, targets)
    metering.add_replies(b"d", "192.0.2.2", 53, targets)
    assert [metering.download(header) for header in (b"a", b"b", b"c", b"d")] == [
        rule_down,
        down,
        rule_down,
        down,
    ]
    metering.forget_replies()
    assert metering.download(b"a") is down


def test_leave() -> None:
    """The association leaves all queues, but for those in which it stays."""
    of_all, up, down = a_pair()
    of_rule, rule_up, rule_down = a_pair()
    metering = Metering(of_all)
    metering.of_rule("few", lambda _: of_rule)
    metering.of_rule("none", lambda _: None)
    metering.leave(of_all)
    assert [up.left, down.left, rule_up.left, rule_down.left] == [0, 0, 1, 1]
    metering.leave()
    assert [up.left, down.left, rule_up.left, rule_down.left] == [1, 1, 2, 2]
