"""
Who one client is: only where the server asks clients who they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..auth.credentials import IUsernamePassword, Password
from ..auth.gate import Granted
from ..commands.channel import Channel
from ..errors import NotAuthenticated
from ..identity import Client
from ..negotiation import IMethod, LogIn
from ..routes.sticky import Pin
from ..values.sticky import StickyName, StickySettings, WrongName
from ..wire.password import Credentials
from ..wire.words import Request
from .shared import ServerContext

_log = Logger(namespace="socksproxy")


class LoginOwner(Protocol):
    """What a login uses of its session."""

    client: Client
    channel: Channel
    context: ServerContext

    def wait(
        self,
        pending: Deferred[Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None] | None = None,
    ) -> None: ...

    def method_moved(self, move: object) -> None: ...

    def logged_in(self) -> None: ...

    def login_failed(self, problem: Exception) -> None: ...


class Login:
    """
    One client's login.

    :param session: whose client it is.
    :param authentication: what asks the client; another one that comes into force meanwhile takes its place.
        None: nothing asks the client.
    :ivar method: the name of the method; None: none is chosen yet.
    :ivar credentials: the name and the password that the client has shown, where an upstream wants them.
    :ivar pin: the sticky session that the client's name asks for; None: none.
    """

    __slots__ = (
        "_asked",
        "_logout",
        "_name",
        "_session",
        "_shown",
        "authentication",
        "credentials",
        "method",
        "pin",
    )

    def __init__(self, session: LoginOwner, authentication: Authentication | None = None) -> None:
        self._session = session
        self._logout: Callable[[], None] | None = None
        #: The kind of credentials that the client has shown.
        self._shown: type[Any] | None = None
        #: When the check began, where logins are counted.
        self._asked: float | None = None
        self.authentication = authentication
        self.method: str | None = None
        self.credentials: Credentials | None = None
        self.pin: Pin | None = None
        #: The name of a sticky session that the client has shown; False: it is wrong.
        self._name: StickyName | Literal[False] | None = None

    def offers(self) -> tuple[Client, Sequence[IMethod]]:
        """The client, and the methods that it may choose from, best first."""
        return self._session.client, self._present().methods_for(self._session.channel.shows)

    def _present(self) -> Authentication:
        """What asks from now on: what is in force, or else what has asked before."""
        self.authentication = present = self._session.context.authentication or self.authentication
        assert present is not None
        return present

    def advance(self, method: str, move: object) -> None:
        """
        Do what *method* asks for.

        :param move: a token of :attr:`socksproxy.negotiation.Negotiation.move`.
        """
        self.method = method
        if isinstance(move, LogIn):
            self._log_in(method, move.credentials)
        elif isinstance(move, Deferred):
            self._session.wait(move, self._session.method_moved, self._method_failed)

    def _method_failed(self, problem: Exception) -> None:
        assert self.method is not None
        assert self.authentication is not None
        self.authentication.gate.failed(self._session.client, self.method, problem)
        self._session.login_failed(problem)

    def advance4(self, request: Request) -> None:
        """
        SOCKS4 has its userid in the request, and no password.

        :raises NotAuthenticated: when the client has nothing to show.
        """
        channel = self._session.channel
        found = self._present().for_socks4(
            request.userid, self._session.client, channel.local_address, channel.shows
        )
        if found is None:
            raise NotAuthenticated("SOCKS4 has no password")
        self.method, credentials = found
        self._log_in(self.method, credentials)

    def _log_in(self, method: str, credentials: ICredentials) -> None:
        self._shown = type(credentials)
        sticky = self._session.context.settings.sticky
        if sticky is not None and isinstance(credentials, Password):
            credentials = self._of_user(sticky, credentials)
        if self._session.context.counters is not None:
            self._asked = self._session.context.seconds()
        if self._session.context.passes_logins and IUsernamePassword.providedBy(credentials):
            shown: Any = credentials
            self.credentials = Credentials(shown.username, shown.password)
        try:
            granted = self._present().gate.log_in(self._session.client, method, credentials)
        except UnauthorizedLogin as problem:
            self._session.login_failed(problem)
            return
        if isinstance(granted, tuple):  # isinstance() takes longer with Deferred than with other classes
            self._granted(granted)
        else:
            self._session.wait(granted, self._granted, self._session.login_failed)

    def _of_user(self, sticky: StickySettings, shown: Password) -> Password:
        """The user's own credentials, of *shown* with the name of a sticky session."""
        try:
            name = self._name = sticky.parse(shown.username)
        except WrongName:
            # The portal refuses it in the time that a wrong password takes: no user has such a name.
            self._name = False
            return shown
        return shown if name is None else Password(name.user, shown.password)

    def _granted(self, granted: Granted) -> None:
        """The portal knows the client."""
        self._enter(granted)
        session, name = self._session, self._name
        if name is None:
            if self._asked is not None:
                self.judged(True)
            session.logged_in()
        elif name is False:
            self.log_out()
            session.client = session.client._replace(user=None, avatar=None)
            session.login_failed(UnauthorizedLogin())
        else:
            pins, user = session.context.pins, session.client.user
            if pins is not None and user is not None:
                self.pin = pins.pin(user, name.word, name.seconds)
            if self._asked is not None:
                self.judged(True)
            session.logged_in()

    def judged(self, granted: bool) -> None:
        """Count the login, where logins are counted."""
        context, asked = self._session.context, self._asked
        if context.counters is not None and self.method is not None:
            seconds = None if asked is None else context.seconds() - asked
            context.counters.logged_in(self.method, granted, seconds)

    def _enter(self, granted: Granted) -> None:
        session = self._session
        user, self._logout = granted
        if session.context.last_logins is not None and user.name is not None:
            session.context.note_login(user.name)
        host, port, _, _, groups, listener, version, uid, aliases, told = session.client
        # Written out: _replace() takes twice the time.
        session.client = Client(host, port, user.name, user, groups, listener, version, uid, aliases, told)

    def renew(self, authentication: Authentication) -> Deferred[Any]:
        """
        Find out whether *authentication*, which is in force now, still knows the client.

        :raises UnauthorizedLogin: (by the Deferred) when it does not.
        """
        again = authentication.still_known(self._session.client, self._shown)
        return again.addCallback(self._renewed, authentication)

    def _renewed(self, granted: Granted | None, authentication: Authentication) -> None:
        self.authentication = authentication
        if granted is not None:
            self.log_out()
            self._enter(granted)

    def forget(self) -> None:
        """Clients are not asked any more: as if this one had come now."""
        self.authentication = self.credentials = self.pin = None
        self._shown = self._name = self._asked = None
        self.log_out()
        self._session.client = self._session.client._replace(user=None, avatar=None)

    def log_out(self) -> None:
        """The user's session is over, or goes on as another one's."""
        logout, self._logout = self._logout, None
        if logout is None:
            return
        try:
            logout()
        except Exception:
            # An embedder's realm may raise anything; it costs a line in the log and nothing else.
            _log.failure("{client}: the logout failed", client=self._session.client)
