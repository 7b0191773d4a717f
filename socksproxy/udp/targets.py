"""
The destinations of one association, and the datagrams that wait until a destination is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CommandNotSupported, NameNotFound, NotAllowed
from ..identity import Client
from ..limits.buckets import Meters
from ..net.local import has_route
from ..net.names import canonical, reads_as_address
from ..net.special_addresses import Special, special
from ..policy.asking import DestinationCheck, answer_at_once, ask, permitted_addresses, still_permitted
from ..routes.interfaces import ProxyRoute, UpstreamAssociation
from ..values.udp import Filtering, UDPSettings
from ..wire.datagram import has_name, parse_datagram
from ..wire.words import Address, AddressType, Command, ProtocolError
from .drops import Drop
from .flows import Exit, Opens, UpstreamFlow

_log = Logger(namespace="socksproxy")

#: Seconds for which the policy's decision on a destination holds.
LIFETIME = 30.0
#: Seconds for which the address of a name holds: a resolver does not tell that a TTL is short.
NAME_LIFETIME = 5.0
#: Datagrams and bytes of an association that may wait for names and for a policy that takes its time.
MAX_WAITING = 64
MAX_WAITING_BYTES = 131072
#: Questions of an association to the policy and the resolver that may be open at once.
MAX_ASKED = 32

#: Bytes of the longest datagram.
LONGEST = 65535

#: Why datagrams are dropped, by what has been raised; else the destination is denied.
_DROPS: dict[object, Drop] = {NameNotFound: Drop.UNRESOLVABLE, CommandNotSupported: Drop.UPSTREAM}

_NOWHERE = frozenset({Special.UNSPECIFIED, Special.MULTICAST, Special.BROADCAST})


class Target:
    """
    Where the datagrams of one header go.

    :ivar key: the header.
    :ivar rule: the rule whose limits hold beside those of the association; None: there is none.
    :ivar meters: the meters of all limits together; None: the meters of the association decide.
    :ivar sockaddr: a checked literal address, or a name that a proxy looks up, and a port; None: it is not
        known yet, or datagrams are dropped.
    :ivar ipv6: whether *sockaddr* is of IPv6.
    :ivar until: the clock's seconds until which *sockaddr* holds.
    :ivar used: whether a datagram went there since the table last made room.
    :ivar segments: the greatest length of datagrams of which the system takes several with one call.
    :ivar exit: where datagrams leave; None: where all do.
    :ivar flow: the way through proxies; None: datagrams leave directly.
    :ivar headers: what datagrams begin with that leave by the flow; None: it is not known yet.
    :ivar waiting: datagrams that wait until *sockaddr* is known; None: it is known.
    :ivar drop: why datagrams are dropped where there is no *sockaddr*.
    :ivar contact: the address as the filter of replies looks at it; None: there is none.
    :ivar pending: the open question about the target; None: there is none.
    """

    __slots__ = (
        "contact",
        "drop",
        "exit",
        "flow",
        "headers",
        "ipv6",
        "key",
        "meters",
        "pending",
        "rule",
        "segments",
        "sockaddr",
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
        self.exit: Exit | None = None
        self.flow: UpstreamFlow | None = None
        self.headers: bytes | None = None
        self.waiting: list[bytes] | None = None
        self.pending: Deferred[Any] | None = None
        self.drop = Drop.DENIED
        self.contact: object = None
        self.rule: str | None = None
        self.meters: Meters | None = None


def _opens_none(way: ProxyRoute) -> Deferred[UpstreamAssociation]:
    raise NotImplementedError


class DatagramRoute(NamedTuple):
    """
    How datagrams go to a destination.

    :ivar source: the literal address from which datagrams leave; None: the address of all; NO_SOURCE: there
        is no address of the family, so no datagram leaves.
    :ivar idle: the seconds for which the association may be idle, or NEVER; None: the server's setting
        holds.
    :ivar rule: the name of the rule whose limits hold beside those of the association; None: there is none.
    :ivar meters: gives the association's meters of all datagrams under a rule, by the name of the rule.
    :ivar closed: whether the way out carries no datagrams.
    :ivar way: the way out through proxies; None: datagrams leave directly.
    :ivar opens: asks these proxies for associations.
    """

    source: str | None = None
    idle: float | None = None
    rule: str | None = None
    meters: Callable[[str], Meters | None] | None = None
    closed: bool = False
    way: ProxyRoute | None = None
    opens: Opens = _opens_none


class ReplySources(Shape):
    """What targets use of the :class:`~socksproxy.udp.replies.Replies` of their association."""

    def forget(self) -> None: ...


class TargetOwner(Shape):
    """
    What targets use of their :class:`~socksproxy.udp.association.Association`.

    :ivar client: the client.
    :ivar check: the policy, the names and the clock.
    """

    client: Client
    check: DestinationCheck

    def drop(self, reason: Drop, count: int = 1) -> None: ...
    def pass_on(self, target: Target, payload: bytes) -> None: ...
    def choose_route(self, target: Target, address: Address) -> Drop | None: ...

    @property
    def replies(self) -> ReplySources: ...


class Targets:
    """
    The destinations of one association, by the headers of the client's datagrams.

    :param owner: the association.
    :param settings: the greatest number of destinations, and the filter of replies.
    :ivar by_header: the table; outlets look into it first.
    """

    __slots__ = ("_contacts", "_owner", "_settings", "asked", "by_header", "waiting", "waiting_bytes")

    def __init__(self, owner: TargetOwner, settings: UDPSettings) -> None:
        self.by_header: dict[bytes, Target] = {}
        self.asked = self.waiting = self.waiting_bytes = 0
        self._owner = owner
        self._settings = settings
        # The number of targets of an address, or of an address and a port.
        self._contacts: dict[object, int] = {}

    def renewed(self, header: bytes) -> Target | None:
        """
        The target of *header*, which is new or whose time is over.

        A target whose time is over stays as it is until the policy and the resolver have answered again.

        :returns: None: there is no target, and the datagram is counted as dropped.
        """
        target = self.by_header.get(header)
        if target is None:
            return self._add(header)
        if target.pending is None:
            target.used = True
            self._ask(target, _destination(header))
            return target
        # The question has not been answered in all that time.
        del self.by_header[header]
        self._forget(target)
        return self._add(header)

    def keep(self, target: Target, payload: bytes | memoryview) -> None:
        """Keep *payload* until the address of *target* is known; drop it if the address is not asked for."""
        if target.waiting is None:
            self._owner.drop(target.drop)
        elif self.waiting >= MAX_WAITING or self.waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._owner.drop(Drop.OVERFLOW)
        else:
            self.waiting += 1
            self.waiting_bytes += len(payload)
            target.waiting.append(bytes(payload))

    def has_contact(self, host: str, port: int) -> bool:
        """Whether the client has sent to *host*, and to *port* if the filter of replies asks for that."""
        return self._contact(host, port) in self._contacts

    def __iter__(self) -> Iterator[Target]:
        return iter(self.by_header.values())

    def reconsider(self) -> list[tuple[bytes, bytes]]:
        """
        Ask anew about every destination.

        A destination that is still permitted stays, so that its next reply is not lost. A destination that is
        not, or on which the policy does not decide at once, goes: the next datagram asks about it again.

        :returns: the headers and payloads of the datagrams that have waited for destinations that go.
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
        """Forget all targets, and cancel all questions."""
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
        """Ask the policy whether the client may send to *target*, and the resolver for its address."""
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
        pending.addBoth(self._answered, target)
        pending.addErrback(self._broke, target)

    def _answered(self, result: list[Address] | Failure, target: Target) -> None:
        if target.pending is None:
            return  # the question was cancelled
        if isinstance(result, Failure):
            result.trap(NameNotFound, NotAllowed, CommandNotSupported)
            self._settle(target, None, _DROPS.get(result.type, Drop.DENIED))
            return
        usable = [address for address in map(_known, result) if not _leads_nowhere(address)]
        self._settle(target, _best(usable, target.sockaddr), Drop.DENIED)

    def _broke(self, failure: Failure, target: Target) -> None:
        _log.failure("{client}: a destination of UDP failed", failure, client=self._owner.client)
        self._settle(target, None, Drop.UNRESOLVABLE)

    def _settle(self, target: Target, address: Address | None, otherwise: Drop) -> None:
        """Have *target* at *address*; None: its datagrams are dropped, and counted as *otherwise*."""
        owner = self._owner
        if target.pending is not None:
            target.pending = None
            self.asked -= 1
            looked_up = has_name(target.key) and not (address and address.type is AddressType.DOMAIN_NAME)
            lifetime = NAME_LIFETIME if looked_up else LIFETIME
            target.until = owner.check.clock.seconds() + lifetime
        self._leave(target)
        waiting = self._taken(target)
        target.segments = LONGEST
        refused = otherwise if address is None else owner.choose_route(target, address)
        if address is None or refused is not None:
            target.sockaddr, target.flow, target.drop = None, None, refused or otherwise
            if waiting:
                owner.drop(target.drop, len(waiting))
            return
        target.sockaddr = (address.host, address.port)
        target.ipv6 = address.type is AddressType.IPV6
        contact = target.contact = self._contact(address.host, address.port)
        self._contacts[contact] = self._contacts.get(contact, 0) + 1
        for payload in waiting:
            owner.pass_on(target, payload)

    def _taken(self, target: Target) -> list[bytes]:
        """Take the datagrams that have waited for *target*."""
        waiting, target.waiting = target.waiting or [], None
        self.waiting -= len(waiting)
        self.waiting_bytes -= sum(map(len, waiting))
        return waiting

    def _leave(self, target: Target) -> None:
        """Stop counting the address of *target* as one that the client sends to."""
        contact, target.contact = target.contact, None
        if contact is None:
            return
        left = self._contacts[contact] - 1
        if left:
            self._contacts[contact] = left
            return
        del self._contacts[contact]
        self._owner.replies.forget()

    def _make_room(self) -> None:
        """
        Forget an eighth of the destinations, first those that were not used since the last time.

        An eighth at once, because all sources of replies are decided anew after that.
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

    :param defines: whether the hosts file has a name. The default fits a destination that was added before.
    :raises NameNotFound: when its name cannot be the name of a host.
    :raises ProtocolError: when *header* has no destination.
    """
    address = canonical(parse_datagram(header)[0].address, defines)
    if not address.port:
        raise ProtocolError("port 0 is no destination")
    return address


def _known(address: Address) -> Address:
    """An *address* that the resolver gave, or a name that has been checked."""
    return address if address.type is AddressType.DOMAIN_NAME else canonical(address)


def _leads_nowhere(address: Address) -> bool:
    """Whether *address* belongs to no single host. Nothing is sent there, whatever the policy says."""
    return address.type is not AddressType.DOMAIN_NAME and special(address.host) in _NOWHERE


def _best(addresses: list[Address], present: tuple[str, int] | None) -> Address | None:
    """The best of a name's addresses: the present one if it is among them, else the first with a route."""
    for address in addresses:
        if (address.host, address.port) == present:
            return address
    if len(addresses) > 1:
        for address in addresses:
            if has_route(address.host, address.port):
                return address
    return addresses[0] if addresses else None
