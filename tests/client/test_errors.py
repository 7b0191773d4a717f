"""The family of errors."""

from __future__ import annotations

import inspect

import pytest
from twisted.internet import error

from socksproxy.client import HandshakeFailed, Problem, ProxiedConnectError, errors
from socksproxy.errors import reply_for
from socksproxy.wire.words import Address, Command, Reply, Request, Version

FAMILY = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and kind.__module__ == errors.__name__
]
ADDRESS = Request(Version.SOCKS5, Command.CONNECT, Address.of("192.0.2.1", 80))


def test_one_family() -> None:
    """One except clause catches all, and each is an error of Twisted's."""
    assert all(
        issubclass(kind, ProxiedConnectError) and issubclass(kind, error.ConnectError) for kind in FAMILY
    )


def test_the_proxy_and_the_destination_are_two_things() -> None:
    """No error blames both."""
    both = [
        kind
        for kind in FAMILY
        if issubclass(kind, errors.ProxyError) and issubclass(kind, errors.DestinationError)
    ]
    assert both == []


@pytest.mark.parametrize("problem", Problem)
def test_every_problem(problem: Problem) -> None:
    """Each way to fail has an error, and only a refusal can be the destination's."""
    found = errors.error_for(HandshakeFailed(problem, "why", 9, 9), ADDRESS, 3)
    assert (found.reply, found.hop) == (9, 3)
    assert "why" in str(found)
    unclear = problem in (Problem.REFUSED, Problem.CLOSED)
    assert isinstance(found, errors.ProxyError) is not unclear
    assert not isinstance(found, errors.DestinationError)


@pytest.mark.parametrize("reply", [Reply.HOST_UNREACHABLE, Reply.CONNECTION_REFUSED, Reply.TTL_EXPIRED])
def test_the_server_tells_them_on(reply: Reply) -> None:
    """A server that uses this client passes the reply on by the same table as its own failures."""
    found = errors.error_for(HandshakeFailed(Problem.REFUSED, "x", reply, reply), ADDRESS)
    told = Reply.NETWORK_UNREACHABLE if reply is Reply.HOST_UNREACHABLE else reply
    assert reply_for(found) is told


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.DestinationRefused, error.ConnectionRefusedError),
        (errors.DestinationUnreachable, error.NoRouteError),
        (errors.DestinationNameNotFound, error.DNSLookupError),
        (errors.DestinationTimedOut, error.TimeoutError),
        (errors.ProxyTimedOut, error.TimeoutError),
        (errors.ReplyTimedOut, error.TimeoutError),
        (errors.ProxyUnreachable, error.ConnectError),
        (errors.GeneralFailure, error.ConnectError),
    ],
)
def test_classes_that_callers_catch(kind: type[ProxiedConnectError], base: type[Exception]) -> None:
    """A caller that catches Twisted's own error catches ours."""
    problem = kind("no luck", 7, 2)
    assert isinstance(problem, base)
    assert (problem.reply, problem.hop) == (7, 2)
    assert str(problem) == "proxy 2 of the chain: no luck"
