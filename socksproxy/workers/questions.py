"""
Questions of the supervisor to its workers, over a socket for each worker.

A message is a line of JSON and, behind it, a part of an answer. A worker that does not answer in time is
named, and not waited for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from ..admin.answers import Answers, ProcessAnswer
from ..admin.control import Gathered
from ..admin.errors import RequestRefused
from ..logs.throttle import complain

_log = Logger(namespace="socksproxy")

#: Seconds in which a worker must have answered.
ANSWER_WITHIN = 1.0

_PART, _END, _REFUSED, _FAILED = "part", "end", "refused", "failed"


class WorkerSilent(Exception):
    """A worker has not answered, or not in time."""


class _Messages(Int32StringReceiver):
    """Messages in both directions."""

    transport: Any
    #: Bytes of a message: of an answer's value or longest part. A longer one would break the connection.
    MAX_LENGTH = 16 << 20

    def tell(self, message: Sequence[Any], data: bytes = b"") -> None:
        """
        Send *message*, and *data* with it.

        :raises ValueError: when that is too long; nothing is sent.
        """
        string = json.dumps(message).encode() + b"\n" + data
        if len(string) > self.MAX_LENGTH:
            raise ValueError(f"a message of {len(string)} bytes")
        self.sendString(string)

    def stringReceived(self, string: bytes) -> None:
        line, _, data = string.partition(b"\n")
        try:
            self.told(json.loads(line), data)
        except Exception:
            # A fault of ours costs this message, and the others are answered.
            complain(_log, "a question between supervisor and worker fails")

    def told(self, message: list[Any], data: bytes) -> None:
        """*message* has come."""
        raise NotImplementedError


class _Outstanding(NamedTuple):
    answer: Deferred[ProcessAnswer]
    parts: list[bytes]
    timer: IDelayedCall


class Questions(_Messages):
    """
    The supervisor's end of the way to one worker.

    :param reactor: keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: dict[int, _Outstanding] = {}
        self._numbers = count(1)
        self._gone = False

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[ProcessAnswer]:
        """
        Ask the worker.

        :returns: fires with the answer.
        :raises WorkerSilent: (by the Deferred) when none comes in time.
        :raises RequestRefused: (by the Deferred) when *arguments* make no sense.
        """
        if self._gone or self.transport is None:
            return fail(WorkerSilent())
        number = next(self._numbers)
        answer: Deferred[ProcessAnswer] = Deferred(lambda _: self._drop(number))
        timer = self._reactor.callLater(ANSWER_WITHIN, self._late, number)
        self._waiting[number] = _Outstanding(answer, [], timer)
        self.tell([number, question, arguments])
        return answer

    def _drop(self, number: int) -> None:
        self._forget(number)

    def _forget(self, number: int) -> _Outstanding | None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and waiting.timer.active():
            waiting.timer.cancel()
        return waiting

    def _late(self, number: int) -> None:
        waiting = self._forget(number)
        if waiting is not None:
            waiting.answer.errback(WorkerSilent())

    def told(self, message: list[Any], data: bytes) -> None:
        """See :meth:`_Messages.told`."""
        number, kind, value = message
        if kind == _PART:
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.parts.append(data)
            return
        waiting = self._forget(number)
        if waiting is None:
            return  # it comes too late
        if kind == _END:
            waiting.answer.callback(ProcessAnswer(value, waiting.parts))
        elif kind == _REFUSED:
            waiting.answer.errback(RequestRefused(value[0], value[1]))
        else:
            waiting.answer.errback(WorkerSilent())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`: the worker has ended."""
        self._gone = True
        for number in list(self._waiting):
            self._late(number)


class Answering(_Messages):
    """
    The worker's end.

    :param answers: answers the questions.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def told(self, message: list[Any], data: bytes) -> None:
        """See :meth:`_Messages.told`."""
        number, question, arguments = message
        answer = self._answers.ask(question, arguments)
        answer.addCallback(self._answered, number).addErrback(self._failed, number)

    def _answered(self, answer: ProcessAnswer, number: int) -> None:
        for part in answer.parts:
            self.tell([number, _PART, None], part)
        self.tell([number, _END, answer.value])

    def _failed(self, failure: Failure, number: int) -> None:
        problem = failure.value
        if isinstance(problem, RequestRefused):
            self.tell([number, _REFUSED, [problem.status, problem.words]])
            return
        _log.failure("a question of the supervisor fails", failure)
        self.tell([number, _FAILED, None])


class WorkersAsker:
    """
    Asks all workers at once. See :class:`~socksproxy.admin.control.ProcessAsker`.

    :param workers: gives the workers that have sessions, by their numbers.
    """

    def __init__(self, workers: Callable[[], Mapping[int, Questions]]) -> None:
        self._workers = workers

    def ask(
        self, question: str, arguments: Mapping[str, Any], worker: int | None = None
    ) -> Deferred[Gathered]:
        """See :class:`~socksproxy.admin.control.ProcessAsker`."""
        workers = self._workers()
        if worker is not None and worker not in workers:
            return fail(RequestRefused(404, "there is no such worker"))
        return self.ask_each(question, dict.fromkeys(workers if worker is None else [worker], arguments))

    def ask_each(self, question: str, each: Mapping[int, Mapping[str, Any]]) -> Deferred[Gathered]:
        """See :class:`~socksproxy.admin.control.ProcessAsker`."""
        workers = self._workers()
        numbers = list(each)
        asked = [
            workers[number].ask(question, each[number]) if number in workers else fail(WorkerSilent())
            for number in numbers
        ]
        return DeferredList(asked, consumeErrors=True).addCallback(_gathered, numbers)


def _gathered(results: list[tuple[bool, Any]], numbers: list[int]) -> Gathered:
    gathered = Gathered([], [])
    for number, (answered, result) in zip(numbers, results, strict=True):
        if answered:
            gathered.answers.append(result)
            continue
        if not result.check(WorkerSilent):
            result.raiseException()
        gathered.missing.append(number)
    return gathered
