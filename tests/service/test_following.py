"""Following the source of the configuration: directories, URLs, stores; and what is not put in force."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from socksproxy.app import Options, makeService
from socksproxy.service.following import Following, turn
from socksproxy.service.reload import CannotReload, ReloadUnderway
from socksproxy.service.server import SOCKSService
from socksproxy.sources.found import FoundConfig, SourceProblem
from socksproxy.sources.signing import signed
from socksproxy.values.shared import NodeSettings

from ..support.config_server import ConfigServer, config_server
from ..support.logs import heard
from ..support.processes import Program
from ..support.proxy import reactor, until
from ..support.valkey import Valkey

OFTEN = "--config-interval=0.02"


def text(idle: int | str) -> str:
    """A configuration that differs by a timeout."""
    return f'[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n[timeouts]\nidle-timeout = {idle}\n'


def hash_of(content: str) -> str:
    return sha256(content.encode()).hexdigest()


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[SOCKSService]:
    """A service with these arguments."""
    options = Options(reactor)
    options.parseOptions(arguments)
    service: Any = makeService(options)
    service.privilegedStartService()
    service.startService()
    try:
        yield service
    finally:
        service.end_now = lambda: None
        await service.stopService()


def idle(service: SOCKSService) -> float:
    return service.plan.settings.timeouts.idle


def told(service: SOCKSService) -> dict[str, Any]:
    return service.control().config()


def told_of(service: SOCKSService, words: str) -> bool:
    return words in service.following.problem


def metric(service: SOCKSService, name: str) -> list[Any]:
    assert service.metrics is not None
    samples = service.metrics.snapshot().families[name].samples
    return [(each.labels, each.value) for each in samples]


# One node, with a clock.


class Source:
    """A source that holds what the test says."""

    def __init__(self) -> None:
        self.seen: FoundConfig | Exception = FoundConfig(b"old")
        self.name = "https://config.example/"
        self.watched = True
        self.last_good = None

    def look(self, known: FoundConfig | None, present: FoundConfig | None) -> FoundConfig:
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen


class FakeOptions(dict[str, Any]):
    """Options in force."""

    def __init__(self, source: Source, spread: float) -> None:
        super().__init__(config="https://config.example/")
        self.origin: Any = source
        self.seen = FoundConfig(b"old")
        self.fallback = ""
        self.tried: list[bytes] = []
        self.plan: Any = Plan(spread)

    def trial(self, seen: FoundConfig) -> None:
        self.tried.append(seen.content)
        if seen.content.startswith(b"wrong"):
            raise UsageError("line 1: wrong\nline 2: wrong")


class Plan:
    """The part of a plan that counts."""

    def __init__(self, spread: float) -> None:
        self.config_interval = None
        self.config_spread = spread
        self.node = NodeSettings(name="one")


class Reloads:
    """Reloads, and puts in force what it is given."""

    def __init__(self, options: FakeOptions) -> None:
        self.options = options
        self.given: list[bytes] = []
        self.refuses: Exception | None = None
        self.failed: tuple[float, list[str]] | None = None
        self.following: Following

    def now(self, seen: FoundConfig) -> Deferred[list[str]]:
        self.given.append(seen.content)
        if self.refuses is not None:
            self.failed = 0.0, [str(self.refuses)]
            return fail(self.refuses)
        self.options.seen = seen
        self.following.reloaded(True)
        return succeed([])


class Now:
    """A pool that runs its jobs at once."""

    def __init__(self, *arguments: object, **more: object) -> None:
        pass

    def run(self, job: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return execute(job, *arguments)


class Node:
    """One node under a clock; its name is half the way through all names."""

    def __init__(self, spread: float) -> None:
        self.clock = Clock()
        self.source = Source()
        self.options = FakeOptions(self.source, spread)
        self.reloads = Reloads(self.options)
        current: Any = lambda: self.options  # noqa: E731
        reloads: Any = self.reloads
        self.following = self.reloads.following = Following(self.clock, current, reloads)
        self.following.start()

    def look(self, content: bytes | Exception | None = None) -> None:
        """Have the source hold *content*, and wait for a look."""
        if content is not None:
            self.source.seen = FoundConfig(content) if isinstance(content, bytes) else content
        self.clock.advance(30)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr("socksproxy.service.following.Pool", Now)
    monkeypatch.setattr("socksproxy.service.following.turn", lambda name: 0.5)
    with heard():
        node = Node(120)
        yield node
        node.following.stop()
    assert not node.clock.getDelayedCalls()


def test_waits(node: Node) -> None:
    """What is new is checked at once, and comes into force in the node's turn."""
    node.look(b"new")
    assert node.options.tried == [b"new"]
    assert node.following.told()["waiting"] == {"hash": sha256(b"new").hexdigest(), "seconds": 60.0}
    node.look()
    assert node.reloads.given == []
    node.clock.advance(30)
    assert node.reloads.given == [b"new"]
    assert node.following.told()["waiting"] is None
    node.look()
    assert (node.options.tried, node.reloads.given) == ([b"new"], [b"new"])


def test_taken_back(node: Node) -> None:
    """What is taken back, or replaced, before the node's turn does not come into force."""
    node.look(b"new")
    node.look(b"old")
    node.clock.advance(60)
    assert node.reloads.given == []
    node.look(b"new")
    node.look(b"newer")
    node.clock.advance(60)
    assert node.reloads.given == [b"newer"]


def test_wrong(node: Node) -> None:
    """A mistake is told once, and takes back what waited."""
    node.look(b"new")
    with heard() as lines:
        node.look(b"wrong")
        node.look()
        node.look()
    assert lines == [
        "what https://config.example/ holds does not come into force:",
        "line 1: wrong",
        "line 2: wrong",
    ]
    assert node.options.tried == [b"new", b"wrong"]
    assert node.following.problem == "line 1: wrong\nline 2: wrong"
    node.look(b"old")
    assert not node.following.problem
    assert node.reloads.given == []


def test_source_lost(node: Node) -> None:
    """A source that gives nothing is told once; what waits comes into force, for it is right."""
    node.look(b"new")
    with heard() as lines:
        node.look(SourceProblem("connection refused"))
        assert node.following.problem == "https://config.example/: connection refused"
    assert lines[1:] == ["https://config.example/: connection refused"]
    node.look()
    assert node.reloads.given == [b"new"]
    node.look(b"new")
    assert not node.following.problem


def test_refused_and_lost(node: Node) -> None:
    """A refusal is still known after the source was away."""
    node.look(b"wrong")
    node.look(SourceProblem("connection refused"))
    node.look(b"wrong")
    assert node.following.problem.startswith("line 1")
    assert node.options.tried == [b"wrong"]


def test_cannot_apply(node: Node) -> None:
    """What cannot come into force is not tried again, until it changes or the operator asks."""
    node.reloads.refuses = CannotReload(["cannot listen: address in use"])
    node.look(b"new")
    node.clock.advance(60)
    node.look()
    node.look()
    assert node.reloads.given == [b"new"]
    assert node.following.problem == "cannot listen: address in use"
    node.reloads.refuses = None
    node.look(b"newer")
    node.clock.advance(60)
    assert node.reloads.given == [b"new", b"newer"]
    assert not node.following.problem


def test_reload_underway(node: Node) -> None:
    """A reload that another one has begun is no refusal."""
    node.reloads.refuses = ReloadUnderway()
    node.look(b"new")
    node.clock.advance(60)
    node.reloads.refuses = None
    node.look()
    node.clock.advance(60)
    assert node.reloads.given[-1:] == [b"new"]
    assert node.options.seen == FoundConfig(b"new")


def test_asked_for(node: Node) -> None:
    """SIGHUP puts in force what is there now, and nothing waits any more."""
    node.look(b"new")
    node.options.seen = FoundConfig(b"newer")
    node.following.reloaded(True)
    node.source.seen = FoundConfig(b"newer")
    node.clock.advance(90)
    assert node.reloads.given == []


def test_turns() -> None:
    """A few nodes go first: a hundredth in the first tenth of the spread, a quarter in its half."""
    turns = sorted(turn(f"node{number}") for number in range(4000))
    assert 0 <= turns[0] <= turns[-1] < 1
    for part in (0.1, 0.5, 0.9):
        assert sum(each < part for each in turns) / 4000 == pytest.approx(part**2, abs=0.02)
    assert turn("n1") == turn("n1") != turn("n2")


# Services.


@pytest_twisted.ensureDeferred
async def test_directory(tmp_path: Path) -> None:
    """A directory that another one replaces comes into force, and so does a set that changes."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place, seconds in ((first, 111), (second, 222)):
        place.mkdir()
        (place / "socks.toml").write_text(text(seconds))
    now = tmp_path / "now"
    now.symlink_to(first)
    async with serving(f"--config={now}", OFTEN) as service:
        assert idle(service) == 111
        (tmp_path / "next").symlink_to(second)
        os.replace(tmp_path / "next", now)
        await until(lambda: idle(service) == 222)
        before = service.options
        (second / "names.txt").write_text("example.org\n")
        await until(lambda: service.options is not before)
        assert told(service)["hash"] == hash_of(text(222))


@pytest_twisted.ensureDeferred
async def test_store(tmp_path: Path) -> None:
    """A key of a store; while the store is down, nothing changes."""
    redis = pytest.importorskip("redis")
    valkey = Valkey(tmp_path)
    try:
        client = redis.Redis(unix_socket_path=valkey.path)
        client.set("socks", text(111))
        state = f"--config-state={tmp_path / 'state.toml'}"
        async with serving(f"--config={valkey.url}#socks", state, OFTEN) as service:
            assert idle(service) == 111
            client.set("socks", text(222))
            await until(lambda: idle(service) == 222)
            client.close()
            valkey.stop()
            await until(lambda: service.following.problem)
            assert metric(service, "socksproxy_config_problem") == [((), 1)]
            assert idle(service) == 222
    finally:
        valkey.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ConfigServer]:
    with config_server(tmp_path, text(111).encode()) as served:
        yield served


def arguments(server: ConfigServer, state: Path, *more: str) -> Sequence[str]:
    return (
        f"--config={server.url}",
        f"--config-ca={server.ca_file}",
        f"--config-state={state}",
        OFTEN,
        *more,
    )


@pytest_twisted.ensureDeferred
async def test_pitfall_31(server: ConfigServer, tmp_path: Path) -> None:
    """
    A bad configuration changes no node; one metric tells it. The last good one is used at a restart, with
    the bad one there and without a network.
    """
    states = [tmp_path / f"state{number}" for number in range(3)]
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serving(*arguments(server, state))) for state in states]
        server.content = text(222).encode()
        await until(lambda: all(idle(node) == 222 for node in nodes))
        await until(lambda: all(state.exists() and state.read_text() == text(222) for state in states))
        before = [metric(node, "socksproxy_config_info") for node in nodes]
        assert before == [[((hash_of(text(222)),), 1)]] * 3
        assert [metric(node, "socksproxy_config_problem") for node in nodes] == [[((), 0)]] * 3
        server.content = text('"soon"').encode() + b"\n[limit]\n"
        await until(lambda: all(node.following.problem for node in nodes))
        assert [idle(node) for node in nodes] == [222] * 3
        assert [metric(node, "socksproxy_config_info") for node in nodes] == before
        assert [metric(node, "socksproxy_config_problem") for node in nodes] == [[((), 1)]] * 3
        # All mistakes are named.
        assert "[timeouts] idle-timeout" in told(nodes[0])["error"]
        assert "[limit]: no such table" in told(nodes[0])["error"]
    with heard() as lines:
        async with serving(*arguments(server, states[0])) as node:
            assert idle(node) == 222
            assert told(node)["error"]
            assert any("the last good configuration is in force" in line for line in lines)
            # It has not become the last good one.
            assert states[0].read_text() == text(222)
            server.content = text(333).encode()
            await until(lambda: idle(node) == 333)
            assert told(node)["error"] is None
    server.answer = lambda handler: None
    async with serving(*arguments(server, states[1])) as node:
        assert idle(node) == 222
    server.answer = None
    async with serving(*arguments(server, states[2])) as node:
        assert idle(node) == 333


@pytest_twisted.ensureDeferred
async def test_asked_for_now(server: ConfigServer, tmp_path: Path) -> None:
    """SIGHUP and ``ctl reload`` wait for no turn and no look; a bad configuration is told to the caller."""
    state = tmp_path / "state"
    more = arguments(server, state, "--config-interval=0", "--config-spread=1000")
    async with serving(*more) as service:
        server.content = text(222).encode()
        await service.reloading.now()
        assert idle(service) == 222
        await until(lambda: state.exists() and state.read_text() == text(222))
        server.content = b"[timeouts\n"
        with pytest.raises(UsageError, match="expected"):
            await service.reloading.now()
        assert metric(service, "socksproxy_config_problem") == [((), 1)]
        assert idle(service) == 222


@pytest_twisted.ensureDeferred
async def test_signature(server: ConfigServer, tmp_path: Path) -> None:
    """What is not signed, wrongly signed, or signed earlier, does not come into force, at no time."""
    key, now = Ed25519PrivateKey.generate(), datetime(2026, 1, 1, tzinfo=timezone.utc)
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    state = tmp_path / "state"

    def content(idle: int, hours: int, by: Ed25519PrivateKey = key) -> bytes:
        return signed(text(idle).encode(), by, now + timedelta(hours=hours))

    more = arguments(server, state, f"--config-key={public}")
    for wrong, words in ((text(111).encode(), "has no signature"), (content(1, 1)[1:], "does not fit")):
        server.content = wrong
        with pytest.raises(UsageError, match=words):
            Options(reactor).parseOptions(more)
    server.content = content(111, 1)
    async with serving(*more) as service:
        await until(state.exists)
        others = Ed25519PrivateKey.generate()
        for wrong, words in (
            (text(222).encode(), "has no signature"),
            (content(222, 2, others), "the signature does not fit"),
            (content(222, 0), "was signed at 2026-01-01T00:00:00.000000Z, before the one in force"),
        ):
            server.content = wrong
            await until(partial(told_of, service, words))
            with pytest.raises(UsageError, match=words):
                await service.reloading.now()
            assert idle(service) == 111
        server.content = content(333, 3)
        await until(lambda: idle(service) == 333)
        await until(lambda: state.read_bytes() == server.content)
    # An older one is refused after a restart, too, and what was tampered with on disk.
    server.content = content(222, 2)
    async with serving(*more) as service:
        assert idle(service) == 333
    state.write_bytes(text(444).encode())
    server.answer = lambda handler: None
    with pytest.raises(UsageError, match=r"its answer cannot be used.*; --config-state .*has no signature"):
        Options(reactor).parseOptions(more)
    # What is on disk does not matter while the source is there.
    server.answer = None
    async with serving(*more) as service:
        assert idle(service) == 222


def test_workers(twistd: Callable[..., Program], tmp_path: Path) -> None:
    """Workers follow by what the supervisor has read."""
    (tmp_path / "now").mkdir()
    file = tmp_path / "now" / "socks.toml"
    file.write_text(text(111))
    state = tmp_path / "state"
    program = twistd(
        "socks", "--config=now", "--workers=2", f"--config-state={state}", "--config-interval=0.1"
    )
    program.wait_for(r"(?s)(worker \d \(process \d+\) accepts clients.*){2}")
    (tmp_path / "next").write_text(text('"soon"'))
    os.replace(tmp_path / "next", file)
    program.wait_for("idle-timeout")
    (tmp_path / "next").write_text(text(222))
    os.replace(tmp_path / "next", file)
    program.wait_for("reloaded: now is in force from now on")
    program.stop()
    assert state.read_text() == text(222)
