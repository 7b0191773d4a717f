"""
The system's resolver: the C library, called in threads.

Strategy: ``getaddrinfo`` blocks, for tens of seconds if a DNS server does not answer. So it runs in a pool of
threads of its own, in which clients take turns and one client occupies a part of the threads only. While a
thread looks a name up, further clients wait for the same answer. A name that waits for a thread is in the
queue once for each client, so that no client waits behind the queue of another one.
"""

from __future__ import annotations

import codecs
from collections.abc import Hashable, Sequence
from socket import NI_NAMEREQD, SOCK_STREAM, getaddrinfo, getnameinfo
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import TooManyLookups
from ..runtime.pool import DeadlinePassed, Pool
from ..twisted_internals import is_default_resolver
from ..wire.words import AddressType
from .lookups import BOTH_TYPES, AddressLookups, Found, found_of
from .reverse import AT_ONCE, IReverseResolver

# getaddrinfo() would import it for the first name, when another version may be installed already.
codecs.lookup("idna")

#: Threads that look up addresses, and how many of them the names of one client may occupy.
THREADS, THREADS_PER_CLIENT = 64, 16
#: Further threads, in place of threads whose names no client waits for any more.
SPARE = 256
#: Names that may wait for a thread.
WAITING = 1024
#: Seconds in which a look-up must have ended. The C library's own limit is lower in most configurations.
DEADLINE = 60.0


def system_resolver(reactor: Any) -> IHostnameResolver:
    """The resolver that *reactor* has, or a :class:`SystemResolver` in place of Twisted's own."""
    resolver: IHostnameResolver = reactor.nameResolver
    return SystemResolver(reactor) if is_default_resolver(resolver) else resolver


class _Asked:
    """
    A name that is being looked up.

    :ivar answers: the share of each Deferred that waits for the name.
    :ivar jobs: the job of each share that has the name in its queue or in a thread.
    :ivar taken_by: the share whose thread looks the name up, in a tuple; None: no thread does.
    """

    __slots__ = ("answers", "jobs", "name", "taken_by")

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: dict[Deferred[Found], Hashable] = {}
        self.jobs: dict[Hashable, Deferred[Any]] = {}
        self.taken_by: tuple[Hashable] | None = None


@implementer(IReverseResolver)
class SystemResolver(AddressLookups):
    """
    Calls the C library, in threads of its own.

    :param reactor: for time, threads and shutdown.
    :param pool: runs the look-ups of addresses; None: a pool with the defaults of this module.
    """

    def __init__(self, reactor: Any, pool: Pool | None = None) -> None:
        self._pool = pool or Pool(
            reactor,
            name="names",
            threads=THREADS,
            waiting=WAITING,
            threads_per_share=THREADS_PER_CLIENT,
            spare=SPARE,
            deadline=DEADLINE,
        )
        self._reverse = Pool(
            reactor, name="names of addresses", threads=AT_ONCE, waiting=AT_ONCE, deadline=DEADLINE
        )
        self._asked: dict[str, _Asked] = {}

    def lookup_addresses(
        self, name: str, share: Hashable = None, types: Sequence[AddressType] = BOTH_TYPES
    ) -> Deferred[Found]:
        asked = self._asked.setdefault(name, _Asked(name))
        answer: Deferred[Found] = Deferred(lambda gone: self._forget(asked, gone))
        asked.answers[answer] = share
        if asked.taken_by is None:
            self._begin(asked, share)
        return answer

    def resolveAddress(self, host: str) -> Deferred[str]:
        return self._reverse.run(_name_of, host)

    def _begin(self, asked: _Asked, share: Hashable) -> None:
        if share in asked.jobs:
            return
        job = asked.jobs[share] = self._pool.run(_look_up, asked, share, share=share)
        job.addCallbacks(self._done, self._failed, callbackArgs=(asked, share), errbackArgs=(asked, share))

    def _done(self, found: Found | None, asked: _Asked, share: Hashable) -> None:
        del asked.jobs[share]
        if found is not None:
            self._tell(asked, found)
        elif not asked.jobs:
            # The thread was that of a client that has gone, so its answer is lost.
            asked.taken_by = None
            for each in set(asked.answers.values()):
                self._begin(asked, each)

    def _failed(self, failure: Failure, asked: _Asked, share: Hashable) -> None:
        del asked.jobs[share]
        if failure.check(CancelledError):
            self._clear(asked)
            return
        late = failure.check(DeadlinePassed)
        problem = TooManyLookups("no answer in time" if late else "too many look-ups at once")
        for answer, of_share in list(asked.answers.items()):
            if of_share == share or not asked.jobs:
                del asked.answers[answer]
                answer.errback(problem)
        self._clear(asked)

    def _tell(self, asked: _Asked, found: Found) -> None:
        self._asked.pop(asked.name, None)
        for job in list(asked.jobs.values()):
            job.cancel()
        answers, asked.answers = asked.answers, {}
        for answer in answers:
            if not answer.called:  # a callback of an earlier one may have cancelled it
                answer.callback(found)

    def _forget(self, asked: _Asked, gone: Deferred[Found]) -> None:
        share = asked.answers.pop(gone, None)
        if not asked.answers:
            # No client waits: the thread goes on, and its place is free for another name.
            for job in list(asked.jobs.values()):
                job.cancel()
        elif asked.taken_by != (share,) and share in asked.jobs and share not in asked.answers.values():
            asked.jobs[share].cancel()

    def _clear(self, asked: _Asked) -> None:
        if not asked.jobs and not asked.answers and self._asked.get(asked.name) is asked:
            del self._asked[asked.name]


def _look_up(asked: _Asked, share: Hashable) -> Found | None:
    """The addresses that the C library finds; None: another thread looks the name up already."""
    if asked.taken_by is not None:
        return None
    asked.taken_by = (share,)
    try:
        found = getaddrinfo(asked.name.encode("ascii"), None, type=SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return found_of(host for *_, (host, *_) in found if isinstance(host, str))


def _name_of(host: str) -> str:
    return getnameinfo((host, 0), NI_NAMEREQD)[0]
