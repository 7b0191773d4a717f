"""Who has how much, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from socksproxy import Client, SOCKSFactory
from socksproxy.errors import OverLimit, QuotaUsedUp, TooManyAssociations, TooManyBinds, TooManySessions
from socksproxy.limits import Limits, Rate, ServerLimits, account as module
from socksproxy.limits.account import ASSOCIATIONS, BINDS, Scope
from socksproxy.limits.claims import PATIENCE, Admission, Claims
from socksproxy.limits.ledger import Ledger
from socksproxy.limits.quota.usage import UsageFile
from tests.support.limits import had
from tests.support.logs import heard

SERVE, REFUSE, DROP = Admission.SERVE, Admission.REFUSE, Admission.DROP


class Door:
    """Lets clients in, and keeps what they have."""

    def __init__(self, limits: ServerLimits, **more: Any) -> None:
        self.clock = Clock()
        self.ledger = Ledger(self.clock, limits, **more)
        self.inside: list[tuple[str | None, Claims | None]] = []

    def admit(self, host: str | None, uid: int | None = None, *, silent: bool = False) -> Admission:
        claims = self.ledger.arrive(Client(host, 1, uid=uid))
        if claims is not None and not silent:
            claims.begin()
        self.inside.append((host, claims))
        return SERVE if claims is None else claims.admission

    def release(self, host: str | None) -> None:
        for number, (here, claims) in enumerate(self.inside):
            if here == host:
                del self.inside[number]
                if claims is not None:
                    claims.close()
                return
        raise AssertionError(f"{host} is not here")


def each(sessions: int | None = None, per_client: int | None = None) -> ServerLimits:
    return ServerLimits(server=Limits(sessions=sessions), client=Limits(sessions=per_client))


def user(name: str, limits: Limits, ledger: Ledger, claims: Claims | None = None) -> Claims:
    return ledger.entered(claims, Scope.USER, name, limits)


# Sessions at once.


def test_no_limit() -> None:
    """There is nothing to be kept of a session then."""
    door = Door(ServerLimits())
    assert all(door.admit("192.0.2.1") is SERVE for _ in range(100))
    assert all(claims is None for _, claims in door.inside)


def test_total() -> None:
    """Whose they are does not matter; so many more are told, and the rest is closed unheard."""
    door = Door(each(sessions=3))
    clients = [f"192.0.2.{number}" for number in range(3 + PATIENCE + 5)]
    assert [door.admit(client) for client in clients] == [SERVE] * 3 + [REFUSE] * PATIENCE + [DROP] * 5


def test_per_client() -> None:
    """One client that has too many takes nothing from another."""
    door = Door(each(per_client=2))
    greedy = [door.admit("192.0.2.1") for _ in range(2 + PATIENCE + 3)]
    assert greedy == [SERVE] * 2 + [REFUSE] * PATIENCE + [DROP] * 3
    assert door.admit("192.0.2.2") is SERVE


def test_both() -> None:
    """The limit that is passed by more decides. A refused session takes no place of another client."""
    door = Door(each(sessions=4, per_client=2))
    assert [door.admit("192.0.2.1") for _ in range(9)] == [SERVE] * 2 + [REFUSE] * 7
    assert [door.admit("192.0.2.2") for _ in range(3)] == [SERVE, SERVE, REFUSE]
    assert door.admit("192.0.2.3") is REFUSE


@pytest.mark.parametrize(
    "limits", [Limits(sessions=1), Limits(new_sessions=Rate(0.001, 1))], ids=["at once", "new"]
)
def test_refused_sessions_count_nowhere(limits: Limits) -> None:
    """Not in the counts of their other holders, and not after a change of the limits."""
    server = Limits(sessions=9)
    door = Door(ServerLimits(server=server, client=limits))
    assert [door.admit("192.0.2.1") for _ in range(5)] == [SERVE] + [REFUSE] * 4
    assert had(door.ledger, Scope.SERVER) == 1
    door.ledger.set(ServerLimits(server=server, client=Limits(sessions=2)), None)
    for _, claims in door.inside:
        door.ledger.renewed(claims, Client("192.0.2.1", 1), ())
    assert had(door.ledger, Scope.SERVER) == 1
    assert [door.admit("192.0.2.1") for _ in range(2)] == [SERVE, REFUSE]


def test_zero() -> None:
    """A server that is to serve nobody."""
    assert Door(each(sessions=0)).admit("192.0.2.1") is REFUSE
    assert Door(each(per_client=0)).admit("192.0.2.1") is REFUSE


def test_who_leaves_makes_room() -> None:
    door = Door(each(sessions=2, per_client=1))
    assert [door.admit("192.0.2.1"), door.admit("192.0.2.2")] == [SERVE, SERVE]
    assert door.admit("192.0.2.1") is REFUSE
    door.release("192.0.2.1")
    assert door.admit("192.0.2.1") is SERVE


def test_networks() -> None:
    """Addresses of one network count together; how far it goes is for the operator to say."""
    limits = ServerLimits(network=Limits(sessions=1), ipv4_prefix=24, ipv6_prefix=48)
    door = Door(limits)
    assert [door.admit(host) for host in ("192.0.2.1", "192.0.2.200", "192.0.3.1")] == [SERVE, REFUSE, SERVE]
    assert [door.admit(f"2001:db8:{net}::1") for net in ("1:1", "1:2", "2:1")] == [SERVE, REFUSE, SERVE]
    assert door.admit("2001:db8:1::9%eth0") is REFUSE


def test_local_users() -> None:
    """On a Unix socket each local user is a client; those of whom nothing is known are one together."""
    door = Door(each(per_client=1))
    assert [door.admit(None, 1000), door.admit(None, 1001), door.admit(None, 1000)] == [SERVE, SERVE, REFUSE]
    assert [door.admit(None), door.admit(None)] == [SERVE, REFUSE]


def test_unknown_clients_have_no_limit_of_their_own() -> None:
    """Behind ``haproxy:`` everybody is unknown at first; the limit of all holds nevertheless."""
    door = Door(each(sessions=3, per_client=1))
    assert [door.admit("") for _ in range(4)] == [SERVE, SERVE, SERVE, REFUSE]


def test_known_later() -> None:
    """Who turns out to be somebody is counted with them as well, and with all only once."""
    server = Limits(sessions=2, new_sessions=Rate(0.001, 3))
    ledger = Ledger(Clock(), ServerLimits(server=server, client=Limits(sessions=1)))
    there = []
    for host, admission in (("192.0.2.1", SERVE), ("192.0.2.1", REFUSE), ("192.0.2.2", SERVE)):
        claims = ledger.arrive(Client(""))
        assert claims is not None
        assert claims.admission is SERVE
        assert ledger.arrive(Client(host, 1), claims) is claims
        assert claims.admission is admission
        there.append(claims)
    assert had(ledger, Scope.SERVER) == 2
    late = ledger.arrive(Client(""))
    assert late is not None
    assert ledger.arrive(Client("192.0.2.3", 1), late) is late
    # Who was one too many does not become welcome by being known.
    assert late.admission is REFUSE
    assert ledger.refusing == 2
    for claims in (late, *there):
        claims.close()
    assert (len(ledger), ledger.refusing, had(ledger, Scope.SERVER)) == (0, 0, 0)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["192.0.2.1", "192.0.2.2", "::1", "", None])), max_size=200
    ),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 3),
)
def test_any_order(acts: list[tuple[bool, str | None]], sessions: int | None, per_client: int | None) -> None:
    """What is served never exceeds a limit for want of a release, and nothing is left of those who went."""
    door = Door(each(sessions, per_client))
    here: list[tuple[str | None, Admission]] = []
    for comes, client in acts:
        if comes:
            served = [other for other, admission in here if admission is SERVE]
            refused = sum(admission is not SERVE for _, admission in here)
            over = sessions is not None and len(served) >= sessions
            if per_client is not None and client != "":
                over |= served.count(client) >= per_client
            admission = door.admit(client)
            here.append((client, admission))
            assert admission is (SERVE if not over else REFUSE if refused < PATIENCE else DROP)
        elif client in (other for other, _ in here):
            here.remove(next(entry for entry in here if entry[0] == client))
            door.release(client)
    for client, _ in here:
        door.release(client)
    assert len(door.ledger) == 0
    assert door.ledger.refusing == 0


# What a session finds out later.


def test_refused_sessions_are_told_so() -> None:
    door = Door(each(per_client=1))
    door.admit("192.0.2.1")
    door.admit("192.0.2.1")
    first, second = (claims for _, claims in door.inside)
    assert first is not None
    assert second is not None
    first.check()
    with pytest.raises(TooManySessions, match=r"^too many sessions of client 192.0.2.1$"):
        second.check()


def test_sessions_of_a_user() -> None:
    """Wherever they come from; one that is too many leaves nothing behind."""
    ledger = Door(ServerLimits()).ledger
    first = user("bob", Limits(sessions=1), ledger)
    with pytest.raises(TooManySessions, match=r"^too many sessions of user bob$"):
        user("bob", Limits(sessions=1), ledger)
    user("eve", Limits(sessions=1), ledger).close()
    assert had(ledger, Scope.USER, "bob") == 1
    first.close()
    user("bob", Limits(sessions=1), ledger)


def test_a_session_enters_once() -> None:
    ledger = Door(ServerLimits()).ledger
    claims = user("bob", Limits(sessions=1), ledger)
    assert user("bob", Limits(sessions=1), ledger, claims) is claims
    assert had(ledger, Scope.USER, "bob") == 1


def test_of_several_rules_one_is_left() -> None:
    """A name's addresses may be under several rules; the session goes on under one."""
    ledger = Door(ServerLimits()).ledger
    claims = ledger.entered(None, Scope.RULE, "web", Limits(sessions=5))
    ledger.entered(claims, Scope.RULE, "mail", Limits(sessions=5))
    claims.settle("mail")
    assert (had(ledger, Scope.RULE, "web"), had(ledger, Scope.RULE, "mail")) == (0, 1)
    claims.settle(None)
    assert had(ledger, Scope.RULE, "mail") == 0


@pytest.mark.parametrize(
    ("kind", "problem", "words"),
    [(BINDS, TooManyBinds, "BINDs"), (ASSOCIATIONS, TooManyAssociations, "associations")],
)
def test_binds_and_associations(kind: str, problem: type[OverLimit], words: str) -> None:
    """By each holder's limit; who is refused by one of them has taken nothing from the others."""
    limits = Limits(**{kind: 2})  # type: ignore[arg-type]
    ledger = Door(ServerLimits(client=Limits(**{kind: 3}), network=limits)).ledger  # type: ignore[arg-type]
    client = Client("192.0.2.1", 1)
    taken = []
    for _ in range(2):
        claims = ledger.joined(None, client, kind)
        assert claims is not None
        claims.take(kind)
        taken.append(claims)
    claims = ledger.joined(None, client, kind)
    assert claims is not None
    with pytest.raises(problem, match=f"^too many {words} of network 192.0.2.0/24$"):
        claims.take(kind)
    claims.close()
    assert (
        had(ledger, Scope.CLIENT, "192.0.2.1", kind) == had(ledger, Scope.NETWORK, "192.0.2.0/24", kind) == 2
    )
    taken[0].give(kind)
    taken[0].give(kind)
    assert had(ledger, Scope.NETWORK, "192.0.2.0/24", kind) == 1
    taken[1].close()
    taken[0].close()
    assert len(ledger) == 0


def test_room_is_made() -> None:
    """By another session of a holder that has as many as it may; no line tells that one is refused."""
    ledger = Door(ServerLimits(client=Limits(associations=2), network=Limits(associations=3))).ledger
    taken: list[Claims] = []
    asked: list[Scope] = []

    def make_room(scope: Scope) -> bool:
        asked.append(scope)
        if scope is not Scope.CLIENT:
            return False
        taken.pop(0).close()
        return True

    def take(host: str) -> None:
        claims = ledger.joined(None, Client(host, 1), ASSOCIATIONS)
        assert claims is not None
        try:
            claims.take(ASSOCIATIONS, make_room)
        except OverLimit:
            claims.close()
            raise
        taken.append(claims)

    for _ in range(4):
        take("192.0.2.1")
        assert had(ledger, Scope.CLIENT, "192.0.2.1", ASSOCIATIONS) == len(taken) <= 2
    assert asked == [Scope.CLIENT] * 2
    take("192.0.2.2")
    with pytest.raises(TooManyAssociations, match="of network"):
        take("192.0.2.3")
    assert asked == [Scope.CLIENT] * 2 + [Scope.NETWORK]
    assert had(ledger, Scope.NETWORK, "192.0.2.0/24", ASSOCIATIONS) == 3
    while taken:
        taken.pop().close()
    assert len(ledger) == 0


def test_nobody_limits_binds() -> None:
    ledger = Door(ServerLimits(client=Limits())).ledger
    assert ledger.joined(None, Client("192.0.2.1", 1), BINDS) is None


def test_by_default_binds_and_associations_are_limited_and_sessions_are_not() -> None:
    ledger = Door(ServerLimits()).ledger
    assert ledger.arrive(Client("192.0.2.1", 1)) is None
    for _ in range(32):
        claims = ledger.joined(None, Client("192.0.2.1", 1), BINDS)
        assert claims is not None
        claims.take(BINDS)
    claims = ledger.joined(None, Client("192.0.2.1", 1), BINDS)
    assert claims is not None
    with pytest.raises(TooManyBinds):
        claims.take(BINDS)


# Sessions that begin.


def test_new_sessions() -> None:
    """So many at once, and then so many a second; ends do not matter."""
    door = Door(ServerLimits(client=Limits(new_sessions=Rate(2, 4))))
    assert [door.admit("192.0.2.1") for _ in range(5)] == [SERVE] * 4 + [REFUSE]
    assert door.admit("192.0.2.2") is SERVE
    for _ in range(5):
        door.release("192.0.2.1")
    door.clock.advance(0.5)
    assert [door.admit("192.0.2.1") for _ in range(2)] == [SERVE, REFUSE]


def test_new_sessions_are_a_second_s_worth_by_default() -> None:
    door = Door(ServerLimits(server=Limits(new_sessions=Rate(3))))
    assert [door.admit("192.0.2.1") for _ in range(4)] == [SERVE] * 3 + [REFUSE]
    slow = Door(ServerLimits(server=Limits(new_sessions=Rate(0.1))))
    assert [slow.admit("192.0.2.1") for _ in range(2)] == [SERVE, REFUSE]
    slow.clock.advance(10)
    assert slow.admit("192.0.2.1") is SERVE


def test_a_flood_is_closed_unheard() -> None:
    """Those who wait to be told are no more than elsewhere."""
    door = Door(ServerLimits(server=Limits(new_sessions=Rate(1))))
    admitted = [door.admit("192.0.2.1") for _ in range(PATIENCE + 3)]
    assert admitted == [SERVE] + [REFUSE] * PATIENCE + [DROP] * 2


def test_who_says_nothing_has_not_begun() -> None:
    """Probes take nothing of a rate, and are sessions like others while they are there."""
    limits = Limits(new_sessions=Rate(0.001, 2), sessions=3)
    door = Door(ServerLimits(client=limits))
    for _ in range(20):
        assert door.admit("192.0.2.1", silent=True) is SERVE
        door.release("192.0.2.1")
    assert [door.admit("192.0.2.1", silent=True) for _ in range(4)] == [SERVE] * 3 + [REFUSE]
    for _ in range(4):
        door.release("192.0.2.1")
    assert [door.admit("192.0.2.1") for _ in range(3)] == [SERVE, SERVE, REFUSE]


def test_known_and_heard() -> None:
    """A client behind a balancer counts in its own rate and in that of all, once each."""
    once = Limits(new_sessions=Rate(0.001, 1))
    ledger = Ledger(Clock(), ServerLimits(server=Limits(new_sessions=Rate(0.001, 2)), client=once))
    for host, admission in (("192.0.2.1", SERVE), ("192.0.2.1", REFUSE), ("192.0.2.2", REFUSE)):
        claims = ledger.arrive(Client(""))
        assert claims is not None
        ledger.arrive(Client(host, 1), claims)
        assert claims.admission is SERVE
        claims.begin()
        assert claims.admission is admission
        claims.close()
    assert ledger.refusing == 0


def test_a_user_s_new_sessions() -> None:
    door = Door(ServerLimits())
    for _ in range(2):
        user("bob", Limits(new_sessions=Rate(1, 2)), door.ledger).close()
    with pytest.raises(TooManySessions, match=r"^too many new sessions of user bob$"):
        user("bob", Limits(new_sessions=Rate(1, 2)), door.ledger)
    door.clock.advance(1)
    user("bob", Limits(new_sessions=Rate(1, 2)), door.ledger)


def test_who_comes_back_finds_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account is kept until its buckets are full again, and not longer; there are never too many."""
    door = Door(ServerLimits(client=Limits(new_sessions=Rate(1, 2))))
    for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        door.admit(host)
        door.release(host)
    assert door.admit("192.0.2.1") is REFUSE
    door.release("192.0.2.1")
    door.clock.advance(10)
    monkeypatch.setattr(module, "KEPT", 0)
    for _ in range(2):  # each new one has some looked at
        door.admit("192.0.2.9")
        door.release("192.0.2.9")
    assert set(door.ledger._accounts) == {(Scope.CLIENT, "192.0.2.9")}
    monkeypatch.setattr(module, "MOST_RESTING", 10)
    for number in range(100):
        door.admit(f"198.51.100.{number}")
        door.release(f"198.51.100.{number}")
    assert len(door.ledger._accounts) <= 11


# Quotas.


def test_used_up(tmp_path: Path) -> None:
    usage = UsageFile(Clock(), str(tmp_path / "usage"), wall=lambda: 1e9)
    door = Door(ServerLimits(client=Limits(daily=5)), usage=usage)
    door.admit("192.0.2.1")
    claims = door.inside[0][1]
    assert claims is not None
    claims.check()
    meters = claims.meters()
    assert meters is not None
    assert meters.up is not None
    meters.up.spend(5)
    with pytest.raises(QuotaUsedUp, match=r"^the quota of client 192.0.2.1 is used up$"):
        claims.check()
    bob = user("bob", Limits(monthly=7), door.ledger).meters()
    assert bob is not None
    assert bob.down is not None
    bob.down.spend(7)
    with pytest.raises(QuotaUsedUp, match=r"^the quota of user bob is used up$"):
        user("bob", Limits(monthly=7), door.ledger)
    user("bob", Limits(monthly=8), door.ledger)


def test_without_a_file_there_are_no_quotas() -> None:
    """A factory is told so at once, and the log where it shows later."""
    with pytest.raises(ValueError, match="quotas need a UsageFile"):
        SOCKSFactory(MemoryReactorClock(), limits=ServerLimits(user=Limits(daily=1)))
    with heard() as lines:
        door = Door(ServerLimits())
        for name in ("bob", "ann", "bob"):
            user(name, Limits(daily=1), door.ledger).close()
    assert lines == ["user bob: a quota needs a UsageFile, and without one it does not count"]


# Rates.


def test_what_measures_a_session() -> None:
    """The buckets of all its holders, each once, and its own; those of rules, if it goes on under them."""
    limits = ServerLimits(server=Limits(upload=Rate(1)), session=Limits(upload=Rate(2), download=Rate(3)))
    ledger = Door(limits).ledger
    claims = ledger.arrive(Client("192.0.2.1", 1))
    assert claims is not None
    ledger.entered(claims, Scope.USER, "bob", Limits(download=Rate(4)))
    ledger.entered(claims, Scope.RULE, "web", Limits(upload=Rate(5)))
    meters, under_rule = claims.meters(), claims.meters(["web"])
    assert meters is not None
    assert under_rule is not None
    assert rates(meters.up) == {2, 1}
    assert rates(meters.down) == {3, 4}
    assert rates(under_rule.up) == {2, 1, 5}


def measured_by(meter: Any) -> list[Any]:
    return list(meter.budgets)


def rates(meter: Any) -> set[float]:
    return {bucket.rate.per_second for bucket in measured_by(meter)}


def test_sessions_of_one_user_share() -> None:
    ledger = Door(ServerLimits()).ledger
    meters = [user("bob", Limits(download=Rate(4)), ledger).meters() for _ in range(2)]
    assert meters[0] is not None
    assert meters[1] is not None
    assert meters[0].up is None
    assert meters[0].down is not None
    assert meters[1].down is not None
    assert measured_by(meters[0].down) == measured_by(meters[1].down)


def test_nothing_measures() -> None:
    assert user("bob", Limits(sessions=4), Door(ServerLimits()).ledger).meters() is None


# Limits that change.


def renewed(ledger: Ledger, claims: Claims | None, *others: tuple[Scope, str, Limits]) -> Claims | None:
    return ledger.renewed(
        claims, Client("192.0.2.1", 1), [((scope, holder), limits) for scope, holder, limits in others]
    )


def test_lowered() -> None:
    """Sessions that are there go on, and others have to wait until there is room."""
    door = Door(each(sessions=3))
    for _ in range(3):
        door.admit("192.0.2.1")
    door.ledger.set(each(sessions=2, per_client=5), None)
    door.inside = [(host, renewed(door.ledger, claims)) for host, claims in door.inside]
    assert had(door.ledger, Scope.SERVER) == had(door.ledger, Scope.CLIENT, "192.0.2.1") == 3
    assert door.admit("192.0.2.1") is REFUSE
    for _ in range(3):
        door.release("192.0.2.1")
    assert door.admit("192.0.2.1") is SERVE


def test_sessions_that_nobody_counted_are_from_now_on() -> None:
    door = Door(ServerLimits())
    door.admit("192.0.2.1")
    door.ledger.set(each(sessions=1), None)
    door.inside = [(host, renewed(door.ledger, claims)) for host, claims in door.inside]
    assert door.admit("192.0.2.2") is REFUSE
    door.release("192.0.2.2")
    door.release("192.0.2.1")
    assert len(door.ledger) == 0


def test_one_line_a_while_for_those_who_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has had its bytes is not told of anew with each attempt, though others come between."""
    clock = MemoryReactorClock()
    usage = UsageFile(clock, str(tmp_path / "usage"))
    ledger = Ledger(clock, usage=usage)

    def tried(name: str) -> None:
        with pytest.raises(QuotaUsedUp):
            user(name, Limits(daily=0), ledger)

    monkeypatch.setattr(module, "KEPT", 0)
    with heard() as lines:
        for _ in range(5):
            tried("ann")
            tried("bob")
        assert len(lines) == 2
        clock.advance(100)
        for name in "abcdef":
            user(name, Limits(sessions=1), ledger).close()
        assert (Scope.USER, "ann") not in ledger._accounts
        tried("bob")
    assert len(lines) == 3


def test_no_limit_any_more() -> None:
    door = Door(each(sessions=1))
    door.admit("192.0.2.1")
    door.ledger.set(ServerLimits(), None)
    claims = renewed(door.ledger, door.inside[0][1])
    assert claims is not None
    assert len(door.ledger) == 0
    claims.close()


def test_another_rate_of_each_session() -> None:
    """A session's own bucket is not full again whenever something is changed."""
    ledger = Ledger(Clock(), ServerLimits(session=Limits(download=Rate(10, 5000))))
    claims = Claims(ledger)
    before = claims.meters()
    assert before is not None
    assert before.down is not None
    before.down.spend(4000)
    for burst, left in ((5000, 1000), (700, 700)):
        ledger.set(ServerLimits(session=Limits(download=Rate(10, burst))), None)
        renewed(ledger, claims)
        after = claims.meters()
        assert after is not None
        assert after.down is not None
        assert after.down.take() == left
    ledger.set(ServerLimits(), None)
    assert claims.meters() is None


def test_another_rate() -> None:
    """It is the same bucket; what was spent of it is spent."""
    ledger = Door(ServerLimits()).ledger
    claims = user("bob", Limits(download=Rate(4)), ledger)
    before = claims.meters()
    again = renewed(ledger, claims, (Scope.USER, "bob", Limits(download=Rate(9))))
    assert again is claims
    after = claims.meters()
    assert before is not None
    assert before.down is not None
    assert after is not None
    assert after.down is not None
    assert measured_by(before.down) == measured_by(after.down)
    assert rates(after.down) == {9}


def test_another_rule() -> None:
    ledger = Door(ServerLimits()).ledger
    claims = ledger.entered(None, Scope.RULE, "web", Limits(sessions=1))
    renewed(ledger, claims, (Scope.RULE, "mail", Limits(sessions=1)))
    assert (had(ledger, Scope.RULE, "web"), had(ledger, Scope.RULE, "mail")) == (0, 1)


def test_a_rule_entered_again() -> None:
    """A rule that says something else now, under the same name, counts who is under it already."""
    ledger = Ledger(Clock())
    claims = ledger.entered(None, Scope.RULE, "few", Limits(new_sessions=Rate(0.001, 1)))
    ledger.entered(claims, Scope.RULE, "few", Limits(new_sessions=Rate(0.001, 1), sessions=1))
    assert had(ledger, Scope.RULE, "few") == 1
    ledger.entered(claims, Scope.RULE, "few", Limits(sessions=1))
    assert had(ledger, Scope.RULE, "few") == 1
    with pytest.raises(TooManySessions):
        ledger.entered(claims, Scope.RULE, "few", Limits(sessions=0))
    assert (had(ledger, Scope.RULE, "few"), len(ledger)) == (0, 0)


def test_a_bind_is_counted_on() -> None:
    ledger = Door(ServerLimits(client=Limits(binds=1))).ledger
    claims = ledger.joined(None, Client("192.0.2.1", 1), BINDS)
    assert claims is not None
    claims.take(BINDS)
    ledger.set(ServerLimits(client=Limits(binds=2), server=Limits(binds=1)), None)
    renewed(ledger, claims)
    assert had(ledger, Scope.SERVER, kind=BINDS) == had(ledger, Scope.CLIENT, "192.0.2.1", BINDS) == 1
    claims.close()
    assert len(ledger) == 0


def test_templates() -> None:
    """What a user's record does not say is as for everybody."""
    ledger = Door(ServerLimits(user=Limits(sessions=5, upload=Rate(1)))).ledger
    assert ledger.user_limits(None) == Limits(sessions=5, upload=Rate(1))
    assert ledger.user_limits(Limits(sessions=2)) == Limits(sessions=2, upload=Rate(1))


def test_limits_of_users_follow_a_change() -> None:
    """What is remembered of users and clients is forgotten when other limits hold."""
    record = Limits(binds=1)
    ledger = Ledger(Clock(), ServerLimits())
    assert ledger.user_limits(None) is None
    assert ledger.user_limits(record) == record
    ledger.set(ServerLimits(user=Limits(sessions=2), client=Limits(sessions=3)), None)
    assert ledger.user_limits(None) == Limits(sessions=2)
    assert ledger.user_limits(record) == Limits(sessions=2, binds=1)
    assert ledger.user_limits(record) is ledger.user_limits(Limits(binds=1))
    claims = ledger.arrive(Client("192.0.2.1"))
    assert claims is not None
    assert claims.of(Scope.CLIENT) == [((Scope.CLIENT, "192.0.2.1"), Limits(sessions=3))]
    ledger.set(ServerLimits(client=Limits(sessions=5)), None)
    assert ledger.user_limits(None) is None
    later = ledger.arrive(Client("192.0.2.1"))
    assert later is not None
    assert later.of(Scope.CLIENT) == [((Scope.CLIENT, "192.0.2.1"), Limits(sessions=5))]


def test_sessions_of_the_same_holders_are_under_the_same_budgets() -> None:
    """They are found once, until the limits of a holder change."""
    ledger = Ledger(Clock(), ServerLimits(client=Limits(upload=Rate(1e6))))
    client = Client("192.0.2.1", 5)
    first, second = ledger.arrive(client), ledger.arrive(client)
    assert first is not None
    assert second is not None
    before, same = first.meters(), second.meters()
    assert before is not None
    assert before.up is not None
    assert before.down is None
    assert same is not None
    assert same.up is not None
    assert same.up.budgets is before.up.budgets
    # Another client, whose account is new, changes nothing about that.
    assert ledger.arrive(Client("192.0.2.2")) is not None
    third = ledger.arrive(client)
    assert third is not None
    again = third.meters()
    assert again is not None
    assert again.up is not None
    assert again.up.budgets is before.up.budgets
    ledger.set(ServerLimits(client=Limits(upload=Rate(1e6), download=Rate(1e6))), None)
    ledger.renewed(first, client, ())
    after = first.meters()
    assert after is not None
    assert after.up is not None
    assert after.down is not None
