"""
What the sessions of a factory have to find out who their clients are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.credentials import IAnonymous, ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed

from ..negotiation import IMethod
from ..values.auth import AuthSettings
from .checkers.threads import CheckThreads
from .credentials import Anonymous, ICertificate, ICertifiedName, IPeerCredentials, IUserid, Userid
from .gate import Gate
from .known import inner, knows
from .methods import NoAuthentication, UsernamePassword
from .penalties import Penalties

if TYPE_CHECKING:
    from ..identity import Client

#: What a transport may know of its client, and how that is called in the access record.
_BY_TRANSPORT: tuple[tuple[Any, str], ...] = (
    (ICertificate, "certificate"),
    (IPeerCredentials, "peercred"),
    (ICertifiedName, "balancer"),
)


class Authentication:
    """
    Asks clients who they are.

    :param portal: what its checkers can check, clients may show.
    :param methods: methods beside ours, best first; those that a checker brings along (``checker.methods()``)
        come after them.
    :param settings: how clients are asked.
    :param reactor: keeps time.
    :param penalties: knows who has tried too often already; None: nobody.
    :ivar gate: asks the portal.
    """

    def __init__(
        self,
        portal: Portal,
        methods: Iterable[IMethod],
        settings: AuthSettings,
        reactor: Any,
        penalties: Penalties | None = None,
    ) -> None:
        if penalties is None:
            penalties = Penalties(reactor, settings.failures)
        else:
            penalties.allow(settings.failures)
        self.penalties = penalties
        self.gate = Gate(portal, reactor, settings.timeout, penalties)
        self._portal = portal
        _allow(portal.checkers.values(), settings.timeout)
        known = set(portal.listCredentialsInterfaces())
        brought = [
            method
            for checker in {id(checker): checker for checker in portal.checkers.values()}.values()
            for method in getattr(checker, "methods", tuple)()
        ]
        ours = [UsernamePassword(), NoAuthentication()]
        self._methods: tuple[IMethod, ...] = tuple(
            method for method in (*methods, *brought, *ours) if method.credentials in known
        )
        self._asks_transport = any(interface in known for interface, _ in _BY_TRANSPORT)
        self._known = known

    def methods_for(self, shown: Callable[[], ICredentials | None]) -> Sequence[IMethod]:
        """
        What a client may choose from, best first.

        :param shown: what the client's transport knows of it.
        """
        known = self._transport_shows(shown)
        if known is None:
            return self._methods
        name, credentials = known
        return (NoAuthentication(credentials, name), *self._methods)

    def for_socks4(
        self,
        userid: bytes,
        client: Client,
        local: Callable[[], tuple[str, int] | None],
        shown: Callable[[], ICredentials | None],
    ) -> tuple[str, ICredentials] | None:
        """
        What a client can show who has no password, and how it is called; None: nothing.

        :param userid: of its request.
        :param local: where it has reached us.
        :param shown: what its transport knows of it.
        """
        known = self._transport_shows(shown)
        if known is not None:
            return known
        if IUserid in self._known:
            return "userid", Userid(userid, client, local())
        if IAnonymous in self._known:
            return "anonymous", Anonymous()
        return None

    def still_known(self, client: Client, shown: type[Any] | None) -> Deferred[Any]:
        """
        Who a *client* is that somebody else has let in, without a password.

        :param shown: the kind of credentials that it has shown; None: nobody has asked for any.
        :returns: fires with the user, and what comes with it, as :data:`~socksproxy.auth.gate.Granted`;
            None: it stays what it is, as nobody can tell.
        :raises UnauthorizedLogin: (by the Deferred) when nobody vouches for it any more.
        """
        kind = Anonymous if shown is None else shown
        interface = next((known for known in self._portal.checkers if known.implementedBy(kind)), None)
        if interface is None:
            return fail(UnauthorizedLogin("nobody can show that any more"))
        if client.user is None:
            if not interface.isOrExtends(IAnonymous):
                return succeed(None)
            return self.gate.renew(client, ANONYMOUS)
        avatar_id = client.user.encode("utf-8", "surrogateescape")
        if knows(self._portal.checkers[interface], avatar_id) is False:
            return fail(UnauthorizedLogin("there is no such user any more"))
        return self.gate.renew(client, avatar_id)

    def _transport_shows(self, shown: Callable[[], ICredentials | None]) -> tuple[str, ICredentials] | None:
        credentials = shown() if self._asks_transport else None
        if credentials is None:
            return None
        for interface, name in _BY_TRANSPORT:
            if interface in self._known and interface.providedBy(credentials):
                return name, credentials
        return None


def _allow(checkers: Iterable[Any], timeout: float) -> None:
    """Tell *checkers* that make their checks in threads how many seconds they have."""
    for checker in checkers:
        checks = getattr(checker, "checks", None)
        if isinstance(checks, CheckThreads):
            checks.allow(timeout)
        _allow(inner(checker), timeout)
