"""
Users and passwords that an external program checks, in the protocol of Squid's ``auth_param basic program``.
"""

from __future__ import annotations

import shlex
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ...helpers.helper import Helper
from ...helpers.lines import HelperAnswer, HelperVerdict
from ...logs.printable import printable
from ...runtime.reactor import global_reactor
from ...values.errors import ConfigError
from ...values.helpers import HelperSettings
from ...values.parsers import count, seconds
from .arguments import arguments
from .threads import CheckFailed


@implementer(ICredentialsChecker)
class HelperChecker:
    """
    Asks an external helper.

    :param settings: of the helper.
    :param reactor: starts its processes; None: the global one.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, settings: HelperSettings, reactor: Any = None) -> None:
        self.settings = settings
        self.reactor = reactor
        self._helper: Helper | None = None

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """
        See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

        The user is the one that the helper tells by ``user=``, or else the one that the client has named.
        """
        if self._helper is None:
            self._helper = Helper(self.reactor or global_reactor(), self.settings)
        name: bytes = credentials.username
        asked: Deferred[Any] = self._helper.ask((name, credentials.password))
        return asked.addCallback(_judged, name)

    def retire(self) -> None:
        """See :func:`socksproxy.auth.known.retire`."""
        if self._helper is not None:
            self._helper.close()


def _judged(answer: HelperAnswer, name: bytes) -> bytes | str:
    if answer.verdict is HelperVerdict.YES:
        return answer.words.get("user") or name
    message = printable(answer.message)
    if answer.verdict is HelperVerdict.NO:
        raise UnauthorizedLogin(message or "the helper says no")
    raise CheckFailed(f"helper: {message or 'it cannot tell'}")


def make_checker(argument: str) -> HelperChecker:
    """
    The checker of ``--auth helper:command=PROGRAM ARGUMENTS[:children=N][:concurrency=N][:timeout=SECONDS]``.

    :raises InvalidAuthArgumentString: when *argument* is something else, or there is no such program.
    """
    parsers = {
        "command": _words,
        "children": count(most=256),
        "concurrency": count("for one question at a time", most=10000),
        "timeout": seconds(),
    }
    found = arguments("helper", argument, parsers)
    if "command" not in found:
        raise InvalidAuthArgumentString("helper: no program, as in helper:command=/usr/local/bin/check-user")
    try:
        return HelperChecker(HelperSettings(**found))
    except ConfigError as problem:
        raise InvalidAuthArgumentString(f"helper: {problem.path[0]}: {problem.reason}") from None


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as problem:
        raise ConfigError(str(problem).lower()) from None
