"""
CONNECT: from a destination to a connection (RFC 1928, section 4; SOCKS4; SOCKS4a).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..dial import Dialed, dial
from ..errors import NotAllowed
from ..names import canonical
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


def connect(
    means: Means,
    client: Client,
    destination: Address,
    dialer: Callable[[Address], Deferred[Dialed]],
    resolved: Callable[[], None],
) -> Deferred[Dialed]:
    """
    Connect to *destination* for *client*.

    :param dialer: starts one attempt to a checked address.
    :param resolved: called when a name has been looked up.
    :returns: fires with the connection; cancelling it leaves nothing behind.
    :raises NameNotFound: at once or by the Deferred, when there is no such host.
    :raises NotAllowed: by the Deferred, when the policy denies the name or all of its addresses.
    """
    destination = canonical(destination)
    answer = _ask(means.policy, client, destination)
    if answer is True and destination.type is not AddressType.DOMAIN_NAME:
        # The common case, and the one that is measured: nothing to wait for but the connection.
        return dialer(destination)
    return _connect_slowly(means, client, destination, answer, dialer, resolved)


@inlineCallbacks
def _connect_slowly(
    means: Means,
    client: Client,
    destination: Address,
    answer: bool | Deferred[bool],
    dialer: Callable[[Address], Deferred[Dialed]],
    resolved: Callable[[], None],
) -> Generator[Any, Any, Dialed]:
    if not (yield answer):
        raise NotAllowed("the policy denies it")
    if destination.type is not AddressType.DOMAIN_NAME:
        dialed: Dialed = yield dialer(destination)
        return dialed
    addresses: list[Address] = yield means.names.lookup(destination.host, destination.port)
    resolved()
    permitted = []
    for address in addresses:
        if (yield _ask(means.policy, client, address)):
            permitted.append(address)
    if not permitted:
        raise NotAllowed("the policy denies every address of the name")
    dialed = yield dial(permitted, dialer, means.clock)
    return dialed


def _ask(policy: IPolicy, client: Client, destination: Address) -> bool | Deferred[bool]:
    try:
        answer = policy.permits(client, Command.CONNECT, destination)
    except Exception:
        # An embedder's policy may raise anything; whatever it is, it denies.
        _log.failure("the policy failed; the request is denied")
        return False
    if isinstance(answer, Deferred):
        answer.addErrback(_policy_failed)
    return answer


def _policy_failed(failure: Failure) -> bool:
    failure.trap(Exception)
    if failure.check(CancelledError):
        failure.raiseException()
    _log.failure("the policy failed; the request is denied", failure=failure)
    return False
