"""What every command works with: the policy's word, and a name's checked addresses."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from socksproxy import Client
from socksproxy.errors import NameNotFound, NotAllowed
from socksproxy.net.resolve import NameLookups
from socksproxy.policy import INamePolicy
from socksproxy.policy.asking import DestinationCheck, ask, ask_address, permitted_addresses
from socksproxy.wire.words import Address, Command
from tests.support.hosts import Hosts
from tests.support.logs import log_publisher
from tests.support.policy import Policy

CLIENT = Client("192.0.2.7", 1234)
NAME = Address.of("a.example", 80)
FIRST, SECOND, THIRD = (Address.of(host, 80) for host in ("192.0.2.1", "2001:db8::2", "192.0.2.3"))


def means_for(policy: Policy, hosts: dict[str, list[str] | None]) -> DestinationCheck:
    clock = Clock()
    return DestinationCheck(policy, NameLookups(Hosts(hosts), clock), clock)


def failing(value: Exception) -> Any:
    def answer() -> bool:
        raise value

    return answer


class TestAsk:
    """A policy is an embedder's: whatever it does, the answer is one."""

    @pytest.mark.parametrize("answer", [True, False])
    def test_at_once(self, answer: bool) -> None:
        policy = Policy({"a.example": answer})
        assert ask(policy, CLIENT, Command.BIND, NAME) is answer
        assert policy.asked == [(CLIENT, Command.BIND, NAME)]

    @pytest.mark.parametrize("answer", [True, False])
    def test_later(self, answer: bool) -> None:
        given = ask(Policy({"a.example": lambda: succeed(answer)}), CLIENT, Command.CONNECT, NAME)
        assert isinstance(given, Deferred)
        assert results_of(given) == [answer]

    def test_raises(self) -> None:
        policy = Policy({"a.example": failing(ZeroDivisionError())})
        assert ask(policy, CLIENT, Command.CONNECT, NAME) is False

    def test_fails(self) -> None:
        policy = Policy({"a.example": lambda: fail(ZeroDivisionError())})
        given = ask(policy, CLIENT, Command.CONNECT, NAME)
        assert isinstance(given, Deferred)
        assert results_of(given) == [False]

    def test_cancelled(self) -> None:
        """Whoever cancels wants no answer, and nothing in the log."""
        given = ask(Policy({"a.example": Deferred}), CLIENT, Command.CONNECT, NAME)
        assert isinstance(given, Deferred)
        results: list[Any] = []
        given.addBoth(results.append)
        given.cancel()
        assert results[0].check(CancelledError)


def results_of(deferred: Deferred[Any]) -> list[Any]:
    """What *deferred* has fired with, if it has."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def addresses(policy: Policy, hosts: dict[str, list[str] | None], asked: Address = NAME) -> tuple[Any, int]:
    """The outcome for *asked*, and how often it was told that a name is resolved."""
    means = means_for(policy, hosts)
    resolved: list[None] = []
    answer = ask(policy, CLIENT, Command.CONNECT, asked)
    found: Deferred[Any] = maybeDeferred(
        permitted_addresses, means, CLIENT, Command.CONNECT, asked, answer, lambda: resolved.append(None)
    )
    (result,) = results_of(found)
    return (result.value if isinstance(result, Failure) else result), len(resolved)


#: What the resolver knows.
KNOWN: dict[str, list[str] | None] = {"a.example": ["192.0.2.1", "2001:db8::2", "192.0.2.3"]}


class TestPermittedAddresses:
    """The policy sees the name and each of its addresses."""

    def test_all(self) -> None:
        policy = Policy({})
        assert addresses(policy, KNOWN) == ([FIRST, SECOND, THIRD], 1)
        assert [asked for _, _, asked in policy.asked] == [NAME, FIRST, SECOND, THIRD]

    def test_some(self) -> None:
        """Those denied are left out, in whatever way it is said; the order stays."""
        policy = Policy({"192.0.2.1": False, "2001:db8::2": lambda: succeed(True), "192.0.2.3": None})
        assert addresses(policy, KNOWN) == ([SECOND], 1)

    def test_one_fails(self) -> None:
        """A fault over one address denies that one."""
        policy = Policy({"192.0.2.1": failing(ValueError()), "2001:db8::2": lambda: fail(ValueError())})
        assert addresses(policy, KNOWN) == ([THIRD], 1)

    def test_none(self) -> None:
        policy = Policy(dict.fromkeys(["192.0.2.1", "2001:db8::2", "192.0.2.3"], False))
        problem, resolved = addresses(policy, KNOWN)
        assert isinstance(problem, NotAllowed)
        assert str(problem) == "the policy denies every address of the name"
        assert resolved == 1

    @pytest.mark.parametrize("answer", [False, lambda: succeed(False), None])
    def test_name_denied(self, answer: Any) -> None:
        """It is not even looked up: a look-up can be seen by others."""
        policy = Policy({"a.example": answer})
        problem, resolved = addresses(policy, KNOWN)
        assert isinstance(problem, NotAllowed)
        assert str(problem) == "the policy denies it"
        assert resolved == 0
        assert len(policy.asked) == 1

    def test_no_such_name(self) -> None:
        problem, resolved = addresses(Policy({}), {})
        assert isinstance(problem, NameNotFound)
        assert resolved == 0

    def test_literal(self) -> None:
        """An address is asked for once, and is its own."""
        policy = Policy({})
        assert addresses(policy, {}, FIRST) == ([FIRST], 0)
        assert len(policy.asked) == 1

    def test_cancelled_while_resolving(self) -> None:
        policy = Policy({})
        means = means_for(policy, {"a.example": None})
        found = permitted_addresses(means, CLIENT, Command.CONNECT, NAME, True, lambda: None)
        results = results_of(found)  # type: ignore[arg-type]
        found.cancel()  # type: ignore[union-attr]
        assert results[0].check(CancelledError)
        assert means.names._waiting["a.example"][None].waiting == []

    def test_cancelled_while_addresses_are_judged(self) -> None:
        """Nobody waits for the policy's words any more, so that nobody misses them in the log."""
        policy = Policy(dict.fromkeys(["192.0.2.1", "2001:db8::2", "192.0.2.3"], Deferred))
        means = means_for(policy, KNOWN)
        found: Deferred[Any] = maybeDeferred(
            permitted_addresses, means, CLIENT, Command.CONNECT, NAME, True, lambda: None
        )
        results = results_of(found)
        logged: list[LogEvent] = []
        log_publisher.addObserver(logged.append)
        try:
            found.cancel()
            del found
            gc.collect()
        finally:
            log_publisher.removeObserver(logged.append)
        assert len(results) == 1
        assert isinstance(results[0], Failure)
        assert logged == []


@implementer(INamePolicy)
class NamePolicy(Policy):
    """One that is told names."""

    def permits_address(
        self, client: Client, command: Command, destination: Address, name: str | None
    ) -> Any:
        """See :meth:`socksproxy.policy.INamePolicy.permits_address`."""
        self.named.append((destination, name))
        return self.permits(client, command, destination)

    named: list[tuple[Address, str | None]]


class TestNames:
    """A policy that can be told the name is; one with three arguments is asked as ever."""

    def test_told(self) -> None:
        policy = NamePolicy({"192.0.2.1": False, "2001:db8::2": lambda: succeed(True)})
        policy.named = []
        assert addresses(policy, KNOWN) == ([SECOND, THIRD], 1)
        assert policy.named == [(FIRST, "a.example"), (SECOND, "a.example"), (THIRD, "a.example")]
        assert policy.asked[0][2] == NAME

    @pytest.mark.parametrize("answer", [failing(ValueError()), lambda: fail(ValueError())])
    def test_fails(self, answer: Any) -> None:
        policy = NamePolicy({"192.0.2.1": answer, "192.0.2.3": False})
        policy.named = []
        assert addresses(policy, KNOWN) == ([SECOND], 1)

    def test_the_user_is_asked_too(self) -> None:
        """An avatar has no say in names, and its no counts."""
        policy, user = NamePolicy({}), Policy({"192.0.2.1": False})
        policy.named = []
        client: Any = CLIENT._replace(avatar=user)  # type: ignore[arg-type]
        assert ask_address(policy, client, Command.CONNECT, FIRST, "a.example") is False
        assert ask_address(policy, client, Command.CONNECT, SECOND, "a.example") is True
        assert user.asked == [(client, Command.CONNECT, FIRST), (client, Command.CONNECT, SECOND)]

    def test_not_told(self) -> None:
        policy = Policy({})
        assert ask_address(policy, CLIENT, Command.CONNECT, FIRST, "a.example") is True
        assert policy.asked == [(CLIENT, Command.CONNECT, FIRST)]
