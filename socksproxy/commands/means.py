"""
What every command works with: the policy's word, and a name's checked addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NotAllowed
from ..policy import Client, IPolicy
from ..resolve import Names
from ..wire.words import Address, AddressType, Command

_log = Logger(namespace="socksproxy")


class Means(NamedTuple):
    """
    What a command works with.

    :ivar policy: decides.
    :ivar names: looks names up.
    :ivar clock: tells the time.
    """

    policy: IPolicy
    names: Names
    clock: IReactorTime


def ask(policy: IPolicy, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
    """
    Whether *policy* permits it, at once or by a Deferred; a policy that fails denies.

    :param destination: as :meth:`~socksproxy.policy.IPolicy.permits` takes it.
    """
    try:
        answer = policy.permits(client, command, destination)
    except Exception:
        # An embedder's policy may raise anything; whatever it is, it denies.
        _log.failure("the policy failed; the request is denied")
        return False
    if isinstance(answer, Deferred):
        answer.addErrback(_policy_failed)
    return answer


@inlineCallbacks
def permitted_addresses(
    means: Means,
    client: Client,
    command: Command,
    destination: Address,
    answer: bool | Deferred[bool],
    resolved: Callable[[], None],
) -> Generator[Any, Any, list[Address]]:
    """
    The addresses of *destination* that the policy permits, in the resolver's order.

    :param destination: canonical: a literal address or a name to look up.
    :param answer: what :func:`ask` has said of *destination* itself.
    :param resolved: called when a name has been looked up.
    :returns: fires with at least one literal address.
    :raises NameNotFound: (by the Deferred) when the name has no address.
    :raises NotAllowed: (by the Deferred) when the policy denies *destination*, or all of its addresses.
    """
    if not (yield answer):
        raise NotAllowed("the policy denies it")
    if destination.type is not AddressType.DOMAIN_NAME:
        return [destination]
    addresses: list[Address] = yield means.names.lookup(destination.host, destination.port)
    resolved()
    permitted: list[Address] = []
    for address in addresses:
        if (yield ask(means.policy, client, command, address)):
            permitted.append(address)
    if not permitted:
        raise NotAllowed("the policy denies every address of the name")
    return permitted


def _policy_failed(failure: Failure) -> bool:
    failure.trap(Exception)
    if failure.check(CancelledError):
        failure.raiseException()
    _log.failure("the policy failed; the request is denied", failure=failure)
    return False
