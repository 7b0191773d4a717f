"""
UDP ASSOCIATE: from a request to an association (RFC 1928, sections 4, 6 and 7).
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred

from ..errors import NotAllowed, SOCKSError
from ..events import Cause, Ended
from ..limits.account import ASSOCIATIONS, Scope
from ..policy import IPolicy
from ..policy.asking import ask_command
from ..routes.interfaces import ProxyRoute, UpstreamAssociation
from ..udp.association import Association
from ..wire.words import Command
from .service import NO_COUNTS, Counts, Owner, Service

#: Bytes that a client may send on the connection of an association, where nothing is due.
MAX_IDLE_TALK = 1 << 20


#: Causes that the client learns of by a reset.
_RESETS = frozenset({Cause.ABORTED, Cause.DRAINED, Cause.FORBIDDEN, Cause.HOURS, Cause.TALK, Cause.FAULT})


class Associate(Service):
    """The service of UDP ASSOCIATE."""

    __slots__ = ("_association", "_talk")

    def __init__(self, session: Owner) -> None:
        super().__init__(session)
        self._association: Association | None = None
        self._talk = 0

    @property
    def granted(self) -> bool:
        """See :attr:`~socksproxy.commands.service.Service.granted`."""
        return self._association is not None

    def start(self) -> None:
        """See :meth:`~socksproxy.commands.service.Service.start`."""
        permitted = self.permitted()
        if isinstance(permitted, Deferred):
            self.session.wait(permitted, self._associate_later)
        else:
            self._associate(permitted)

    def permitted(self) -> bool | Deferred[bool]:
        """Whether there may be a destination for the client's datagrams."""
        return ask_command(self.session.policy, self.session.client, Command.UDP_ASSOCIATE)

    def _associate_later(self, permitted: bool) -> None:
        if self.session.stale:  # the policy has changed while the one before took its time
            self.session.restart()
            return
        try:
            self._associate(permitted)
        except (SOCKSError, OSError) as problem:
            self.session.refuse(problem)

    def _associate(self, permitted: bool) -> None:
        """
        Begin an association, if the client is *permitted* to have any destination.

        Where all datagrams leave through the same proxies, those are asked first.

        :raises NotAllowed: when it is not.
        """
        session = self.session
        if not permitted:
            raise NotAllowed("the policy denies every destination")
        way = session.need_way(Command.UDP_ASSOCIATE)
        if way is None:
            self._begin()
        else:  # no other way is possible: its answer is the client's
            session.wait(session.associate(way), partial(self._associated, way))

    def _associated(self, way: ProxyRoute, upstream: UpstreamAssociation) -> None:
        session = self.session
        if session.stale:
            upstream.close()
            session.restart()
            return
        try:
            self._begin().flow(way, session.associate_in_time).opened(upstream)
        except (SOCKSError, OSError) as problem:
            upstream.close()
            session.refuse(problem)
        except Exception:
            upstream.close()
            raise

    def _begin(self) -> Association:
        session, context = self.session, self.session.context
        session.take(ASSOCIATIONS, self._make_room)
        association, bound = context.associations.open(
            session.client,
            session.channel.local(),
            session.request.destination,
            context.engine,
            self._dissociated,
            session.negotiation.wrapping,
        )
        self._association = association
        association.check = session.check
        association.meter(session.meters(None))
        association.route = session.datagram_route
        session.grant(bound)
        session.forget_negotiation()
        if session.half_closed:
            session.channel.find_out()
        return association

    def _make_room(self, scope: Scope) -> bool:
        """One of the client's or the user's own associations may end for another; others' do not."""
        client, make_room = self.session.client, self.session.context.associations.make_room
        if scope is Scope.CLIENT:
            return make_room(client, lambda other: other.client.whose == client.whose)
        if scope is Scope.USER:
            return make_room(client, lambda other: other.client.user == client.user)
        return False

    def _dissociated(self, association: Association) -> None:
        session, cause = self.session, association.how or Cause.ABORTED
        self._association = association
        session.give(ASSOCIATIONS)
        if session.ended is None or cause in (Cause.FORBIDDEN, Cause.HOURS):
            session.ended = cause.value
        if cause in _RESETS:
            session.channel.abort()
        else:
            session.channel.close()
        session.over(cause.value)

    def received(self, data: bytes) -> None:
        """See :meth:`~socksproxy.commands.service.Service.received`: a byte now and then is no harm."""
        self._talk += len(data)
        if self._talk > MAX_IDLE_TALK:
            self.abort(Cause.TALK)

    def read_closed(self) -> bool:
        """See :meth:`~socksproxy.commands.service.Service.read_closed`: datagrams go on."""
        if self._association is not None:
            self.session.channel.find_out()
        return True

    def client_closed(self, ended: Ended) -> None:
        """See :meth:`~socksproxy.commands.service.Service.client_closed`: datagrams may go on for a while."""
        if self._association is None:
            super().client_closed(ended)
        elif self.session.ended is None:
            self.session.ended = ended
            graces = self.session.context.graces
            if graces.seconds:
                self.session.may_stay(graces)
            else:
                self._association.abort(Cause.CLIENT)

    def abort(self, cause: Cause) -> None:
        """See :meth:`~socksproxy.commands.service.Service.abort`."""
        if self._association is None:
            super().abort(cause)
        else:
            self._association.abort(cause)

    def reconsider(self, policy: IPolicy) -> bool | Deferred[bool]:
        """See :meth:`~socksproxy.commands.service.Service.reconsider`."""
        session = self.session
        if self._association is not None:
            self._association.reconsider(session.client, session.check)
        return self.permitted()

    def limits_changed(self) -> None:
        """See :meth:`~socksproxy.commands.service.Service.limits_changed`."""
        if self._association is not None:
            self._association.meter(self.session.meters(None))

    def counts(self) -> Counts:
        """See :meth:`~socksproxy.commands.service.Service.counts`."""
        association = self._association
        if association is None:
            return NO_COUNTS
        return Counts(
            association.sent,
            association.received,
            association.datagrams_sent,
            association.datagrams_received,
            {reason.value: count for reason, count in association.dropped.items()},
        )
