"""Token buckets by a clock of the tests' own: rates, turns, and what is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.task import Clock

from socksproxy.limits.buckets import LEAST_CREDIT, NO_CREDIT, Bucket, Budget, Meter, Meters
from socksproxy.values.limits import Rate
from tests.support.logs import heard

#: Bytes that a burst has by default, if the rate is low.
LEAST_BURST = 1500


class Mover:
    """
    One direction of a session.

    :param waiting: bytes that it has to move; None: it never stops.
    :param chunk: bytes that it moves at once, at the most.
    """

    def __init__(self, budgets: Sequence[Budget], waiting: int | None = None, chunk: int = 65536) -> None:
        self.meter = Meter(budgets)
        self.meter.owner = self
        self.waiting = waiting
        self.chunk = chunk
        self.moved = 0
        self.calls = 0

    def resume(self) -> None:
        self.calls += 1
        self.pump()

    def pump(self) -> None:
        while self.waiting is None or self.waiting > 0:
            most = self.meter.take()
            if not most:
                return
            size = min(most, self.chunk, most if self.waiting is None else self.waiting)
            self.meter.spend(size)
            self.moved += size
            if self.waiting is not None:
                self.waiting -= size
        self.meter.rest()

    def more(self, size: int) -> None:
        """There is more to be moved."""
        self.waiting = (self.waiting or 0) + size
        self.pump()


def pass_time(clock: Clock, seconds: float, step: float = 0.001) -> None:
    for _ in range(round(seconds / step)):
        clock.advance(step)


def started(movers: Sequence[Mover]) -> Sequence[Mover]:
    for mover in movers:
        mover.pump()
    return movers


def total(movers: Sequence[Mover]) -> int:
    return sum(mover.moved for mover in movers)


def later(clock: Clock) -> int:
    return len(clock.getDelayedCalls())


@pytest.mark.parametrize("sessions", [1, 5, 40])
@pytest.mark.parametrize("rate", [20e3, 1e6, 100e6])
def test_exact_over_ten_seconds(rate: float, sessions: int) -> None:
    clock = Clock()
    bucket = Bucket(clock, Rate(rate))
    movers = started([Mover([bucket]) for _ in range(sessions)])
    pass_time(clock, 10)
    assert total(movers) == pytest.approx(10 * rate, rel=0.05)


@pytest.mark.parametrize("late", [0.0001, 0.03, 0.11, 0.2])
def test_late_timers_cost_nothing(late: float) -> None:
    """A busy reactor looks at its timers as rarely as that."""
    clock = Clock()
    movers = started([Mover([Bucket(clock, Rate(1e6))])])
    pass_time(clock, 10, late)
    assert total(movers) == pytest.approx(10e6, rel=0.05)


def test_equal_parts() -> None:
    """Whoever came first, and whoever takes little at once: all who never stop get the same."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))
    movers = started([Mover([bucket], chunk=chunk) for chunk in (100, 1000, 65536, 3000, 65536)])
    pass_time(clock, 1)
    before = [mover.moved for mover in movers]
    pass_time(clock, 10)
    for mover, moved in zip(movers, before, strict=True):
        assert mover.moved - moved == pytest.approx(2e6, rel=0.05)


def test_one_whose_source_pauses_gets_no_more_for_it() -> None:
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))
    steady, pausing = started([Mover([bucket]), Mover([bucket], waiting=0)])
    for _ in range(1000):
        if not pausing.waiting:
            pausing.more(30_000)
        pass_time(clock, 0.01)
    assert pausing.moved <= steady.moved * 1.1


def test_who_takes_more_than_its_turn_waits_the_longer() -> None:
    """As with records of TLS, which come as a whole, and later than what said that they might."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))

    class Clumsy(Mover):
        def resume(self) -> None:
            clock.callLater(0, self.pump)

        def pump(self) -> None:
            while self.meter.take():
                self.meter.spend(65_536)
                self.moved += 65_536

    movers = started([Mover([bucket]), Clumsy([bucket]), Mover([bucket])])
    pass_time(clock, 1)
    before = [mover.moved for mover in movers]
    pass_time(clock, 12)
    moved = [mover.moved - had for mover, had in zip(movers, before, strict=True)]
    assert sum(moved) == pytest.approx(12e6, rel=0.05)
    assert moved == pytest.approx([4e6] * 3, rel=0.05)


def test_what_one_does_not_use_is_the_others() -> None:
    """Whose source is dry when its turn comes gives it back, and nothing of the rate is lost."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))

    class Dry(Mover):
        """Has always something when it asks, and nothing any more in its turn."""

        def pump(self) -> None:
            self.meter.take()
            self.meter.rest()

    dry = [Dry([bucket]) for _ in range(10)]
    busy = Mover([bucket])
    busy.pump()
    for _ in range(10_000):
        clock.advance(0.001)
        started(dry)
    assert busy.moved == pytest.approx(10e6, rel=0.05)


def test_a_newcomer_with_a_little_does_not_wait_for_all() -> None:
    """With 200 in the queue, a turn of each would take three seconds."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))
    started([Mover([bucket]) for _ in range(200)])
    pass_time(clock, 5)
    newcomer = Mover([bucket], waiting=0)
    for number in range(1, 30):
        newcomer.more(300)
        pass_time(clock, 0.1)
        assert newcomer.moved == number * 300


def test_a_wake_is_worth_its_while() -> None:
    """However slow, a session is not called for a few bytes; however fast, not thousands of times."""
    for rate, most in ((5e3, 100), (1e6, 600), (1e9, 600)):
        clock = Clock()
        mover = Mover([Bucket(clock, Rate(rate))])
        mover.pump()
        pass_time(clock, 10)
        assert 10 < mover.calls < most


def test_nothing_is_polled() -> None:
    """A timer is there while somebody waits, and at no other time."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1000, 4000))
    little = Mover([bucket], waiting=3000)
    little.pump()
    assert (little.moved, later(clock)) == (3000, 0)
    little.more(3000)
    assert (little.moved, later(clock), bucket.waiting) == (4000, 1, 1)
    pass_time(clock, 2.1, 0.1)
    assert (little.moved, later(clock), bucket.waiting) == (6000, 0, 0)
    little.more(100_000)
    assert later(clock) == 1
    little.meter.leave()
    assert (later(clock), bucket.waiting) == (0, 0)


def test_default_burst() -> None:
    for rate, burst in ((1e6, 250_000), (100.0, LEAST_BURST)):
        mover = Mover([Bucket(Clock(), Rate(rate))])
        mover.pump()
        assert mover.moved == burst


def test_a_bucket_is_full_again_when_nothing_was_spent_for_long() -> None:
    clock = Clock()
    bucket = Bucket(clock, Rate(1000, 4000))
    assert bucket.full
    bucket.spend(500)
    assert not bucket.full
    clock.advance(0.6)
    assert bucket.full
    clock.advance(1000)
    assert bucket.available() == 4000


def test_rate_in_place() -> None:
    """Who waits by the old rate does not wait by it any longer."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1.0))
    mover = Mover([bucket])
    mover.pump()
    before = mover.moved
    bucket.rate = Rate(1e6)
    assert bucket.rate == Rate(1e6)
    pass_time(clock, 4)
    assert mover.moved - before == pytest.approx(4e6, rel=0.05)
    bucket.rate = Rate(50e3)
    before = mover.moved
    pass_time(clock, 10)
    assert mover.moved - before == pytest.approx(500e3, rel=0.05)


def test_a_debt_does_not_outlast_a_change_of_rate() -> None:
    clock = Clock()
    bucket = Bucket(clock, Rate(1e9))
    bucket.spend(int(1e9))
    bucket.rate = Rate(1e4)
    mover = Mover([bucket])
    mover.pump()
    pass_time(clock, 1)
    assert mover.moved > 0


def test_a_rate_of_nothing() -> None:
    """Nothing passes but the burst, until there is a rate again."""
    clock = Clock()
    bucket = Bucket(clock, Rate(0))
    mover = Mover([bucket])
    mover.pump()
    pass_time(clock, 10, 0.1)
    assert (mover.moved, later(clock)) == (LEAST_BURST, 0)
    bucket.rate = Rate(1e4)
    pass_time(clock, 10)
    assert mover.moved == pytest.approx(100e3, rel=0.05)


def test_more_than_may_be_is_paid_for() -> None:
    """What could not be moved in part, such as a record of TLS, has to be waited for afterwards."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1000))
    bucket.spend(LEAST_BURST + 10_000)
    mover = Mover([bucket], waiting=1)
    mover.pump()
    pass_time(clock, 9.9, 0.1)
    assert mover.moved == 0
    pass_time(clock, 1, 0.1)
    assert mover.moved == 1


def test_a_session_that_fails_costs_no_other_its_turn() -> None:
    clock = Clock()
    bucket = Bucket(clock, Rate(1e5))
    other = Mover([bucket])

    class Failing(Mover):
        def resume(self) -> None:
            raise RuntimeError("of the test's own")

    started([other, Failing([bucket])])
    with heard() as lines:
        pass_time(clock, 5)
    assert any("failed" in line for line in lines)
    assert other.moved == pytest.approx(5e5, rel=0.1)


# Several buckets at once.


def test_the_narrowest_decides() -> None:
    clock = Clock()
    server, slow, fast = (Bucket(clock, Rate(rate)) for rate in (1e6, 1e5, 5e6))
    of_slow = [Mover([slow, server]) for _ in range(3)]
    of_fast = [Mover([fast, server]) for _ in range(3)]
    started([*of_slow, *of_fast])
    pass_time(clock, 10)
    assert total(of_slow) == pytest.approx(1e6, rel=0.05)
    assert total([*of_slow, *of_fast]) == pytest.approx(10e6, rel=0.05)


def test_all_that_are_saturated_are_used_up() -> None:
    """Each session under three, all of which are short: no byte of the server's is lost on who waits."""
    clock = Clock()
    server = Bucket(clock, Rate(1e6))
    users = [Bucket(clock, Rate(260e3)) for _ in range(4)]
    movers = [
        Mover([Bucket(clock, Rate(70e3)), user, server], chunk=chunk)
        for user in users
        for chunk in (1000, 5000, 65536, 65536)
    ]
    started(movers)
    pass_time(clock, 1)
    before = total(movers)
    pass_time(clock, 10)
    assert total(movers) - before == pytest.approx(10e6, rel=0.05)
    for mover in movers:
        assert mover.moved == pytest.approx(total(movers) / len(movers), rel=0.1)


def test_who_waits_for_a_narrow_one_holds_nothing_of_a_wide_one() -> None:
    """A user at his limit does not keep the server's bytes from others."""
    clock = Clock()
    server, user = Bucket(clock, Rate(1e6)), Bucket(clock, Rate(1000))
    held_up = started([Mover([user, server]) for _ in range(50)])
    other = Mover([server])
    other.pump()
    pass_time(clock, 10)
    assert other.moved + total(held_up) == pytest.approx(10e6, rel=0.05)
    assert total(held_up) == pytest.approx(10e3 + LEAST_BURST, rel=0.05)


def test_what_is_held_goes_back() -> None:
    """Who waits for the wide one, having been given something of the narrow one, and gives up."""
    clock = Clock()
    server, user = Bucket(clock, Rate(1000)), Bucket(clock, Rate(1e6))
    server.spend(LEAST_BURST)
    mover = Mover([user, server])
    mover.pump()
    assert not user.full
    mover.meter.leave()
    assert (user.full, server.waiting, later(clock)) == (True, 0, 0)


def test_nothing_of_a_wide_one_is_held_while_a_narrow_one_is_waited_for() -> None:
    """Its turn at the server gave it more than its user has."""
    clock = Clock()
    server, user = Bucket(clock, Rate(1e6)), Bucket(clock, Rate(1000))
    mover = Mover([user, server])
    started([Mover([server]), mover])
    assert server.waiting == 2
    assert mover.meter._held == [LEAST_BURST, 0]
    pass_time(clock, 0.5)
    assert mover.moved == LEAST_BURST
    assert user.waiting == 1
    assert not any(mover.meter._held)


class Purse:
    """A budget that ends, and makes nobody wait."""

    in_turn = False

    def __init__(self, left: int) -> None:
        self.left = left
        self.waiters: list[Any] = []

    @property
    def exhausted(self) -> bool:
        return self.left <= 0

    def available(self) -> int:
        return max(self.left, 0)

    def spend(self, amount: int, waiter: Any = None) -> None:
        assert amount >= 0, "what was only held was told as moved"
        self.left -= amount

    def lend(self, amount: int) -> bool:
        return False

    def take_back(self, lent: int, unused: int) -> None:
        raise AssertionError("it lends nothing")

    def wait(self, waiter: Any) -> None:
        raise AssertionError("it makes nobody wait")

    def leave(self, waiter: Any) -> None:
        """Nobody waits."""


def test_an_exhausted_one() -> None:
    """Bytes that are left are had to the last, and nothing of it is held while another is waited for."""
    clock = Clock()
    purse = Purse(100_000)
    mover = Mover([purse, Bucket(clock, Rate(20e3, 2000))])
    mover.pump()
    assert (purse.left, mover.meter.exhausted) == (98_000, False)
    pass_time(clock, 4.8)
    assert not mover.meter.exhausted
    pass_time(clock, 0.3)
    assert (mover.moved, mover.meter.exhausted, mover.meter.waiting) == (100_000, True, False)
    assert later(clock) == 0


# Datagrams.


def test_datagrams_over_the_rate_do_not_pass() -> None:
    clock = Clock()
    meter = Meter([Bucket(clock, Rate(100e3))])
    passed = 0
    for _ in range(10_000):
        clock.advance(0.001)
        passed += meter.let([500])
    assert passed * 500 == pytest.approx(1e6, rel=0.05)


def test_one_datagram_may_be_longer_than_a_burst() -> None:
    clock = Clock()
    meter = Meter([Bucket(clock, Rate(10e3))])
    assert meter.let([9000, 9000]) == 1
    clock.advance(0.5)
    assert meter.let([9000]) == 0
    clock.advance(0.5)
    assert meter.let([9000]) == 1


def test_empty_datagrams_cost_nothing() -> None:
    meter = Meter([Bucket(Clock(), Rate(1000))])
    assert meter.let([0] * 5000) == 5000
    assert meter.let([LEAST_BURST]) == 1
    assert meter.let([0]) == 0


def test_datagrams_and_streams_share() -> None:
    """Neither a flood of datagrams nor streams that never stop take the other's part."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))
    stream, datagrams = Mover([bucket]), Meter([bucket])
    stream.pump()
    passed = 0
    for _ in range(10_000):
        clock.advance(0.001)
        passed += 1000 * datagrams.let([1000] * 5)
    assert passed == pytest.approx(5e6, rel=0.1)
    assert passed + stream.moved == pytest.approx(10e6, rel=0.05)


# Life.


def test_nobody_is_remembered() -> None:
    """Who has left can be forgotten, wherever he stood: in the queue, served just now, served before."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6))

    class Leaving(Mover):
        def resume(self) -> None:
            self.meter.leave()

    stays = Mover([bucket])
    gone = [Mover([bucket]), Leaving([bucket]), Mover([bucket], waiting=300_000)]
    started([stays, *gone])
    pass_time(clock, 1)
    assert gone[2].waiting == 0
    for mover in gone:
        Meters(mover.meter, None).leave()
    assert bucket.waiting == 1
    assert all(mover.meter.owner is None for mover in gone)
    left = [mover.meter for mover in gone]
    remembered = {*bucket._left, *bucket._numbers, *bucket._waiting.values()}
    assert remembered == {stays.meter}
    assert remembered.isdisjoint(left)


def test_many_come_and_go() -> None:
    """The queue does not grow with those who have left it."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e4))
    started([Mover([bucket])])
    for _ in range(3000):
        passing = Mover([bucket], waiting=1)
        passing.pump()
        passing.meter.leave()
    assert len(bucket._queue) < 200
    little = [Mover([bucket], waiting=10) for _ in range(500)]
    started(little)
    pass_time(clock, 5)
    assert total(little) == 5000
    assert len(bucket._left) < 200


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, float]]:
    what = st.sampled_from(["time", "time", "more", "more", "rate", "leave"])
    return draw(
        st.lists(st.tuples(what, st.integers(0, 5), st.floats(0.0001, 2.0, allow_nan=False)), max_size=60)
    )


@pytest.mark.slow
@settings(deadline=None)
@given(
    rate=st.sampled_from([100.0, 5e3, 1e6, 1e9]),
    burst=st.sampled_from([None, 1.0, 700.0, 1e5]),
    happenings=happenings(),
)
def test_never_too_much_and_nobody_is_lost(
    rate: float, burst: float | None, happenings: list[tuple[str, int, float]]
) -> None:
    """
    Whatever happens: no more comes than burst and time give, and who waits is served in the end.

    Six sessions, three users and a server; sessions come and go, rates change.
    """
    clock = Clock()
    server = Bucket(clock, Rate(rate, burst))
    users = [Bucket(clock, Rate(rate / 3, burst)) for _ in range(3)]
    movers = [Mover([users[number % 3], server], waiting=0) for number in range(6)]
    given, left = _burst(server), 0
    for what, number, amount in happenings:
        mover = movers[number]
        if what == "time":
            clock.advance(amount)
            given += amount * server.rate.per_second
        elif what == "more":
            mover.more(int(amount * rate) + 1)
        elif what == "rate":
            server.rate = Rate(rate * amount, burst)
        else:
            left += mover.moved
            mover.meter.leave()
            movers[number] = Mover([users[number % 3], server], waiting=0)
        assert total(movers) + left <= given + 1
    server.rate = Rate(1e12)
    for user in users:
        user.rate = Rate(1e12)
    pass_time(clock, 20, 0.1)
    assert not any(mover.waiting for mover in movers)
    assert later(clock) == 0
    assert all(bucket.full for bucket in [server, *users])


def _burst(bucket: Bucket) -> float:
    return bucket._burst


# What is borrowed.


class Echoer(Mover):
    """A mover of small messages, as the relay's pump moves them."""

    def echo(self, size: int) -> None:
        if self.meter.credit >= LEAST_CREDIT:
            self.meter.credit -= size
        else:
            assert self.meter.take() >= size
            self.meter.spend(size)
            self.meter.rest()
            self.meter.borrow()


def test_small_messages_are_borrowed_for() -> None:
    """What is borrowed counts as spent, and what is not used comes back."""
    clock = Clock()
    user, server = Bucket(clock, Rate(1e6, 1_000_000)), Bucket(clock, Rate(1e6, 4_000_000))
    echoer = Echoer([user, server])
    for _ in range(100):
        echoer.echo(64)
    assert echoer.meter.credit >= LEAST_CREDIT
    assert user.available() == 1_000_000 - 6400 - echoer.meter.credit
    assert not user.full
    clock.advance(10)
    # No more comes than there is room for, beside what is lent.
    assert user.available() == 1_000_000 - 8192
    echoer.meter.leave()
    clock.advance(1)
    assert (user.available(), server.available()) == (1_000_000, 4_000_000)
    assert user.full


def test_who_asks_for_much_gives_back_first() -> None:
    bucket = Bucket(Clock(), Rate(1e6, 1_000_000))
    echoer = Echoer([bucket])
    echoer.echo(64)
    assert echoer.meter.credit >= LEAST_CREDIT
    assert echoer.meter.take() == 1_000_000 - 64
    assert echoer.meter.credit == NO_CREDIT


def test_what_lends_nothing() -> None:
    """A bucket that is small, half empty, or waited for; nor does any bucket lend most of what it has."""
    clock = Clock()
    small, big = Bucket(clock, Rate(1e6, 20_000)), Bucket(clock, Rate(1e6, 1_000_000))
    for budgets in ([small], [big, small], [small, big]):
        echoer = Echoer(budgets)
        echoer.echo(64)
        assert echoer.meter.credit == NO_CREDIT
    clock.advance(1)
    assert big.full
    many = [Echoer([big]) for _ in range(200)]
    for echoer in many:
        echoer.echo(64)
    lent = sum(echoer.meter.credit for echoer in many if echoer.meter.credit != NO_CREDIT)
    assert 0 < lent <= 125_000
    assert many[-1].meter.credit == NO_CREDIT
    big.spend(600_000)
    late = Echoer([big])
    late.echo(64)
    assert late.meter.credit == NO_CREDIT
    big.rate = Rate(1e6, 100_000)
    for echoer in many:
        echoer.meter.leave()
    clock.advance(10)
    assert big.available() == 100_000


def test_a_loan_that_is_used_up_is_over() -> None:
    """Nothing of it stays lent."""
    clock = Clock()
    bucket = Bucket(clock, Rate(1e6, 1_000_000))
    echoer = Echoer([bucket])
    for _ in range(64):
        echoer.echo(2048)
    echoer.meter.credit = 0
    echoer.meter.leave()
    clock.advance(10)
    assert bucket.full
