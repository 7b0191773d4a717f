"""
CONNECT: from a destination to a connection (RFC 1928, section 4; SOCKS4; SOCKS4a).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..identity import Client
from ..net.dial import Dialed, Pending, dial
from ..net.names import canonical
from ..policy.asking import DestinationCheck, ask, permitted_addresses
from ..wire.words import Address, AddressType, Command
from .service import Relaying


def connect(
    means: DestinationCheck,
    client: Client,
    destination: Address,
    dialer: Callable[[Address], Pending],
    resolved: Callable[[], None],
) -> Pending:
    """
    Connect to *destination* for *client*.

    :param dialer: starts one attempt to a checked address.
    :param resolved: called when a name has been looked up.
    :returns: fires with the connection; cancelling it leaves nothing behind.
    :raises SOCKSError: by the Deferred, when the way out fails or refuses.
    :raises NameNotFound: at once or by the Deferred, when there is no such host.
    :raises NotAllowed: at once or by the Deferred, when the policy denies the name or all of its addresses.
    """
    destination = canonical(destination, means.names.defines)
    answer = ask(means.policy, client, Command.CONNECT, destination)
    if answer is True and destination.type is not AddressType.DOMAIN_NAME:
        # The common case, and the one that is measured: nothing to wait for but the connection.
        return dialer(destination)
    addresses = permitted_addresses(means, client, Command.CONNECT, destination, answer, resolved)
    if not isinstance(addresses, Deferred):
        return dial(addresses, dialer, means.clock)
    looked_up: Deferred[Any] = addresses
    return looked_up.addCallback(dial, dialer, means.clock)


class Connect(Relaying):
    """The service of CONNECT."""

    __slots__ = ()

    def start(self) -> None:
        """See :meth:`~socksproxy.commands.service.Service.start`."""
        session = self.session
        pending = connect(
            session.check, session.client, session.request.destination, session.dial, self.name_resolved
        )
        session.wait(pending, self._connected)

    def _connected(self, dialed: Dialed) -> None:
        if self.session.unadmitted:
            self.session.admit(dialed, self._admitted)
        else:
            self._admitted(dialed)

    def _admitted(self, dialed: Dialed) -> None:
        if self.session.stale:
            self.session.confirm([dialed.reached], dialed, self._admitted)
            return
        if self.trail is not None:
            self.session.note_way()
        self.relay(dialed, dialed.bound or dialed.outgoing)
