"""
How the sessions of a factory authenticate their clients.
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
from .known import inner, knows, methods_of, retire
from .methods import NoAuthentication, UsernamePassword
from .penalties import Penalties

if TYPE_CHECKING:
    from ..identity import Client

#: What a transport may know of its client, and the name of that in the access record.
_BY_TRANSPORT: tuple[tuple[Any, str], ...] = (
    (ICertificate, "certificate"),
    (IPeerCredentials, "peercred"),
    (ICertifiedName, "balancer"),
)


class Authentication:
    """
    Authenticates clients.

    :param portal: clients may show the credentials that its checkers check.
    :param methods: methods beside ours, best first. Methods that a checker brings along
        (``checker.methods()``) come after them.
    :param settings: the settings of authentication.
    :param reactor: keeps time.
    :param penalties: counts failures, and keeps those of the factory before; None: there are none yet.
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
        checkers = {id(checker): checker for checker in portal.checkers.values()}.values()
        brought = [method for checker in checkers for method in methods_of(checker)]
        ours = [UsernamePassword(), NoAuthentication()]
        self._methods: tuple[IMethod, ...] = tuple(
            method for method in (*methods, *brought, *ours) if method.credentials in known
        )
        self._asks_transport = any(interface in known for interface, _ in _BY_TRANSPORT)
        self._known = known

    @property
    def method_names(self) -> Sequence[str]:
        """The names of all methods by which a client can log in."""
        names = [*dict.fromkeys(method.name for method in self._methods)]
        names += [name for interface, name in _BY_TRANSPORT if interface in self._known]
        return names + ["userid"] * (IUserid in self._known)

    def methods_for(self, shown: Callable[[], ICredentials | None]) -> Sequence[IMethod]:
        """
        The methods that a client may choose from, best first.

        :param shown: gives what the client's transport knows of the client.
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
        The credentials of a client of SOCKS4, which has no password, and their name; None: there are none.

        :param userid: the userid of the request.
        :param local: gives the address and the port of ours that the client has reached.
        :param shown: gives what the client's transport knows of the client.
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
        Ask again, without a password, for the user of a *client* that an earlier portal has let in.

        :param shown: the kind of credentials that the client has shown; None: none were asked for.
        :returns: fires with the user and the logout, as :data:`~socksproxy.auth.gate.Granted`; None: no
            checker can tell, and the client stays who it is.
        :raises UnauthorizedLogin: (by the Deferred) when no checker vouches for the client any more.
        """
        kind = Anonymous if shown is None else shown
        interface = next((known for known in self._portal.checkers if known.implementedBy(kind)), None)
        if interface is None:
            return fail(UnauthorizedLogin("no checker takes such credentials any more"))
        if client.user is None:
            if not interface.isOrExtends(IAnonymous):
                return succeed(None)
            return self.gate.renew(client, ANONYMOUS)
        avatar_id = client.user.encode("utf-8", "surrogateescape")
        if knows(self._portal.checkers[interface], avatar_id) is False:
            return fail(UnauthorizedLogin("there is no such user any more"))
        return self.gate.renew(client, avatar_id)

    def retire(self) -> None:
        """Another authentication takes the place of this one."""
        for checker in self._portal.checkers.values():
            retire(checker)

    def _transport_shows(self, shown: Callable[[], ICredentials | None]) -> tuple[str, ICredentials] | None:
        credentials = shown() if self._asks_transport else None
        if credentials is None:
            return None
        for interface, name in _BY_TRANSPORT:
            if interface in self._known and interface.providedBy(credentials):
                return name, credentials
        return None


def _allow(checkers: Iterable[Any], timeout: float) -> None:
    """Tell checkers that use threads how many seconds a check may take."""
    for checker in checkers:
        checks = getattr(checker, "checks", None)
        if isinstance(checks, CheckThreads):
            checks.allow(timeout)
        _allow(inner(checker), timeout)
