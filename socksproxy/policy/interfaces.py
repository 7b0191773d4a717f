"""
What the server asks a policy, and what a policy may answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Interface

from ..identity import Client
from ..wire.words import Address, Command

if TYPE_CHECKING:
    from .rules import Decision


class IPolicy(Interface):
    """Decides what a client may do. It is asked in the reactor's thread and must not block."""

    def permits(client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """
        Whether *client* may do *command* with *destination*.

        It is asked for the destination as requested (a name in lower case, or
        a literal address), and then again for every address that a name
        resolves to; only an address that it permits is dialed.

        :param client: who asks.
        :param command: what for.
        :param destination: a checked name or a literal address, and the port.
        :returns: the decision, at once or by a Deferred; a failure denies.
        """


class INamePolicy(IPolicy):
    """
    A policy that learns the name that has led to an address.

    Its :meth:`permits` says of a name whether to look it up.
    """

    def permits_address(
        client: Client, command: Command, destination: Address, name: str | None
    ) -> bool | Deferred[bool]:
        """
        Whether *client* may do *command* with *destination*, which it did not name itself.

        :param destination: a literal address and the port.
        :param name: the name that was asked for and has this address; None: a client of BIND
            has left open which peer comes, and this one has come. That answer must be there at once.
        """


class ICommandPolicy(IPolicy):
    """
    A policy that can tell, before a destination is known, whether there is any for a client.

    Without this a client of UDP ASSOCIATE has its association, and is denied each destination.
    """

    def permits_command(client: Client, command: Command) -> bool | Decision | Deferred[bool]:
        """
        Whether there may be a destination with which *client* may do *command*.

        It is asked for ``Command.UDP_ASSOCIATE``, at the request.

        :returns: the answer, at once or by a Deferred; a failure denies. A
            :class:`~socksproxy.policy.rules.Decision` tells the access record which rule denies.
        """


class IDecidingPolicy(INamePolicy):
    """A policy that tells more than yes or no, at once."""

    def decide(client: Client, command: Command, destination: Address, name: str | None = None) -> Decision:
        """
        What is decided, and by which rule.

        :param destination: as for :meth:`IPolicy.permits`.
        :param name: the name that was asked for and has this address; None: there is none.
        """
