"""Local users behind Unix sockets: see :mod:`socksproxy.auth.checkers.peercred`."""

from __future__ import annotations

import gc
import grp
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, findCheckerFactory, makeChecker
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers.peercred import MOST, TTL, PeerCredentialsChecker, credentials_of
from socksproxy.auth.checkers.threads import DEADLINE, NotChecked
from socksproxy.auth.credentials import IPeerCredentials, PeerCredentials
from socksproxy.errors import NotAuthenticated
from tests.support.proxy import PATIENCE, ClockedReactor

ME = pwd.getpwuid(os.geteuid())


def shown(uid: int) -> PeerCredentials:
    return PeerCredentials(1, uid, 1)


class Database:
    """
    The system's users, as a test has them.

    :param users: names by number.
    :param groups: numbers of groups by the user's name.
    :ivar asked: numbers that were looked up, in order.
    """

    def __init__(self, users: dict[int, str], groups: dict[str, list[int]] | None = None) -> None:
        self.users = users
        self.groups = groups or {}
        self.broken = False
        self.asked: list[int] = []
        self.threads: set[int | None] = set()
        self.open = threading.Event()
        self.open.set()

    class Entry(NamedTuple):
        pw_name: str
        pw_gid: int

    def getpwuid(self, uid: int) -> Entry:
        self.asked.append(uid)
        self.threads.add(threading.current_thread().ident)
        self.open.wait(PATIENCE)
        if self.broken:
            raise OSError("broken")
        return self.Entry(self.users[uid], 7)

    def getgrouplist(self, name: str, gid: int) -> list[int]:
        assert gid == 7
        return [gid, *self.groups.get(name, [])]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Database]:
    """``database(users, groups)``: the system has these, and no others."""

    def replaced(*arguments: Any) -> Database:
        made = Database(*arguments)
        monkeypatch.setattr(pwd, "getpwuid", made.getpwuid)
        monkeypatch.setattr(os, "getgrouplist", made.getgrouplist)
        return made

    return replaced


class TestCredentialsOf:
    def test_unix(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            found = credentials_of(ours)
        assert found is not None
        assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_somebody_else(self) -> None:
        """It is the user as of connecting, whoever reads it; numbers have no sign."""
        program = (
            "import os, socket, sys\n"
            "os.setgroups([]), os.setgid(4294967001), os.setuid(4294967002)\n"
            "sock = socket.socket(socket.AF_UNIX)\n"
            "sock.connect(sys.argv[1])\n"
            "sock.recv(1)\n"
        )
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
            os.chmod(directory, 0o755)
            path = f"{directory}/socks"
            listening.bind(path)
            os.chmod(path, 0o666)
            listening.listen()
            listening.settimeout(PATIENCE)
            with subprocess.Popen([sys.executable, "-Sc", program, path]) as client:
                accepted, _ = listening.accept()
                with accepted:
                    found = credentials_of(accepted)
        assert found is not None
        assert (found.pid, found.uid, found.gid) == (client.pid, 4294967002, 4294967001)

    def test_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            assert credentials_of(listening) is None

    def test_without_peer(self) -> None:
        with socket.socket(socket.AF_UNIX) as alone:
            assert credentials_of(alone) is None

    def test_closed(self) -> None:
        ours, theirs = socket.socketpair()
        ours.close()
        theirs.close()
        assert credentials_of(ours) is None

    def test_another_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(socket, "SO_PEERCRED")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert credentials_of(ours) is None


@pytest_twisted.ensureDeferred
async def test_me() -> None:
    """As the system knows this process's user."""
    checker = PeerCredentialsChecker()
    assert verifyObject(ICredentialsChecker, checker)
    assert await checker.requestAvatarId(shown(os.geteuid())) == ME.pw_name


@pytest_twisted.ensureDeferred
async def test_without_name(database: Callable[..., Database]) -> None:
    users = database({1: "alice"})
    with pytest.raises(NotAuthenticated, match="this system has no user with the uid 2"):
        await PeerCredentialsChecker().requestAvatarId(shown(2))
    assert users.asked == [2]


@pytest_twisted.ensureDeferred
async def test_nobody(database: Callable[..., Database]) -> None:
    """Every user whom this system cannot tell looks like that: it has a name, but is nobody's."""
    users = database({65534: "nobody"})
    with pytest.raises(NotAuthenticated):
        await PeerCredentialsChecker().requestAvatarId(shown(65534))
    assert not users.asked


@pytest_twisted.ensureDeferred
async def test_groups(database: Callable[..., Database]) -> None:
    """Any of the groups will do, the user's first one and others; the program's own group is nothing."""
    database({1: "alice", 2: "bob"}, {"bob": [8]})
    by_group = {number: PeerCredentialsChecker(frozenset({number, 9})) for number in (1, 7, 8)}
    assert await by_group[7].requestAvatarId(shown(1)) == "alice"
    assert await by_group[8].requestAvatarId(shown(2)) == "bob"
    for checker, uid in ((by_group[8], 1), (by_group[1], 2)):
        with pytest.raises(NotAuthenticated, match="is in no group that is let in"):
            await checker.requestAvatarId(shown(uid))


class TestCache:
    @pytest_twisted.ensureDeferred
    async def test_once_in_a_while(self, database: Callable[..., Database]) -> None:
        """Who is known and who is not, both are remembered, for a while."""
        users, clock = database({1: "alice"}), Clock()
        checker = PeerCredentialsChecker(reactor=ClockedReactor(clock))

        async def ask() -> None:
            assert await checker.requestAvatarId(shown(1)) == "alice"
            with pytest.raises(NotAuthenticated):
                await checker.requestAvatarId(shown(2))

        await ask()
        clock.advance(TTL - 1)
        await ask()
        assert users.asked == [1, 2]
        clock.advance(2)
        users.users[1] = "alicia"
        assert await checker.requestAvatarId(shown(1)) == "alicia"
        assert users.asked == [1, 2, 1]

    @pytest_twisted.ensureDeferred
    async def test_bounded(self, database: Callable[..., Database]) -> None:
        """The one that was looked up first is forgotten first."""
        users = database({number: f"user{number}" for number in range(MOST + 1)})
        checker = PeerCredentialsChecker()
        for number in range(MOST + 1):
            await checker.requestAvatarId(shown(number))
        assert len(users.asked) == MOST + 1
        await checker.requestAvatarId(shown(1))
        assert len(users.asked) == MOST + 1
        await checker.requestAvatarId(shown(0))
        assert len(users.asked) == MOST + 2

    @pytest_twisted.ensureDeferred
    async def test_looked_up_again(self, database: Callable[..., Database]) -> None:
        """Then it is the newest, and another one is forgotten."""
        users, clock = database({number: f"user{number}" for number in range(MOST + 1)}), Clock()
        checker = PeerCredentialsChecker(reactor=ClockedReactor(clock))
        for number in range(MOST):
            await checker.requestAvatarId(shown(number))
        clock.advance(TTL + 1)
        for number in (0, MOST, 0):
            await checker.requestAvatarId(shown(number))
        assert len(users.asked) == MOST + 2

    @pytest_twisted.ensureDeferred
    async def test_a_database_that_is_broken(self, database: Callable[..., Database]) -> None:
        """That is no answer: it fails, for all who wait, and is not remembered."""
        users = database({1: "alice"})
        users.broken = True
        checker = PeerCredentialsChecker()
        for asking in [checker.requestAvatarId(shown(1)) for _ in range(2)]:
            with pytest.raises(NotChecked):
                await asking
        users.broken = False
        assert await checker.requestAvatarId(shown(1)) == "alice"


class TestSlow:
    @pytest_twisted.ensureDeferred
    async def test_in_threads(self, database: Callable[..., Database]) -> None:
        """The reactor goes on meanwhile, and one look-up serves all who wait for the same user."""
        users = database({1: "alice", 2: "bob"})
        users.open.clear()
        checker = PeerCredentialsChecker()
        asking = [checker.requestAvatarId(shown(uid)) for uid in (1, 2, 1, 1)]
        assert not any(waiting.called for waiting in asking)
        users.open.set()
        assert await gatherResults(asking) == ["alice", "bob", "alice", "alice"]
        assert sorted(users.asked) == [1, 2]
        assert threading.current_thread().ident not in users.threads

    @pytest_twisted.ensureDeferred
    async def test_cancelled(self, database: Callable[..., Database]) -> None:
        """One who waits no more is no reason for the others to go without an answer."""
        users = database({1: "alice"})
        users.open.clear()
        checker = PeerCredentialsChecker()
        first, second = (checker.requestAvatarId(shown(1)) for _ in range(2))
        first.cancel()
        with pytest.raises(CancelledError):
            await first
        users.open.set()
        assert await second == "alice"
        assert users.asked == [1]

    @pytest_twisted.ensureDeferred
    async def test_all_cancelled(self, database: Callable[..., Database]) -> None:
        """The look-up goes on, and who comes meanwhile waits for it too; those who went are forgotten."""
        users = database({1: "alice"})
        users.open.clear()
        checker = PeerCredentialsChecker()
        gone = [checker.requestAvatarId(shown(1)).addErrback(lambda failure: None) for _ in range(3)]
        forgotten = [weakref.ref(asking) for asking in gone]
        for asking in gone:
            asking.cancel()
        del asking, gone
        gc.collect()
        assert [reference() for reference in forgotten] == [None] * 3
        last = checker.requestAvatarId(shown(1))
        users.open.set()
        assert await last == "alice"
        assert users.asked == [1]

    @pytest_twisted.ensureDeferred
    async def test_hanging(self, database: Callable[..., Database]) -> None:
        """After a while the user is refused; nothing is remembered of that."""
        users, clock = database({1: "alice"}), Clock()
        users.open.clear()
        checker = PeerCredentialsChecker(reactor=ClockedReactor(clock))
        asking = checker.requestAvatarId(shown(1))
        clock.advance(DEADLINE)
        with pytest.raises(NotChecked):
            await asking
        users.open.set()
        assert await checker.requestAvatarId(shown(1)) == "alice"


# The command line.


def test_plugin() -> None:
    factory = findCheckerFactory("peercred")
    assert verifyObject(ICheckerFactory, factory)
    assert factory.credentialInterfaces == (IPeerCredentials,)
    assert makeChecker("peercred").groups is None
    first, second = grp.getgrall()[:2]
    checker = makeChecker(f"peercred:group={first.gr_name}:group={second.gr_name}")
    assert checker.groups == {first.gr_gid, second.gr_gid}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("group=no-such-group", "peercred: group=no-such-group is no group of this system"),
        ("group=", "peercred: group= has no value"),
        ("user=root", "peercred: user=root is not group= and a value"),
    ],
)
def test_bad_arguments(text: str, why: str) -> None:
    with pytest.raises(InvalidAuthArgumentString) as refused:
        makeChecker(f"peercred:{text}")
    assert str(refused.value) == why


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with pytest.raises(InvalidAuthArgumentString, match="this system does not tell"):
        makeChecker("peercred")
