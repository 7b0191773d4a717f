"""Users' records: see :mod:`socksproxy.auth.directory`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, time as time_of_day, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.cred.checkers import ANONYMOUS
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksproxy.auth.chain import Chain
from socksproxy.auth.credentials import Password
from socksproxy.auth.directory import (
    Barred,
    Directory,
    DirectoryRealm,
    GroupRecord,
    NoSuchGroup,
    RecordedUser,
    UserRecord,
    expiry,
)
from socksproxy.auth.gate import Gate
from socksproxy.auth.penalties import Penalties
from socksproxy.auth.users import User
from socksproxy.identity import Client, ISOCKSUser
from socksproxy.limits import Limits, Rate
from socksproxy.values.errors import ConfigError
from socksproxy.wire.words import Address, Command

from ..support.logs import heard

HERE = Client("192.0.2.7", 4711)
NOON = datetime(2027, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture
def in_tonga(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where it is 13 hours later than in Greenwich."""
    monkeypatch.setenv("TZ", "XXX-13")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# Records.


def test_own_words_first() -> None:
    """What a record leaves out, the groups say, in the order in which the user is in them."""
    groups = {
        "slow": GroupRecord(limits=Limits(sessions=5, download=Rate(1000)), outgoing=["192.0.2.1"]),
        "old": GroupRecord(expires=NOON, disabled=True, limits=Limits(download=Rate(7), binds=9)),
        "other": GroupRecord(limits=Limits(associations=1)),
    }
    user = UserRecord(groups=["slow", "old"], limits=Limits(sessions=3))
    record = Directory({"bob": user}, groups).find("bob")
    assert record == UserRecord(
        groups=("slow", "old"),
        limits=Limits(sessions=3, download=Rate(1000), binds=9),
        outgoing=("192.0.2.1",),
        expires=NOON,
        disabled=True,
    )


def test_own_no_is_a_word() -> None:
    """Who is not disabled is not, whatever the group says."""
    groups = {"gone": GroupRecord(disabled=True)}
    directory = Directory(
        {"bob": UserRecord(groups=["gone"], disabled=False), "eve": UserRecord(groups=["gone"])}, groups
    )
    records = [directory.find(name) for name in ("bob", "eve", "alice")]
    assert [record and record.disabled for record in records] == [False, True, None]


def test_no_such_group() -> None:
    """All of them are told."""
    with pytest.raises(NoSuchGroup) as caught:
        Directory(
            {"bob": UserRecord(groups=["a", "b"]), "eve": UserRecord(groups=["b"])}, {"a": GroupRecord()}
        )
    assert caught.value.members == (("bob", "b"), ("eve", "b"))
    assert str(caught.value) == "'bob' is in 'b'; 'eve' is in 'b'"


def test_passwords() -> None:
    """Those that there are; no repr() shows one."""
    directory = Directory({"bob": UserRecord(password="hunter2"), "eve": UserRecord()})
    assert directory.passwords() == {"bob": "hunter2"}
    assert len(directory) == 2
    assert "hunter2" not in repr(directory.find("bob"))


@pytest.mark.parametrize(
    ("outgoing", "reason"),
    [
        (["192.0.2.1", "192.0.2.1"], "stands there already"),
        (["::1", "a.example"], "not a literal IPv4 or IPv6 address, a prefix, or a word such as same"),
        (["fe80::1%lo"], "not a literal IPv4 or IPv6 address, a prefix, or a word such as same"),
        ([5], "not a literal IPv4 or IPv6 address, a prefix, or a word such as same"),
        ("192.0.2.1", "not a list"),
    ],
)
def test_outgoing(outgoing: Any, reason: str) -> None:
    for kind in (UserRecord, GroupRecord):
        assert kind(outgoing=["::1", "192.0.2.1"]).outgoing == ("::1", "192.0.2.1")
        with pytest.raises(ValueError, match=f"^outgoing: {reason}$"):
            kind(outgoing=outgoing)


# Expiry.


def test_a_day_is_over_when_it_ends(in_tonga: None) -> None:
    """By the machine's own time."""
    assert expiry(date(2027, 1, 31)).timestamp() == datetime(2027, 1, 31, 11, tzinfo=timezone.utc).timestamp()
    assert (
        expiry(datetime(2027, 1, 31, 13)).timestamp()
        == datetime(2027, 1, 31, tzinfo=timezone.utc).timestamp()
    )
    assert expiry(NOON) is NOON


@pytest.mark.parametrize("value", ["2027-01-31", 5, True, time_of_day(), None, [date(2027, 1, 31)]])
def test_no_time(value: Any) -> None:
    with pytest.raises(ConfigError, match="not a date such as 2027-01-31"):
        expiry(value)
    if value is not None:
        with pytest.raises(ValueError, match=r"^expires: not a date such as"):
            UserRecord(expires=value)


def test_no_day_after_the_last() -> None:
    with pytest.raises(ConfigError, match="a time that this machine cannot tell"):
        expiry(date.max)


@given(st.dates() | st.datetimes() | st.datetimes(timezones=st.just(timezone(timedelta(hours=23)))))
def test_any_time(value: date) -> None:
    """It is one, or it is told that it is none."""
    try:
        until = expiry(value)
    except ConfigError:
        return
    assert isinstance(until.timestamp(), float)


# The realm.


class Setting:
    """A realm, and what the time is."""

    def __init__(self, **records: UserRecord) -> None:
        self.now = NOON.timestamp()
        self.realm = DirectoryRealm(Directory(records), lambda: self.now)

    def avatar(self, name: Any) -> Any:
        interface, avatar, logout = self.realm.requestAvatar(name, HERE, ISOCKSUser)
        assert interface is ISOCKSUser
        assert logout() is None
        assert verifyObject(ISOCKSUser, avatar)
        return avatar


def test_is_a_realm() -> None:
    assert verifyObject(IRealm, DirectoryRealm(Directory()))
    with pytest.raises(NotImplementedError):
        DirectoryRealm(Directory()).requestAvatar(b"bob", HERE, IRealm)


def test_avatars() -> None:
    """They have what the record says; who has none is a plain user."""
    limits = Limits(sessions=3)
    groups = {"staff": GroupRecord(limits=limits, outgoing=["::1"])}
    setting = Setting()
    setting.realm.directory = Directory({"bob": UserRecord(groups=["staff"])}, groups)
    for name in (b"bob", "bob"):
        bob = setting.avatar(name)
        assert isinstance(bob, RecordedUser)
        assert (bob.name, bob.groups, bob.outgoing, bob.limits) == (
            "bob",
            frozenset({"staff"}),
            ("::1",),
            limits,
        )
        assert bob.record == setting.realm.directory.find("bob")
        assert bob.permits(HERE, Command.CONNECT, Address.of("192.0.2.9", 80))
    cases: list[tuple[Any, str | None]] = [(b"eve", "eve"), (ANONYMOUS, None)]
    for avatar_id, expected in cases:
        avatar = setting.avatar(avatar_id)
        assert type(avatar) is User
        assert (avatar.name, avatar.groups) == (expected, frozenset())


def test_disabled() -> None:
    """It is no user, in the words of cred."""
    setting = Setting(bob=UserRecord(disabled=True), eve=UserRecord(disabled=False))
    assert setting.avatar(b"eve").name == "eve"
    with pytest.raises(Barred, match=r"^the user is disabled$") as caught:
        setting.avatar(b"bob")
    assert isinstance(caught.value, UnauthorizedLogin)
    assert isinstance(caught.value, LoginDenied)


def test_expired() -> None:
    """Nobody logs in from then on, and who is there may do nothing any more."""
    setting = Setting(bob=UserRecord(expires=NOON))
    setting.now -= 0.001
    bob = setting.avatar(b"bob")
    destination = Address.of("192.0.2.9", 80)
    assert not bob.expired
    assert bob.permits(HERE, Command.CONNECT, destination)
    setting.now += 0.001
    assert bob.expired
    assert not bob.permits(HERE, Command.CONNECT, destination)
    with pytest.raises(Barred, match=r"^the user has expired, 2027-01-31 12:00$"):
        setting.avatar(b"bob")


def test_the_log_tells() -> None:
    """The client learns no more than that it is no; it has guessed nothing, so no penalty follows."""
    clock = Clock()

    class Everybody:
        def requestAvatarId(self, credentials: Any) -> Any:
            return credentials.username

    portal = Portal(Setting(bob=UserRecord(disabled=True)).realm)
    from twisted.cred.credentials import IUsernamePassword

    portal.registerChecker(Chain(IUsernamePassword, [Everybody()], clock), IUsernamePassword)  # type: ignore[list-item]
    gate = Gate(portal, clock, 8.0, Penalties(clock, 1))
    with heard() as lines:
        for _ in range(2):
            with pytest.raises(UnauthorizedLogin) as caught:
                gate.log_in(HERE, "password", Password(b"bob", b"sesame"))
            assert type(caught.value) is UnauthorizedLogin
    line = 'authentication denied: 192.0.2.7 port 4711, method password, user "bob": the user is disabled'
    assert lines == [line, line]
