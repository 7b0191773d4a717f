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
    What tells a command whether it may be, and at which addresses.

    :ivar policy: decides.
    :ivar names: looks names up.
    :ivar clock: tells the time.
    :ivar leaves_as_name: tells whether a permitted destination, a name, goes to the way out as it is; it
        raises :class:`~socksproxy.errors.SOCKSError` where the way out does not carry the command. None: all
        leaves from here.
    """

    policy: IPolicy
    names: NameLookups
    clock: IReactorTime
    leaves_as_name: Callable[[Command, Address], bool] | None = None


def ask(policy: IPolicy, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
    """
    Whether *policy* and the client's user permit it, at once or by a Deferred; one that fails denies.

    :param destination: as :meth:`~socksproxy.policy.IPolicy.permits` takes it.
    """
    answer = _answered(policy, "permits", client, command, destination)
    if client.avatar is None or not answer:
        return answer
    return _with_user(answer, client, command, destination)


def ask_command(policy: IPolicy, client: Client, command: Command) -> bool | Deferred[bool]:
    """
    Whether there may be a destination for *command*, at once or by a Deferred; one that fails denies.

    :param policy: one that is no :class:`~socksproxy.policy.ICommandPolicy` cannot tell: there may be.
    """
    if not ICommandPolicy.providedBy(policy):
        return True
    return _answered(policy, "permits_command", client, command)


def ask_address(
    policy: IPolicy, client: Client, command: Command, destination: Address, name: str | None
) -> bool | Deferred[bool]:
    """
    Whether *client* may go to an address that it did not name itself: see :func:`ask`.

    :param name: as :meth:`~socksproxy.policy.INamePolicy.permits_address` takes it; policies that do not
        provide that are asked as ever.
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
    Whether what was permitted before, and goes on, still is, for one of *reached*: see :func:`ask`.

    :param destination: as the client has asked for it.
    :param reached: the addresses that it has led to; none: they are not known yet.
    """
    # It was asked for before, so the hosts file has it where a C library reads it as an address.
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
    """*answer* where it is there already, else *otherwise*: an answer that takes its time is cancelled."""
    if not isinstance(answer, Deferred):
        return answer
    answer.addErrback(lambda _: None)
    answer.cancel()
    return otherwise


def _with_user(
    answer: bool | Deferred[bool], client: Client, command: Command, destination: Address
) -> bool | Deferred[bool]:
    """*answer*, which does not deny it, together with what the client's user says."""
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
        # An embedder's policy may raise anything; whatever it is, it denies.
        _log.failure("the policy failed; the request is denied")
        return False
    if answer is True:  # the usual answer; isinstance() takes longer with Deferred than with other classes
        return True
    if isinstance(answer, Deferred):
        return _cancellable(answer)
    return bool(answer)


def _cancellable(answer: Deferred[bool]) -> Deferred[bool]:
    """
    What *answer* says, until it is cancelled: from then on it says nothing, whatever *answer* does.

    An embedder's policy may raise anything from its Deferred's canceller, or permit there and
    then, and the result of the command's next step would have no owner.
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

    At once where nothing has to be waited for: a name that was looked up a
    moment ago is common, and Deferreds would take a fifth of its whole session.

    :param destination: canonical: a literal address or a name to look up.
    :param answer: what :func:`ask` has said of *destination* itself.
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
    if as_name and is_localhost(host):  # a proxy is not asked for what is its own
        return _permitted([Address.of("127.0.0.1", port)], check, client, command, host, resolved)
    if as_name:
        return [destination]
    remembered = check.names.remembered(host, port)
    if remembered is not None:
        return _permitted(remembered, check, client, command, host, resolved)
    looked_up = check.names.lookup(host, port, client.share)
    return looked_up.addCallback(_permitted, check, client, command, host, resolved)


def _permitted(
    addresses: list[Address],
    check: DestinationCheck,
    client: Client,
    command: Command,
    name: str,
    resolved: Callable[[], object],
) -> list[Address] | Deferred[list[Address]]:
    """Those of the *addresses* of *name* that the policy permits."""
    resolved()
    if command is Command.BIND:
        # A client may leave open who comes, but no name may do so for it.
        addresses = [address for address in addresses if not is_no_host(address.host)]
    answers = [ask_address(check.policy, client, command, address, name) for address in addresses]
    if any(isinstance(answer, Deferred) for answer in answers):
        each = [answer if isinstance(answer, Deferred) else succeed(answer) for answer in answers]
        # Of several that are cancelled, all but the first would complain that their failures are not handled.
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
    return permitted


def _policy_failed(failure: Failure) -> bool:
    failure.trap(Exception)
    if failure.check(CancelledError):
        return False  # most likely by us, and then no session waits for it
    _log.failure("the policy failed; the request is denied", failure=failure)
    return False
