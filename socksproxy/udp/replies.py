"""
Which datagrams from destinations reach the client of an association, and with which headers.
"""

from __future__ import annotations

from typing import Any, Protocol as Shape

from ..identity import Client
from ..policy.asking import DestinationCheck, answer_at_once, ask
from ..values.udp import Filtering, UDPSettings
from ..wire.datagram import build_header
from ..wire.words import Address, Command
from .drops import Drop
from .flows import UpstreamFlow, UpstreamFlows
from .metering import Metering
from .targets import Targets


class ReplyOwner(Shape):
    """What replies use of their :class:`~socksproxy.udp.association.Association`."""

    client: Client
    check: DestinationCheck
    targets: Targets
    flows: UpstreamFlows | None
    metering: Metering | None

    def drop(self, reason: Drop, count: int = 1) -> None: ...


class Replies:
    """
    The datagrams from destinations, and from any other source.

    :param owner: the association.
    :param settings: the filter of replies, and how many sources of replies are remembered.
    :ivar headers: the headers for replies; outlets look into this table first. A key is the source of a
        reply, in the form that the outlet uses.
    """

    __slots__ = ("_owner", "_settings", "headers")

    def __init__(self, owner: ReplyOwner, settings: UDPSettings) -> None:
        self.headers: dict[Any, bytes] = {}
        self._owner = owner
        self._settings = settings

    @property
    def most(self) -> int:
        """How many sources of replies are remembered."""
        return self._settings.destinations

    def header_for(self, source: Any, host: str, port: int) -> bytes | None:
        """
        The header for replies from *source*, which is not in :attr:`headers`; None: the replies are dropped.

        :param source: the source, in the form that the outlet uses.
        :param host: the source's literal address; an IPv4-mapped address stands as IPv4.
        """
        owner = self._owner
        if not self._pass(host, port, owner.targets.has_contact(host, port)):
            owner.drop(Drop.FILTERED)
            return None
        if len(self.headers) >= self.most:
            self.forget()
        header = self.headers[source] = build_header(Address.of(host, port))
        if owner.metering is not None:
            owner.metering.add_replies(header, host, port, owner.targets)
        return header

    def header_from(self, flow: UpstreamFlow, source: Address) -> bytes | None:
        """The header for replies from *source* that come by *flow*; None: the replies are dropped."""
        owner, host, port = self._owner, source.host, source.port
        known = owner.targets.has_contact(host, port)
        if not known:  # the address of a name that a proxy looks up is not known
            by_port = self._settings.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
            known = flow.sends_to(port if by_port else None)
        if not self._pass(host, port, known):
            owner.drop(Drop.FILTERED)
            return None
        header = build_header(source)
        if owner.metering is not None:
            owner.metering.add_replies(header, host, port, owner.targets, flow)
        return header

    def _pass(self, host: str, port: int, known: bool) -> bool:
        if self._settings.filtering is not Filtering.ENDPOINT_INDEPENDENT:
            return known
        owner = self._owner
        answer = ask(owner.check.policy, owner.client, Command.UDP_ASSOCIATE, Address.of(host, port))
        # A policy that answers later does not decide here: any number of sources may send something.
        return answer_at_once(answer, known)

    def forget(self) -> None:
        """Decide anew about every source of replies."""
        owner = self._owner
        self.headers.clear()
        for flow in owner.flows or ():
            flow.replies.clear()
        if owner.metering is not None:
            owner.metering.forget_replies()
