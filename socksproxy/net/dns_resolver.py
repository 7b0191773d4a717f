"""
The resolver that asks DNS servers, for both families of addresses at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from ipaddress import ip_address
from random import Random
from socket import SocketType
from typing import Any

from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import NameNotFound
from ..runtime.turns import Turns
from ..wire.words import AddressType
from .dns_client import DNSClient, Server
from .dns_messages import AAAA, PTR, A, Answer, Outcome, question_for
from .leaving_reactor import LeavingReactor
from .local import has_route
from .lookups import (
    BOTH_TYPES,
    MOST_ADDRESSES,
    AddressLookups,
    Found,
    ILeavingLookup,
    TimedFound,
    found_of,
    not_made,
)
from .names import literal
from .reverse import IReverseQuestions
from .sockets import NewSocket

#: Seconds for which one family's answer waits for the other's (RFC 8305, section 3).
RESOLUTION_DELAY = 0.05
#: Look-ups that run at once, of all clients and of one client; and look-ups that may wait.
MOST_AT_ONCE, MOST_PER_CLIENT, MOST_WAITING = 1024, 64, 4096

_RECORDS = {AddressType.IPV6: AAAA, AddressType.IPV4: A}


@implementer(IReverseQuestions, ILeavingLookup)
class DNSResolver(AddressLookups):
    """
    Asks DNS servers, for AAAA and A at once, or for PTR.

    :param reactor: for sockets and timeouts.
    :param servers: pairs of a literal address and a port, in the order in which they are asked.
    :param chance: for ids and ports; None: the system's random numbers.
    :param new_socket: makes the sockets for UDP.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]],
        chance: Random | None = None,
        new_socket: NewSocket = SocketType,
    ) -> None:
        self._reactor = reactor
        self._client = DNSClient(reactor, [Server(*server) for server in servers], chance, new_socket)
        self._turns = Turns(MOST_AT_ONCE, MOST_WAITING, MOST_PER_CLIENT)

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """The servers, in their order."""
        return self._client.servers

    def leaving_by(self, new_socket: NewSocket) -> DNSResolver:
        """See :class:`~socksproxy.net.lookups.ILeavingLookup`."""
        return DNSResolver(LeavingReactor(self._reactor, new_socket), self.servers, new_socket=new_socket)

    def lookup_addresses(
        self, name: str, share: Hashable = None, types: Sequence[AddressType] = BOTH_TYPES
    ) -> Deferred[Found]:
        records = tuple(_RECORDS[type] for type in types)
        found = self._turns.run(lambda: _Families(self._reactor, self._client, name, records).result, share)
        return found.addErrback(not_made)

    def resolveAddress(self, host: str) -> Deferred[str]:
        question = question_for(ip_address(host).reverse_pointer, PTR)
        return self._client.ask(question).addCallback(_pointer)


class _Families:
    """
    One look-up of a name's addresses of both families.

    :ivar result: fires with the addresses: when both answers are there, or a moment after the first answer
        that is enough for a connection. Cancelling it ends the questions.
    """

    def __init__(self, clock: Any, client: DNSClient, name: str, types: tuple[Any, ...]) -> None:
        self.result: Deferred[Found] = Deferred(lambda _: self._stop())
        self._types = types
        self._answers: dict[Any, Answer | None] = {}
        self._delay: IDelayedCall | None = None
        self._clock = clock
        self._asked: list[Deferred[Any]] = []
        self._over = False
        try:
            questions = [question_for(name, type) for type in types]
        except ValueError:
            questions = []  # the DNS has no such names
        if not questions:
            self._end()
        for question in questions:
            asked = client.ask(question)
            self._asked.append(asked)
            asked.addErrback(_no_answer).addCallback(self._answered, question.type)

    def _answered(self, answer: Answer | None, type: Any) -> None:
        if self._over:
            return
        self._answers[type] = answer
        if len(self._answers) == len(self._types):
            self._end()
        elif self._delay is None and answer is not None and self._is_enough(answer, type):
            self._delay = self._clock.callLater(RESOLUTION_DELAY, self._end)

    def _is_enough(self, answer: Answer, type: RdataType) -> bool:
        """Whether *answer* is enough without the other family's: it has a route, or there is no such name."""
        if answer.outcome is Outcome.NO_SUCH_NAME:
            return type is A  # some servers give that answer for AAAA only (RFC 4074, section 4.2)
        return any(map(has_route, answer.records[:MOST_ADDRESSES]))

    def _end(self) -> None:
        self._stop()
        answers = [answer for answer in map(self._answers.get, self._types) if answer is not None]
        hosts = (literal(host) or host for answer in answers for host in answer.records[:MOST_ADDRESSES])
        found = TimedFound(found_of(hosts))
        found.ttl = min((answer.ttl for answer in answers if answer.records), default=0)
        self.result.callback(found)

    def _stop(self) -> None:
        self._over = True
        delay, self._delay = self._delay, None
        if delay is not None and delay.active():
            delay.cancel()
        for asked in self._asked:
            asked.cancel()


def _no_answer(failure: Failure) -> None:
    """Have None for the answer of a family that has failed; the other one may have an answer."""
    failure.trap(Exception)


def _pointer(answer: Answer) -> str:
    if not answer.records:
        raise NameNotFound("name not found")
    return answer.records[0]
