"""
How a session gets to its destinations: by which way out, and from which addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred

from ..errors import not_carried
from ..net.dial import Pending
from ..net.names import canonical
from ..net.resolve import NameLookups
from ..net.special_addresses import WILDCARD
from ..policy.asking import DestinationCheck
from ..policy.rules import Rule
from ..routes.interfaces import (
    ListenHere,
    ProxyRoute,
    Route,
    Trail,
    UpstreamAssociation,
    UpstreamBound,
    through_proxies,
)
from ..routes.sticky import Pin
from ..udp.flows import NO_SOURCE
from ..udp.targets import DatagramRoute
from ..values.outgoing import STICKY, Asker, Outgoing, Sources, leaving, sources_of
from ..values.timeouts import NEVER
from ..wire.password import Credentials
from ..wire.words import Address, AddressType, Command
from .connected_ways import Whose
from .parts import SessionParts

T = TypeVar("T")
R = TypeVar("R")


class RoutedSession(SessionParts):
    """
    A session that takes the way out of the rule that allows a destination, or else of the user or the server.
    """

    __slots__ = ()

    @property
    def check(self) -> DestinationCheck:
        """What the session's destinations are checked by."""
        context = self.context
        if self.permission is None and self.client.avatar is None and context.route.via is None:
            return context.check
        return DestinationCheck(
            self.policy,
            context.names,
            context.reactor,
            self._leaves_as_name,
            self._enough,
            self._names_for,
        )

    def _leaves_as_name(self, command: Command, destination: Address) -> bool:
        """See :attr:`socksproxy.policy.asking.DestinationCheck.leaves_as_name`."""
        route = self.way_to(command, destination)
        if route.via is None:
            return False
        _need(route, command)
        if destination.type is not AddressType.DOMAIN_NAME or not route.resolves:
            return False
        if self.permission is not None:
            self.permission.settle(destination.host)
        return True

    def need_way(self, command: Command) -> ProxyRoute | None:
        """
        See that a way out carries *command*, for which no destination is known yet.

        :returns: the only way out, where it leads through proxies; None: there are several, or it is direct.
        :raises CommandNotSupported: when none carries it.
        """
        permission, context = self.permission, self.context
        if permission is None:
            rules: Sequence[Rule | None] = (None,)
        else:
            rules = permission.possible_rules(self.client, command)
        names = {self._via(rule) for rule in rules}
        routes = [context.route_by(name, Outgoing()) for name in names]
        if not any(route.carries(command) for route in routes):
            _need(routes[0], command)
        if len(names) > 1 or routes[0].via is None:
            return None
        ways = {self.way(rule) for rule in rules}
        return through_proxies(ways.pop()) if len(ways) == 1 else None

    def way_to(self, command: Command, destination: Address) -> Route:
        """
        The way out for *command* with *destination*.

        A BIND leaves as the client's connection to the same host has left: to there the peer will connect. An
        embedder's own route decides that by itself.
        """
        rule, context = self.rule(destination), self.context
        own = self._via(rule) in context.ways.own
        if command is Command.BIND and context.remembers_ways and not own:
            host = None if destination.host == WILDCARD.get(destination.type) else destination.host
            name = context.way_of(self.whose, host)
            way = None if name is None else context.ways.through(name, self._leaves_from(rule))
            if way is not None and way.carries(command):
                return way
        return self.way(rule)

    @property
    def whose(self) -> Whose:
        """The owner of the session, where a BIND follows a connection."""
        client, pin = self.client, self.pin()
        return Whose(client.whose, client.user, "" if pin is None else pin.word)

    def note_way(self) -> None:
        """Remember how the client's connection leaves, for a BIND to come."""
        context, trail = self.context, None if self.service is None else self.service.trail
        if context.remembers_ways and trail is not None and trail.via is not None:
            context.note_way(self.whose, self.request.destination, trail.via)

    def associate(self, route: ProxyRoute) -> Deferred[UpstreamAssociation]:
        """Ask the proxies of *route* for associations."""
        return self._ask(route, route.associate)

    def associate_in_time(self, route: ProxyRoute) -> Deferred[UpstreamAssociation]:
        """As :meth:`associate`, with the timeout that a session has while it connects."""
        associating, seconds = self.associate(route), self.context.timeouts.connect
        return associating if seconds == NEVER else associating.addTimeout(seconds, self.context.reactor)

    def bind(self, peer: Address, listen: ListenHere) -> Deferred[UpstreamBound] | None:
        """
        Have the last proxy of the way out listen for *peer*; None: the way out is direct.

        :param listen: see :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`.
        """
        route = through_proxies(self.way_to(Command.BIND, peer))
        if route is None:
            return None
        bind = partial(route.bind, peer, self.channel.detachable, listen=listen)
        return self._ask(route, bind)

    def look_up(self, command: Command, destination: Address) -> Deferred[Address] | None:
        """Have the last proxy of the way out look *destination* up; None: the way out is direct."""
        route = through_proxies(self.way_to(command, destination))
        return None if route is None else self._ask(route, partial(route.resolve, command, destination))

    def _ask(self, route: ProxyRoute, ask: Callable[[Trail], Deferred[T]]) -> Deferred[T]:
        """Make an attempt by *route*; the session's record has all of them together."""
        trail, service = Trail(route.via, self._shown_credentials(), self), self.service
        assert service is not None
        so_far = service.trail
        if so_far is None:
            service.trail = trail
            return ask(trail)

        def note(result: R) -> R:
            ways = (so_far.via or "").split(",")
            if trail.via is not None and trail.via not in ways:
                so_far.via = ",".join(filter(None, (*ways, trail.via)))
            so_far.tries += trail.tries
            so_far.reply = trail.reply
            return result

        return ask(trail).addBoth(note)

    def dial(self, address: Address) -> Pending:
        """Dial *address* as the rule says that allows it."""
        context, rule = self.context, self.rule(address)
        if rule is not None and rule.timeouts is not None and rule.timeouts.connect is not None:
            context.connects.start_own(self, rule.timeouts.connect)
        route, service = self.way(rule), self.service
        if not route.needs_trail or service is None:
            return route.dial(address, self.channel.detachable)
        if service.trail is None:
            service.trail = Trail(route.via, self._shown_credentials(), self)
        return route.dial(address, self.channel.detachable, service.trail)

    def ends(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """See :meth:`socksproxy.routes.interfaces.Traveller.ends`."""
        client, reached = self.client, self.channel.local_address()
        return None if client.host is None or reached is None else ((client.host, client.port), reached)

    def asker(self) -> Asker:
        """See :meth:`socksproxy.routes.interfaces.Traveller.asker`."""
        return self._asker(())

    def name(self) -> Address | None:
        """See :meth:`socksproxy.routes.interfaces.Traveller.name`."""
        destination = canonical(self.request.destination, self.context.names.defines)
        return destination if destination.type is AddressType.DOMAIN_NAME else None

    def _names_for(self, destination: Address) -> NameLookups:
        """See :attr:`socksproxy.policy.asking.DestinationCheck.names_for`."""
        return self.way(self.rule(destination)).names or self.context.names

    def _enough(self, addresses: list[Address]) -> list[Address]:
        """See :attr:`socksproxy.policy.asking.DestinationCheck.enough`."""
        judging = [address for address in addresses if self.way(self.rule(address)).judges]
        return [address for address in addresses if address not in judging[1:]] if judging else addresses

    def _shown_credentials(self) -> Credentials | None:
        """The name and the password that the client has shown; None: none, or no upstream wants them."""
        if not self.context.passes_logins:
            return None
        if self.login is not None and self.login.credentials is not None:
            return self.login.credentials
        return Credentials(self.request.userid, b"") if self.request.userid else None

    def datagram_route(self, address: Address, name: str | None) -> DatagramRoute:
        """How datagrams go to *address*, an address of *name* if the client has asked for that name."""
        permission, rule = self.permission, None
        if address.type is AddressType.DOMAIN_NAME:
            name = None
        if permission is not None:
            rule = permission.rule_for(self.client, Command.UDP_ASSOCIATE, address, name)
        route, source = self.way(rule), None
        try:
            if route is not self.context.route and route.via is None:
                source = route.source(address)
        except OSError:
            source = NO_SOURCE
        return DatagramRoute(
            source,
            None if rule is None or rule.timeouts is None else rule.timeouts.idle,
            rule.name if rule and (rule.limits or rule.user_limits or not rule.quota) else None,
            partial(self._meters_under, rule is None or rule.quota),
            not route.carries(Command.UDP_ASSOCIATE),
            through_proxies(route),
            self.associate_in_time,
        )

    def _via(self, rule: Rule | None) -> str | None:
        """The name of the way out of *rule*, or else of the user, or else of the server."""
        via = None if rule is None else rule.via
        return via or getattr(self.client.avatar, "via", None) or self.context.settings.via

    def way(self, rule: Rule | None) -> Route:
        """The way out of *rule*, or else of the user, or else of the server."""
        of_rule = via = None
        if rule is not None:
            of_rule, via = rule.outgoing, rule.via
        avatar = self.client.avatar
        of_user = None
        if avatar is not None:
            of_user = getattr(avatar, "outgoing", None)
            via = via or getattr(avatar, "via", None)
        if not (of_rule or of_user or via or self.context.chooses_outgoing):
            return self.context.route
        return self.context.route_by(
            via or self.context.settings.via, self._outgoing(sources_of(of_rule), sources_of(of_user))
        )

    def _leaves_from(self, rule: Rule | None) -> Outgoing:
        """The addresses of *rule*, or else of the user, or else of the server."""
        of_rule = None if rule is None else rule.outgoing
        return self._outgoing(sources_of(of_rule), sources_of(getattr(self.client.avatar, "outgoing", None)))

    def _outgoing(self, of_rule: Sources, of_user: Sources) -> Outgoing:
        """What the session leaves from: it keeps what has been chosen once."""
        scopes = of_rule, of_user, self.context.settings.outgoing
        if all(scope.fixed is not None for scope in scopes):
            return leaving(Asker, *scopes)
        if self._leaves is None or self._leaves[0] != scopes:
            self._leaves = scopes, leaving(partial(self._asker, scopes), *scopes)
        return self._leaves[1]

    def _asker(self, scopes: Sequence[Sources]) -> Asker:
        client, pin = self.client, self.pin()
        if pin is None and any(scope.choice == STICKY for scope in scopes):
            pin = self._pin_without_word()
        place = self.channel.local_address() if any(scope.same for scope in scopes) else None
        return Asker(
            client.share or "",
            client.user,
            None if place is None else place[0],
            None if pin is None else pin.key,
        )

    def pin(self) -> Pin | None:
        """See :meth:`socksproxy.routes.interfaces.Traveller.pin`."""
        return None if self.login is None else self.login.pin

    def _pin_without_word(self) -> Pin | None:
        """The sticky session of the user, or of a client without a name; None: there are none."""
        pins, client = self.context.pins, self.client
        if pins is None:
            return None
        return pins.pin_client(client.share or "") if client.user is None else pins.pin(client.user, "")


def _need(route: Route, command: Command) -> None:
    if not route.carries(command):
        raise not_carried(route.via, command)
