"""Checks by PAM, the real one: see :mod:`socksproxy.auth.checkers.pam`."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pam as library
import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import setDebugging
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers import pam as module
from socksproxy.auth.checkers.pam import PAMChecker
from socksproxy.auth.checkers.threads import CheckFailed, CheckThreads, CheckTimedOut
from socksproxy.auth.credentials import Password
from socksproxy.errors import NotAuthenticated

from ...support.logs import heard
from ...support.programs import missing, require, run
from ...support.proxy import ClockedReactor, until
from ...support.users import change, made_user

Waiting = Generator[Any, Any, None]
Make = Callable[[str], PAMChecker]

PASSWORD = b"correct horse"
BYTES = b"p\xc3\xa4\xff"

#: Debian has a folder for each architecture.
_MODULES = ("/lib/*/security", "/usr/lib/*/security", "/lib/security", "/lib64/security", "/usr/lib/security")

needs_root = pytest.mark.skipif(
    os.getuid() != 0,
    reason="only root may describe PAM services and make users, and only root's checks see all",
)
pytestmark = pytest.mark.interop
_numbers = itertools.count()


@pytest.fixture
def service() -> Iterator[Callable[[str], str]]:
    """``service(text)``: describe a PAM service and return its name; it is gone after the test."""
    made: list[Path] = []

    def describe(text: str) -> str:
        path = Path(f"/etc/pam.d/socksproxy-test-{os.getpid()}-{next(_numbers)}")
        path.write_text(text)
        made.append(path)
        return path.name

    yield describe
    for path in made:
        path.unlink(missing_ok=True)


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(service)``: a checker; its threads end after the test."""
    made: list[CheckThreads] = []

    def checker(service: str) -> PAMChecker:
        made.append(CheckThreads(threads=2, deadline=60, name=f"pam:{service}"))
        return PAMChecker(service, made[-1])

    yield checker
    for checks in made:
        checks.stop()


def require_module(name: str) -> None:
    """Skip where PAM has no module *name*."""
    if not any(found for pattern in _MODULES for found in Path("/").glob(f"{pattern[1:]}/{name}")):
        missing(name)


@pytest.fixture
def pwdfile(tmp_path: Path, service: Callable[[str], str]) -> str:
    """A service with users in a file of its own, which the real htpasswd has made."""
    require_module("pam_pwdfile.so")
    path = tmp_path / "users"
    for new, name, password in ((["-c"], "bob", PASSWORD), ([], "j\udcf6rg", BYTES)):
        assert run([require("htpasswd"), *new, "-5i", str(path), name], data=password).returncode == 0
    return service(f"auth required pam_pwdfile.so nodelay pwdfile={path}\naccount required pam_permit.so\n")


@pytest.fixture
def user() -> Iterator[str]:
    """A user of this machine, whose password is :data:`PASSWORD`."""
    with made_user(PASSWORD) as name:
        yield name


UNIX = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"


@needs_root
@pytest_twisted.inlineCallbacks
def test_pwdfile(make: Make, pwdfile: str) -> Waiting:
    """A service of its own: the right password, the wrong one, no such user, any bytes."""
    checker = make(pwdfile)
    assert verifyObject(ICredentialsChecker, checker)
    assert (yield checker.requestAvatarId(Password(b"bob", PASSWORD))) == b"bob"
    assert (yield checker.requestAvatarId(Password(b"j\xf6rg", BYTES))) == b"j\xf6rg"
    wrong = [
        (b"bob", b"x"),
        (b"bob", PASSWORD + b"x"),
        (b"eve", PASSWORD),
        (b"bob", PASSWORD + b"\0"),
        (b"bob\0", PASSWORD),
    ]
    with heard() as lines:
        for name, password in wrong:
            with pytest.raises(UnauthorizedLogin) as refused:
                yield checker.requestAvatarId(Password(name, password))
            assert not isinstance(refused.value, CheckFailed)
    assert lines == []


@needs_root
@pytest_twisted.inlineCallbacks
def test_unix(make: Make, service: Callable[[str], str], user: str) -> Waiting:
    """An account of this machine, until it has expired or is locked, though the password is right."""
    checker = make(service(UNIX))
    name = user.encode()
    assert (yield checker.requestAvatarId(Password(name, PASSWORD))) == name
    with pytest.raises(UnauthorizedLogin, match="another password"):
        yield checker.requestAvatarId(Password(name, PASSWORD[:-1]))
    change([require("usermod"), "--expiredate", "1970-01-02", user])
    with pytest.raises(NotAuthenticated, match=r"PAM: .*expired"):
        yield checker.requestAvatarId(Password(name, PASSWORD))
    change([require("usermod"), "--expiredate", "", user])
    assert (yield checker.requestAvatarId(Password(name, PASSWORD))) == name
    change([require("chage"), "--lastday", "0", user])
    with pytest.raises(NotAuthenticated, match=r"PAM: .*token"):
        yield checker.requestAvatarId(Password(name, PASSWORD))
    change([require("chage"), "--lastday", "-1", user])
    change([require("usermod"), "--lock", user])
    with pytest.raises(UnauthorizedLogin):
        yield checker.requestAvatarId(Password(name, PASSWORD))


@needs_root
@pytest_twisted.inlineCallbacks
def test_account_is_asked(make: Make, service: Callable[[str], str]) -> Waiting:
    """Whoever is known may still not be let in."""
    known = "auth required pam_permit.so\n"
    assert (
        yield make(service(f"{known}account required pam_permit.so\n")).requestAvatarId(
            Password(b"bob", b"x")
        )
    )
    with pytest.raises(UnauthorizedLogin):
        yield make(service(f"{known}account required pam_deny.so\n")).requestAvatarId(Password(b"bob", b"x"))


@needs_root
@pytest_twisted.inlineCallbacks
def test_many_at_once(make: Make, pwdfile: str) -> Waiting:
    """Threads do not get in each other's way."""
    checker = make(pwdfile)
    results: list[bool] = []
    for number in range(40):
        pending = checker.requestAvatarId(Password(b"bob", PASSWORD if number % 2 else b"x"))
        pending.addCallbacks(lambda _: True, lambda failure: not failure.check(UnauthorizedLogin))
        pending.addCallback(lambda found: results.append(found))
    yield until(lambda: len(results) == 40)
    assert results.count(True) == 20


@needs_root
@pytest_twisted.inlineCallbacks
def test_service_that_cannot_work(make: Make, service: Callable[[str], str]) -> Waiting:
    """A fault of the service says nothing of the user: it is told to the operator."""
    checker = make(service("auth required pam_there_is_no_such.so\naccount required pam_permit.so\n"))
    with heard() as lines, pytest.raises(CheckFailed):
        yield checker.requestAvatarId(Password(b"bob", b"x"))
    (line,) = lines
    assert line.startswith(f"pam:{checker._service}: not checked, so refused: PAM: ")


@needs_root
@pytest_twisted.inlineCallbacks
def test_service_that_is_gone(make: Make, service: Callable[[str], str]) -> Waiting:
    """PAM's "other", which may let in everybody with an account, does not take its place."""
    checker = make(service("auth required pam_permit.so\naccount required pam_permit.so\n"))
    assert (yield checker.requestAvatarId(Password(b"bob", b"x"))) == b"bob"
    Path("/etc/pam.d", checker._service).unlink()
    with heard() as lines, pytest.raises(CheckFailed):
        yield checker.requestAvatarId(Password(b"bob", b"x"))
    assert "there is no PAM service" in lines[0]


@needs_root
@pytest.mark.parametrize("debug", [False, True])
@pytest_twisted.inlineCallbacks
def test_no_secret_is_shown(
    make: Make, pwdfile: str, debug: bool, monkeypatch: pytest.MonkeyPatch
) -> Waiting:
    """Neither a refusal nor a library that fails shows a password."""
    checker = make(pwdfile)
    failures: list[Failure] = []

    def fails(self: Any, name: bytes, password: bytes, *more: Any, **named: Any) -> bool:
        raise OSError(f"{password!r} is no good")

    setDebugging(debug)
    try:
        with heard() as lines:
            yield checker.requestAvatarId(Password(b"bob", b"hunter2")).addErrback(failures.append)
            monkeypatch.setattr(library.PamAuthenticator, "authenticate", fails)
            yield checker.requestAvatarId(Password(b"bob", b"hunter2")).addErrback(failures.append)
    finally:
        setDebugging(False)
    assert len(failures) == 2
    assert len(lines) == 1
    shown = [failure.getTraceback(detail="verbose") + repr(failure.value) for failure in failures]
    assert "hunter2" not in "\n".join([*lines, *shown, repr(vars(checker))])


@needs_root
@pytest_twisted.inlineCallbacks
def test_module_that_hangs(service: Callable[[str], str], tmp_path: Path) -> Waiting:
    """A directory that does not answer costs a thread, and the client waits no longer than the deadline."""
    require_module("pam_exec.so")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    cat = require("cat")
    name = service(f"auth required pam_exec.so {cat} {gate}\naccount required pam_permit.so\n")
    clock = Clock()
    checks = CheckThreads(ClockedReactor(clock), threads=1, deadline=5)
    checker = PAMChecker(name, checks)
    failures: list[Failure] = []
    try:
        checker.requestAvatarId(Password(b"bob", b"x")).addErrback(failures.append)
        opened: list[int] = []
        # To open it takes until somebody reads: the module is at work then.
        opener = threading.Thread(target=lambda: opened.append(os.open(gate, os.O_WRONLY)), daemon=True)
        opener.start()
        yield until(lambda: opened)
        assert failures == []
        clock.advance(5)
        assert isinstance(failures[0].value, CheckTimedOut)
        os.close(opened[0])
        results: list[Any] = []
        Path(gate).unlink()
        gate.write_bytes(b"")
        checker.requestAvatarId(Password(b"bob", b"x")).addCallback(results.append)
        yield until(lambda: results)
        assert results == [b"bob"]
    finally:
        checks.stop()


# --auth pam:SERVICE.


@needs_root
def test_plugin(pwdfile: str) -> None:
    """Twisted finds it by its name."""
    checker = makeChecker(f"pam:{pwdfile}")
    assert isinstance(checker, PAMChecker)
    assert list(checker.credentialInterfaces) == [IUsernamePassword]


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("nowhere", "there is no PAM service 'nowhere': it would be described in /etc/pam.d/nowhere"),
        ("..", "'..' is not the name of a PAM service, such as login"),
        ("a/b", "'a/b' is not the name of a PAM service, such as login"),
        ("a b", "'a b' is not the name of a PAM service, such as login"),
        ("a\0b", r"'a\x00b' is not the name of a PAM service, such as login"),
    ],
)
def test_plugin_refuses(argument: str, why: str) -> None:
    """A service that there is not ends the start with one sentence."""
    with pytest.raises(InvalidAuthArgumentString) as refused:
        makeChecker(f"pam:{argument}")
    assert str(refused.value) == f"pam:{argument}: {why}"


@pytest.mark.parametrize("description", ["pam", "pam:"])
def test_plugin_needs_a_service(description: str) -> None:
    with pytest.raises(InvalidAuthArgumentString, match=r"^pam: no service is named, as in pam:login$"):
        makeChecker(description)


def test_without_pam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that has none says so."""

    def nothing() -> None:
        raise AttributeError("undefined symbol: pam_start")

    (tmp_path / "here").touch()
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(library, "PamAuthenticator", nothing)
    with pytest.raises(InvalidAuthArgumentString, match=r"^pam:HERE: there is no libpam here$"):
        makeChecker("pam:HERE")  # PAM knows services in small letters only


def test_plugin_without_its_package() -> None:
    """The error says what to install, and everything else works."""
    code = (
        "import sys; sys.modules['pam'] = None\n"
        "from twisted.cred.strcred import makeChecker, InvalidAuthArgumentString\n"
        "try:\n    makeChecker('pam:login')\n"
        "except InvalidAuthArgumentString as problem:\n    print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("pam: the extra [pam] is not installed ("), done.stderr
    assert done.stdout.endswith("): pip install 'twisted-socksproxy[pam]'\n")
