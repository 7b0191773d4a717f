"""
The destinations of one association: where each header leads, and what waits until that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NameNotFound, NotAllowed
from ..identity import Client
from ..limits.buckets import Meters
from ..net.local import has_route
from ..net.names import canonical, reads_as_address
from ..net.special_addresses import Special, special
from ..policy.asking import DestinationCheck, answer_at_once, ask, permitted_addresses, still_permitted
from ..values.udp import Filtering, UDPSettings
from ..wire.datagram import has_name, parse_datagram
from ..wire.words import Address, AddressType, Command, ProtocolError
from .drops import Drop

_log = Logger(namespace="socksproxy")

#: Seconds for which the policy's decision on a destination holds.
LIFETIME = 30.0
#: Seconds for which the address of a name holds: a resolver does not tell that a TTL is short.
NAME_LIFETIME = 5.0
#: Datagrams and bytes of an association that may wait for names and for a policy that takes its time.
MAX_WAITING = 64
MAX_WAITING_BYTES = 131072
#: Names and decisions of an association that may be waited for at once.
MAX_ASKED = 32

#: No datagram is longer.
LONGEST = 65535

_NOWHERE = frozenset({Special.UNSPECIFIED, Special.MULTICAST, Special.BROADCAST})


class Target:
    """
    Where the datagrams of one header go.

    :ivar key: the header.
    :ivar rule: the rule whose limits hold there beside those of the association; None: there is none.
    :ivar meters: how much may be sent there, by all limits together; None: the meters of the association
        decide.
    :ivar sockaddr: a checked literal address and a port; None: nowhere, or not known yet.
    :ivar ipv6: the family of *sockaddr*.
    :ivar until: the clock's seconds up to which this holds.
    :ivar used: whether a datagram went there since the table last made room.
    :ivar segments: the longest datagrams of which the system takes several at once for it.
    :ivar source: the literal address of ours that they leave from; None: the address of all.
    :ivar waiting: what goes there as soon as it is known where; None: nothing is being waited for.
    :ivar pending: the question that is being asked about it; None: no question is.
    """

    __slots__ = (
        "contact",
        "drop",
        "ipv6",
        "key",
        "meters",
        "pending",
        "rule",
        "segments",
        "sockaddr",
        "source",
        "until",
        "used",
        "waiting",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sockaddr: tuple[str, int] | None = None
        self.ipv6 = False
        self.until = 0.0
        self.used = False
        self.segments = LONGEST
        self.source: str | None = None
        self.waiting: list[bytes] | None = None
        self.pending: Deferred[Any] | None = None
        self.drop = Drop.DENIED
        self.contact: object = None
        self.rule: str | None = None
        self.meters: Meters | None = None


class DatagramRoute(NamedTuple):
    """
    How datagrams go to a destination.

    :ivar source: the literal address that they leave from; None: the address of all.
    :ivar idle: seconds that the association may be without a datagram, or NEVER; None: as long as all may.
    :ivar rule: the name of the rule whose limits hold there beside those of the association; None: there is
        none.
    :ivar meters: gives the meters of all that passes under a rule, by its name; no other association has
        them.
    """

    source: str | None = None
    idle: float | None = None
    rule: str | None = None
    meters: Callable[[str], Meters | None] | None = None


class TargetOwner(Shape):
    """
    The association whose targets they are.

    :ivar client: whose datagrams they are.
    :ivar check: whether the client may send there, and at which addresses a name is.
    """

    client: Client
    check: DestinationCheck

    def drop(self, reason: Drop, count: int = 1) -> None:
        """*count* datagrams are not passed on."""

    def pass_on(self, target: Target, payload: bytes) -> None:
        """Send *payload* to *target*, whose address is known now."""

    def choose_route(self, target: Target, address: Address) -> None:
        """Say how datagrams go to *address*, where *target* is."""

    def forget_sources(self) -> None:
        """Whether replies pass is to be found out anew for each source."""


class Targets:
    """
    The destinations of one association, by the headers of the client's datagrams.

    :param owner: the association.
    :param settings: how many there may be, and whose replies pass.
    :ivar by_header: the table; outlets look into it first.
    """

    __slots__ = ("_contacts", "_owner", "_settings", "asked", "by_header", "waiting", "waiting_bytes")

    def __init__(self, owner: TargetOwner, settings: UDPSettings) -> None:
        self.by_header: dict[bytes, Target] = {}
        self.asked = self.waiting = self.waiting_bytes = 0
        self._owner = owner
        self._settings = settings
        # How many targets have the address, or the address and the port.
        self._contacts: dict[object, int] = {}

    def renewed(self, header: bytes) -> Target | None:
        """
        The target of *header*, which is new, or of which what is known is old.

        Where it is old, the question is asked again, and the target is as before until the answer is there.

        :returns: None: there is none, and a datagram that was to go there is counted as dropped.
        """
        target = self.by_header.get(header)
        if target is None:
            return self._add(header)
        if target.pending is None:
            target.used = True
            self._ask(target, _destination(header))
            return target
        # The last question has not been answered for all that time.
        del self.by_header[header]
        self._forget(target)
        return self._add(header)

    def keep(self, target: Target, payload: bytes | memoryview) -> None:
        """*payload* waits until it is known where *target* is, if that is being asked; else it is dropped."""
        if target.waiting is None:
            self._owner.drop(target.drop)
        elif self.waiting >= MAX_WAITING or self.waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._owner.drop(Drop.OVERFLOW)
        else:
            self.waiting += 1
            self.waiting_bytes += len(payload)
            target.waiting.append(bytes(payload))

    def has_contact(self, host: str, port: int) -> bool:
        """Whether the client has sent to *host* and *port*, as closely as the filter of replies looks."""
        return self._contact(host, port) in self._contacts

    def __iter__(self) -> Iterator[Target]:
        return iter(self.by_header.values())

    def reconsider(self) -> list[tuple[bytes, bytes]]:
        """
        Ask anew about every destination.

        A destination that is still permitted stays, lest its next reply is lost. About the others, and about
        those on which the policy does not decide at once, the next datagram asks.

        :returns: the headers and payloads of what has waited for the others.
        """
        again = []
        for target in list(self):
            self._stop_asking(target)
            reached = None if target.sockaddr is None else Address.of(*target.sockaddr)
            if reached is not None and self._still_permits(target, reached):
                self._settle(target, reached, Drop.DENIED)
                continue
            del self.by_header[target.key]
            again += [(target.key, payload) for payload in self._taken(target)]
            self._forget(target)
        return again

    def close(self) -> None:
        """Forget all of them, and ask nothing more."""
        for target in self:
            self._forget(target)
        self.by_header.clear()

    def _contact(self, host: str, port: int) -> object:
        by_port = self._settings.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
        return (host, port) if by_port else host

    def _add(self, header: bytes) -> Target | None:
        owner = self._owner
        try:
            address = _destination(header, owner.check.names.defines)
        except ProtocolError:
            owner.drop(Drop.MALFORMED)
            return None
        except NameNotFound:
            owner.drop(Drop.UNRESOLVABLE)
            return None
        if self.asked >= MAX_ASKED and address.type is AddressType.DOMAIN_NAME:
            owner.drop(Drop.OVERFLOW)
            return None
        if len(self.by_header) >= self._settings.destinations:
            self._make_room()
        target = self.by_header[header] = Target(header)
        self._ask(target, address)
        return target

    def _ask(self, target: Target, address: Address) -> None:
        """Find out where *target* is, and whether the client may send there."""
        client, check = self._owner.client, self._owner.check
        target.until = check.clock.seconds() + LIFETIME
        named = address.type is AddressType.DOMAIN_NAME
        if not named and _leads_nowhere(address):
            self._settle(target, None, Drop.DENIED)
            return
        answer = ask(check.policy, client, Command.UDP_ASSOCIATE, address)
        if not named and not isinstance(answer, Deferred):
            self._settle(target, address if answer else None, Drop.DENIED)
            return
        if target.sockaddr is None:
            target.waiting = []
        self.asked += 1
        pending: Deferred[Any] = maybeDeferred(
            permitted_addresses, check, client, Command.UDP_ASSOCIATE, address, answer
        )
        target.pending = pending
        pending.addCallbacks(self._found, self._not_found, callbackArgs=(target,), errbackArgs=(target,))
        pending.addErrback(self._broke, target)

    def _found(self, addresses: list[Address], target: Target) -> None:
        if target.pending is None:
            return  # it was cancelled
        usable = [address for address in map(canonical, addresses) if not _leads_nowhere(address)]
        self._settle(target, _best(usable, target.sockaddr), Drop.DENIED)

    def _not_found(self, failure: Failure, target: Target) -> None:
        if target.pending is None:
            return  # it was cancelled
        failure.trap(NameNotFound, NotAllowed)
        self._settle(target, None, Drop.DENIED if failure.check(NotAllowed) else Drop.UNRESOLVABLE)

    def _broke(self, failure: Failure, target: Target) -> None:
        _log.failure("{client}: a destination of UDP failed", failure, client=self._owner.client)
        self._settle(target, None, Drop.UNRESOLVABLE)

    def _settle(self, target: Target, address: Address | None, otherwise: Drop) -> None:
        """It is known where *target* is; None: its datagrams are dropped."""
        owner = self._owner
        if target.pending is not None:
            target.pending = None
            self.asked -= 1
            lifetime = NAME_LIFETIME if has_name(target.key) else LIFETIME
            target.until = owner.check.clock.seconds() + lifetime
        self._leave(target)
        waiting = self._taken(target)
        target.segments = LONGEST
        if address is None:
            target.sockaddr, target.drop = None, otherwise
            if waiting:
                owner.drop(otherwise, len(waiting))
            return
        target.sockaddr = (address.host, address.port)
        target.ipv6 = address.type is AddressType.IPV6
        owner.choose_route(target, address)
        contact = target.contact = self._contact(address.host, address.port)
        self._contacts[contact] = self._contacts.get(contact, 0) + 1
        for payload in waiting:
            owner.pass_on(target, payload)

    def _taken(self, target: Target) -> list[bytes]:
        """What has waited for *target*, which waits no more."""
        waiting, target.waiting = target.waiting or [], None
        self.waiting -= len(waiting)
        self.waiting_bytes -= sum(map(len, waiting))
        return waiting

    def _leave(self, target: Target) -> None:
        """The client has nothing to do with *target*'s address any more."""
        contact, target.contact = target.contact, None
        if contact is None:
            return
        left = self._contacts[contact] - 1
        if left:
            self._contacts[contact] = left
            return
        del self._contacts[contact]
        self._owner.forget_sources()

    def _make_room(self) -> None:
        """
        Forget some destinations, best those that were not used for long.

        Some at once, because replies are looked up anew after that.
        """
        for _ in range(2 * len(self.by_header)):
            key = next(iter(self.by_header))
            target = self.by_header.pop(key)
            if target.used:
                target.used = False
                self.by_header[key] = target
                continue
            self._forget(target)
            if len(self.by_header) <= self._settings.destinations * 7 // 8:
                return

    def _forget(self, target: Target) -> None:
        self._stop_asking(target)
        lost = len(self._taken(target))
        if lost:
            self._owner.drop(Drop.OVERFLOW, lost)
        self._leave(target)

    def _stop_asking(self, target: Target) -> None:
        pending, target.pending = target.pending, None
        if pending is not None:
            self.asked -= 1
            target.until = 0.0
            pending.cancel()

    def _still_permits(self, target: Target, reached: Address) -> bool:
        owner = self._owner
        answer = still_permitted(
            owner.check.policy, owner.client, Command.UDP_ASSOCIATE, _destination(target.key), [reached]
        )
        return answer_at_once(answer, False)


def name_of(header: bytes) -> str | None:
    """The name in *header*, which was checked before; None: it has an address."""
    return _destination(header).host if has_name(header) else None


def _destination(header: bytes, defines: Callable[[str], bool] = reads_as_address) -> Address:
    """
    The destination of *header*.

    :param defines: whether the hosts file has a name; by default every name that is asked about, because
        the destination has been added already.
    :raises NameNotFound: for what cannot be the name of a host.
    :raises ProtocolError: for what is no destination.
    """
    address = canonical(parse_datagram(header)[0].address, defines)
    if not address.port:
        raise ProtocolError("port 0 is no destination")
    return address


def _leads_nowhere(address: Address) -> bool:
    """Whether *address* belongs to no single host, so that nothing is sent there whatever the policy says."""
    return special(address.host) in _NOWHERE


def _best(addresses: list[Address], present: tuple[str, int] | None) -> Address | None:
    """Which of a name's addresses to send to: the present one if it still holds, else one with a route."""
    for address in addresses:
        if (address.host, address.port) == present:
            return address
    if len(addresses) > 1:
        for address in addresses:
            if has_route(address.host, address.port):
                return address
    return addresses[0] if addresses else None
