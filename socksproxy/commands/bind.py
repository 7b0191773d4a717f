"""
BIND: a listener for one connection, from a peer that the client names (RFC 1928, section 4; SOCKS4; SOCKS4a).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Generator, Sequence
from functools import partial
from random import SystemRandom
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from ..errors import AddressTypeNotSupported, NoFreePort, NotAllowed
from ..identity import Client
from ..limits.account import BINDS
from ..logs.throttle import LogThrottle
from ..net.dial import Dialed
from ..net.local import address_towards, is_local
from ..net.names import canonical
from ..net.ports import Advertised, opened
from ..net.sockets import NewSocket
from ..net.special_addresses import WILDCARD, is_no_host
from ..policy import INamePolicy, IPolicy
from ..policy.asking import DestinationCheck, answer_at_once, ask, ask_address, permitted_addresses
from ..routes.interfaces import ListenHere, SourceTo, UpstreamBound
from ..values.bind import BindSettings
from ..values.outgoing import Outgoing
from ..wire.words import Address, AddressType, Command, Version
from .peer_listener import PeerListener, Take, listening_socket
from .service import Owner, Relaying

_log = Logger(namespace="socksproxy")

#: Hosts far away, to ask the system by which address of ours it would go there. Nothing is sent to them.
_FAR_AWAY = {AddressType.IPV4: "192.0.2.1", AddressType.IPV6: "2001:db8::1"}


class Wanted(NamedTuple):
    """
    What a client asks for.

    :ivar client: who asks.
    :ivar destination: the peer as the client names it.
    :ivar ipv4_only: the client cannot be told another address (SOCKS4).
    :ivar spoken: the type of the address by which the client has reached a
        destination of this name already; None: it has not.
    :ivar judged: gives the client as it is known now, and what decides for it now.
    :ivar leaves_as_name: see :attr:`socksproxy.policy.asking.DestinationCheck.leaves_as_name`.
    :ivar source: gives the literal address of ours for a peer; None: the one for all peers.
    :ivar discard: closes a connection that is not wanted.
    :ivar through: has the way out listen for a peer, by a proxy or at this machine, and fires when it does;
        None: the way out is direct.
    """

    client: Client
    destination: Address
    ipv4_only: bool
    spoken: Callable[[str], AddressType | None]
    judged: Callable[[], tuple[Client, IPolicy]]
    leaves_as_name: Callable[[Command, Address], bool] | None = None
    source: Callable[[Address], str | None] = lambda _: None
    discard: Callable[[Any], None] = lambda _: None
    through: Callable[[Address, ListenHere], Deferred[UpstreamBound] | None] = lambda *_: None


class Bound(NamedTuple):
    """
    A listener is open.

    :ivar address: where the peer is to connect.
    :ivar peers: the addresses that it may come from; one that is :func:`is_any` leaves that open.
    :ivar accepted: fires with the peer's connection; cancelling it closes the listener.
    """

    address: Address
    peers: Sequence[Address]
    accepted: Deferred[Dialed]


class Binds:
    """
    Serves BIND for the clients of one factory.

    :param means: what every command works with.
    :param reactor: watches the listeners.
    :param settings: how BIND is served.
    :param advertised: what clients are told in place of that.
    :param outgoing: the addresses that connections leave from, by which peers know us.
    :raises ValueError: for a range of ports that is none.
    """

    def __init__(
        self,
        means: DestinationCheck,
        reactor: Any,
        settings: BindSettings,
        advertised: Advertised,
        outgoing: Outgoing,
    ) -> None:
        self._reactor = reactor
        self._listening: set[tuple[str, int]] = set()
        self._chance = SystemRandom().randrange
        self._without_port = LogThrottle(means.clock)
        self.reconfigure(means, settings, advertised, outgoing)

    def reconfigure(
        self,
        means: DestinationCheck,
        settings: BindSettings,
        advertised: Advertised,
        outgoing: Outgoing,
    ) -> None:
        """
        Have listeners that open from now on be so; the others go on as they are.

        See the class for the parameters.
        """
        self._ports = settings.ports
        self._means = means
        self._settings = settings
        self._addresses = settings.addresses
        self._advertised = advertised
        self._outgoing = outgoing

    def bind(
        self, wanted: Wanted, take: Take, resolved: Callable[[], None], stranger: Callable[[], None]
    ) -> Deferred[Bound]:
        """
        Open a listener.

        :param take: makes of the connection what the relay takes.
        :param resolved: called when a name has been looked up.
        :param stranger: called when a connection comes that is not from the peer.
        :returns: fires when it is open; cancelling it leaves nothing behind.
        :raises NameNotFound: at once or by the Deferred, when there is no such host.
        :raises NotAllowed: at once or by the Deferred, when the policy or the settings deny it.
        :raises UpstreamFailed: by the Deferred, when the way out fails.
        :raises UpstreamRefused: by the Deferred, when the last proxy on the way out refuses.
        :raises NoFreePort: by the Deferred.
        :raises OSError: by the Deferred, when the system denies it.
        """
        wanted = wanted._replace(destination=canonical(wanted.destination, self._means.names.defines))
        return self._bind(wanted, take, resolved, stranger)

    @inlineCallbacks
    def _bind(
        self, wanted: Wanted, take: Take, resolved: Callable[[], None], stranger: Callable[[], None]
    ) -> Generator[Any, Any, Bound]:
        client, destination = wanted.client, wanted.destination
        means = self._means._replace(policy=wanted.judged()[1], leaves_as_name=wanted.leaves_as_name)
        if is_any(destination) and not self._permits_any(client):
            raise NotAllowed("a peer must be named")
        if _is_no_peer(destination):
            raise NotAllowed("no peer comes from 0.0.0.0/8")
        answer = ask(means.policy, client, Command.BIND, destination)
        addresses: list[Address] = yield permitted_addresses(
            means, client, Command.BIND, destination, answer, resolved
        )

        def here(source: SourceTo, new_socket: NewSocket | None) -> UpstreamBound:
            found = wanted._replace(source=source)
            bound = self._bind_here(found, means.policy, addresses, take, stranger, new_socket)
            return UpstreamBound(bound.address, bound.accepted, here=True)

        asked = wanted.through(addresses[0], here)
        if asked is None:
            return self._bind_here(wanted, means.policy, addresses, take, stranger)
        bound: UpstreamBound = yield asked
        if bound.here:
            return Bound(bound.address, addresses, bound.accepted)
        return bound_through(bound, wanted, addresses)

    def _bind_here(
        self,
        wanted: Wanted,
        policy: IPolicy,
        addresses: Sequence[Address],
        take: Take,
        stranger: Callable[[], None],
        new_socket: NewSocket | None = None,
    ) -> Bound:
        """
        Open a listener at this machine, for peers that *policy* has judged.

        :param new_socket: makes sockets that leave in a way of their own; None: as all others.
        """
        destination = wanted.destination
        told, listening = self._open(wanted, addresses, new_socket)
        if is_any(destination):
            permitted = self._judge_as_they_come(wanted)
        else:
            permitted = self._judge(wanted, policy, addresses)
        admits = self._judge_port(destination.port, permitted, stranger)
        place: tuple[str, int] = listening.getsockname()[:2]
        try:
            listener = PeerListener(self._reactor, listening, admits, take)
        except BaseException:
            listening.close()
            raise
        self._listening.add(place)
        listener.accepted.addBoth(self._over, place)
        return Bound(told._replace(port=listener.port), addresses, listener.accepted)

    # Which peers may connect.

    def _permits_any(self, client: Client) -> bool:
        return client.local if self._settings.any_peer is None else self._settings.any_peer

    def _judge(
        self, wanted: Wanted, before: IPolicy, addresses: Sequence[Address]
    ) -> Callable[[Address], bool]:
        """*before* has judged *addresses*; a peer is asked about only if another policy is in force."""
        hosts = {address.host for address in addresses}
        destination = wanted.destination
        name = destination.host if destination.type is AddressType.DOMAIN_NAME else None

        def permitted(peer: Address) -> bool:
            if peer.host not in hosts:
                return False
            client, policy = wanted.judged()
            if policy is before:
                return True
            peer = peer._replace(port=destination.port)
            if name is None:
                return answer_at_once(ask(policy, client, Command.BIND, peer), False)
            return answer_at_once(ask_address(policy, client, Command.BIND, peer, name), False)

        return permitted

    def _judge_as_they_come(self, wanted: Wanted) -> Callable[[Address], bool]:
        """Asks the policy about each peer that comes, if the policy judges addresses by themselves."""
        port = wanted.destination.port

        def permitted(peer: Address) -> bool:
            client, policy = wanted.judged()
            if not INamePolicy.providedBy(policy):
                return True
            answer = ask_address(policy, client, Command.BIND, peer._replace(port=port), None)
            return answer_at_once(answer, False)

        return permitted

    def _judge_port(
        self, wanted: int, permitted: Callable[[Address], bool], stranger: Callable[[], None]
    ) -> Callable[[Address], bool]:
        port = wanted if self._settings.check_port else 0

        def admits(peer: Address) -> bool:
            if port in (0, peer.port) and permitted(peer):
                return True
            stranger()
            return False

        return admits

    # Where the listener opens.

    def _open(
        self, wanted: Wanted, addresses: Sequence[Address], new_socket: NewSocket | None
    ) -> tuple[Address, socket.socket]:
        """The address to tell, without its port, and a socket that listens there."""
        problem: OSError | None = None
        for towards in _one_of_each_family(wanted, addresses):
            try:
                told, host = self._place(wanted, towards, new_socket)
            except OSError as no_way:
                problem = problem or no_way
                continue
            return Address(told, 0, towards.type), self._listen(host, new_socket)
        raise problem or AddressTypeNotSupported("SOCKS4 has no form for the peer's address")

    def _place(self, wanted: Wanted, towards: Address, new_socket: NewSocket | None) -> tuple[str, str]:
        """
        The address that a client is told, and the one to listen on.

        :raises OSError: when there is no way to *towards*.
        """
        wildcard = WILDCARD[towards.type]
        listening = self._addresses.source(towards)
        own = wanted.source(towards) or (None if listening is None else listening[0])
        told = self._advertised.address(wanted.client.host, towards.type)
        if told is not None:
            return told, own or (told if is_local(told) else wildcard)
        if own is not None and own != wildcard:
            return own, own
        told = self._own_address(towards, new_socket)
        return told, own or told

    def _own_address(self, towards: Address, new_socket: NewSocket | None) -> str:
        """
        The address that a connection to *towards* would come from.

        :raises OSError: when there is no way there.
        """
        source = self._outgoing.source(towards)
        if source is not None:
            return source[0]
        if not is_any(towards):
            return address_towards(towards.host, towards.port, new_socket)
        try:
            return address_towards(_FAR_AWAY[towards.type], new_socket=new_socket)
        except OSError as problem:
            if problem.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
                raise
            return towards.host  # there is nothing better

    def _listen(self, host: str, new_socket: NewSocket | None) -> socket.socket:
        def listen(port: int) -> socket.socket:
            # Not to be tried one by one when all of a wide range are ours.
            if (host, port) in self._listening:
                raise OSError(errno.EADDRINUSE, "we listen there ourselves")
            return listening_socket(host, port, new_socket)

        try:
            return opened(self._ports, listen, self._chance)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
        self._complain()
        raise NoFreePort("no port is free for BIND")

    def _over(self, result: Any, place: tuple[str, int]) -> Any:
        self._listening.discard(place)
        return result

    def _complain(self) -> None:
        refused = self._without_port.due()
        if not refused:
            return
        _log.warn(
            "no port is free for BIND, {refused} refused since the last such line: "
            "all ports from {first} to {last} are taken",
            refused=refused,
            first=self._ports.first if self._ports else 1,
            last=self._ports.last if self._ports else 65535,
        )


class Bind(Relaying):
    """
    The service of BIND.

    :param binds: opens the listener.
    """

    __slots__ = ("_binds", "_waited_for", "announced", "strangers")

    def __init__(self, session: Owner, binds: Binds) -> None:
        super().__init__(session)
        self._binds = binds
        #: The addresses from which a peer may come to the open listener.
        self._waited_for: Sequence[Address] | None = None
        self.announced = None
        self.strangers = 0

    @property
    def peers(self) -> Sequence[Address] | None:
        """See :attr:`~socksproxy.commands.service.Service.peers`."""
        return self._waited_for if self.reached is None else [self.reached]

    def start(self) -> None:
        """See :meth:`~socksproxy.commands.service.Service.start`."""
        session = self.session
        session.take(BINDS)
        wanted = Wanted(
            session.client,
            session.request.destination,
            session.request.version is Version.SOCKS4,
            partial(session.context.spoken, session.client),
            lambda: (session.client, session.policy),
            session.check.leaves_as_name,
            self._source,
            session.context.discard,
            session.bind,
        )
        take = session.context.take(session.channel)
        session.wait(self._binds.bind(wanted, take, self.name_resolved, self._stranger), self._bound)

    def _source(self, peer: Address) -> str | None:
        session = self.session
        route = session.way(session.rule(peer))
        return None if route is session.context.route else route.source(peer)

    def _stranger(self) -> None:
        self.strangers = (self.strangers or 0) + 1

    def _bound(self, bound: Bound) -> None:
        session = self.session
        session.may_stay(session.context.peers)
        self.announced = str(bound.address)
        self._waited_for = bound.peers
        # Before the write, under which the client may turn out to be gone.
        session.wait(bound.accepted, self._accepted)
        if session.stale:
            session.reconsider()
        if session.ended is None:
            session.announce(bound.address)

    def _accepted(self, dialed: Dialed) -> None:
        self.session.may_stay(None)
        self.session.give(BINDS)
        self.relay(dialed, dialed.reached)

    def read_closed(self) -> bool:
        """See :meth:`~socksproxy.commands.service.Service.read_closed`: the client has gone."""
        return False


def bound_through(listening: UpstreamBound, wanted: Wanted, addresses: Sequence[Address]) -> Bound:
    """
    A listener of a proxy. The proxy judges who may connect; the policy judges the peer that it tells.

    :raises AddressTypeNotSupported: when the client cannot be told where the proxy listens.
    """
    told, accepted, _ = listening
    if wanted.ipv4_only and told.type is not AddressType.IPV4:
        accepted.addErrback(lambda _: None)
        accepted.cancel()
        raise AddressTypeNotSupported("SOCKS4 has no form for the upstream's address")
    named = wanted.destination
    name = named.host if named.type is AddressType.DOMAIN_NAME else None

    def judged(dialed: Dialed) -> Dialed:
        peer = dialed.bound
        assert peer is not None
        if peer.type is not AddressType.DOMAIN_NAME and not is_any(peer) and (name or is_any(named)):
            client, policy = wanted.judged()
            answer = ask_address(
                policy, client, Command.BIND, canonical(peer)._replace(port=named.port), name
            )
            if not answer_at_once(answer, False):
                wanted.discard(dialed.link)
                raise NotAllowed("the policy denies the peer")
        return dialed._replace(reached=peer)

    return Bound(told, addresses, accepted.addCallback(judged))


def is_any(destination: Address) -> bool:
    """Whether *destination* leaves open who the peer is."""
    return destination.host == WILDCARD.get(destination.type)


def _is_no_peer(destination: Address) -> bool:
    """Whether *destination* is a literal address that no peer can have."""
    literal = destination.type is not AddressType.DOMAIN_NAME
    return literal and not is_any(destination) and is_no_host(destination.host)


def _one_of_each_family(wanted: Wanted, addresses: Sequence[Address]) -> list[Address]:
    """
    The addresses by which a listener's family can be chosen, best first: the first one of each family.

    The resolver's order decides. Where the client has a connection to the peer, its family comes first: FTP
    servers connect in the family of their control connection only.
    """
    first: dict[AddressType, Address] = {}
    for address in addresses:
        first.setdefault(address.type, address)
    if wanted.ipv4_only:
        first.pop(AddressType.IPV6, None)
    if len(first) > 1:
        spoken = wanted.spoken(wanted.destination.host)
        return sorted(first.values(), key=lambda address: address.type is not (spoken or address.type))
    return list(first.values())
