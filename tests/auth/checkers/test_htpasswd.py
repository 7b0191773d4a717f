"""Apache's htpasswd files: see :mod:`socksproxy.auth.checkers.htpasswd`."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import AuthOptionMixin, ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import setDebugging
from twisted.internet.task import LoopingCall
from twisted.python import usage
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers.htpasswd import (
    LOOK_EVERY,
    Hash,
    HashedUsers,
    HtpasswdChecker,
    PasswordFile,
    Unusable,
    new_hash,
)
from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.credentials import Password

from ...support.logs import heard
from ...support.processes import TWISTD
from ...support.proxy import until
from ...support.users_files import BOB, EVE, HALVES, Watched, htpasswd

Waiting = Generator[Any, Any, None]

#: Options of htpasswd for the hashes that are taken; bcrypt as cheap as it can be.
FORMATS = {"bcrypt": "-BC4", "sha256-crypt": "-2", "sha512-crypt": "-5", "apr1": "-m"}
#: And for those that are not.
UNSAFE = {"SHA-1 without salt": "-s", "plain text": "-p", "DES crypt": "-d"}

NAMES = [b"bob", "J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg".encode(), b"latin-\xf6", b"a b", b"x" * 100]
PASSWORDS = [
    b"secret",
    "p\N{LATIN SMALL LETTER A WITH DIAERESIS}\N{PILE OF POO}".encode(),
    b"\xff\xfe\x01",
    b" a:b#",
]


# What is in a file.


@pytest.mark.interop
@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_made_by_htpasswd(how: str, tmp_path: Path) -> None:
    """Every format that is taken, with names and passwords of any bytes, by the program that everyone has."""
    path = tmp_path / "users"
    pairs = [(name, PASSWORDS[number % len(PASSWORDS)]) for number, name in enumerate(NAMES)]
    for name, password in pairs:
        htpasswd(path, how, name, password)
    path.chmod(0o600)
    with heard() as lines:
        file = PasswordFile(str(path))
    assert lines == []
    for name, password in pairs:
        assert file.check(name, password)
        assert not file.check(name, password + b"x")
        assert not file.check(name, password[:-1])
        assert not file.check(name + b"x", password)


@pytest.mark.parametrize("prefix", [b"$2a$", b"$2b$", b"$2y$"])
def test_bcrypts(prefix: bytes) -> None:
    """By any of the names that its implementations have given it."""
    text = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).replace(b"$2b$", prefix)
    assert Hash(text).verify(b"secret")
    assert not Hash(text).verify(b"Secret")


@pytest.mark.interop
def test_long_passwords(tmp_path: Path) -> None:
    """bcrypt looks at 72 bytes; a longer password that htpasswd has taken is right."""
    path = tmp_path / "users"
    htpasswd(path, "-BC4", b"bob", b"x" * 100)
    htpasswd(path, "-5", b"eve", b"x" * 200)
    file = PasswordFile(str(path))
    assert file.check(b"bob", b"x" * 100)
    assert not file.check(b"bob", b"x" * 71)
    assert file.check(b"eve", b"x" * 200)
    assert not file.check(b"eve", b"x" * 199)


@pytest.mark.interop
@pytest.mark.parametrize(("what", "how"), UNSAFE.items(), ids=UNSAFE)
def test_unsafe_lines(what: str, how: str, tmp_path: Path) -> None:
    """They are left out, one warning says which and what would be right; the others go on."""
    path = tmp_path / "users"
    htpasswd(path, "-BC4", b"bob", b"secret")
    htpasswd(path, how, b"eve", b"secret")
    htpasswd(path, "-BC4", b"joe", b"secret")
    path.chmod(0o600)
    with heard() as lines:
        file = PasswordFile(str(path))
    (line,) = lines
    assert line.startswith(f"{path}: these do not count: line 2 ({what}); right is")
    assert "htpasswd -B" in line
    assert "secret" not in line
    assert [file.check(name, b"secret") for name in (b"bob", b"eve", b"joe")] == [True, False, True]


def test_many_unsafe_lines(tmp_path: Path) -> None:
    """The warning has an end."""
    path = tmp_path / "users"
    path.write_bytes(BOB + b"".join(b"user%d:secret\n" % number for number in range(1000)))
    path.chmod(0o600)
    with heard() as lines:
        PasswordFile(str(path))
    (line,) = lines
    assert "line 2 (" in line
    assert "line 11 (plain text) and 990 more;" in line
    assert len(line) < 1000


def test_lines() -> None:
    """Comments, empty lines, other ends of lines, further fields; the first line of a user counts."""
    other = b"bob:" + new_hash(b"other", 4) + b"\n"
    users = HashedUsers.parse(
        b"# eve:x\n\n  \t\r\n" + BOB.replace(b"\n", b":Bob:more\r\n") + b"  " + EVE + other
    )
    assert set(users.passwords) == {b"bob", b"eve"}
    assert users.refused == [(6, "the user has a line above")]
    assert users.check(b"bob", b"secret")
    assert not users.check(b"bob", b"other")
    assert users.check(b"eve", b"secret")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + BOB + EVE,
        (BOB + EVE).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf# users\r\n" + (BOB + EVE).replace(b"\n", b"\r\n"),
        (BOB + EVE).replace(b":", b" : ").replace(b"\n", b"\t\n"),
        b"\t" + (BOB + EVE).replace(b":", b":\t"),
    ],
    ids=["byte order mark", "CR LF", "both", "spaces", "tabs"],
)
def test_as_editors_write_it(content: bytes) -> None:
    """A byte order mark, ends of lines, and spaces around the colon are not a part of a name or hash."""
    users = HashedUsers.parse(content)
    assert set(users.passwords) == {b"bob", b"eve"}
    assert users.refused == []
    assert users.check(b"bob", b"secret")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ((BOB + EVE).decode().encode("utf-16"), "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        ((BOB + EVE).decode().encode("utf-16-le"), "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        (BOB.decode().encode("utf-32-be"), "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        (BOB + b"eve\0:x\n", "it is in UTF-16, or has a NUL byte: right is UTF-8"),
        (
            BOB.replace(b"\n", b"\r") + EVE,
            "line 1 has a carriage return in it; lines end with LF or CR LF",
        ),
        (b" :" + BOB, "line 1 is not NAME:HASH"),
    ],
)
def test_not_as_it_should_be(content: bytes, why: str) -> None:
    """What cannot be read rightly is told in one line."""
    with pytest.raises(Unusable) as refused:
        HashedUsers.parse(content)
    assert str(refused.value) == why


@pytest.mark.parametrize("content", HALVES)
def test_half(content: bytes) -> None:
    """A file with a line that is not whole is not whole."""
    with pytest.raises(Unusable):
        HashedUsers.parse(content)


@given(st.integers(0, len(BOB + EVE)))
def test_cut(length: int) -> None:
    """Wherever it is cut: whole users or an error."""
    content = (BOB + EVE)[:length]
    try:
        users = HashedUsers.parse(content)
    except Unusable:
        assert not content.endswith(b"\n")
    else:
        assert len(users.passwords) == content.count(b"\n")


@given(
    st.binary()
    | st.lists(
        st.sampled_from(
            [b"bob", b":", b"\n", b"$", b"$2y$", b"04$", b"$6$", b"rounds=", b"$apr1$", b"#", b"\xff"]
        )
        | st.just(BOB)
    ).map(b"".join)
)
def test_anything(content: bytes) -> None:
    """Users or our error, and every user can be asked for."""
    try:
        users = HashedUsers.parse(content)
    except Unusable:
        return
    for name in [*users.passwords, b"nobody"]:
        assert not users.check(name, b"\0")


# Who is let in.


NAMES = [b"bob", b"eve", b"carol", b"left-out", *(b"nobody%d" % number for number in range(20))]


def test_nul() -> None:
    """It is in nobody's password, and none is cut there."""
    users = HashedUsers.parse(BOB)
    assert not users.check(b"bob", b"secret\0")
    assert not users.check(b"bob", b"\0")


# The checker.


@pytest.fixture
def checks() -> Iterator[CheckThreads]:
    """Threads for a test."""
    made = CheckThreads(threads=2, waiting=1000)
    yield made
    made.stop()


@pytest_twisted.inlineCallbacks
def test_checker(watched: Watched, checks: CheckThreads) -> Waiting:
    """Bob is let in with his password, and nobody else."""
    checker = HtpasswdChecker(str(watched.path), checks)
    assert verifyObject(ICredentialsChecker, checker)
    assert (yield checker.requestAvatarId(Password(b"bob", b"secret"))) == b"bob"
    for name, password in ((b"bob", b"Secret"), (b"eve", b"secret"), (b"bob", b"\0"), (b"bob", b"s" * 255)):
        with pytest.raises(UnauthorizedLogin):
            yield checker.requestAvatarId(Password(name, password))


@pytest_twisted.inlineCallbacks
def test_version(watched: Watched, checks: CheckThreads) -> Waiting:
    """Who asks for the version, such as a cache, has the file looked at; not in the reactor's thread."""
    checker = HtpasswdChecker(str(watched.path), checks)
    threads = []

    class File(PasswordFile):
        def look(self) -> None:
            threads.append(threading.get_ident())
            super().look()

    checker._file = File(str(watched.path), watched.clock.seconds)
    assert checker.version == 0
    assert threads == []
    watched.write(EVE)
    watched.clock.advance(LOOK_EVERY)
    yield until(lambda: checker.version == 1)
    assert threads
    assert threading.get_ident() not in threads
    assert len(threads) == 1


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "hash", [BOB, b"bob:$apr1$c1TclrVt$iQNBWoYJNxAHfFkLV9j0y/\n"], ids=["bcrypt", "apr1"]
)
@pytest_twisted.inlineCallbacks
def test_no_secret_is_shown(
    tmp_path: Path, checks: CheckThreads, monkeypatch: pytest.MonkeyPatch, debug: bool, hash: bytes
) -> Waiting:
    """Neither a refusal nor a library that fails shows a password, not even with captured variables."""
    path = tmp_path / "users"
    path.write_bytes(hash)
    path.chmod(0o600)
    checker = HtpasswdChecker(str(path), checks)
    failures: list[Failure] = []

    def fails(secret: bytes, hash: str) -> bool:
        raise ValueError(f"{secret!r} is no good")

    setDebugging(debug)
    try:
        with heard() as lines:
            yield checker.requestAvatarId(Password(b"bob", b"hunter2")).addErrback(failures.append)
            monkeypatch.setattr(checker._file._users.passwords[b"bob"]._handler, "verify", fails)  # type: ignore[union-attr]
            yield checker.requestAvatarId(Password(b"bob", b"hunter2")).addErrback(failures.append)
    finally:
        setDebugging(False)
    assert len(failures) == 2
    assert len(lines) == 1
    shown = [failure.getTraceback(detail="verbose") + repr(failure.value) for failure in failures]
    assert "hunter2" not in "\n".join([*lines, *shown, repr(vars(checker))])


@pytest.mark.slow
@pytest_twisted.inlineCallbacks
def test_reactor_goes_on(tmp_path: Path) -> Waiting:
    """While twenty passwords are checked with bcrypt, the reactor turns many times within each check."""
    path = tmp_path / "users"
    path.write_bytes(b"bob:" + new_hash(b"secret", 11) + b"\n")
    checks = CheckThreads(threads=1, deadline=600)
    checker = HtpasswdChecker(str(path), checks)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    ticker = LoopingCall(tick)
    ticker.start(0.001)
    counts = [ticks]
    try:
        pending = [checker.requestAvatarId(Password(b"bob", b"secret")) for _ in range(20)]
        for one in pending:
            yield one
            counts.append(ticks)
    finally:
        ticker.stop()
        checks.stop()
    # Each takes 100 ms or more. If it kept the reactor waiting, there would be a turn or two in between.
    turns = [after - before for before, after in itertools.pairwise(counts)]
    assert min(turns) >= 8, turns


# --auth htpasswd:FILE.


def test_plugin(watched: Watched) -> None:
    """Twisted finds it by its name."""
    checker = makeChecker(f"htpasswd:{watched.path}")
    assert isinstance(checker, HtpasswdChecker)
    assert list(checker.credentialInterfaces) == [IUsernamePassword]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.write_bytes(BOB[:-1]), "its last line has no end, as if it were half-written"),
        (lambda path: path.write_bytes(BOB + b"what\n"), "line 2 is not NAME:HASH"),
        (lambda path: path.write_bytes(b"bob:$2y$04$abc\n"), "the hash in line 1 is not whole"),
    ],
)
def test_plugin_refuses(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """A file that cannot be used ends the start with one sentence."""
    path = tmp_path / "users"
    make(path)
    with pytest.raises(InvalidAuthArgumentString) as refused:
        makeChecker(f"htpasswd:{path}")
    assert str(refused.value) == f"htpasswd:{path}: {why}"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_plugin_refuses_unreadable(watched: Watched) -> None:
    """So does one that the proxy may not read."""
    watched.path.chmod(0)
    with pytest.raises(InvalidAuthArgumentString, match="permission denied"):
        makeChecker(f"htpasswd:{watched.path}")


@pytest.mark.parametrize("description", ["htpasswd", "htpasswd:"])
def test_plugin_needs_a_file(description: str) -> None:
    with pytest.raises(InvalidAuthArgumentString, match=r"^htpasswd: no file is named, as in htpasswd:/"):
        makeChecker(description)


@pytest.mark.parametrize("package", ["passlib", "bcrypt"])
def test_plugin_without_its_packages(package: str, watched: Watched) -> None:
    """The error says what to install, and everything else works."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from twisted.cred.strcred import makeChecker, InvalidAuthArgumentString\n"
        "try:\n    makeChecker(sys.argv[1])\n"
        "except InvalidAuthArgumentString as problem:\n    print(problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"htpasswd:{watched.path}"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("htpasswd: the extra [htpasswd] is not installed ("), done.stderr
    assert done.stdout.endswith("): pip install 'twisted-socksproxy[htpasswd]'\n")


class Options(AuthOptionMixin, usage.Options):
    """Options with ``--auth``."""

    supportedInterfaces = (IUsernamePassword,)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "htpasswd",
            [
                "Path of the file.",
                "socksproxy passwd FILE NAME",
                "htpasswd -B",
                "twisted-socksproxy[htpasswd]",
            ],
        ),
        ("pam", ["Name of the PAM service.", "/etc/pam.d", "shadow", "twisted-socksproxy[pam]"]),
    ],
)
def test_help(kind: str, words: list[str]) -> None:
    """``--help-auth`` lists it, ``--help-auth-type`` has all that one has to know."""
    options = Options()
    options.authOutput = StringIO()
    with pytest.raises(SystemExit):
        options.parseOptions(["--help-auth"])
    assert f"  {kind}" in options.authOutput.getvalue()
    options.authOutput = StringIO()
    with pytest.raises(SystemExit):
        options.parseOptions(["--help-auth-type", kind])
    text = options.authOutput.getvalue()
    assert all(word in text for word in words)
    assert "WARNING" not in text
    assert all(len(line) <= 84 for line in text.splitlines())


@pytest.mark.parametrize("arguments", [["--help"], ["socks", "--help"]])
def test_twistd_does_not_import_it(arguments: list[str]) -> None:
    """Others do not pay for it: Twisted keeps what the plugins are in a file."""
    command = [sys.executable, "-X", "importtime", *TWISTD[1:], *arguments]
    for _ in range(2):  # the first may have to write that file
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "twisted.plugins.socksproxy_service" in imported
    assert not imported & {
        "twisted.plugins.socksproxy_checkers",
        "passlib",
        "pam",
    }


def test_plugin_imports_little() -> None:
    """To list what there is needs none of our modules, nor the libraries."""
    code = (
        "import sys; from twisted.plugins import socksproxy_checkers; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('socksproxy', 'passlib', 'pam')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kind", ["gssapi", "htpasswd", "ident", "pam", "peercred", "tls"])
def test_plugins_are_factories(kind: str) -> None:
    """They are what Twisted asks for, with an interface that credentials can have."""
    from twisted.plugins import socksproxy_checkers

    factory = getattr(socksproxy_checkers, kind)
    assert verifyObject(ICheckerFactory, factory)
    assert factory.authType == kind
    assert all(interface.isOrExtends(ICredentials) for interface in factory.credentialInterfaces)
