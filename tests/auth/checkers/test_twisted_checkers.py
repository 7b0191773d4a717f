"""Twisted's own checkers behind ``--auth``: what they lack, and that they stay what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.plugins.cred_file import theFileCheckerFactory
from zope.interface import implementer

from socksproxy.auth.checkers import twisted_checkers as twisteds
from socksproxy.auth.checkers.plain_file import PlainFileChecker
from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.checkers.twisted_checkers import adapted
from socksproxy.auth.checkers.users_file import LOOK_EVERY
from socksproxy.auth.credentials import Password

from ...support.logs import heard
from ...support.proxy import Playing
from ...support.relay import reactor
from ...support.users import made_user

needs_crypt = pytest.mark.skipif(find_spec("crypt") is None, reason="this Python has no crypt")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and reads their hashes")


def ask(description: str, name: bytes, password: bytes) -> Deferred[Any]:
    checker = adapted(makeChecker(description), reactor)
    return maybeDeferred(checker.requestAvatarId, Password(name, password))


def test_others_are_left_alone() -> None:
    checker = AllowAnonymousAccess()
    assert adapted(checker, reactor) is checker


@pytest.mark.parametrize(("name", "password"), [("bob", "secret"), ("bärbel", "gehäm")])
@pytest_twisted.inlineCallbacks
def test_memory(name: str, password: str) -> Playing:
    """What the command line has as text comes from the network as bytes."""
    description = f"memory:{name}:{password}"
    assert (yield ask(description, name.encode(), password.encode())) == name.encode()
    with pytest.raises(UnauthorizedLogin):
        yield ask(description, name.encode(), b"wrong")


@pytest_twisted.inlineCallbacks
def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Its path is that of the start, wherever the process goes then."""
    (tmp_path / "users").write_text("bob:secret\n")
    monkeypatch.chdir(tmp_path)
    checker = adapted(makeChecker("file:users"), reactor)
    monkeypatch.chdir("/")
    assert (yield checker.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    for name, password in ((b"bob", b"wrong"), (b"eve", b"secret")):
        with pytest.raises(UnauthorizedLogin):
            yield checker.requestAvatarId(Password(name, password))


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twisted would start and let nobody in."""
    # It warns where standard error was when the first of these tests imported it.
    monkeypatch.setattr(theFileCheckerFactory, "errorOutput", StringIO())
    path = tmp_path / "nowhere"
    with pytest.raises(InvalidAuthArgumentString, match=f"{path} cannot be read"):
        adapted(makeChecker(f"file:{path}"), reactor)


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


@pytest.mark.parametrize("users", ["", ":", ":bob:", "::x", f":bob:{'x' * 256}"])
def test_memory_of_nobody(users: str) -> None:
    """A user whom no client could be, or none at all, is a slip of the pen."""
    with pytest.raises(InvalidAuthArgumentString):
        adapted(makeChecker(f"memory{users}"), reactor)


@pytest.fixture
def user() -> Iterator[str]:
    """A user of this machine, whose password is "hunter22"."""
    with made_user(b"hunter22") as name:
        yield name


@needs_crypt
@needs_root
@pytest_twisted.inlineCallbacks
def test_unix(user: str) -> Playing:
    assert (yield ask("unix", user.encode(), b"hunter22")) == user
    with pytest.raises(UnauthorizedLogin):
        yield ask("unix", user.encode(), b"hunter23")


@needs_crypt
@pytest.mark.parametrize(
    "name", [b"nobody-of-this-name", b"\xff\xfe", b"no\0body", pytest.param(b"daemon", marks=needs_root)]
)
@pytest_twisted.inlineCallbacks
def test_unix_unknown(name: bytes, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A hash is computed all the same, also for a user without a password; an odd name is no fault."""
    checker: Any = adapted(makeChecker("unix"), reactor)
    computed: list[str] = []
    hashes = checker.checker._crypt

    class Counting:
        mksalt = staticmethod(hashes.mksalt)

        @staticmethod
        def crypt(word: str, salt: str) -> str:
            computed.append(salt)
            result: str = hashes.crypt(word, salt)
            return result

    monkeypatch.setattr(checker.checker, "_crypt", Counting)
    with pytest.raises(UnauthorizedLogin) as caught:
        yield checker.requestAvatarId(Password(name, b"secret"))
    assert type(caught.value) is UnauthorizedLogin
    assert [salt[:1] for salt in computed] == ["$"]


def test_unix_without_crypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 and later."""

    def gone(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(twisteds, "import_module", gone)
    with pytest.raises(InvalidAuthArgumentString, match="this Python has no crypt: use pam:login instead"):
        adapted(makeChecker("unix"), reactor)
