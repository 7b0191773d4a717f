"""The shared store as the reactor's thread sees it, with a real Valkey that fails in many ways."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from socksproxy.shared.asking import ADMITTED, DOWN, Ask, Job, Need, StoreProblem, Timing
from socksproxy.shared.scripts import SCHEMA, script
from socksproxy.shared.store import check_store
from tests.support.logs import heard
from tests.support.proxy import Playing, reactor, until
from tests.support.stores import CALM, QUICK, Nodes, asked, settings_of
from tests.support.valkey import Valkey

StartServer = Callable[..., Valkey]
#: A store that is down costs no more than this, with room for a busy machine.
ONCE = CALM.patience + 5.0
BOB = Need("n:user bob sessions", 10)


def row(server: Valkey, name: str = BOB.key, site: str = "socks") -> dict[str, int]:
    fields = server.client().hgetall(f"sp:{{{site}}}:{SCHEMA}:{name}")
    return {key.partition("/")[0]: int(value) for key, value in fields.items()}


@pytest_twisted.inlineCallbacks
def test_exactly(valkey: StartServer) -> Playing:
    """A thousand sessions of a user who may have ten, at once on four nodes: exactly ten are admitted."""
    server = valkey()
    nodes = Nodes(server.url, 4)
    yield nodes.start()
    assert max(store.nodes for store in nodes.stores) == 4
    answers = yield gatherResults(
        [asked(store, BOB, Need("n:server sessions", 5000)) for _ in range(250) for store in nodes.stores]
    )
    assert sorted(answers)[:11] == [ADMITTED] * 10 + [1]
    assert sum(row(server).values()) == 10
    # What nodes have in hand of the other row goes back.
    yield until(lambda: sum(row(server, "n:server sessions").values()) == 10)
    yield nodes.stop()
    assert server.client().zcard(f"sp:{{socks}}:{SCHEMA}:nodes") == 0


@pytest_twisted.inlineCallbacks
def test_rate(valkey: StartServer) -> Playing:
    """Four nodes that all want more than the rate get the rate together."""
    nodes = Nodes(valkey().url, 4, CALM._replace(patience=10))
    yield nodes.start()
    begun, admitted = time.monotonic(), 0
    need = Need("r:net new", 1e6 / 200, 400)
    while time.monotonic() < begun + 1:
        # More than come in any pause of a busy machine: what is not taken is not lost.
        answers = yield gatherResults([asked(store, need) for _ in range(100) for store in nodes.stores])
        admitted += answers.count(ADMITTED)
    passed = time.monotonic() - begun
    assert admitted == pytest.approx(400 + 200 * passed, rel=0.05)
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_layouts(valkey: StartServer, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Nodes whose layouts have different numbers share a server, and leave each other alone."""
    server = valkey()
    nodes = Nodes(server.url)
    yield nodes.start()
    monkeypatch.setattr("socksproxy.shared.scripts.SCHEMA", SCHEMA + 1)
    later = Nodes(server.url)
    yield later.start()
    last = Need(BOB.key, 1)
    for each in (nodes.one, later.one):
        assert (yield asked(each, last)) == ADMITTED
        assert (yield asked(each, last)) == 1
    found = {key.split(":")[2] for key in server.client().keys("sp:*")}
    assert found == {str(SCHEMA), str(SCHEMA + 1)}
    yield gatherResults([nodes.stop(), later.stop()])


@pytest_twisted.inlineCallbacks
def test_release(valkey: StartServer) -> Playing:
    """What ends on one node makes room on another one."""
    server = valkey()
    nodes = Nodes(server.url, 2)
    yield nodes.start()
    one, other = nodes.stores
    last = Need(BOB.key, 1)
    assert (yield asked(one, last)) == ADMITTED
    assert (yield asked(other, last)) == 1
    one.count(last.key, -1)
    yield until(lambda: not row(server))
    assert (yield asked(other, last)) == ADMITTED
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_killed_node(valkey: StartServer) -> Playing:
    """The sessions of a node that is gone stop counting when its lease is over, and no others do."""
    server = valkey()
    nodes = Nodes(server.url, 2, QUICK)
    yield nodes.start()
    one, other = nodes.stores
    yield asked(one, BOB)
    yield asked(other, BOB)
    two = Need(BOB.key, 2)
    assert (yield asked(other, two)) == 1
    # It lives, and cannot reach the store.
    one._thread._settings = settings_of("unix:///nowhere/else")
    one._thread._lose(StoreProblem("cut"))
    begun = time.monotonic()
    while (yield asked(other, two)) != ADMITTED:
        assert time.monotonic() < begun + QUICK.lease + 2 * QUICK.beat + 5.0
    assert time.monotonic() > begun + QUICK.lease / 4
    assert row(server) == {"n2": 2}
    yield until(lambda: other.nodes == 1)
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_least_nodes(valkey: StartServer) -> Playing:
    """A node that is the first to come divides limits by the nodes that are to come, too."""
    nodes = Nodes(valkey().url, 1, QUICK, nodes=4)
    assert nodes.one.nodes == 4
    yield nodes.start()
    assert (nodes.one.nodes, nodes.one.up) == (4, True)
    told = nodes.one.stats.sent
    yield until(lambda: nodes.one.stats.sent > told)  # a beat
    assert (nodes.one.nodes, nodes.one.processes) == (4, 4)
    yield nodes.stop()


def stopped(server: Valkey) -> Callable[[], None]:
    server.signal(signal.SIGSTOP)
    return lambda: server.signal(signal.SIGCONT)


def killed(server: Valkey) -> Callable[[], None]:
    server.kill()
    return server.start


def full(server: Valkey) -> Callable[[], None]:
    server.client().config_set("maxmemory", 1)
    return lambda: server.client().config_set("maxmemory", 0)


def read_only(server: Valkey) -> Callable[[], None]:
    server.client().replicaof("127.0.0.1", "1")
    return lambda: server.client().replicaof("no", "one")


def paused(server: Valkey) -> Callable[[], None]:
    server.client().execute_command("CLIENT", "PAUSE", str(int(2000 * CALM.patience)))
    return lambda: None


def other_password(server: Valkey) -> Callable[[], None]:
    server.client().config_set("requirepass", "changed")
    server.client(password="changed").execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return lambda: server.client(password="changed").config_set("requirepass", "")


FAULTS = [
    (stopped, "does not answer in time"),
    (killed, "connect"),
    (full, "maxmemory"),
    (read_only, "read only replica"),
    (paused, "does not answer in time"),
    (other_password, "login"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@pytest_twisted.inlineCallbacks
def test_fault(valkey: StartServer, fault: Callable[[Valkey], Callable[[], None]], words: str) -> Playing:
    """
    The first sessions wait as long as is usual at the most, the next ones not at all; all heals by itself.

    What was counted meanwhile is in the store then.
    """
    server = valkey()
    nodes = Nodes(server.url, 1)
    store = nodes.one
    yield nodes.start()
    assert (yield asked(store, BOB)) == ADMITTED
    with heard() as lines:
        mend = fault(server)
        begun = time.monotonic()
        answer = yield asked(store, BOB)
        while answer != DOWN:  # a connection that is gone may show late
            answer = yield asked(store, BOB)
        assert time.monotonic() - begun < ONCE
        assert not store.up
        begun = time.monotonic()
        for _ in range(100):
            assert (yield asked(store, BOB)) == DOWN
        assert time.monotonic() - begun < ONCE
        store.count(BOB.key, 1)  # the fallback has let it in
        yield until(lambda: any(words in line for line in lines if "until it answers" in line))
        mend()
        begun = time.monotonic()
        yield until(lambda: store.up)
        assert time.monotonic() - begun < 10
    assert (yield asked(store, Need(BOB.key, 100))) == ADMITTED
    assert row(server)["n1"] >= 3
    down = [line for line in lines if "until it answers" in line]
    assert len(down) <= 2
    assert len([line for line in lines if "answers again" in line]) == 1
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_forgotten(valkey: StartServer) -> Playing:
    """A store that has lost everything is told it again, before the next session is judged."""
    server = valkey()
    nodes = Nodes(server.url, 2)
    yield nodes.start()
    for store in nodes.stores:
        assert (yield asked(store, BOB)) == ADMITTED
    server.client().flushall()
    assert (yield asked(nodes.one, BOB)) == ADMITTED
    assert row(server)["n1"] == 2
    assert (yield asked(nodes.stores[1], BOB)) == ADMITTED
    assert row(server) == {"n1": 2, "n2": 2}
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_row_is_gone(valkey: StartServer) -> Playing:
    """A row that the store has dropped, or that says something else, is right again with the next resync."""
    server = valkey()
    nodes = Nodes(server.url, 1, QUICK)
    yield nodes.start()
    yield asked(nodes.one, BOB)
    server.client().delete(f"sp:{{socks}}:{SCHEMA}:{BOB.key}")
    yield until(lambda: row(server) == {"n1": 1})
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_unknown_scripts(valkey: StartServer) -> Playing:
    """A server that does not know the scripts is given them."""
    server = valkey()
    nodes = Nodes(server.url)
    yield nodes.start()
    assert (yield asked(nodes.one, BOB)) == ADMITTED
    server.client().script_flush()
    assert (yield asked(nodes.one, BOB)) == ADMITTED
    assert row(server) == {"n1": 2}
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_late(valkey: StartServer) -> Playing:
    """A session whose answer is late was judged without the store, and the late answer counts for nothing."""
    server = valkey()
    nodes = Nodes(server.url)
    store = nodes.one
    yield nodes.start()
    answers: list[int] = []
    ask = Ask([BOB], answers.append)
    store.ask(ask)
    store._drop_pending()
    assert answers == [DOWN]
    yield until(lambda: not row(server))
    yield asked(store, BOB)
    yield until(lambda: row(server) == {"n1": 1})
    assert answers == [DOWN]
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_slow(valkey: StartServer) -> Playing:
    """A store that answers, but later than it may, stays down: no session waits for it again."""
    server = valkey()
    assert Timing().patience == 0.05
    nodes = Nodes(server.url, 1, Timing(probe=0.05))
    store = nodes.one
    yield nodes.start()
    slow = script("for number = 1, 3e7 do end return 1")
    done: list[Any] = []
    store.run(Job(slow, ["n:x"], [], done.append))
    assert (yield asked(store, BOB)) == DOWN
    yield until(lambda: done == [None])
    assert not store.up
    yield until(lambda: store.up)
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_ends_while_down(valkey: StartServer) -> Playing:
    """The end does not wait for a store that is down, and sessions that wait are told so."""
    server = valkey()
    nodes = Nodes(server.url)
    yield nodes.start()
    server.signal(signal.SIGSTOP)
    answer = asked(nodes.one, BOB)
    begun = time.monotonic()
    yield nodes.stop()
    assert time.monotonic() - begun < 10
    assert (yield answer) == DOWN
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_never_there() -> Playing:
    """A store that was never there: it is told once, and each session is judged without it."""
    nodes = Nodes("unix:///nowhere/valkey.sock", 1, QUICK, nodes=4)
    with heard() as lines:
        first = asked(nodes.one, BOB)
        yield nodes.start()
        assert (yield first) == (yield asked(nodes.one, BOB)) == DOWN
        stop = reactor.seconds() + 0.3
        yield until(lambda: reactor.seconds() > stop)
    assert nodes.one.nodes == 4
    (line,) = [line for line in lines if "nowhere" in line]
    assert line == (
        "the shared store /nowhere/valkey.sock: no such file or directory: until it answers, "
        'each limit does what its key "shared" says'
    )
    yield nodes.stop()


def test_check(valkey: StartServer) -> None:
    """What is wrong at the start is one line, and never shows a password."""
    server = valkey("--requirepass", "right")
    check_store(settings_of(server.url, password="right"))
    check_store(settings_of(f"unix://:right@{server.path}"))
    check_store(settings_of("unix:///nowhere", required=False))
    for settings, words in (
        (settings_of(server.url, password="hunter2"), "refuses the login"),
        (settings_of(server.url), "uthentication"),
        (settings_of("unix:///nowhere"), "the shared store /nowhere: no such file"),
        (settings_of("redis://127.0.0.1:1"), "the shared store 127.0.0.1:1: connection refused"),
        (settings_of("redis+sentinel://127.0.0.1:1/main"), "no Sentinel knows a server for main"),
    ):
        with pytest.raises(StoreProblem) as caught:
            check_store(settings)
        assert words in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest_twisted.inlineCallbacks
def test_room_at_once(valkey: StartServer) -> Playing:
    """A session that ends makes room for the next one at once, though its end is not written yet."""
    nodes = Nodes(valkey().url, 1, CALM._replace(pause=5.0))
    store = nodes.one
    yield nodes.start()
    last = Need(BOB.key, 1)
    assert (yield asked(store, last)) == ADMITTED
    for _ in range(3):
        store.count(last.key, -1)
        assert (yield asked(store, last)) == ADMITTED
    assert (yield asked(store, last)) == 1
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_long_outage(valkey: StartServer) -> Playing:
    """Sessions that end while the store is down leave nothing behind; those that go on count later."""
    nodes = Nodes("unix:///nowhere/valkey.sock", 1, QUICK)
    store = nodes.one
    yield nodes.start()
    for number in range(1000):
        store.count(f"n:client {number} sessions", 1)
        store.count(f"n:client {number} sessions", -1)
    store.count(BOB.key, 2)
    thread = store._thread
    yield until(lambda: not thread.changes and thread._counts == {BOB.key: 2})
    assert not thread._changed
    server = valkey()
    thread._settings = settings_of(server.url, node="n1")
    yield until(lambda: row(server) == {"n1": 2})
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_attempts(monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A store that lets each attempt to connect hang is tried as often as one that refuses."""
    began: list[float] = []

    class HangingLink:
        def __init__(self, settings: Any) -> None:
            began.append(time.monotonic())
            time.sleep(0.4)
            raise StoreProblem("does not answer in time")

    monkeypatch.setattr("socksproxy.shared.thread.StoreLink", HangingLink)
    nodes = Nodes("unix:///nowhere", 1, Timing(probe=0.4), nodes=1)
    yield nodes.start()
    yield until(lambda: len(began) > 4)
    yield nodes.stop()
    assert min(after - before for before, after in pairwise(began)) < 0.7
