"""SIGHUP with ``--workers``, as processes: see :mod:`socksproxy.workers.supervisor`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from socksproxy.shared.commands import LOOKS_EVERY

from ..support.certificates import self_signed
from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, TWISTD, Program
from ..support.valkey import Valkey
from ..support.workers import (
    LISTENING,
    Load,
    connected,
    descriptors_of,
    echoes,
    python_of_others,
    received,
    refuses,
    until,
    with_each,
    with_python,
    workers_of,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc")

LISTEN = "tcp:0:interface=127.0.0.1"
RULES = """
[[rule]]
name = "not-there"
allow = false
ports = [{denied}]

[[rule]]
name = "all"
allow = true
"""


class Reloadable:
    """A proxy with two workers, whose file can be changed."""

    def __init__(self, path: Path, start: Callable[..., Program], front: Sequence[str] = ()) -> None:
        self.path = path / "proxy.toml"
        self.write()
        front = front or (*TWISTD, "-n", "--pidfile=")
        self.program = start([*front, "socks", "--config", "proxy.toml"])
        self.port = int(self.program.wait_for(LISTENING)[1])

    def write(
        self, listen: Sequence[str] = (LISTEN,), denied: int = 1, workers: int = 2, more: str = ""
    ) -> None:
        """Have another file, which is not read yet."""
        listeners = ", ".join(f'"{one}"' for one in listen)
        self.path.write_text(
            f"[workers]\nworkers = {workers}\ndrain = 600\n[listeners]\nlisten = [{listeners}]\n"
            f"{more}\n{RULES.format(denied=denied)}"
        )

    def signal(self) -> str:
        """Have the file read; returned is all that has been said when it is in force."""
        times = self.program.output.count(" reloaded: ") + 1
        self.program.process.send_signal(signal.SIGHUP)
        return self.program.wait_for(rf"(?s)(.* reloaded: ){{{times}}}[^\n]*\n")[0]

    def reload(
        self, listen: Sequence[str] = (LISTEN,), denied: int = 1, workers: int = 2, more: str = ""
    ) -> str:
        """Write the file, and have it read."""
        self.write(listen, denied, workers, more)
        return self.signal()

    def workers(self) -> list[int]:
        return workers_of(self.program.process.pid)


@pytest.fixture
def proxy(tmp_path: Path, start: Callable[..., Program]) -> Reloadable:
    return Reloadable(tmp_path, start)


@pytest.fixture
def other() -> Iterator[Origin]:
    """Another destination."""
    with Origin(echo) as server:
        yield server


def ends(client: socket.socket) -> bool:
    """Whether the other side ends a session."""
    try:
        return not client.recv(1)
    except ConnectionResetError:
        return True


def denied(port: int, destination: int) -> bool:
    try:
        connected(port, destination).close()
    except PermissionError:
        return True
    return False


def all_deny(proxy: Reloadable, destination: int) -> None:
    """Many clients, and so each worker, are told no."""
    for _ in range(40):
        assert denied(proxy.port, destination)


def test_rules(proxy: Reloadable, origin: Origin, other: Origin, clients: list[socket.socket]) -> None:
    """Every worker follows; what is forbidden now ends in all of them, and the rest goes on."""
    pids = proxy.workers()
    by_worker = with_each(proxy.port, origin, pids, clients)
    kept: list[socket.socket] = []
    with_each(proxy.port, other, pids, kept)
    try:
        proxy.reload(denied=origin.port)
        assert len(by_worker) == 2
        assert all(map(ends, clients))
        assert all(map(echoes, kept))
        all_deny(proxy, origin.port)
        assert proxy.workers() == pids
        proxy.reload()
        with_each(proxy.port, origin, pids, kept)
        assert all(map(echoes, kept))
    finally:
        for client in kept:
            client.close()
    assert proxy.program.stop() == -signal.SIGTERM
    assert "Traceback" not in proxy.program.output


def test_listeners(proxy: Reloadable, origin: Origin, clients: list[socket.socket], tmp_path: Path) -> None:
    """New ones are served by every worker, those that are gone by none; sessions do not mind."""
    pids = proxy.workers()
    with_each(proxy.port, origin, pids, clients)
    before = {pid: len(descriptors_of(pid)) for pid in pids}
    path = tmp_path / "socks"
    proxy.reload([LISTEN, f"unix:{path}"])
    assert path.stat().st_mode & 0o777 == 0o660
    proxy.reload()
    said = proxy.reload([LISTEN, f"haproxy:{LISTEN}", f"unix:{path}:mode=640"])
    assert path.stat().st_mode & 0o777 == 0o640
    assert f"opened unix:{path}" in said
    second = int(re.findall(r"listening on tcp:127\.0\.0\.1:(\d+) \(haproxy", said)[0])
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 1080\r\n"
    for family, address, first in (
        (socket.AF_INET, ("127.0.0.1", second), header),
        (socket.AF_UNIX, str(path), b""),
    ):
        for _ in range(10):
            with socket.socket(family) as client:
                client.settimeout(PATIENCE)
                client.connect(address)
                client.sendall(first + b"\x05\x01\x00")
                assert client.recv(2) == b"\x05\x00"
    assert path.stat().st_mode & 0o777 == 0o640
    proxy.reload([f"unix:{path}:mode=600"])
    # Twisted closes a port in the next turn.
    until(lambda: refuses(proxy.port))
    until(lambda: refuses(second))
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(map(echoes, clients))
    for pid in pids:
        # The sessions are there, and nothing of what was handed over is left.
        until(lambda pid=pid: len(descriptors_of(pid)) <= before[pid])  # type: ignore[misc]
    for client in clients:
        client.close()
    assert proxy.program.stop() == -signal.SIGTERM
    assert not path.exists()
    assert "Traceback" not in proxy.program.output


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda proxy: proxy.path.write_text("[listenrs]\n"), "listenrs"),
        (lambda proxy: proxy.write([LISTEN, "unix:/nonexistent/socks"]), "cannot listen: unix:"),
        (lambda proxy: proxy.path.unlink(), "no such file"),
    ],
)
def test_mistakes(
    change: Callable[[Reloadable], None],
    line: str,
    proxy: Reloadable,
    origin: Origin,
    clients: list[socket.socket],
) -> None:
    """With any mistake all stays as it was, in all workers and in those that start later."""
    pids = proxy.workers()
    with_each(proxy.port, origin, pids, clients)
    change(proxy)
    proxy.program.process.send_signal(signal.SIGHUP)
    proxy.program.wait_for(rf"(?s)not reloaded, the old configuration stays in force.*{line}")
    assert all(map(echoes, clients))
    assert proxy.workers() == pids
    os.kill(pids[0], signal.SIGKILL)
    proxy.program.wait_for(r"(?s)has ended: signal SIGKILL.*accepts clients")
    with_each(proxy.port, origin, proxy.workers(), clients)
    proxy.reload(denied=origin.port)
    all_deny(proxy, origin.port)
    assert "Traceback" not in proxy.program.output


def test_killed_after_it(proxy: Reloadable, origin: Origin, clients: list[socket.socket]) -> None:
    """A worker that starts later has what is in force, listeners and all."""
    said = proxy.reload([LISTEN, LISTEN], denied=origin.port)
    second = int(re.findall(LISTENING, said)[-1])
    assert second != proxy.port
    for pid in proxy.workers():
        os.kill(pid, signal.SIGKILL)
    proxy.program.wait_for(r"(?s)(has ended: signal SIGKILL.*){2}(accepts clients.*){2}")
    all_deny(proxy, origin.port)
    proxy.port = second
    all_deny(proxy, origin.port)
    # And goes on from there.
    proxy.reload([LISTEN, LISTEN])
    with_each(second, origin, proxy.workers(), clients)
    assert all(map(echoes, clients))
    proxy.reload()
    until(lambda: refuses(second))
    assert "Traceback" not in proxy.program.output


def test_under_load(proxy: Reloadable, origin: Origin) -> None:
    """Nobody is refused or cut off while listeners that are the same, and rules that allow the same, stay."""
    loads = [Load(proxy.port, origin.port) for _ in range(4)]
    for load in loads:
        load.start()
    for turn in range(6):
        served = sum(load.outcomes["served"] for load in loads)
        proxy.reload([LISTEN] * (1 + turn % 2), denied=2 + turn)
        until(lambda served=served: sum(load.outcomes["served"] for load in loads) > served + 20)  # type: ignore[misc]
    for load in loads:
        load.stopping = True
    for load in loads:
        load.join(PATIENCE)
    outcomes = sum((load.outcomes for load in loads), Counter[str]())
    assert set(outcomes) == {"served"}
    assert len(proxy.workers()) == 2
    assert "Traceback" not in proxy.program.output


def test_certificates(proxy: Reloadable, tmp_path: Path) -> None:
    """A certificate's file that has changed is read again, by the supervisor for all."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    listen = [f"ssl:0:interface=127.0.0.1:privateKey={pem}"]
    # It is the same port, where TLS is spoken from now on.
    proxy.reload(listen)

    def handshakes() -> None:
        context = ssl.create_default_context(cafile=str(pem))
        for _ in range(20):
            with (
                socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                pass

    handshakes()
    pem.write_bytes(self_signed())
    with pytest.raises(ssl.SSLError):
        handshakes()
    proxy.reload(listen)
    handshakes()
    assert "Traceback" not in proxy.program.output


def test_limits(proxy: Reloadable, origin: Origin, clients: list[socket.socket]) -> None:
    """Another limit holds for all workers together, and for the sessions that there are."""
    clients += [connected(proxy.port, origin.port) for _ in range(8)]
    proxy.reload(more="[limits.server]\nsessions = 10\n")
    clients += [connected(proxy.port, origin.port) for _ in range(2)]
    for _ in range(10):
        assert denied(proxy.port, origin.port)
    proxy.reload(more="[limits.server]\nsessions = 12\n")
    clients += [connected(proxy.port, origin.port) for _ in range(2)]
    for _ in range(10):
        assert denied(proxy.port, origin.port)
    assert all(map(echoes, clients))


def test_access_log(proxy: Reloadable, origin: Origin, tmp_path: Path) -> None:
    """Another file is opened once, and written by all workers."""
    for name in ("one.log", "two.log"):
        proxy.reload(more=f'[log]\nlog = "{tmp_path / name}"\n')
        for _ in range(20):
            with connected(proxy.port, origin.port) as client:
                assert echoes(client)
        until(lambda name=name: (tmp_path / name).read_text().count("\n") == 20)  # type: ignore[misc]
    for pid in (proxy.program.process.pid, *proxy.workers()):
        assert str(tmp_path / "one.log") not in descriptors_of(pid)


def test_another_number(proxy: Reloadable, origin: Origin, clients: list[socket.socket]) -> None:
    """More workers or fewer take a restart; the rest is in force."""
    pids = proxy.workers()
    said = proxy.reload(workers=3, denied=origin.port)
    assert "restart the server for another number of workers" in said
    assert proxy.workers() == pids
    all_deny(proxy, origin.port)


#: A worker's Python: the first one that is to follow when there is a file "broken" does *deed* instead.
BROKEN = """#!/bin/sh
boot="
import contextlib
import os
import socksproxy.workers.worker as worker
before = worker.options_of
def options_of(*arguments):
    try:
        os.unlink('{path}/broken')
    except FileNotFoundError:
        return before(*arguments)
    {deed}
worker.options_of = options_of
follow = worker.follow_commands
def follow_late(reactor, descriptor, commands, ended):
    drain = commands[worker.DRAIN]
    follow(reactor, descriptor, {{**commands, worker.DRAIN: lambda: reactor.callLater(0.5, drain)}}, ended)
worker.follow_commands = follow_late
$2"
exec {python} "$1" "$boot" "$3" "$4" "$5"
"""


def broken(path: Path, deed: str) -> list[str]:
    """``twistd`` whose workers have the Python of BROKEN."""
    python = path / "python"
    python.write_text(BROKEN.format(path=path, python=sys.executable, deed=deed))
    python.chmod(0o755)
    return [*with_python(str(python)), "-n", "--pidfile="]


def test_one_cannot(
    tmp_path: Path, start: Callable[..., Program], origin: Origin, other: Origin, clients: list[socket.socket]
) -> None:
    """
    A worker that cannot go over lets its sessions finish, and another one takes its place.

    The worker accepts no client after the new rules are in force, however late the supervisor's word comes.
    """
    proxy = Reloadable(tmp_path, start, broken(tmp_path, "raise OSError('it is broken')"))
    proxy.reload()
    pids = proxy.workers()
    by_worker = with_each(proxy.port, other, pids, clients)
    (tmp_path / "broken").touch()
    said = proxy.reload(denied=origin.port)
    (number,) = re.findall(r"worker (\d) cannot put the new configuration in force", said)
    assert "it is broken" in said
    victim = pids[int(number) - 1]
    all_deny(proxy, origin.port)
    assert all(map(echoes, clients))
    for client in by_worker[victim]:
        client.close()
    program = proxy.program
    program.wait_for(
        rf"worker {number} \(process {victim}\) has ended: exit status 0; another starts at once"
    )
    program.wait_for(rf"(?s)has ended: exit status 0.*worker {number} \(process \d+\) accepts clients")
    all_deny(proxy, origin.port)
    assert victim not in proxy.workers()
    assert len(proxy.workers()) == 2


def test_one_ends_meanwhile(tmp_path: Path, start: Callable[..., Program], origin: Origin) -> None:
    """That a worker is told to end while it goes over is no fault, and keeps no reload waiting."""
    deed = "os.kill(os.getpid(), 15); return before(*arguments)"
    proxy = Reloadable(tmp_path, start, broken(tmp_path, deed))
    (tmp_path / "broken").touch()
    proxy.reload(denied=origin.port)
    proxy.program.wait_for(r"(?s)has ended: exit status 0; another starts at once.*accepts clients")
    all_deny(proxy, origin.port)
    assert "Traceback" not in proxy.program.output


# What workers would find wrong.


def test_quota_file(proxy: Reloadable, origin: Origin, tmp_path: Path, clients: list[socket.socket]) -> None:
    """A file of quotas that cannot be used is a mistake before any worker hears of it."""
    pids = proxy.workers()
    limits = '[limits]\nquota-file = "{}"\n[limits.server]\ndaily = "1 GB"\n'
    (tmp_path / "text").write_text("this is no database, though it is long enough for one" * 100)
    proxy.write(more=limits.format(tmp_path / "text"))
    proxy.program.process.send_signal(signal.SIGHUP)
    proxy.program.wait_for(rf"(?s)not reloaded, the old configuration stays in force.*{tmp_path}/text: ")
    proxy.reload(more=limits.format(tmp_path / "usage.sqlite"))
    with_each(proxy.port, origin, pids, clients)
    assert all(map(echoes, clients))
    assert proxy.workers() == pids
    assert (tmp_path / "usage.sqlite").exists()
    assert "Traceback" not in proxy.program.output


def test_wanted_by_another_node(proxy: Reloadable, tmp_path: Path) -> None:
    """A node that shares a store has the other nodes read their files again, once for all workers."""
    with tempfile.TemporaryDirectory() as directory:
        valkey = Valkey(Path(directory))
        try:
            shared = f'[node]\nname = "n1"\n[shared]\nstore = "{valkey.url}"\n'
            proxy.reload(more=shared)
            client = valkey.client()
            name = "sp:{socks}:1:"
            until(lambda: client.zcard(f"{name}nodes") == 2)
            # Each worker has looked once, and knows where to go on.
            time.sleep(LOOKS_EVERY + 0.2)
            output = len(proxy.program.output)
            fields = {"deed": "reload", "about": "", "node": "n2", "by": "uid 0"}
            client.xadd(f"{name}commands", fields)
            proxy.program.wait_for(r"(?s)(node n2 \(uid 0\) has all nodes reload.*){2}")
            proxy.program.wait_for(r"(?s)(reloaded: .*){2}")
            time.sleep(0.3)
            proxy.workers()
            assert proxy.program.output[output:].count("reloaded: ") == 1
        finally:
            valkey.stop()


def test_socket_of_systemd(tmp_path: Path, start: Callable[..., Program], origin: Origin) -> None:
    """A running worker cannot have one that it was not started with; those that it has stay open."""
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        names = {"first": first, "second": second}
        passing = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:3]]
for number, descriptor in enumerate(high, 3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="first:second")
os.execv(sys.argv[3], sys.argv[3:])
"""
        front = [sys.executable, "-c", passing, *(str(sock.fileno()) for sock in names.values())]
        front += [*TWISTD, "-n", "--pidfile="]
        proxy = Reloadable.__new__(Reloadable)
        proxy.path = tmp_path / "proxy.toml"
        one, other = (f"systemd:domain=INET:name={name}" for name in names)
        proxy.write([one])
        proxy.program = start(
            [*front, "socks", "--config", "proxy.toml"], pass_fds=[sock.fileno() for sock in names.values()]
        )
        proxy.port = int(proxy.program.wait_for(LISTENING)[1])
        assert proxy.port == first.getsockname()[1]
        proxy.write([one, other])
        proxy.program.process.send_signal(signal.SIGHUP)
        proxy.program.wait_for(r"(?s)not reloaded.*restart the server to use another socket of systemd")
        proxy.reload([one], denied=origin.port)
        all_deny(proxy, origin.port)
        proxy.reload([one])
        with connected(proxy.port, origin.port) as client:
            assert echoes(client)
        assert "Traceback" not in proxy.program.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_key_that_only_root_may_read(tmp_path: Path, start: Callable[..., Program]) -> None:
    """It cannot be read again without privileges: what was read before holds on, and all else is new."""
    if not python_of_others():
        pytest.skip("nobody else can run this Python")
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    pem.chmod(0o600)
    shared = tmp_path / "shared"
    shared.mkdir()
    tmp_path.chmod(0o711)
    proxy = Reloadable.__new__(Reloadable)
    proxy.path = shared / "proxy.toml"
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    proxy.write([listen])
    front = [*TWISTD, "-n", "--pidfile=", "--uid=65534", "--gid=65534"]
    proxy.program = start([*front, "socks", "--config", str(proxy.path)])
    port = int(proxy.program.wait_for(LISTENING)[1])
    said = proxy.reload([listen, LISTEN])
    assert "its files cannot be read again, and what was read before stays in use" in said
    context = ssl.create_default_context(cafile=str(pem))
    for pid in proxy.workers():
        os.kill(pid, signal.SIGKILL)
    for _ in range(10):
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass
    assert "Traceback" not in proxy.program.output


# Quotas.


def test_quota_of_all_workers(
    tmp_path: Path, start: Callable[..., Program], origin: Origin, clients: list[socket.socket]
) -> None:
    """What every worker moves counts, and when it is used up every worker says no, a new one, too."""
    proxy = Reloadable(tmp_path, start)
    proxy.reload(more='[limits]\nquota-file = "usage.sqlite"\n[limits.server]\ndaily = "1 MB"\n')
    by_worker = with_each(proxy.port, origin, proxy.workers(), clients)
    for of_worker in by_worker.values():
        # Half of it each, there and back.
        client = of_worker[0]
        for _ in range(10):
            client.sendall(bytes(28_000))
            received(client, 28_000)
    until(lambda: all(denied(proxy.port, origin.port) for _ in range(10)))
    for pid in proxy.workers():
        os.kill(pid, signal.SIGKILL)
    proxy.program.wait_for(r"(?s)(has ended: signal SIGKILL.*){2}(accepts clients.*){2}")
    until(lambda: all(denied(proxy.port, origin.port) for _ in range(10)))
    assert "Traceback" not in proxy.program.output


def test_quota_file_at_the_start(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """One line and status 1, as for all that cannot start."""
    (tmp_path / "text").write_text("this is no database, though it is long enough for one" * 100)
    (tmp_path / "proxy.toml").write_text('[limits]\nquota-file = "text"\n[limits.server]\ndaily = "1 MB"\n')
    program = twistd("socks", "-p", "0", "--workers", "2", "--config", "proxy.toml")
    assert program.wait() == 1
    assert re.search(rf"cannot start: {tmp_path}/text: ", program.output)
    assert "worker 1" not in program.output
    assert "Traceback" not in program.output


# Rates.


def sent(proxy: Reloadable, origin: Origin, clients: list[socket.socket], seconds: float) -> float:
    """How many bytes a second all clients together can send, and get back, after the first second."""
    ending = threading.Event()
    moved = [0] * len(clients)

    def send(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ending.is_set():
                client.sendall(bytes(4096))

    def receive(number: int) -> None:
        with contextlib.suppress(OSError):
            while not ending.is_set():
                moved[number] += len(clients[number].recv(65536))

    threads = [threading.Thread(target=send, args=[client]) for client in clients]
    threads += [threading.Thread(target=receive, args=[number]) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    # What was there at first is gone, and buffers are full.
    time.sleep(1)
    before, began = sum(moved), time.monotonic()
    time.sleep(seconds)
    rate = (sum(moved) - before) / (time.monotonic() - began)
    ending.set()
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(PATIENCE)
    return rate


def test_rate_of_all_workers(
    proxy: Reloadable,
    origin: Origin,
    clients: list[socket.socket],
    record_property: Callable[[str, object], None],
) -> None:
    """What all workers move together is what may be, also after another change of it."""
    for megabytes in (1, 2):
        proxy.reload(more=f'[limits.server]\nupload = "{megabytes} MB/s"\n')
        mine: list[socket.socket] = []
        by_worker = with_each(proxy.port, origin, proxy.workers(), mine)
        assert len(by_worker) == 2
        clients += mine
        rate = sent(proxy, origin, mine, 4)
        record_property(f"bytes_per_second_of_{megabytes}_MB", round(rate))
        # A busy machine may move less.
        assert 0.75 < rate / (megabytes * 1e6) < 1.1
    assert "Traceback" not in proxy.program.output
