"""
Whether a client may reach a destination, and at which of its addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NotAllowed
from ..identity import Client
from ..net.names import canonical, is_localhost, reads_as_address
from ..net.resolve import NameLookups
from ..net.special_addresses import WILDCARDS, is_no_host
from ..wire.words import Address, AddressType, Command
from .interfaces import ICommandPolicy, INamePolicy, IPolicy

_log = Logger(namespace="socksproxy")


class DestinationCheck(NamedTuple):
    """
    The means to check the destination of a command.

    :ivar policy: permits or denies the destination and its addresses.
    :ivar names: looks names up.
    :ivar clock: tells the time.
    :ivar leaves_as_name: tells whether a permitted destination goes to the way out as a name. It raises
        :class:`~socksproxy.errors.SOCKSError` where the way out does not carry the command. None: every
        connection leaves from this machine.
    :ivar names_for: gives what looks up the name of a permitted destination; None: *names* does.
    :ivar enough: those of a name's permitted addresses that are to be tried; None: all are.
    """

    policy: IPolicy
    names: NameLookups
    clock: IReactorTime
    leaves_as_name: Callable[[Command, Address], bool] | None = None
    enough: Callable[[list[Address]], list[Address]] | None = None
    names_for: Callable[[Address], NameLookups] | None = None


def ask(policy: IPolicy, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
    """
    Whether *policy* and the client's user permit *command* with *destination*.

    The answer comes at once or by a Deferred. A policy or a user that fails denies.

    :param destination: as :meth:`~socksproxy.policy.IPolicy.permits` takes it.
    """
    answer = _answered(policy, "permits", client, command, destination)
    if client.avatar is None or not answer:
        return answer
    return _with_user(answer, client, command, destination)


def ask_command(policy: IPolicy, client: Client, command: Command) -> bool | Deferred[bool]:
    """
    Whether *policy* may permit some destination for *command*, at once or by a Deferred.

    :param policy: a policy that fails denies. A policy that is no
        :class:`~socksproxy.policy.ICommandPolicy` cannot tell, and the answer is True.
    """
    if not ICommandPolicy.providedBy(policy):
        return True
    return _answered(policy, "permits_command", client, command)


def ask_address(
    policy: IPolicy, client: Client, command: Command, destination: Address, name: str | None
) -> bool | Deferred[bool]:
    """
    Whether *client* may reach an address that it did not name itself: see :func:`ask`.

    :param name: as :meth:`~socksproxy.policy.INamePolicy.permits_address` takes it. A policy without that
        method is asked by ``permits``.
    """
    if not INamePolicy.providedBy(policy):
        return ask(policy, client, command, destination)
    answer = _answered(policy, "permits_address", client, command, destination, name)
    if client.avatar is None or not answer:
        return answer
    return _with_user(answer, client, command, destination)


def still_permitted(
    policy: IPolicy, client: Client, command: Command, destination: Address, reached: Sequence[Address]
) -> bool | Deferred[bool]:
    """
    Whether a command that is under way is still permitted, for at least one of *reached*: see :func:`ask`.

    :param destination: the destination that the client has requested.
    :param reached: the addresses of *destination* that the command uses; empty: they are not known yet.
    """
    # The destination was permitted before. A name that a C library reads as an address is in the hosts file.
    destination = canonical(destination, reads_as_address)
    answer = ask(policy, client, command, destination)
    if not answer or not reached:
        return answer
    if destination.type is AddressType.DOMAIN_NAME:
        name: str | None = destination.host
    elif command is Command.BIND and destination.host in WILDCARDS and INamePolicy.providedBy(policy):
        name = None
    else:
        return answer
    answers = [
        ask_address(policy, client, command, address._replace(port=destination.port), name)
        for address in reached
        if name is not None or address.host not in WILDCARDS
    ]
    if not answers:
        return answer
    if not isinstance(answer, Deferred) and not any(isinstance(each, Deferred) for each in answers):
        return any(answers)
    each: list[Any] = [one if isinstance(one, Deferred) else succeed(one) for one in (answer, *answers)]
    return gatherResults(each, consumeErrors=True).addCallback(lambda all: all[0] and any(all[1:]))


def answer_at_once(answer: bool | Deferred[bool], otherwise: bool) -> bool:
    """*answer* where it is known already, else *otherwise*; an answer that is not known yet is cancelled."""
    if not isinstance(answer, Deferred):
        return answer
    answer.addErrback(lambda _: None)
    answer.cancel()
    return otherwise


def _with_user(
    answer: bool | Deferred[bool], client: Client, command: Command, destination: Address
) -> bool | Deferred[bool]:
    """Whether *answer*, which is not a denial, and the client's user both permit the request."""
    assert client.avatar is not None
    also = _answered(client.avatar, "permits", client, command, destination)
    if answer is True or not isinstance(answer, Deferred):
        return also
    if not isinstance(also, Deferred):
        return answer if also else False
    return _both(answer, also)


def _both(answer: Deferred[bool], also: Deferred[bool]) -> Deferred[bool]:
    both: Deferred[Any] = gatherResults([answer, also], consumeErrors=True)
    return both.addCallback(all)


def _answered(decider: Any, method: str, *question: Any) -> bool | Deferred[bool]:
    try:
        answer = getattr(decider, method)(*question)
    except Exception:
        # An embedder's policy may raise any exception, and each one denies.
        _log.failure("the policy failed; the request is denied")
        return False
    if answer is True:  # the usual answer; isinstance() takes longer with Deferred than with other classes
        return True
    if isinstance(answer, Deferred):
        return _cancellable(answer)
    return bool(answer)


def _cancellable(answer: Deferred[bool]) -> Deferred[bool]:
    """
    A Deferred with the result of *answer*, which does not fire once it is cancelled.

    The canceller of an embedder's policy may raise any exception. It may also permit the request, and then
    the result of the command's next step would have no owner.
    """
    cancelled = False

    def cancel(_: object) -> None:
        nonlocal cancelled
        cancelled = True
        try:
            answer.cancel()
        except Exception:
            _log.failure("the policy's answer cannot be cancelled")

    def tell(result: Any) -> None:
        if not cancelled:
            given.callback(result)

    given: Deferred[bool] = Deferred(cancel)
    answer.addErrback(_policy_failed).addBoth(tell)
    return given


def permitted_addresses(
    check: DestinationCheck,
    client: Client,
    command: Command,
    destination: Address,
    answer: bool | Deferred[bool],
    resolved: Callable[[], object] = lambda: None,
) -> list[Address] | Deferred[list[Address]]:
    """
    The addresses of *destination* that the policy permits, in the resolver's order.

    The answer comes at once where it needs no waiting. Many names were looked up a moment ago, and a
    Deferred would cost a fifth of the processor time of such a session.

    :param destination: a literal address or a name to look up, in canonical form.
    :param answer: the answer of :func:`ask` about *destination* itself.
    :param resolved: called when a name has been looked up.
    :returns: at least one literal address, or *destination* itself where the way out takes names.
    :raises SOCKSError: (at once or by the Deferred) when the way out does not carry *command*.
    :raises NameNotFound: (by the Deferred) when the name has no address.
    :raises NotAllowed: (at once or by the Deferred) when the policy denies *destination*, or all of its
        addresses.
    """
    if isinstance(answer, Deferred):
        later: Deferred[Any] = answer
        return later.addCallback(
            lambda answered: permitted_addresses(check, client, command, destination, answered, resolved)
        )
    if not answer:
        raise NotAllowed("the policy denies it")
    as_name = check.leaves_as_name is not None and check.leaves_as_name(command, destination)
    if destination.type is not AddressType.DOMAIN_NAME:
        return [destination]
    host, port = destination.host, destination.port
    if as_name and is_localhost(host):  # it is the upstream itself, so the policy checks loopback
        return _permitted([Address.of("127.0.0.1", port)], check, client, command, host, resolved)
    if as_name:
        return [destination]
    names = check.names if check.names_for is None else check.names_for(destination)
    remembered = names.remembered(host, port)
    if remembered is not None:
        return _permitted(remembered, check, client, command, host, resolved)
    looked_up = names.lookup(host, port, client.share)
    return looked_up.addCallback(_permitted, check, client, command, host, resolved)


def _permitted(
    addresses: list[Address],
    check: DestinationCheck,
    client: Client,
    command: Command,
    name: str,
    resolved: Callable[[], object],
) -> list[Address] | Deferred[list[Address]]:
    """The *addresses* of *name* that the policy permits."""
    resolved()
    if command is Command.BIND:
        # A client may ask for any peer by 0.0.0.0 or ::, but a name may not lead to these addresses.
        addresses = [address for address in addresses if not is_no_host(address.host)]
    answers = [ask_address(check.policy, client, command, address, name) for address in addresses]
    if any(isinstance(answer, Deferred) for answer in answers):
        each = [answer if isinstance(answer, Deferred) else succeed(answer) for answer in answers]
        # Without consumeErrors, a cancellation of several answers logs unhandled failures.
        return gatherResults(each, consumeErrors=True).addCallback(_chosen, addresses, check, command)
    return _chosen(answers, addresses, check, command)


def _chosen(
    answers: Sequence[object], addresses: list[Address], check: DestinationCheck, command: Command
) -> list[Address]:
    permitted = [address for address, answer in zip(addresses, answers, strict=True) if answer]
    if not permitted:
        raise NotAllowed("the policy denies every address of the name")
    if command is not Command.CONNECT and check.leaves_as_name is not None:
        for address in permitted:
            check.leaves_as_name(command, address)
    return permitted if check.enough is None or command is not Command.CONNECT else check.enough(permitted)


def _policy_failed(failure: Failure) -> bool:
    failure.trap(Exception)
    if failure.check(CancelledError):
        return False  # most likely cancelled by us, and then no session waits for the answer
    _log.failure("the policy failed; the request is denied", failure=failure)
    return False
