"""How the sessions of a factory authenticate their clients: see :mod:`socksproxy.auth.authentication`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from socksproxy.auth.authentication import Authentication
from socksproxy.auth.checkers.threads import CheckThreads, ThreadedChecker
from socksproxy.auth.credentials import (
    Anonymous,
    Certificate,
    ICertificate,
    IPeerCredentials,
    IUserid,
    Password,
    PeerCredentials,
)
from socksproxy.auth.users import Realm
from socksproxy.identity import Client
from socksproxy.negotiation import IExchange, IMethod, Immediate
from socksproxy.values.auth import AuthSettings

CLIENT = Client("192.0.2.7", 4713)
LOCAL = ("192.0.2.1", 1080)


class Checker:
    """Vouches for every user but those in *gone*."""

    def __init__(self, *interfaces: Any, gone: tuple[bytes, ...] = ()) -> None:
        self.credentialInterfaces = interfaces
        self.gone = gone

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return succeed(b"bob")

    def knows(self, avatar_id: bytes) -> bool:
        return avatar_id not in self.gone


@implementer(IMethod)
class Foreign:
    """A method that a checker brings along."""

    number = 0x85
    name = "foreign"
    credentials = IUsernamePassword

    def begin(self, client: Any) -> IExchange:
        return Immediate(Anonymous())


class Bringing(Checker):
    def methods(self) -> list[Any]:
        return [Foreign()]


def an_authentication(*checkers: Any, timeout: float = 10.0) -> Authentication:
    portal = Portal(Realm())
    for checker in checkers:
        portal.registerChecker(checker)
    return Authentication(portal, (), AuthSettings(timeout=timeout), Clock())


def names(authentication: Authentication, shown: Any = None) -> list[str]:
    return [method.name for method in authentication.methods_for(lambda: shown)]


def test_methods_that_a_checker_takes() -> None:
    assert names(an_authentication(AllowAnonymousAccess())) == ["anonymous"]
    passwords = InMemoryUsernamePasswordDatabaseDontUse(bob=b"secret")
    assert names(an_authentication(AllowAnonymousAccess(), passwords)) == ["password", "anonymous"]
    assert names(an_authentication(Checker(IUserid))) == []


def test_methods_that_a_checker_brings_along() -> None:
    """They are before ours, also when the checker is asked by another one."""
    assert names(an_authentication(Bringing(IUsernamePassword))) == ["foreign", "password"]
    threaded = ThreadedChecker(Bringing(IUsernamePassword), CheckThreads())
    assert names(an_authentication(threaded)) == ["foreign", "password"]


@pytest.mark.parametrize(
    ("interface", "credentials", "name"),
    [
        (ICertificate, Certificate(None), "certificate"),
        (IPeerCredentials, PeerCredentials(1, 2, 3), "peercred"),
    ],
)
def test_what_the_transport_knows(interface: Any, credentials: Any, name: str) -> None:
    """It is the best method, and enough for SOCKS4, if a checker takes it."""
    knowing = an_authentication(Checker(interface, IAnonymous))
    assert names(knowing, credentials) == [name, "anonymous"]
    assert knowing.for_socks4(b"", CLIENT, lambda: LOCAL, lambda: credentials) == (name, credentials)
    assert names(an_authentication(AllowAnonymousAccess()), credentials) == ["anonymous"]


def test_socks4() -> None:
    def shown(*interfaces: Any) -> tuple[str, Any] | None:
        asked = an_authentication(Checker(*interfaces))
        return asked.for_socks4(b"bob", CLIENT, lambda: LOCAL, lambda: None)

    assert shown(IUsernamePassword) is None
    named = shown(IAnonymous)
    assert named is not None
    assert named[0] == "anonymous"
    named = shown(IAnonymous, IUserid)
    assert named is not None
    assert (named[0], named[1].userid, named[1].client, named[1].local) == ("userid", b"bob", CLIENT, LOCAL)


def user_still(authentication: Authentication, user: str | None, shown: type[Any] | None) -> Any:
    results: list[Any] = []
    authentication.still_known(CLIENT._replace(user=user), shown).addBoth(results.append)
    return results[0]


def test_still_known() -> None:
    passwords = an_authentication(Checker(IUsernamePassword, gone=(b"eve",)))
    assert user_still(passwords, "bob", Password)[0].name == "bob"
    for user, shown in (("eve", Password), ("bob", PeerCredentials), (None, None)):
        failure = user_still(passwords, user, shown)
        assert isinstance(failure, Failure)
        assert failure.check(UnauthorizedLogin)
    assert user_still(passwords, None, Password) is None
    assert user_still(an_authentication(AllowAnonymousAccess()), None, None)[0].name is None


def test_checks_end_in_time_for_the_portal() -> None:
    """Also those of a checker that another one asks."""
    checks = CheckThreads()
    an_authentication(ThreadedChecker(Checker(IUsernamePassword), checks), timeout=8.0)
    assert checks._deadline == 7.0
