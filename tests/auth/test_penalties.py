"""Who has failed too often: see :mod:`socksproxy.auth.penalties`."""

from __future__ import annotations

import itertools

import pytest
from twisted.internet.task import Clock

from socksproxy.auth.penalties import FIRST, LATELY, LONGEST, PER_NAME, QUIET, WINDOW, Penalties

HERE, THERE = "192.0.2.7", "198.51.100.1"
BOB, ALICE, MALLORY = b"bob", b"alice", b"mallory"


class Setting:
    def __init__(self, failures: int | None = 10, most: int = 4096) -> None:
        self.clock = Clock()
        self.penalties = Penalties(self.clock, failures, most)

    def fail(self, count: int, host: str | None = HERE, name: bytes = BOB) -> list[float]:
        """The penalties that came of it."""
        return [seconds for _ in range(count) if (seconds := self.penalties.failed(host, name))]

    def refuses(self, host: str | None = HERE, name: bytes = BOB) -> bool:
        return self.penalties.refuses(host, name)

    def attack(self, name: bytes = BOB) -> None:
        """Fail as *name* from so many addresses that no one of them is refused, until the name is over."""
        for number in range(10 * PER_NAME + 1):
            self.penalties.failed(f"203.0.113.{number}", name)


class TestAddress:
    def test_too_many(self) -> None:
        setting = Setting()
        assert setting.fail(9) == []
        assert not setting.refuses()
        assert setting.fail(1) == [FIRST]
        assert setting.refuses()
        # Whoever it claims to be; and nobody else is.
        assert setting.refuses(name=ALICE)
        assert not setting.refuses(THERE)

    def test_in_a_minute(self) -> None:
        """Somebody who mistypes now and then is not refused."""
        setting = Setting()
        for _ in range(50):
            assert setting.fail(1) == []
            setting.clock.advance(WINDOW / 9 + 0.1)

    @pytest.mark.parametrize("failures", [1, 3])
    def test_how_many(self, failures: int) -> None:
        setting = Setting(failures)
        assert setting.fail(failures - 1) == []
        assert setting.fail(1) == [FIRST]

    def test_any_number(self) -> None:
        setting = Setting(None)
        assert setting.fail(1000) == []
        setting.penalties.succeeded(HERE, BOB)
        assert not setting.refuses()
        assert setting.penalties.entries == 0

    def test_end(self) -> None:
        """It ends by itself, and then there are as many attempts as before."""
        setting = Setting()
        setting.fail(10)
        setting.clock.advance(FIRST - 0.1)
        assert setting.refuses()
        setting.clock.advance(0.2)
        assert not setting.refuses()
        assert setting.fail(9) == []

    def test_grows(self) -> None:
        setting = Setting()
        seen = []
        for _ in range(9):
            seen += setting.fail(10)
            setting.clock.advance(seen[-1] + 1)
        assert seen == [60, 120, 240, 480, 960, 1920, LONGEST, LONGEST, LONGEST]

    def test_forgotten(self) -> None:
        """After a quiet time the next penalty is a short one."""
        setting = Setting()
        setting.fail(10)
        setting.clock.advance(FIRST + QUIET - 1)
        assert setting.fail(10) == [2 * FIRST]
        setting.clock.advance(2 * FIRST + QUIET)
        assert setting.fail(10) == [FIRST]

    def test_attempts_meanwhile(self) -> None:
        """What was under way when it began makes a penalty no longer."""
        setting = Setting()
        setting.fail(10)
        setting.clock.advance(30)
        assert setting.fail(1000) == []
        setting.clock.advance(30.1)
        assert not setting.refuses()
        assert setting.fail(9) == []

    def test_network(self) -> None:
        """Whoever has an IPv6 address has all of its network."""
        setting = Setting()
        for number in range(10):
            setting.fail(1, f"2001:db8::{number:x}:1")
        assert setting.refuses("2001:db8::ffff:ffff:ffff:ffff")
        assert not setting.refuses("2001:db8:0:1::1")

    def test_disguise(self) -> None:
        setting = Setting()
        setting.fail(5, "192.0.2.7")
        setting.fail(5, "::ffff:192.0.2.7")
        assert setting.refuses("192.0.2.7")
        assert setting.refuses("::ffff:c000:207")


class TestSuccess:
    def test_forgives(self) -> None:
        """Who has found the right one after all begins anew."""
        setting = Setting()
        for _ in range(3):
            assert setting.fail(9) == []
            setting.penalties.succeeded(HERE, BOB)

    def test_forgives_no_others(self) -> None:
        """An account of one's own buys no attempts at those of others."""
        setting = Setting()
        for _ in range(9):
            assert setting.fail(1) == []
            setting.penalties.succeeded(HERE, MALLORY)
        assert setting.fail(1) == [FIRST]

    def test_ends_no_penalty(self) -> None:
        setting = Setting()
        setting.fail(10)
        setting.penalties.succeeded(HERE, MALLORY)
        assert setting.refuses()


class TestSharedAddress:
    """One address, several people: behind NAT or a balancer, or on loopback."""

    def test_who_was_in(self) -> None:
        setting = Setting()
        setting.penalties.succeeded(HERE, BOB)
        setting.fail(10, name=MALLORY)
        assert setting.refuses(name=MALLORY)
        assert not setting.refuses(name=BOB)
        assert setting.refuses(name=ALICE)

    def test_is_no_way_to_guess_on(self) -> None:
        setting = Setting()
        setting.penalties.succeeded(HERE, BOB)
        setting.fail(10, name=MALLORY)
        setting.fail(1, name=BOB)
        assert setting.refuses(name=BOB)

    def test_long_ago(self) -> None:
        setting = Setting()
        setting.penalties.succeeded(HERE, BOB)
        setting.clock.advance(LATELY)
        setting.fail(10, name=MALLORY)
        assert setting.refuses(name=BOB)


class TestName:
    """Many addresses try one user's passwords."""

    def test_strangers_fail_once(self) -> None:
        setting = Setting()
        setting.attack()
        assert not setting.refuses(HERE)
        assert setting.fail(1) == [FIRST]
        assert setting.refuses(HERE)
        setting.clock.advance(FIRST)
        # There are as many attempts as before once the attack is over.
        assert setting.fail(9) == []

    def test_nobody_is_locked_out(self) -> None:
        """The user gets in from wherever they are, at the first attempt."""
        setting = Setting()
        for _ in range(50):
            setting.attack()
            setting.clock.advance(1)
        assert not setting.refuses(HERE)

    def test_who_was_in_may_mistype(self) -> None:
        setting = Setting()
        setting.penalties.succeeded(HERE, BOB)
        setting.attack()
        assert setting.fail(9) == []
        assert not setting.refuses(HERE)

    def test_others_are_not_meant(self) -> None:
        setting = Setting()
        setting.attack()
        assert setting.fail(9, name=ALICE) == []

    def test_below_the_bound(self) -> None:
        setting = Setting()
        for number in range(10 * PER_NAME - 1):
            setting.fail(1, f"203.0.113.{number}")
        assert setting.fail(1) == []


class TestUnixSocket:
    """There is no address; and nobody may know whose program it is: then all its clients would be one."""

    def test_local_users(self) -> None:
        setting = Setting()
        setting.fail(10, "uid 1000")
        assert setting.refuses("uid 1000")
        assert not setting.refuses("uid 1001")
        assert not setting.refuses(None)

    def test_others_are_not_refused(self) -> None:
        setting = Setting()
        setting.fail(1000, None, MALLORY)
        assert setting.refuses(None, MALLORY)
        assert not setting.refuses(None, BOB)
        assert not setting.refuses(HERE, MALLORY)

    def test_bound(self) -> None:
        setting = Setting()
        assert setting.fail(10 * PER_NAME, None) == []
        assert setting.fail(1, None) == [FIRST]
        setting.clock.advance(FIRST)
        assert not setting.refuses(None)
        assert setting.fail(1000, None) == [2 * FIRST]

    def test_who_was_in(self) -> None:
        """A neighbour cannot lock out who works there."""
        setting = Setting()
        setting.penalties.succeeded(None, BOB)
        setting.fail(1000, None)
        assert not setting.refuses(None)


class TestTables:
    def test_bounded(self) -> None:
        """Random addresses and names, right and wrong, take no more than so much."""
        setting = Setting(most=100)
        for number in range(5000):
            host = f"10.{number >> 8}.{number & 255}.1"
            name = b"%d" % number
            setting.penalties.failed(host, name)
            setting.penalties.succeeded(host, name)
        assert setting.penalties.entries == 300

    def test_bounded_under_penalties(self) -> None:
        setting = Setting(1, most=10)
        for _ in range(10):
            for number in range(200):
                setting.penalties.failed(f"10.0.0.{number}", b"%d" % number)
            setting.clock.advance(LONGEST + 1)
        assert setting.penalties.entries <= 10 * 8 + 10

    def test_bounded_on_a_unix_socket(self) -> None:
        setting = Setting(1, most=10)
        for number in range(500):
            setting.fail(20, None, b"%d" % number)
        assert setting.penalties.entries <= 10 * 8 + 10

    def test_offenders_stay(self) -> None:
        """A flood of addresses that fail once, or are refused once, hides nobody who has gone on for long."""
        setting = Setting(most=50)
        for _ in range(2):
            (seconds,) = setting.fail(10)
            setting.clock.advance(seconds)
        setting.fail(10)
        assert setting.refuses()
        for number, count in itertools.product(range(200), (1, 10)):
            setting.fail(count, f"10.0.{count}.{number}", b"%d" % number)
        assert setting.refuses()

    def test_forgotten_is_an_address_like_others(self) -> None:
        """What was forgotten of an address stays in no table, where it would make room for others."""
        setting = Setting(2, most=2)
        setting.fail(2)
        setting.clock.advance(FIRST + QUIET)
        setting.fail(1)
        for number in range(9):
            setting.fail(2, f"10.0.0.{number}", b"%d" % number)
        assert setting.fail(1) == [FIRST]
        assert setting.refuses()

    def test_the_one_that_fails_stays(self) -> None:
        """Of those that have not been refused yet, the one that has been quiet for longest goes."""
        setting = Setting(most=3)
        for number in range(9):
            assert setting.fail(1) == []
            setting.fail(1, f"10.0.0.{number}", ALICE)
        assert setting.fail(1) == [FIRST]

    def test_whoever_logs_in_stays(self) -> None:
        setting = Setting(most=3)
        for number in range(9):
            setting.penalties.succeeded(HERE, BOB)
            setting.penalties.succeeded(f"10.0.0.{number}", ALICE)
        setting.fail(10, name=MALLORY)
        assert not setting.refuses(name=BOB)

    def test_name_under_attack_stays(self) -> None:
        setting = Setting(most=3)
        for number in range(10 * PER_NAME + 1):
            setting.fail(1, f"203.0.113.{number}")
            setting.fail(1, f"203.0.113.{number}", b"%d" % number)
        assert setting.fail(1) == [FIRST]
