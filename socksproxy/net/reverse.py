"""
From an address to its name.

:class:`ReverseLookups` is what the commands ask. Reverse look-ups are slow where
nobody has cared for them, and what waits for a client that is gone is wasted: so
there are few at once, and not many wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.python.failure import Failure
from zope.interface import Interface

from ..errors import NameNotFound, TooManyLookups
from ..runtime.fair_queue import FairQueue
from ..wire.words import Address, AddressType
from .names import canonical

#: Look-ups at once: with the system's resolver, each holds a thread.
AT_ONCE = 32
#: Look-ups that wait for their turn.
WAITING = 64
#: Likewise where a look-up is a question to a server, and needs no thread.
QUESTIONS_AT_ONCE, QUESTIONS_WAITING = 128, 1024


class IReverseResolver(Interface):
    """What a resolver may provide besides :class:`twisted.internet.interfaces.IHostnameResolver`."""

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


class _Wanted:
    __slots__ = ("answer", "asked", "host")

    def __init__(self, host: str, answer: Deferred[str]) -> None:
        self.host = host
        self.answer = answer
        self.asked: Deferred[Any] | None = None


class ReverseLookups:
    """
    Finds the names of addresses, a few at once; clients take turns, and a client may have a quarter of them.

    :param ask: looks one up; None: there is nobody to ask, and no address has a name.
    :param at_once: how many look-ups go on at once.
    :param waiting: how many more wait; any above are not made.
    :param cancels: whether to cancel look-ups that no client waits for any more.
    """

    def __init__(
        self,
        ask: Callable[[str], Deferred[str]] | None = None,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        cancels: bool = False,
    ) -> None:
        self._ask = ask
        self._at_once = at_once
        self._most = waiting
        self._cancels = cancels
        self._per_share = max(1, at_once // 4)
        self._running: Counter[Hashable] = Counter()
        self._waiting: FairQueue[_Wanted] = FairQueue()

    def lookup(self, host: str, share: Hashable = None) -> Deferred[str]:
        """
        The name of the literal address *host*.

        :param share: the client who asks; None: not known.
        :returns: fires with a name that the DNS allows. When it is cancelled, a
            look-up that goes on and holds a thread is left to end in its own time.
        :raises NameNotFound: (by the Deferred) when there is none, or nobody to ask.
        """
        if self._ask is None:
            return fail(NameNotFound("the resolver knows no names of addresses"))
        answer: Deferred[str] = Deferred(lambda _: self._forget(share, wanted))
        wanted = _Wanted(host, answer)
        self._waiting.put(share, wanted)
        self._next()
        if len(self._waiting) > self._most:
            self._waiting.shed(share).answer.errback(TooManyLookups("too many look-ups at once"))
        return answer

    def _next(self) -> None:
        while self._running.total() < self._at_once:
            taken = self._waiting.take(self._has_turn)
            if taken is None:
                return
            share, wanted = taken
            self._running[share] += 1
            assert self._ask is not None
            wanted.asked = asked = maybeDeferred(self._ask, wanted.host)
            asked.addBoth(self._ended, share).addCallback(_name).addErrback(_not_found)
            asked.addBoth(_tell, wanted.answer)

    def _forget(self, share: Hashable, wanted: _Wanted) -> None:
        self._waiting.discard(share, wanted)
        if self._cancels and wanted.asked is not None:
            wanted.asked.cancel()

    def _has_turn(self, share: Hashable) -> bool:
        return share is None or self._running[share] < self._per_share

    def _ended(self, result: Any, share: Hashable) -> Any:
        self._running[share] -= 1
        if not self._running[share]:
            del self._running[share]
        self._next()
        return result


def _name(text: str) -> str:
    """*text* if it can be a host's name; what stands in the DNS is anybody's."""
    name = canonical(Address(text.removesuffix("."), 0, AddressType.DOMAIN_NAME))
    if name.type is not AddressType.DOMAIN_NAME:
        raise NameNotFound("the name is an address")
    return name.host


def _not_found(failure: Failure) -> Failure:
    failure.trap(Exception)
    if failure.check(NameNotFound):
        return failure
    return Failure(NameNotFound("name not found"))


def _tell(result: Any, answer: Deferred[str]) -> None:
    # It has been called if it was cancelled.
    if not answer.called:
        answer.callback(result)
