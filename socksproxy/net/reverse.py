"""
Look-ups of the names of addresses.

A reverse look-up is slow if the owner of the address has set up no reverse zone, and a look-up for a client
that has gone is wasted. So only a few look-ups run at once, and not many wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.python.failure import Failure
from zope.interface import Interface

from ..errors import NameNotFound
from ..runtime.turns import Turns
from ..wire.words import Address, AddressType
from .lookups import not_made
from .names import canonical

#: Look-ups that run at once; each may hold a thread.
AT_ONCE = 32
#: Look-ups that may wait for their turn.
WAITING = 64
#: The same numbers where a look-up is a question to a server, and needs no thread.
QUESTIONS_AT_ONCE, QUESTIONS_WAITING = 128, 1024


class IReverseResolver(Interface):
    """A resolver may provide this beside :class:`twisted.internet.interfaces.IHostnameResolver`."""

    def resolveAddress(host: str) -> Deferred[str]:
        """
        Look up the name of an address.

        :param host: a literal IPv4 or IPv6 address.
        :returns: fires with the name; a failure says that there is none.
        """


class IReverseQuestions(IReverseResolver):
    """A resolver whose look-ups need no threads, and end when they are cancelled."""


def reverse_lookups(resolver: IHostnameResolver) -> ReverseLookups:
    """The reverse look-ups that go with *resolver*."""
    if IReverseQuestions.providedBy(resolver):
        ask = IReverseResolver(resolver).resolveAddress
        return ReverseLookups(ask, at_once=QUESTIONS_AT_ONCE, waiting=QUESTIONS_WAITING, cancels=True)
    if IReverseResolver.providedBy(resolver):
        return ReverseLookups(IReverseResolver(resolver).resolveAddress)
    return ReverseLookups()


class ReverseLookups:
    """
    Looks up the names of addresses. Clients take turns, and a client has at most a quarter of the places.

    :param ask: looks up the name of one address; None: no address has a name.
    :param at_once: how many look-ups run at once.
    :param waiting: how many more look-ups wait.
    :param cancels: whether to cancel a look-up that no client waits for any more.
    """

    def __init__(
        self,
        ask: Callable[[str], Deferred[str]] | None = None,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        cancels: bool = False,
    ) -> None:
        self._ask = ask
        self._turns = Turns(at_once, waiting, max(1, at_once // 4), cancels)

    def lookup(self, host: str, share: Hashable = None) -> Deferred[str]:
        """
        The name of the literal address *host*.

        :param share: the client; None: it is not known.
        :returns: fires with a name that the DNS allows. It can be cancelled; a look-up that runs and holds a
            thread then goes on to its end.
        :raises NameNotFound: (by the Deferred) when the address has no name.
        :raises TooManyLookups: (by the Deferred) when too many look-ups wait.
        """
        ask = self._ask
        if ask is None:
            return fail(NameNotFound("the resolver knows no names of addresses"))

        def start() -> Deferred[str]:
            return maybeDeferred(ask, host).addCallback(_name).addErrback(_not_found)

        return self._turns.run(start, share).addErrback(not_made)


def _name(text: str) -> str:
    """*text*, if it can be the name of a host; the owner of the address can put any text into the DNS."""
    name = canonical(Address(text.removesuffix("."), 0, AddressType.DOMAIN_NAME))
    if name.type is not AddressType.DOMAIN_NAME:
        raise NameNotFound("the name is an address")
    return name.host


def _not_found(failure: Failure) -> Failure:
    failure.trap(Exception)
    if failure.check(NameNotFound):
        return failure
    return Failure(NameNotFound("name not found"))
