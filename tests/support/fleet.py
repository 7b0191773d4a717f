"""
The fleet of ``docs/examples/fleet``: each machine is a network namespace, and a bridge connects them.

::

    load 10.90.1.1 ... 10.90.1.64  --  balancer 10.90.0.2  --  n1 ... n4 10.90.0.11 ... 10.90.0.14
                                 reserve 10.90.0.3       store 10.90.0.4, origin 10.90.0.5
                                                         second 10.90.0.6, watch 10.90.0.7

A socket belongs to the namespace of the thread that makes it, and a process to that of the thread that
starts it: :meth:`Fleet.inside`.
"""

from __future__ import annotations

import csv
import ctypes
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.support.admin import Told, asks
from tests.support.processes import PATIENCE, TWISTD, Program
from tests.support.programs import missing, require
from tests.support.proxy import reply5, request5
from tests.support.valkey import Valkey

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "fleet"
NODES = ("n1", "n2", "n3", "n4")
BALANCER, STORE, ORIGIN = "10.90.0.2", "10.90.0.4", "10.90.0.5"
#: The addresses of clients.
CLIENTS = tuple(f"10.90.1.{number}" for number in range(1, 65))
ADDRESSES = {
    "balancer": (BALANCER,),
    "reserve": ("10.90.0.3",),
    "store": (STORE,),
    "origin": (ORIGIN,),
    "second": ("10.90.0.6",),
    "watch": ("10.90.0.7",),
    "load": CLIENTS,
    **{name: (f"10.90.0.1{name[1]}",) for name in NODES},
}
_PREFIX = f"sp{os.getpid()}"
_HUB = f"{_PREFIX}-hub"
_CLONE_NEWNET = 0x40000000
_USERS = ("alice", "bob", "carol", "dave")


def until(condition: Callable[[], Any], within: float = PATIENCE) -> float:
    """Wait until *condition* holds, and return how many seconds that takes."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, "it took too long"
        time.sleep(0.05)
    return time.monotonic() - began


class Node:
    """
    One of the proxies.

    :ivar admin: its admin socket.
    """

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        self.address = ADDRESSES[name][0]
        self._fleet = fleet
        self.directory = fleet.directory / name
        self.directory.mkdir()
        self.admin = self.directory / "admin.sock"
        self.program: Program

    def start(self) -> None:
        """Start it, until it listens."""
        options = [
            "--config",
            str(self.directory / "common.toml"),
            "--node",
            str(self.directory / "node.toml"),
        ]
        with self._fleet.inside(self.name):
            self.program = Program([*TWISTD, "-n", "--pidfile=", "socks", *options], self.directory)
        self._fleet.programs.append(self.program)

    def wait(self) -> None:
        """Wait until it listens."""
        self.program.wait_for("listening on tcp")

    def ask(self, method: str, path: str, body: Any = None) -> Told:
        """Ask on its admin socket."""
        return asks(self.admin, method, path, body)

    @property
    def sessions(self) -> int:
        """How many it has; the balancer's checks are some, as long as they take."""
        return int(self.ask("GET", "/v1/status").body["sessions"])

    def sessions_of(self, user: str) -> int:
        """How many that *user* has here."""
        return int(self.ask("GET", f"/v1/sessions?limit=1&user={user}").body["total"])

    @property
    def said(self) -> str:
        """All that its log has by now."""
        self.program.read()
        return self.program.output

    @property
    def records(self) -> str:
        """Its access log."""
        return (self.directory / "access.log").read_text()


class Store(Protocol):
    """What nodes share."""

    def stop(self) -> None: ...


def _valkey(fleet: Fleet) -> Store:
    directory = fleet.directory / "store"
    directory.mkdir()
    with fleet.inside("store"):
        return Valkey(directory, "--port", "6379", "--bind", STORE, "--protected-mode", "no")


class Fleet:
    """
    Four nodes with the files of the documentation, HAProxy in front of them, and a store.

    :param directory: for files; its path is short, as those of sockets are in it.
    :param changes: gives the text of a file of the documentation, by its name, another text.
    :param store: starts the store; a Valkey.
    :ivar balancers: the HAProxy of each machine that has one.
    :ivar nodes: the proxies, by their names.
    """

    def __init__(
        self,
        directory: Path,
        changes: Callable[[str, str], str] = lambda name, text: text,
        store: Callable[[Fleet], Store] = _valkey,
    ) -> None:
        require("ip")
        self._haproxy = require("haproxy")
        if os.geteuid():
            missing("the right to make network namespaces (root)")
        self.directory = directory
        self.programs: list[Program] = []
        self.balancers: dict[str, Program] = {}
        self._changes = changes
        self._store: Store | None = None
        self._make_namespaces()
        try:
            self._write_users()
            self._store = store(self)
            self.nodes = {name: Node(self, name) for name in NODES}
            for node in self.nodes.values():
                for file, source in (("common.toml", "common.toml"), ("node.toml", f"{node.name}.toml")):
                    (node.directory / file).write_text(self._text(source, node.directory))
                node.start()
            self.balance("balancer")
            for node in self.nodes.values():
                node.wait()
            until((directory / "balancer" / "admin.sock").exists)
            until(self.balances)
        except BaseException:
            self.stop()
            raise

    def balance(self, machine: str) -> None:
        """Start an HAProxy on *machine*."""
        self.balancers[machine] = self.start(machine, self._haproxy, "-db", "-f", "haproxy.cfg")

    def start(self, machine: str, *command: str) -> Program:
        """Start a program on *machine*, whose file is the last argument, and of the documentation."""
        directory = self.directory / machine
        directory.mkdir(exist_ok=True)
        (directory / command[-1]).write_text(self._text(command[-1], directory))
        with self.inside(machine):
            self.programs.append(Program(command, directory))
        return self.programs[-1]

    @property
    def outages(self) -> int:
        """How often a node has not had an answer of the store in time, which a busy machine is enough for."""
        return sum(node.said.count("until it answers") for node in self.nodes.values())

    def shares(self) -> bool:
        """Whether the store answers each node."""
        said = [node.said for node in self.nodes.values()]
        return all(text.rfind("until it answers") <= text.rfind("answers again") for text in said)

    def balances(self) -> bool:
        """Whether the balancer sends clients to each node."""
        return all(self.state_of(name) == "UP" for name in NODES)

    def sessions_of(self, user: str) -> int:
        """How many that *user* has on all nodes."""
        return sum(node.sessions_of(user) for node in self.nodes.values())

    def _make_namespaces(self) -> None:
        self._remove()
        lines = [
            f"ip netns add {_HUB}",
            f"ip -n {_HUB} link add br0 type bridge",
            f"ip -n {_HUB} link set br0 up",
        ]
        for name, addresses in ADDRESSES.items():
            inside = f"{_PREFIX}-{name}"
            lines += [
                f"ip netns add {inside}",
                f"ip -n {inside} link set lo up",
                f"ip -n {_HUB} link add {name} type veth peer name eth0 netns {inside}",
                f"ip -n {_HUB} link set {name} master br0 up",
                *(f"ip -n {inside} addr add {address}/16 dev eth0" for address in addresses),
                f"ip -n {inside} link set eth0 up",
            ]
        batch = "\n".join(lines)
        done = subprocess.run(["sh", "-e"], input=batch, capture_output=True, text=True, check=False)
        if done.returncode:
            self._remove()
            missing(f"network namespaces ({done.stderr.strip()})")

    def _remove(self) -> None:
        for name in (_HUB, *(f"{_PREFIX}-{name}" for name in ADDRESSES)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _write_users(self) -> None:
        from passlib.hash import apr_md5_crypt

        hashed = apr_md5_crypt.hash("secret")
        (self.directory / "admin.token").write_text("0123456789abcdef\n")
        (self.directory / "users").write_text("".join(f"{user}:{hashed}\n" for user in _USERS))

    def _text(self, name: str, directory: Path) -> str:
        """The text of a file of the documentation, with directories of the test."""
        text = self._changes(name, (EXAMPLES / name).read_text())
        text = text.replace("/etc/socksproxy/", f"{self.directory}/")
        return re.sub(r"/(?:run|var/log)/(?:socksproxy|haproxy)/", f"{directory}/", text)

    def has(self, machine: str, address: str) -> bool:
        """Whether *machine* has that address now."""
        command = ["ip", "-n", f"{_PREFIX}-{machine}", "-o", "addr"]
        return f" {address}/" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def cut(self, machine: str, cut: bool = True) -> None:
        """Have nothing reach *machine*, or have it reached again."""
        state = "down" if cut else "up"
        subprocess.run(["ip", "-n", _HUB, "link", "set", machine, state], check=True)

    @contextmanager
    def inside(self, machine: str) -> Iterator[None]:
        """What this thread makes meanwhile belongs to *machine*."""
        library = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{_PREFIX}-{machine}") as there:
            if library.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                library.setns(here.fileno(), _CLONE_NEWNET)

    def connected(self, client: str, to: str = BALANCER, within: float = PATIENCE) -> socket.socket:
        """A connection of the *client*."""
        with self.inside("load"):
            sock = socket.socket()
        sock.settimeout(within)
        try:
            sock.bind((client, 0))
            sock.connect((to, 1080))
        except BaseException:
            sock.close()
            raise
        return sock

    def logged_in(self, user: str, client: str, to: str = BALANCER) -> socket.socket:
        """A connection of the *user*, by the balancer, before its request."""
        sock = self.connected(client, to)
        try:
            sock.sendall(b"\x05\x01\x02")
            assert sock.recv(2) == b"\x05\x02"
            sock.sendall(b"\x01" + bytes([len(user)]) + user.encode() + b"\x06secret")
            assert sock.recv(2) == b"\x01\x00"
        except BaseException:
            sock.close()
            raise
        return sock

    def session(self, user: str, port: int, client: str, to: str = BALANCER) -> tuple[int, socket.socket]:
        """The reply to a request of the *user* for that *port* of the origin, and the connection."""
        sock = self.logged_in(user, client, to)
        try:
            sock.sendall(request5(ORIGIN, port))
            return reply5(sock)[0], sock
        except BaseException:
            sock.close()
            raise

    def state_of(self, server: str) -> str:
        """What HAProxy has for *server*: UP, DOWN, DRAIN or MAINT."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.directory / "balancer" / "admin.sock"))
            client.sendall(b"show stat\n")
            text = b"".join(iter(lambda: client.recv(65536), b"")).decode().removeprefix("# ")
        (row,) = [row for row in csv.DictReader(text.splitlines()) if row["svname"] == server]
        return row["status"].split()[0]

    def stop(self) -> None:
        """End all programs, and take the namespaces away."""
        for program in self.programs:
            if program.process.poll() is None:
                program.process.terminate()
        for program in self.programs:
            program.stop()
        if self._store is not None:
            self._store.stop()
        self._remove()
