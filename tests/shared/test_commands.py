"""Commands for all nodes, through a real Valkey."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from socksproxy.shared.asking import Job
from socksproxy.shared.commands import LOOKS_EVERY, Commands, Deed, NodeCommand
from socksproxy.shared.scripts import SCHEMA
from tests.support.logs import heard
from tests.support.proxy import Playing, until
from tests.support.stores import Nodes, settings_of
from tests.support.valkey import Valkey

STREAM = f"sp:{{socks}}:{SCHEMA}:commands"


def obeyed(nodes: Nodes) -> list[tuple[str, NodeCommand]]:
    """What the nodes obey, from now on."""
    found: list[tuple[str, NodeCommand]] = []
    for store in nodes.stores:
        obey = partial(_note, found, store.settings.node)
        store.commands.obey.update(dict.fromkeys(Deed, obey))
    return found


def _note(found: list[tuple[str, NodeCommand]], node: str, command: NodeCommand) -> None:
    found.append((node, command))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksproxy.shared.commands.LOOKS_EVERY", 0.05)


@pytest_twisted.inlineCallbacks
def test_all_nodes(valkey: Callable[..., Valkey]) -> Playing:
    """The other nodes obey once, and log who has wanted it; the sender and those who start later do not."""
    server = valkey()
    nodes = Nodes(server.url, 3)
    found = obeyed(nodes)
    yield nodes.start()
    yield until(lambda: all(store.commands._position for store in nodes.stores))
    with heard() as lines:
        assert (yield nodes.one.commands.send(Deed.KICK, "bob\udcff", "uid 0")) is True
        assert (yield nodes.stores[1].commands.send(Deed.RELOAD, "", "192.0.2.1")) is True
        yield until(lambda: len(found) == 4)
    seen = sorted((node, told.deed.value, told.about, told.node, told.by) for node, told in found)
    assert seen == [
        ("n1", "reload", "", "n2", "192.0.2.1"),
        ("n2", "kick", "bob\udcff", "n1", "uid 0"),
        ("n3", "kick", "bob\udcff", "n1", "uid 0"),
        ("n3", "reload", "", "n2", "192.0.2.1"),
    ]
    assert any("node n1 (uid 0) has all nodes kick bob" in line for line in lines)
    assert any("node n2 (192.0.2.1) has all nodes reload" in line for line in lines)
    assert 0 < server.client().pttl(STREAM) <= 120_000
    late = Nodes(server.url, 4)
    late.stores = late.stores[3:]
    found_late = obeyed(late)
    yield late.start()
    yield until(lambda: bool(late.one.commands._position))
    yield nodes.one.commands.send(Deed.UNLOCK, "192.0.2.7", "uid 0")
    yield until(lambda: len(found_late) == 1)
    assert found_late[0][1].about == "192.0.2.7"
    yield until(lambda: len(found) == 6)
    yield gatherResults([nodes.stop(), late.stop()])
    assert nodes.one.commands._timer is None


@pytest_twisted.inlineCallbacks
def test_cut_off(valkey: Callable[..., Valkey]) -> Playing:
    """What a node has missed is obeyed, unless it is older than a minute."""
    server = valkey()
    nodes = Nodes(server.url, 1)
    found = obeyed(nodes)
    yield nodes.start()
    yield until(lambda: bool(nodes.one.commands._position))
    nodes.one.commands.stop()
    yield until(lambda: not nodes.one.commands._asked)
    client = server.client()
    now = client.time()[0] * 1000
    nodes.one.commands._position = f"{now - 300_000}-0"
    for age in (90_000, 30_000):
        fields = {"deed": "kick", "about": str(age), "node": "n2", "by": "x"}
        client.xadd(STREAM, fields, id=f"{now - age}-0")
    # Of a later version, and without sense.
    client.xadd(STREAM, {"deed": "dance", "node": "n2"})
    client.xadd(STREAM, {"something": "else"})
    for _ in range(2):
        nodes.one.commands.look()
        yield until(lambda: not nodes.one.commands._asked)
    assert [command.about for _, command in found] == ["30000"]
    yield nodes.stop()


@pytest_twisted.inlineCallbacks
def test_bounded(valkey: Callable[..., Valkey]) -> Playing:
    """The stream stays small, and many commands are obeyed some at a time, all of them and in order."""
    server = valkey()
    nodes = Nodes(server.url, 2)
    found = obeyed(nodes)
    yield nodes.start()
    yield until(lambda: bool(nodes.stores[1].commands._position))
    for store in nodes.stores:
        store.commands.stop()
    yield gatherResults([nodes.one.commands.send(Deed.KICK, f"user{n}", "x") for n in range(2000)])
    assert server.client().xlen(STREAM) < 1200
    kept = [fields["about"] for _, fields in server.client().xrange(STREAM)]
    while len(found) < len(kept):
        nodes.stores[1].commands.look()
        yield until(lambda: not nodes.stores[1].commands._asked)
    assert [command.about for _, command in found] == kept
    yield nodes.stop()


class DownStore:
    """A store that does not answer."""

    settings = settings_of("unix:///nowhere", node="n1")
    up = False

    def run(self, job: Job) -> None:
        job.done(None)


def test_down() -> None:
    """Without the store nothing is sent, and nothing is asked."""
    clock = Clock()
    commands = Commands(clock, DownStore())
    told: list[bool] = []
    commands.send(Deed.KICK, "bob", "uid 0").addCallback(told.append)
    assert told == [False]
    commands.start()
    clock.advance(10 * LOOKS_EVERY)
    assert not commands._asked
    commands.stop()
    assert not clock.getDelayedCalls()


def test_fault() -> None:
    """A command that fails here does not keep the next ones from being obeyed."""
    commands = Commands(Clock(), DownStore())
    done: list[str] = []

    def kick(command: NodeCommand) -> None:
        done.append(command.about)
        raise ValueError("a fault")

    commands.obey[Deed.KICK] = kick
    entry = [b"node", b"n2", b"deed", b"kick", b"by", b"x", b"about"]
    with heard() as lines:
        commands._found([b"2-0", b"1000", [b"1-0", [*entry, b"ann"]], [b"2-0", [*entry, b"bob"]]])
    assert done == ["ann", "bob"]
    assert commands._position == "2-0"
    assert any("a command of another node fails" in line for line in lines)
