"""
The portal that the operator's checkers make.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm, Portal
from twisted.internet.interfaces import IReactorTime

from .cache import Remembering
from .chain import chained
from .credentials import IUsernamePassword
from .users import Realm


def portal_of(
    checkers: Iterable[ICredentialsChecker],
    clock: IReactorTime,
    remember: float = 60.0,
    realm: IRealm | None = None,
) -> Portal:
    """
    A portal of several checkers, in the order in which they are asked.

    :param clock: tells the time.
    :param remember: seconds for which a right password is not checked again.
    :param realm: gives the users; None: they are plain ones.
    """
    portal = Portal(Realm() if realm is None else realm)
    for chain in chained(checkers, clock):
        (interface,) = chain.credentialInterfaces
        asked = Remembering(chain, clock, remember) if interface is IUsernamePassword else chain
        portal.registerChecker(asked, interface)
    return portal
