"""Passwords in users' records: see :mod:`socksproxy.auth.checkers.records`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksproxy.auth.cache import Remembering
from socksproxy.auth.chain import Chain
from socksproxy.auth.checkers.htpasswd import Hash, HtpasswdChecker, new_hash
from socksproxy.auth.checkers.records import RecordsChecker, checked_hash
from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.credentials import Password
from socksproxy.auth.directory import Directory, UserRecord
from socksproxy.auth.known import knows

Waiting = Generator[Any, Any, None]

SECRET = new_hash(b"secret", 4).decode()
OTHER = new_hash(b"other", 4).decode()


@pytest.fixture
def checks() -> Iterator[CheckThreads]:
    checks = CheckThreads(deadline=600)
    yield checks
    checks.stop()


def directory(**passwords: str | None) -> Directory:
    return Directory({name: UserRecord(password=password) for name, password in passwords.items()})


@pytest_twisted.inlineCallbacks
def test_checks(checks: CheckThreads) -> Waiting:
    """Who has a password here shows it; who has none is not known here."""
    checker = RecordsChecker(directory(bob=SECRET, jörg=OTHER, eve=None), checks)
    assert verifyObject(ICredentialsChecker, checker)
    assert list(checker.credentialInterfaces) == [IUsernamePassword]
    assert (yield checker.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    assert (yield checker.requestAvatarId(Password("jörg".encode(), b"other"))) == "jörg".encode()
    for name, password in ((b"bob", b"other"), (b"eve", b""), (b"eve", b"secret"), (b"alice", b"secret")):
        with pytest.raises(UnauthorizedLogin):
            yield checker.requestAvatarId(Password(name, password))


@pytest_twisted.inlineCallbacks
def test_unknown_names_cost_as_much(checks: CheckThreads, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """One hash is computed for whatever name is shown."""
    checker = RecordsChecker(directory(bob=SECRET, eve=None), checks)
    computed: list[bytes] = []

    def verify(hash: Hash, password: bytes) -> bool:
        computed.append(password)
        return False

    monkeypatch.setattr(Hash, "verify", verify)
    for number, name in enumerate([b"bob", b"eve", b"alice"], 1):
        with pytest.raises(UnauthorizedLogin):
            yield checker.requestAvatarId(Password(name, b"secret"))
        assert len(computed) == number


@pytest_twisted.inlineCallbacks
def test_other_records(checks: CheckThreads) -> Waiting:
    """From then on, also for who is remembered; records that are wrong change nothing."""
    checker = RecordsChecker(directory(bob=SECRET), checks)
    remembering = Remembering(Chain(IUsernamePassword, [checker], Clock()), Clock(), 60)
    assert (yield remembering.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    assert remembering.requestAvatarId(Password(b"bob", b"secret")) == b"bob"
    with pytest.raises(ValueError, match="plain text"):
        checker.take(directory(bob="hunter2"))
    assert remembering.requestAvatarId(Password(b"bob", b"secret")) == b"bob"
    checker.take(directory(bob=OTHER))
    with pytest.raises(UnauthorizedLogin):
        yield remembering.requestAvatarId(Password(b"bob", b"secret"))
    assert (yield remembering.requestAvatarId(Password(b"bob", b"other"))) == b"bob"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hunter2", "plain text"),
        ("", "no password"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1 without salt"),
        ("$2y$04$hunter2", "a hash that is not whole"),
        ("$6$\udc80hünter2", "a hash that is not whole"),
        ("$9$hunter2", "a hash of another kind"),
    ],
)
def test_no_hash(text: str, what: str) -> None:
    """It is told what it is, and what would be right, but not what stands there."""
    with pytest.raises(ValueError, match=f"^{what}; right is a hash: bcrypt ") as caught:
        checked_hash(text)
    assert "nter2" not in str(caught.value)
    with pytest.raises(ValueError, match=what):
        RecordsChecker(directory(bob=text))


# Who is there.


def test_knows(checks: CheckThreads, tmp_path: Any) -> None:
    """A checker tells who is there; several as one, and one that remembers, pass it on."""
    records = RecordsChecker(directory(bob=SECRET, jörg=SECRET), checks)
    path = tmp_path / "users"
    path.write_bytes(b"eve:" + SECRET.encode() + b"\nlatin-\xf6:" + SECRET.encode() + b"\n")
    file = HtpasswdChecker(str(path), checks)
    assert [records.knows(name) for name in (b"bob", "bob", "jörg", "jörg".encode(), b"eve")] == [
        True
    ] * 4 + [False]
    assert [file.knows(name) for name in (b"eve", "latin-\udcf6", "bob")] == [True, True, False]
    chain = Chain(IUsernamePassword, [records, file], Clock())
    remembering = Remembering(chain, Clock())
    for asked in (chain, remembering):
        assert [knows(asked, name) for name in (b"bob", "eve", "alice")] == [True, True, False]
    records.take(directory())
    assert knows(remembering, "bob") is False


def test_knows_not(checks: CheckThreads) -> None:
    """One that cannot tell may know everybody."""
    records = RecordsChecker(directory(bob=SECRET), checks)
    chain = Chain(IUsernamePassword, [records, object()], Clock())  # type: ignore[list-item]
    assert (knows(chain, "bob"), knows(chain, "eve")) == (True, None)
    assert knows(Remembering(object(), Clock()), "bob") is None
