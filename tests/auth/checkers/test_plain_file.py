"""Files of passwords in plain text: see :mod:`socksproxy.auth.checkers.plain_file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy.auth.checkers.plain_file import PlainFileChecker
from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.checkers.twisted_checkers import adapted
from socksproxy.auth.checkers.users_file import LOOK_EVERY
from socksproxy.auth.credentials import Password

from ...support.logs import heard
from ...support.proxy import Playing
from ...support.relay import reactor


def ask(description: str, name: bytes, password: bytes) -> Deferred[Any]:
    checker = adapted(makeChecker(description), reactor)
    return maybeDeferred(checker.requestAvatarId, Password(name, password))


@pytest.mark.parametrize(
    ("content", "name", "password"),
    [
        (b"bob:secret:and:more\n", b"bob", b"secret:and:more"),
        (b"bob:two words\n", b"bob", b"two words"),
        (b"bob::\n", b"bob", b":"),
        (b"bob:#\n", b"bob", b"#"),
        (b"# bob:old\n  #bob:older\n\nbob:secret\n", b"bob", b"secret"),
        (b"\xef\xbb\xbfbob:secret\n", b"bob", b"secret"),
        (b"bob:secret\r\neve:x\r\n", b"bob", b"secret"),
        ("b\u00e4rbel:geh\u00e4m\n".encode(), "b\u00e4rbel".encode(), "geh\u00e4m".encode()),
        (b"b\xff:\xfe\n", b"b\xff", b"\xfe"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_lines_of_a_file(tmp_path: Path, content: bytes, name: bytes, password: bytes) -> Playing:
    """A password is all that stands behind the first colon; what begins with # is a comment."""
    (tmp_path / "users").write_bytes(content)
    checker = adapted(makeChecker(f"file:{tmp_path / 'users'}"), reactor)
    assert (yield checker.requestAvatarId(Password(name, password))) == name
    wrong = [
        (name, password.partition(b":")[0]),
        (name, password + b" "),
        (b"# bob", b"old"),
        (b"#bob", b"older"),
    ]
    for who, what in wrong:
        if (who, what) != (name, password):
            with pytest.raises(UnauthorizedLogin):
                yield checker.requestAvatarId(Password(who, what))
    assert checker.warnings == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"bob:secret", "its last line has no end, as if it were half-written"),
        (b"bob:secret\nbob\n", "line 2 is not NAME:PASSWORD"),
        (b":secret\n", "line 1 is not NAME:PASSWORD"),
        (b"bob:secret \n", "line 1 has spaces around the name or the password"),
        (b"bob: secret\n", "line 1 has spaces around the name or the password"),
        (b"bob :secret\n", "line 1 has spaces around the name or the password"),
        (b"\tbob:secret\n", "line 1 has spaces around the name or the password"),
        ("bob:secret\n".encode("utf-16"), "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        ("bob:secret\n".encode("utf-16-be"), "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        (b"bob:secret\reve:x\n", "line 1 has a carriage return in it"),
    ],
)
def test_files_that_say_nothing_clear(tmp_path: Path, content: bytes, why: str) -> None:
    """They end the start with one line, rather than let in who should not be, or keep out who should be."""
    (tmp_path / "users").write_bytes(content)
    with pytest.raises(InvalidAuthArgumentString) as refused:
        adapted(makeChecker(f"file:{tmp_path / 'users'}"), reactor)
    assert why in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert "secret" not in str(refused.value)


def test_lines_that_do_not_count(tmp_path: Path) -> None:
    """Each is told, with its number."""
    path = tmp_path / "users"
    path.write_bytes(b"bob:secret\nbob:other\neve:\ncarol:" + b"x" * 256 + b"\n")
    with heard() as lines:
        checker = adapted(makeChecker(f"file:{path}"), reactor)
    assert checker.warnings == [
        f"{path}, line 2 does not count: the user has a line above",
        f"{path}, line 3 does not count: no password",
        f"{path}, line 4 does not count: longer than 255 bytes, which a client cannot send",
    ]
    assert "line 2 (the user has a line above), line 3 (no password)" in lines[-1]
    path.write_bytes(b"# no users\n")
    checker = adapted(makeChecker(f"file:{path}"), reactor)
    assert checker.warnings == [f"{path}: no user in it can log in"]


@pytest_twisted.inlineCallbacks
def test_file_changes(tmp_path: Path) -> Playing:
    """It is looked at again, and left alone while it is half-written."""
    path = tmp_path / "users"
    path.write_bytes(b"bob:secret\n")
    clock = Clock()
    checks = CheckThreads(reactor, name="a file")
    checker = PlainFileChecker(str(path), checks, clock.seconds)
    try:
        path.write_bytes(b"bob:sec")
        clock.advance(LOOK_EVERY)
        assert (yield checker.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
        path.write_bytes(b"bob:second\n")
        clock.advance(LOOK_EVERY)
        assert (yield checker.requestAvatarId(Password(b"bob", b"second"))) == b"bob"
        assert checker.version == 1
        assert checker.knows("bob")
    finally:
        checks.stop()


@pytest_twisted.inlineCallbacks
def test_file_by_other_methods(tmp_path: Path) -> Playing:
    """A method that does not send the password itself can be checked by a file in plain text."""
    (tmp_path / "users").write_bytes(b"bob:secret\n")
    checker = adapted(makeChecker(f"file:{tmp_path / 'users'}"), reactor)

    @implementer(IUsernameHashedPassword)
    class Reversed:
        def __init__(self, username: bytes, backwards: bytes) -> None:
            self.username = username
            self.backwards = backwards

        def checkPassword(self, password: bytes) -> bool:
            return self.backwards == password[::-1]

    assert IUsernameHashedPassword in checker.credentialInterfaces
    assert (yield checker.requestAvatarId(Reversed(b"bob", b"terces"))) == b"bob"
    for name in (b"bob", b"eve"):
        with pytest.raises(UnauthorizedLogin):
            yield checker.requestAvatarId(Reversed(name, b""))
