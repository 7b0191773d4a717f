"""
The way through the portal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.cred.credentials import ICredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .penalties import Penalties
from .users import ISOCKSUser

if TYPE_CHECKING:
    from ..policy import Client

Granted = tuple[ISOCKSUser, Callable[[], None]]


class Gate:
    """A portal, for sessions."""

    def __init__(self, portal: Portal, reactor: Any, timeout: float, penalties: Penalties) -> None:
        self._portal = portal

    def log_in(self, client: Client, method: str, credentials: ICredentials) -> Granted | Deferred[Granted]:
        """The user of *credentials*."""
        pending: Deferred[Any] = self._portal.login(credentials, client, ISOCKSUser)
        if not pending.called or pending.paused:
            return pending.addCallback(lambda avatar: avatar[1:])
        result: Any = None

        def keep(outcome: Any) -> None:
            nonlocal result
            result = outcome

        pending.addBoth(keep)
        if isinstance(result, Failure):
            result.raiseException()
        return result[1], result[2]
