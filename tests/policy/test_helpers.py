"""External helpers that judge requests: see :mod:`socksproxy.policy.helpers`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from socksproxy import RulePolicy
from socksproxy.helpers.lines import HelperAnswer, HelperVerdict
from socksproxy.identity import Client
from socksproxy.policy.helpers import RequestHelper, RequestHelpers
from socksproxy.policy.rules import Rule, RuleError
from socksproxy.values.errors import ConfigError
from socksproxy.values.limits import Limits
from socksproxy.wire.words import Command, Reply
from tests.conftest import Serve
from tests.support.helpers import Program
from tests.support.hosts import Hosts
from tests.support.logs import heard
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy, ask5, until
from tests.support.udp import Client as Datagrams, Echo

CLIENT = Client("192.0.2.7", 5000, "bob")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


class Answering:
    """A helper's time, and the questions that wait for an answer of the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: Program, **settings: Any) -> None:
        self.clock = Clock()
        self.asked: list[tuple[tuple[bytes | None, ...], Deferred[Any]]] = []
        self.helper = RequestHelper(self.clock, "one", program.settings(**settings))
        monkeypatch.setattr(self.helper._helper, "ask", self._ask)

    def _ask(self, words: tuple[bytes | None, ...]) -> Deferred[Any]:
        self.asked.append((words, Deferred()))
        return self.asked[-1][1]

    def permits(self, host: str = "a.example", client: Client = CLIENT) -> Any:
        return self.helper.permits(client, Command.CONNECT, host, 80)

    def answer(self, word: str) -> None:
        self.asked[-1][1].callback(HelperAnswer(HelperVerdict(word)))


def test_words(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    """The old and the new codes, and words as they are."""
    told = Answering(monkeypatch, program, format="%SRC %>a %un %LOGIN %METHOD %DST %>rd %PORT %>rP %>p here")
    told.permits()
    told.permits(client=Client(None, 0))
    first = b"192.0.2.7 192.0.2.7 bob bob CONNECT a.example a.example 80 80 5000 here".split()
    assert told.asked[0][0] == tuple(first)
    assert told.asked[1][0][:4] == (None, None, None, None)


def test_remembered(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    """A yes and a no count for their times; what the helper cannot tell is asked again."""
    told = Answering(monkeypatch, program, ttl=60, negative_ttl=5)
    for word, expected, seconds in (("OK", True, 60), ("ERR", False, 5)):
        results: list[bool] = []
        told.permits().addCallback(results.append)
        told.permits().addCallback(results.append)  # joins the question
        told.answer(word)
        assert results == [expected, expected]
        assert told.permits() is expected
        told.clock.advance(seconds)
        assert isinstance(told.permits(), Deferred)
        told.answer("BH")
    assert isinstance(told.permits(), Deferred)
    assert len(told.asked) == 5


def test_cancelled(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    """A session that goes away takes its question from nobody else, and the answer is remembered."""
    told = Answering(monkeypatch, program)
    results: list[Any] = []
    gone = told.permits().addErrback(lambda failure: results.append(failure.trap(CancelledError)))
    told.permits().addCallback(results.append)
    gone.cancel()
    told.answer("OK")
    assert results == [CancelledError, True]
    assert told.permits() is True


def test_reload(program: Program) -> None:
    """A helper that stays keeps what it knows; one that is gone answers for the rules before, then denies."""
    helpers = RequestHelpers(Clock())
    settings = program.settings()
    helpers.follow({"one": settings, "two": settings})
    before = dict(helpers._helpers)
    helpers.follow({"one": program.settings(), "two": program.settings(ttl=5)})
    assert helpers._helpers["one"] is before["one"]
    assert helpers._helpers["two"] is not before["two"]
    helpers.follow({})
    assert not helpers
    helpers.follow({})
    assert helpers.permits("one", CLIENT, Command.CONNECT, "a.example", 80) is False


def test_only_in_rules_that_allow() -> None:
    with pytest.raises(RuleError, match="only in a rule that allows"):
        Rule(name="no", allow=False, ask="one")


@pytest_twisted.inlineCallbacks
def test_unknown_helper(serve_as: Serve) -> Playing:
    with pytest.raises(ConfigError, match="there is no helper one, which the rule all asks"):
        yield serve_as(policy=RulePolicy([Rule(name="all", allow=True, ask="one")]))


NAMES = ("yes", "no", "broken", "hang", "die")


def asking(program: Program, limits: Limits | None = None, **changes: Any) -> dict[str, Any]:
    """Options of a server whose one rule asks *program* about the name or the address, and the port."""
    rule = Rule(name="all", allow=True, networks=["0.0.0.0/0"], names=["*"], ask="one", limits=limits)
    settings = program.settings(format="%SRC %METHOD %PORT %DST", **changes)
    return {"policy": RulePolicy([rule]), "helpers": {"one": settings}}


def told(proxy: Proxy, host: str, port: int) -> int:
    """The reply to a request."""
    with proxy.connect() as sock:
        return int(ask5(sock, host, port)[0])


@pytest_twisted.inlineCallbacks
def test_names(serve: Serve, program: Program, origin: Origin) -> Playing:
    """The helper is asked with the name, before the name is looked up; only a yes goes on."""
    hosts = Hosts({"yes": ["127.0.0.1"], "no": ["127.0.0.1"]})
    proxy: Proxy = yield serve(resolver=hosts, **asking(program, timeout=5, children=2))
    replies = []
    with heard():
        for name in NAMES:
            replies.append((yield proxy.play(told, proxy, name, origin.port)))
    assert replies == [Reply.SUCCEEDED, *[Reply.NOT_ALLOWED] * 4]
    assert set(hosts.asked) == {"yes"}
    assert program.lines[0] == f"127.0.0.1 CONNECT {origin.port} yes"
    yield until(lambda: len(proxy.records) == len(NAMES))
    ends = sorted((each["rule"], each["end"]) for each in proxy.records)
    assert ends == [("all", "client"), *[("all", "denied")] * 4]


@pytest_twisted.inlineCallbacks
def test_addresses(serve_as: Serve, program: Program, origin: Origin) -> Playing:
    """A literal address is asked about, and its answer is remembered."""
    proxy: Proxy = yield serve_as(**asking(program))
    for _ in range(3):
        assert (yield proxy.play(told, proxy, "127.0.0.1", origin.port)) == Reply.SUCCEEDED
    assert program.lines == [f"127.0.0.1 CONNECT {origin.port} 127.0.0.1"]


@pytest_twisted.inlineCallbacks
def test_limits_after_the_answer(serve_as: Serve, program: Program, origin: Origin) -> Playing:
    """A request that the helper denies takes no place of the rule's limits."""
    hosts = Hosts({"yes": ["127.0.0.1"]})
    proxy: Proxy = yield serve_as(resolver=hosts, **asking(program, Limits(sessions=1)))
    with heard():
        assert (yield proxy.play(told, proxy, "no", origin.port)) == Reply.NOT_ALLOWED

    def two() -> tuple[int, int]:
        with proxy.connect() as sock:
            return int(ask5(sock, "yes", origin.port)[0]), told(proxy, "yes", origin.port)

    assert (yield proxy.play(two)) == (Reply.SUCCEEDED, Reply.NOT_ALLOWED)


@pytest_twisted.inlineCallbacks
def test_client_goes_away(serve_as: Serve, program: Program, origin: Origin) -> Playing:
    """A client that closes while the helper thinks ends its session at once."""
    proxy: Proxy = yield serve_as(**asking(program, timeout=20))

    def scenario() -> None:
        with proxy.connect() as sock:
            sock.sendall(b"\5\1\0" + b"\5\1\0\3\4hang\0\x50")
            sock.recv(2)

    yield proxy.play(scenario)
    yield until(lambda: not proxy.sessions.live)


@pytest.mark.parametrize("goes", [False, True])
@pytest_twisted.inlineCallbacks
def test_reload_while_asked(serve_as: Serve, program: Program, origin: Origin, goes: bool) -> Playing:
    """A reload with another program, or without any, denies no question that waits: the old one answers."""
    hosts = Hosts({"wait": ["127.0.0.1"]})
    options = asking(program, timeout=20, children=1)
    proxy: Proxy = yield serve_as(resolver=hosts, **options)

    def changes() -> None:
        helpers = {} if goes else {"one": program.settings(format="%DST")}
        policy = RulePolicy([Rule(name="all", allow=True)]) if goes else options["policy"]
        proxy.factory.reconfigure(helpers=helpers, policy=policy)
        program.go_on()

    asked = proxy.play(told, proxy, "wait", origin.port)
    yield until(lambda: program.lines)
    changes()
    assert (yield asked) == Reply.SUCCEEDED
    assert program.lines[0] == f"127.0.0.1 CONNECT {origin.port} wait"


@pytest_twisted.inlineCallbacks
def test_datagrams(serve_as: Serve, program: Program) -> Playing:
    """Each destination of an association is asked about."""
    proxy: Proxy = yield serve_as(**asking(program))

    def scenario() -> bytes:
        with Datagrams(proxy) as client:
            return client.ask(b"hello", echo_.address)

    with Echo() as echo_:
        answer = yield proxy.play(scenario)
    assert answer == b"hello"
    assert program.lines == [f"127.0.0.1 UDP_ASSOCIATE {echo_.address[1]} 127.0.0.1"]
