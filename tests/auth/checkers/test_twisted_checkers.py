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
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.plugins.cred_file import theFileCheckerFactory

from socksproxy.auth.checkers import twisted_checkers as twisteds
from socksproxy.auth.checkers.twisted_checkers import adapted
from socksproxy.auth.credentials import Password

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
