"""Who is granted a UDP association at all."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from socksproxy import Client as Who, Command, UDPSettings
from socksproxy.negotiation import MAX_EARLY
from socksproxy.policy import ICommandPolicy
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.wire.words import Reply
from tests.support.policy import Policy
from tests.support.proxy import until
from tests.support.udp import KINDS, Client, Echo, Proxy, Refused, serving, tcp_socket, two_free_ports

kinds = pytest.mark.parametrize("kind", KINDS)
ALL = Rule(name="all", allow=True)
NO_ASSOCIATIONS = Rule(name="no-udp", allow=False, commands=["associate"])
#: 127.0.0.1 is an outsider.
INSIDE = Rule(name="inside", allow=True, clients=["127.0.0.2"])


def refused(proxy: Proxy) -> int:
    """What the proxy answers to a request for an association, which it refuses."""
    with pytest.raises(Refused) as caught:
        Client(proxy)
    return int(caught.value.args[0])


def an_outsider_takes_all(proxy: Proxy) -> None:
    with ExitStack() as stack, Echo() as echo:
        for _ in range(20):
            assert refused(proxy) == Reply.NOT_ALLOWED
        for _ in range(2):
            client = stack.enter_context(Client(proxy, "127.0.0.2"))
            assert client.ask(b"x", echo.address) == b"x"
        record = proxy.record()
        assert (record["reply"], record["rule"]) == (2, "default")
        assert record["ended"] == "refused: the policy denies every destination"


@kinds
@pytest_twisted.ensureDeferred
async def test_an_outsider_takes_no_port(kind: str) -> None:
    """Though each has an address of its own, and no datagram is ever sent."""
    settings = UDPSettings(ports=two_free_ports())
    async with serving(kind, udp=settings, policy=RulePolicy([INSIDE])) as proxy:
        await proxy.run(an_outsider_takes_all)


@kinds
@pytest_twisted.ensureDeferred
async def test_denied_by_a_rule(kind: str) -> None:
    """The record names the rule that denies."""
    async with serving(kind, policy=RulePolicy([NO_ASSOCIATIONS, ALL])) as proxy:
        assert (await proxy.run(refused)) == Reply.NOT_ALLOWED
        await until(lambda: proxy.records)
        assert proxy.records[0]["rule"] == "no-udp"
        assert not proxy.factory.sessions.context.associations.live


@kinds
@pytest_twisted.ensureDeferred
async def test_after_a_change_of_the_rules(kind: str) -> None:
    """An association whose client may do nothing any more ends; others go on."""
    async with serving(kind, policy=RulePolicy([ALL])) as proxy:
        outside, inside = [await proxy.run(Client, host) for host in ("127.0.0.1", "127.0.0.2")]
        proxy.factory.reconfigure(policy=RulePolicy([INSIDE]))
        await until(lambda: proxy.records)
        assert [record["ended"] for record in proxy.records] == ["no longer permitted"]
        assert (await proxy.run(lambda _: outside.closed())) is True
        assert len(proxy.factory.sessions.context.associations.live) == 1
        outside.close()
        inside.close()


@implementer(ICommandPolicy)
class Commands(Policy):
    """One of an embedder's, which can tell before there is a destination."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__({})
        self._answer = answer
        self.commands: list[Command] = []

    def permits_command(self, client: Who, command: Command) -> Any:
        """See :meth:`socksproxy.policy.ICommandPolicy.permits_command`."""
        self.commands.append(command)
        return self._answer()


def raises() -> bool:
    raise RuntimeError("an embedder's fault")


def echoes(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"


@pytest.mark.parametrize(
    ("answer", "granted"),
    [
        (lambda: True, True),
        (lambda: succeed(True), True),
        (lambda: False, False),
        (lambda: succeed(False), False),
        (lambda: fail(RuntimeError("an embedder's fault")), False),
        (raises, False),
    ],
)
@kinds
@pytest_twisted.ensureDeferred
async def test_of_an_embedder(kind: str, answer: Callable[[], Any], granted: bool) -> None:
    policy = Commands(answer)
    async with serving(kind, policy=policy) as proxy:
        if granted:
            await proxy.run(echoes)
        else:
            assert (await proxy.run(refused)) == Reply.NOT_ALLOWED
        assert policy.commands == [Command.UDP_ASSOCIATE]


@kinds
@pytest_twisted.ensureDeferred
async def test_a_policy_that_cannot_tell(kind: str) -> None:
    """One of before: each destination is asked about, as ever."""
    policy = Policy({})
    async with serving(kind, policy=policy) as proxy:
        await proxy.run(echoes)
        assert [command for _, command, _ in policy.asked] == [Command.UDP_ASSOCIATE]


@kinds
@pytest_twisted.ensureDeferred
async def test_early_data_before_the_answer(kind: str) -> None:
    """A client that was not read any more, because it said too much, is read again: it can end."""
    waiting: list[Deferred[bool]] = []
    policy = Commands(lambda: waiting.append(Deferred()) or waiting[-1])
    async with serving(kind, policy=policy) as proxy:
        with tcp_socket("127.0.0.1") as tcp:
            tcp.connect(proxy.address)
            tcp.sendall(getattr(proxy, "first", b"") + b"\5\1\0" + b"\5\3\0\1" + bytes(6) + bytes(MAX_EARLY))
            await until(lambda: waiting)
            await until(lambda: any(each.negotiation.full for each in proxy.factory.sessions.live))
            waiting[0].callback(True)
            tcp.shutdown(socket.SHUT_WR)
            await until(lambda: any(each.half_closed for each in proxy.factory.sessions.live))


@kinds
@pytest_twisted.ensureDeferred
async def test_a_policy_that_takes_its_time(kind: str) -> None:
    """The answer is waited for, and new rules count that come meanwhile."""
    waiting: list[Deferred[bool]] = []
    policy = Commands(lambda: waiting.append(Deferred()) or waiting[-1])
    async with serving(kind, policy=policy) as proxy:
        asked = proxy.run(echoes)
        await until(lambda: waiting)
        waiting[0].callback(True)
        await asked
        asked = proxy.run(refused)
        await until(lambda: len(waiting) == 2)
        proxy.factory.reconfigure(policy=RulePolicy([NO_ASSOCIATIONS, ALL]))
        waiting[1].callback(True)
        assert (await asked) == Reply.NOT_ALLOWED
