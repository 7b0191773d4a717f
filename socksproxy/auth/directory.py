"""
Records of users and groups, and the realm that gives users by their records.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time as time_of_day, timedelta
from typing import TYPE_CHECKING, Any

import attrs
from attrs.converters import optional
from twisted.cred.error import LoginDenied, UnauthorizedLogin

from ..values.errors import ConfigError
from ..values.limits import Limits
from ..values.outgoing import Sources
from ..wire.words import SOCKSError
from .users import Realm, User

if TYPE_CHECKING:
    from ..identity import Client
    from ..wire.words import Address, Command


class Barred(SOCKSError, LoginDenied, UnauthorizedLogin):
    """The realm knows the user, who may not log in now; the text is for the operator."""


def expiry(value: Any) -> datetime:
    """
    The end of the time that *value* gives, with a time zone: a date ends with its day.

    :param value: a date, or a date and time; without a time zone the machine's own counts.
    :raises ConfigError: when *value* is no time that this machine can tell.
    """
    if not isinstance(value, date):
        raise ConfigError("not a date such as 2027-01-31, or a date and time such as 2027-01-31T18:00:00")
    try:
        if not isinstance(value, datetime):
            value = datetime.combine(value + timedelta(days=1), time_of_day())
        until: datetime = value.astimezone() if value.tzinfo is None else value
    except (OverflowError, OSError, ValueError):
        raise ConfigError("a time that this machine cannot tell") from None
    return until


def _expires(value: Any) -> datetime:
    try:
        return expiry(value)
    except ConfigError as problem:
        raise ValueError(f"expires: {problem.reason}") from None


def _outgoing(words: Any) -> Sources:
    try:
        return Sources(words)
    except ConfigError as problem:
        raise ValueError(f"outgoing: {problem.reason}") from None


def _groups(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen(kw_only=True)
class GroupRecord:
    """
    The record of a group. It counts for each member whose own record does not say otherwise.

    :ivar expires: the time from which a member cannot log in. A date ends with its day.
    :ivar disabled: whether a member cannot log in.
    :ivar outgoing: the addresses from which a member's connections leave, prefixes and words: see
        :class:`~socksproxy.values.outgoing.Sources`.
    :ivar via: the upstream through which a member's connections leave, or ``direct``: without one.
    :ivar limits: the limits of each member, for all sessions of the member together.
    :raises ValueError: for a value that has no meaning.
    """

    expires: datetime | None = attrs.field(default=None, converter=optional(_expires))
    disabled: bool | None = None
    outgoing: tuple[str, ...] | None = attrs.field(default=None, converter=optional(_outgoing))
    via: str | None = None
    limits: Limits = Limits()


@attrs.frozen(kw_only=True)
class UserRecord(GroupRecord):
    """
    The record of a user.

    :ivar password: the hash, as in an htpasswd file. Without it another checker must accept the user.
    :ivar groups: the user's groups. For a key that the record lacks, the first group with that key counts.
    :ivar expires: the time from which the user cannot log in. A date ends with its day.
    :ivar disabled: whether the user cannot log in.
    :ivar outgoing: the addresses from which the user's connections leave, prefixes and words: see
        :class:`~socksproxy.values.outgoing.Sources`.
    :ivar via: the upstream through which the user's connections leave, or ``direct``: without one.
    :ivar limits: the limits of the user, for all sessions together.
    :raises ValueError: for a value that has no meaning.
    """

    password: str | None = attrs.field(default=None, repr=False)
    groups: tuple[str, ...] = attrs.field(default=(), converter=_groups)

    def over(self, template: GroupRecord) -> UserRecord:
        """This record, with the fields of *template* where this one lacks them."""
        said = {
            name: value
            for name in ("expires", "disabled", "outgoing", "via")
            if getattr(self, name) is None and (value := getattr(template, name)) is not None
        }
        return attrs.evolve(self, limits=self.limits.over(template.limits), **said)


class NoSuchGroup(ValueError):
    """
    Users are members of groups that do not exist.

    :ivar members: the names of the users and of the groups.
    """

    def __init__(self, members: Iterable[tuple[str, str]]) -> None:
        self.members = tuple(members)
        super().__init__("; ".join(f"{user!r} is in {group!r}" for user, group in self.members))


class Directory:
    """
    The records of users, by their names.

    :param users: the users' own records.
    :param groups: the groups' records.
    :raises NoSuchGroup: when a user is in a group that is not among *groups*.
    """

    def __init__(
        self, users: Mapping[str, UserRecord] | None = None, groups: Mapping[str, GroupRecord] | None = None
    ) -> None:
        users, groups = users or {}, groups or {}
        unknown = [
            (name, group) for name, record in users.items() for group in record.groups if group not in groups
        ]
        if unknown:
            raise NoSuchGroup(unknown)
        self._records = {name: _merged(record, groups) for name, record in users.items()}

    def __len__(self) -> int:
        return len(self._records)

    def find(self, name: str) -> UserRecord | None:
        """The record of the user *name*, with the fields of its groups; None: there is none."""
        return self._records.get(name)

    def passwords(self) -> dict[str, str]:
        """The password hashes of the users that have one here."""
        return {
            name: record.password for name, record in self._records.items() if record.password is not None
        }


def _merged(record: UserRecord, groups: Mapping[str, GroupRecord]) -> UserRecord:
    for group in record.groups:
        record = record.over(groups[group])
    return record


class RecordedUser(User):
    """
    A user with a record.

    :param record: the record, with the fields of the user's groups.
    :param clock: tells seconds since the epoch.
    :ivar outgoing: the addresses from which connections leave; None: the record has none.
    :ivar via: the upstream through which connections leave; None: the record has none.
    :ivar limits: the limits of the user.
    """

    __slots__ = ("_clock", "_until", "limits", "outgoing", "record", "via")

    def __init__(self, name: str, record: UserRecord, clock: Callable[[], float]) -> None:
        super().__init__(name, record.groups)
        self.record = record
        self.outgoing = record.outgoing
        self.via = record.via
        self.limits = record.limits
        self._clock = clock
        self._until = math.inf if record.expires is None else record.expires.timestamp()

    @property
    def expired(self) -> bool:
        """Whether the user's time is over."""
        return self._clock() >= self._until

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        """See :meth:`~socksproxy.identity.ISOCKSUser.permits`: yes, until the user's time is over."""
        return self._clock() < self._until


class DirectoryRealm(Realm):
    """
    A realm like :class:`~socksproxy.auth.users.Realm` that gives users by their records.

    A user without a record has a name and nothing else. A user who is disabled or has expired is refused.

    :param directory: has the records.
    :param clock: tells seconds since the epoch.
    """

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._clock = clock

    def user(self, name: str | None) -> User:
        """
        See :meth:`~socksproxy.auth.users.Realm.user`.

        :raises Barred: when the user is disabled or has expired.
        """
        record = None if name is None else self.directory.find(name)
        if name is None or record is None:
            return super().user(name)
        if record.disabled:
            raise Barred("the user is disabled")
        user = RecordedUser(name, record, self._clock)
        if user.expired:
            raise Barred(f"the user has expired, {record.expires:%Y-%m-%d %H:%M}")
        return user
