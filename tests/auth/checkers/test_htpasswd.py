"""Apache's htpasswd files: see :mod:`socksproxy.auth.checkers.htpasswd`."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from passlib.hash import apr_md5_crypt, sha256_crypt, sha512_crypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import AuthOptionMixin, ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import setDebugging
from twisted.internet.task import Clock, LoopingCall
from twisted.python import usage
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers import hashes
from socksproxy.auth.checkers.htpasswd import (
    LOOK_EVERY,
    Hash,
    HashedUsers,
    HtpasswdChecker,
    PasswordFile,
    Unsafe,
    Unusable,
    new_hash,
)
from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.checkers.users_file import SETTLED
from socksproxy.auth.credentials import Password
from socksproxy.runtime.watched_file import WatchedFile

from ...support.logs import heard
from ...support.processes import TWISTD
from ...support.programs import require, run
from ...support.proxy import until

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

# Of "secret". They are parts of the names of tests, so they are always the same.
BOB = b"bob:$2y$04$Gro/iwrBovQJVQ0KMrG3devDZym5T7N..bknyRL9GYKtJn73GK3TK\n"
EVE = b"eve:$2y$04$JCCEHEVWFP.wp6Fa1yyxiuH6t6HISG7yuXxxZkpQ/sR6TffV4haPC\n"


def htpasswd(path: Path, how: str, name: bytes, password: bytes) -> None:
    """Add to the file at *path* with the real program."""
    new = [] if path.exists() else ["-c"]
    done = run([require("htpasswd"), *new, how, "-i", str(path), os.fsdecode(name)], data=password + b"\n")
    assert done.returncode == 0, done.stderr


class Watched:
    """A password file, and the time of its looks."""

    def __init__(self, path: Path, content: bytes = BOB) -> None:
        self.path = path
        self.clock = Clock()
        self.write(content)
        self.file = PasswordFile(str(path), self.clock.seconds)

    def write(self, content: bytes) -> None:
        """Write *content*, as of a while ago."""
        self.path.write_bytes(content)
        self.path.chmod(0o600)
        status = self.path.stat()
        long_ago = status.st_mtime_ns - int(10 * SETTLED * 10**9)
        os.utime(self.path, ns=(long_ago, long_ago))

    def look(self) -> list[str]:
        """Look again; what is logged."""
        self.clock.advance(LOOK_EVERY)
        with heard() as lines:
            self.file.look()
        return lines

    def lets_in(self, name: bytes, password: bytes = b"secret") -> bool:
        """Whether the password is right, without another look."""
        return self.file.check(name, password)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A file with Bob, whose password is ``secret``."""
    return Watched(tmp_path / "users")


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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no password"),
        (b"secret", "plain text"),
        (b"abcdefghijkl!", "plain text"),
        (b"rl.3StKT.4T8M", "DES crypt"),
        (b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1 without salt"),
        (b"{SSHA}nothing", "a hash of another kind"),
        (b"$1$abc$def", "a hash of another kind"),
        (b"$2x$04$abc", "a hash of another kind"),
        (b"$y$j9T$abc$def", "a hash of another kind"),
        (b"$argon2id$v=19$m=1$a$b", "a hash of another kind"),
    ],
)
def test_unsafe(text: bytes, why: str) -> None:
    """Each is called by its name."""
    with pytest.raises(Unsafe, match=f"^{why}$"):
        Hash(text)


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


HALVES = [
    BOB[:-1],
    BOB + b"e",
    BOB + b"eve\n",
    BOB + b":x\n",
    BOB + EVE[:-2] + b"\n",
    BOB + b"eve:$2y$\n",
    BOB + b"eve:$2y$04$tooshort\n",
    BOB + b"eve:$6$saltonly\n",
    BOB + b"eve:$6$salt$tooshort\n",
    BOB + b"eve:$5$rounds=x$salt$abc\n",
    BOB + b"eve:$apr1$salt\n",
    BOB + b"eve:$apr1$\xff\n",
]


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
MIXED = {
    "bcrypt": [new_hash(b"x", cost) for cost in (4, 6, 9)],
    "sha512": [sha512_crypt.using(rounds=rounds).hash("x").encode() for rounds in (1000, 2000, 9000)],
    "sha256": [sha256_crypt.using(rounds=rounds).hash("x").encode() for rounds in (1000, 5000, 5001)],
    "apr1": [apr_md5_crypt.hash("x").encode()] * 3,
}


@pytest.mark.parametrize("kind", MIXED)
def test_every_no_takes_as_long(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password takes the work of the most expensive hash, whoever the user; a right one its own."""
    lines = [name + b":" + text for name, text in zip((b"bob", b"eve", b"carol"), MIXED[kind], strict=True)]
    users = HashedUsers.parse(b"\n".join([*lines, b"left-out:secret", b""]))
    work = 0

    def amount(name: str, rounds: int) -> int:
        return 1 << rounds if name == "bcrypt" else rounds or 1

    def verify(hash: Hash, password: bytes) -> bool:
        nonlocal work
        work += amount(*hash.kind)
        return password == b"right"

    def compute(name: str, rounds: int) -> None:
        nonlocal work
        work += amount(name, rounds)

    most = max(amount(*hash.kind) for hash in users.passwords.values())
    monkeypatch.setattr(Hash, "verify", verify)
    monkeypatch.setattr(hashes, "_compute", compute)
    for name in NAMES:
        work = 0
        assert not users.check(name, b"wrong")
        # What is left over is less than the least that the algorithm takes.
        assert most - (1000 if kind.startswith("sha") else 15) <= work <= most, name
    for name, hash in users.passwords.items():
        work = 0
        assert users.check(name, b"right")
        assert work == amount(*hash.kind)
    assert not users.check(b"nobody", b"right")


@pytest.mark.slow
def test_seconds_of_a_no() -> None:
    """It is so in seconds of a processor, too, also for a file with several algorithms."""
    texts = [MIXED["bcrypt"][0], MIXED["bcrypt"][2], MIXED["sha512"][0], MIXED["apr1"][0]]
    users = HashedUsers.parse(b"".join(b"u%d:" % number + text + b"\n" for number, text in enumerate(texts)))

    def seconds(name: bytes) -> float:
        took = []
        for _ in range(5):
            began = time.thread_time()
            users.check(name, b"wrong")
            took.append(time.thread_time() - began)
        return min(took)

    known = [seconds(b"u%d" % number) for number in range(4)]
    unknown = [seconds(b"nobody%d" % number) for number in range(8)]
    assert max(known + unknown) < 1.5 * min(known + unknown), (known, unknown)


def test_a_hash_that_takes_too_long() -> None:
    """One user with a hash that takes minutes does not make every wrong answer take minutes."""
    slow = Hash(b"$2y$25$" + new_hash(b"x", 4)[7:])
    quick = Hash(new_hash(b"x", 4))
    done: list[float] = []

    class Recorded(Hash):
        __slots__ = ()

        def work(self, seconds: float) -> None:
            done.append(seconds)

    equal = hashes.EqualTime([slow, Recorded(new_hash(b"x", 4))])
    assert slow.effort > 60
    assert equal.stand_in(b"nobody") is not slow
    equal.fill(quick)
    assert done == [pytest.approx(hashes.MOST_EFFORT, rel=0.01)]


def test_nul() -> None:
    """It is in nobody's password, and none is cut there."""
    users = HashedUsers.parse(BOB)
    assert not users.check(b"bob", b"secret\0")
    assert not users.check(b"bob", b"\0")


def test_one_at_a_time_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed in Python keeps the reactor waiting; two of them would for twice as long."""
    hash = Hash(b"$apr1$c1TclrVt$iQNBWoYJNxAHfFkLV9j0y/")
    running: list[int] = []
    most = 0

    class Handler:
        @staticmethod
        def verify(password: bytes, text: str) -> bool:
            nonlocal most
            running.append(1)
            most = max(most, len(running))
            threading.Event().wait(0.02)
            running.pop()
            return True

    monkeypatch.setattr(hash, "_handler", Handler)
    threads = [threading.Thread(target=hash.verify, args=(b"x",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_hashes_are_not_shown() -> None:
    """Neither a hash nor the users show what is in them."""
    users = HashedUsers.parse(BOB)
    for shown in (repr(users), repr(users.passwords[b"bob"]), str(users.equal)):
        assert "$" not in shown


# Looking again.


def test_changed(watched: Watched) -> None:
    """A change is seen by the next check, not earlier than a second after the last look."""
    watched.write(EVE + BOB)
    watched.clock.advance(LOOK_EVERY - 0.1)
    assert not watched.lets_in(b"eve")
    assert watched.file.version == 0
    watched.clock.advance(0.1)
    assert watched.lets_in(b"eve")
    assert watched.file.version == 1
    watched.write(EVE)
    assert watched.look() == [f"{watched.path}: read again, users: 1"]
    assert not watched.lets_in(b"bob")
    assert watched.file.version == 2


def test_replaced(watched: Watched) -> None:
    """Another file of the same size and time in its place is another file."""
    status = watched.path.stat()
    other = watched.path.with_name("other")
    other.write_bytes(EVE)
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.replace(watched.path)
    watched.look()
    assert watched.lets_in(b"eve")
    assert not watched.lets_in(b"bob")


def test_changed_twice_at_once(watched: Watched) -> None:
    """What is a moment old is read once more: it may have changed within one tick of the file's time."""
    watched.path.write_bytes(EVE)
    now = watched.path.stat().st_mtime_ns
    watched.look()
    assert watched.lets_in(b"eve")
    watched.path.write_bytes(BOB)
    os.utime(watched.path, ns=(now, now))
    watched.look()
    assert watched.lets_in(b"bob")


def test_touched(watched: Watched) -> None:
    """Where nothing is new, nothing is said."""
    os.utime(watched.path)
    assert watched.look() == []
    assert watched.file.version == 0


def test_not_read_where_nothing_has_changed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a stat."""
    monkeypatch.setattr(WatchedFile, "read", None)
    assert watched.look() == []


def test_not_read_again_after_the_clock_stepped_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was changed an hour after the present time is no file that is being changed."""
    status = watched.path.stat()
    os.utime(watched.path, ns=(status.st_mtime_ns + 3600 * 10**9,) * 2)
    assert watched.look() == []
    monkeypatch.setattr(WatchedFile, "read", None)
    assert watched.look() == []


@pytest.mark.parametrize("content", [*HALVES, b""])
def test_half_written(watched: Watched, content: bytes) -> None:
    """It is left alone with one warning until it is whole."""
    watched.write(content)
    (line,) = watched.look()
    assert line.startswith(f"{watched.path}: ")
    assert line.endswith("; its users stay as they were")
    assert watched.look() == []
    os.utime(watched.path)
    assert watched.look() == []
    assert watched.lets_in(b"bob")
    assert watched.file.version == 0
    watched.write(EVE)
    assert watched.look() == [f"{watched.path}: read again, users: 1"]
    assert watched.lets_in(b"eve")
    watched.write(content)
    assert len(watched.look()) == 1


def test_gone(watched: Watched) -> None:
    """A file that is away for a while."""
    watched.path.unlink()
    assert watched.look() == [f"{watched.path}: no such file or directory; its users stay as they were"]
    assert watched.look() == []
    watched.path.mkdir()
    assert watched.look() == [f"{watched.path}: is a directory; its users stay as they were"]
    assert watched.lets_in(b"bob")
    watched.path.rmdir()
    watched.write(EVE)
    watched.look()
    assert watched.lets_in(b"eve")


def test_nobody_left(watched: Watched) -> None:
    """A comment alone is whole: nobody is let in any more."""
    watched.write(b"# no users\n")
    lines = watched.look()
    assert lines[-1] == f"{watched.path}: no user in it can log in"
    assert not watched.lets_in(b"bob")


def test_path_from_the_start(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """twistd changes its directory once it has read its options."""
    monkeypatch.chdir(tmp_path)
    watched.file = PasswordFile(watched.path.name, watched.clock.seconds)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    watched.write(EVE)
    watched.look()
    assert watched.lets_in(b"eve")


def test_one_look_at_once(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread looks at a slow file, the others go on with what is known."""
    watched.clock.advance(LOOK_EVERY)
    looks = []

    def slow(path: str) -> os.stat_result:
        looks.append(path)
        watched.clock.advance(LOOK_EVERY)
        assert watched.lets_in(b"bob")
        return os.stat_result(range(10))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", slow)
        assert watched.lets_in(b"bob")
    assert len(looks) == 1


@pytest.mark.interop
def test_while_htpasswd_writes(tmp_path: Path) -> None:
    """The real program changes the file again and again, in place; a user who is in it is always let in."""
    path = tmp_path / "users"
    htpasswd(path, "-BC4", b"bob", b"secret")
    for number in range(50):
        htpasswd(path, "-m", b"user%d" % number, b"secret")
    program = require("htpasswd")
    ended = threading.Event()

    def write() -> None:
        for number in range(40):
            run([program, "-bm", str(path), f"user{number}", "other"])
        ended.set()

    clock = Clock()
    file = PasswordFile(str(path), clock.seconds)
    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        clock.advance(LOOK_EVERY)
        assert file.check(b"bob", b"secret")
    writer.join()
    clock.advance(LOOK_EVERY)
    assert file.check(b"user39", b"other")
    assert file.version > 1


# What there is to be said of a file.


@pytest.mark.parametrize(
    ("mode", "does"),
    [(0o600, None), (0o640, None), (0o660, None), (0o644, "read"), (0o602, "change"), (0o666, "change")],
)
def test_open_to_all(watched: Watched, mode: int, does: str | None) -> None:
    """A file that everybody can read gives the hashes away; one that everybody can write gives away more."""
    watched.path.chmod(mode)
    with heard() as lines:
        file = PasswordFile(str(watched.path), watched.clock.seconds)
    expected = [f"{watched.path}: every user of this machine can {does} it: chmod o= takes that away"]
    assert lines == (expected if does else [])
    os.utime(watched.path)
    watched.clock.advance(LOOK_EVERY)
    with heard() as again:
        file.look()
    assert again == []


def test_path_with_any_bytes(tmp_path: Path) -> None:
    """A path that is no text does not spoil the log."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(path).write_bytes(b"# nobody\n")
    os.chmod(path, 0o600)
    with heard() as lines:
        PasswordFile(path)
    (line,) = lines
    assert line.encode().startswith(os.fsencode(tmp_path) + b"/\\udcff: ")


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
