"""
The route through a pool: each connection chooses one of several upstreams.

Strategy: a :class:`PoolDial` is one connection. It tries one member after the other while nothing has been
answered: after a failure of the member's own, and after the replies 3 and 8, which another member may not
give. Every other answer is the destination's, and goes to the client. Where no member is left, the
connection fails, or leaves as ``otherwise`` says; a failure alone never makes it leave directly.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import SHORTAGES, UpstreamFailed, UpstreamFull, describe, not_carried, reply_for
from ..logs.debug import POOLS as DEBUG
from ..net.dial import Pending
from ..values.pools import UpstreamPool
from ..values.upstreams import DIRECT
from ..wire.words import UNSPECIFIED, Address, Command, Reply
from .choosing import NO_KEY, key_for
from .interfaces import ListenHere, Route, Trail, UpstreamAssociation, UpstreamBound
from .members import Member, Members, is_its_own
from .own import ICommandsRoute

#: Seconds in which a connection gets past silent members.
PATIENCE = 7.5
#: The part of the connect-timeout that may pass meanwhile.
_OF_CONNECT_TIMEOUT = 0.75
#: Silent members that a connection gets past in that time.
_SILENT = 3

#: Timers may be this much late.
_LATE = 1.05

#: Replies about a destination that another member may reach.
_ELSEWHERE = frozenset({Reply.NETWORK_UNREACHABLE, Reply.ADDRESS_TYPE_NOT_SUPPORTED})


def patience(connect_timeout: float) -> float:
    """The seconds in which a connection gets past silent members, where it may take *connect_timeout*."""
    return min(PATIENCE, _OF_CONNECT_TIMEOUT * connect_timeout)


def try_seconds(pool: UpstreamPool, seconds: float) -> float:
    """
    The seconds until a member of *pool* must have the request; its own try-timeout may be shorter.

    :param seconds: see :func:`patience`.
    """
    return seconds / min(pool.tries, _SILENT)


@implementer(ICommandsRoute)
class PoolRoute:
    """
    Connects to destinations through the members of a pool.

    :param clock: tells the time.
    :param members: the members, and what is known of them.
    :param way: gives the route through a member.
    :param otherwise: the way of all that finds no member left; None: there is none.
    :param seconds: the seconds in which a connection gets past silent members.
    """

    needs_trail = True
    names = None

    def __init__(
        self,
        clock: IReactorTime,
        members: Members,
        way: Callable[[Member], Route],
        otherwise: Route | None,
        seconds: float = PATIENCE,
    ) -> None:
        self.clock = clock
        self.members = members
        self.way = way
        self.otherwise = otherwise
        self.seconds = seconds
        self.via: str = members.name

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        if command is Command.CONNECT:
            return True
        self.members.refresh()
        return self._members_carry(command) or self.otherwise_for(command) is not None

    def otherwise_for(self, command: Command) -> Route | None:
        """
        The way of *command* where no member is left; None: there is none.

        What no member carries does not leave directly: the client's connections leave through members.
        """
        other = self.otherwise
        if other is None or not other.carries(command):
            return None
        directly = self.members.settings.otherwise == DIRECT and command is not Command.CONNECT
        return None if directly and not self._members_carry(command) else other

    def _members_carry(self, command: Command) -> bool:
        return any(command in member.commands for member in self.members)

    @property
    def identity(self) -> object:
        """See :attr:`socksproxy.routes.interfaces.Route.identity`."""
        members = self.members
        return members.name, members.settings, tuple((each.name, each.upstream) for each in members)

    @property
    def resolves(self) -> bool:
        """Whether all members, and the way otherwise, look names up themselves."""
        self.members.refresh()
        return self.members.takes_names and (self.otherwise is None or self.otherwise.resolves)

    @property
    def judges(self) -> bool:
        """Whether all members get names that are looked up here for the rules alone."""
        return self.members.judges_names and (self.otherwise is None or self.otherwise.judges)

    def dial(self, address: Address, engine: bool, trail: Trail | None = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        trail = Trail(self.via) if trail is None else trail
        return self._try(address, trail, lambda way: way.dial(address, engine, trail))

    def associate(self, trail: Trail) -> Deferred[UpstreamAssociation]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.associate`."""
        ask = cast("Callable[[Route], Pending]", lambda way: way.associate(trail))
        return self._try(UNSPECIFIED, trail, ask, Command.UDP_ASSOCIATE)

    def bind(self, peer: Address, engine: bool, trail: Trail, listen: ListenHere) -> Deferred[UpstreamBound]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.bind`."""
        ask = cast("Callable[[Route], Pending]", lambda way: way.bind(peer, engine, trail, listen))
        return self._try(peer, trail, ask, Command.BIND)

    def resolve(self, command: Command, destination: Address, trail: Trail) -> Deferred[Address]:
        """See :meth:`socksproxy.routes.interfaces.ProxyRoute.resolve`."""
        ask = cast("Callable[[Route], Pending]", lambda way: way.resolve(command, destination, trail))
        return self._try(destination, trail, ask, command)

    def _try(
        self,
        address: Address,
        trail: Trail,
        ask: Callable[[Route], Pending],
        command: Command = Command.CONNECT,
    ) -> Deferred[Any]:
        if not self.carries(command):
            return fail(not_carried(self.via, command))
        self.members.refresh()
        return PoolDial(self, address, trail, ask, command).start()

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None

    def key(self, trail: Trail, address: Address) -> bytes:
        """By which hashes choose."""
        choose = self.members.settings.choose
        return key_for(choose, trail.asker(), address.host) if choose.hashes else NO_KEY


#: The public name; the code has a pool of threads, too.
Pool = PoolRoute


class _PassedBy:
    """
    The members that a choice passes by.

    :param tried: those that the connection has tried.
    :param command: what the others must carry.
    """

    def __init__(self, tried: Container[Member], command: Command) -> None:
        self._tried = tried
        self._command = command

    def __contains__(self, member: object) -> bool:
        return member in self._tried or self._command not in cast("Member", member).commands


class PoolDial:
    """
    One connection through a pool, until a member has answered or none is left.

    :param route: leads through the pool.
    :param address: the destination.
    :param trail: records the connection.
    :param ask: starts an attempt by the way through a member.
    :param command: the command that the way must carry.
    """

    __slots__ = (
        "_ask",
        "_began",
        "_busy",
        "_command",
        "_key",
        "_left",
        "_member",
        "_pending",
        "_pin",
        "_problem",
        "_result",
        "_route",
        "_trail",
        "_tried",
    )

    def __init__(
        self,
        route: PoolRoute,
        address: Address,
        trail: Trail,
        ask: Callable[[Route], Pending],
        command: Command,
    ) -> None:
        self._route = route
        self._ask = ask
        self._command = command
        self._trail = trail
        self._key = route.key(trail, address)
        self._pin = trail.pin()
        self._left = route.members.settings.tries
        self._began = route.clock.seconds()
        self._tried: list[Member] = []
        self._member: Member | None = None
        self._pending: Pending | None = None
        self._busy = False
        #: The error for the client if no other member answers, and whether it is the destination's.
        self._problem: tuple[Failure, bool] | None = None
        self._result: Deferred[Any] = Deferred(self._cancelled)

    def start(self) -> Deferred[Any]:
        """
        Try the first member.

        :returns: fires with the connection; it can be cancelled.
        """
        self._go_on()
        return self._result

    def _go_on(self) -> None:
        # An attempt may fail at once, and a thousand of them may not call each other.
        if self._busy:
            return
        self._busy = True
        while self._pending is None and not self._result.called:
            member = self._next()
            if member is None:
                self._give_up()
                break
            self._try(member)
        self._busy = False

    def _next(self) -> Member | None:
        route, members = self._route, self._route.members
        if not self._left:
            return None
        if self._tried:
            passed = route.clock.seconds() - self._began
            if passed + try_seconds(members.settings, route.seconds) > _LATE * route.seconds:
                return None
        tried: Container[Member] = self._tried
        if self._command is not Command.CONNECT:
            tried = _PassedBy(self._tried, self._command)
        return members.next(tried, self._key, self._pin)

    def _try(self, member: Member) -> None:
        route, trail = self._route, self._trail
        self._left -= 1
        if DEBUG.on:
            DEBUG("{pool}: {member} is chosen", pool=route.members.name, member=member.name)
        self._tried.append(member)
        route.members.way = route.way
        self._member = member
        route.members.take(member)
        way = route.way(member)
        trail.via, trail.asked, trail.reply = way.via or member.name, False, None
        self._pending = pending = self._ask(way)
        pending.addBoth(self._ended, member)

    def _ended(self, result: Any, member: Member) -> None:
        """The attempt through *member* has ended."""
        if self._member is not member:
            return  # it is cancelled
        self._member = self._pending = None
        members = self._route.members
        if DEBUG.on:
            failed = isinstance(result, Failure)
            DEBUG(
                "{pool}: {member}: {what}",
                pool=members.name,
                member=member.name,
                what=describe(result.value) if failed else "has served",
            )
        if not isinstance(result, Failure):
            members.answered(member)
            # A destination that the session's own member does not reach moves no session.
            if self._pin is not None and (self._problem is None or not self._problem[1]):
                members.stay(self._pin, member)
            self._result.callback(result)
        elif self._is_final(member, result):
            self._result.errback(result)
        else:
            self._go_on()

    def _is_final(self, member: Member, failure: Failure) -> bool:
        """Whether *failure* is the answer; what it tells of *member* is noted."""
        members, problem = self._route.members, failure.value
        assert problem is not None
        if isinstance(problem, OSError) and problem.errno in SHORTAGES:
            members.undecided(member)
            return True
        if isinstance(problem, UpstreamFull):
            self._left += 1
        if is_its_own(problem, member):
            members.failed(member, describe(problem))
        elif isinstance(problem, UpstreamFailed):
            members.undecided(member)
        else:
            members.answered(member)
            self._note(failure, True)
            reply = reply_for(problem)
            if reply is Reply.COMMAND_NOT_SUPPORTED and self._command is not Command.CONNECT:
                return False  # another member may serve it
            return reply not in _ELSEWHERE
        self._note(failure, False)
        return False

    def _note(self, failure: Failure, of_destination: bool) -> None:
        if self._problem is None or of_destination or not self._problem[1]:
            self._problem = failure, of_destination

    def _give_up(self) -> None:
        """No member is left."""
        route, trail = self._route, self._trail
        if self._problem is not None and self._problem[1]:
            self._result.errback(self._problem[0])
            return
        other = route.otherwise_for(self._command)
        if other is not None:
            trail.via, trail.asked, trail.reply = other.via or route.members.settings.otherwise, False, None
            self._pending = pending = self._ask(other)
            pending.addBoth(self._otherwise)
            return
        name = route.members.name
        if self._problem is None:
            what = "all members are full" if len(route.members) else "the pool has no member"
            self._result.errback(UpstreamFailed(f"{name}: {what}", name))
            return
        problem = self._problem[0].value
        words = describe(problem) if isinstance(problem, BaseException) else ""
        self._result.errback(UpstreamFailed(f"{name}: no member works: {words}", name))

    def _otherwise(self, result: Any) -> None:
        if self._pending is None:
            return  # it is cancelled
        self._pending = None
        if isinstance(result, Failure):
            self._result.errback(result)
        else:
            self._result.callback(result)

    def _cancelled(self, _: object) -> None:
        pending, self._pending = self._pending, None
        member, self._member = self._member, None
        if member is not None:
            self._route.members.undecided(member)
        if pending is not None:
            pending.cancel()
