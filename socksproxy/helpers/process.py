"""
One process of a helper: its pipes, and the questions that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol as Shape

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ..logs.printable import printable
from ..values.helpers import HelperSettings
from .lines import HelperAnswer, answer_in, question

#: Bytes that a process may have sent without the end of a line.
MOST_BYTES = 65536
#: Seconds between looks whether a process has ended: not every reactor of ours handles SIGCHLD.
_LOOK_EVERY = 0.1
#: Seconds that a process has to end, once it is not asked any more.
ENDS_WITHIN = 5.0


class HelperQuestion(Shape):
    """A question, as a process sees it."""

    @property
    def words(self) -> tuple[bytes | None, ...]: ...

    def answered(self, answer: HelperAnswer) -> None: ...


class HelperProcess(ProcessProtocol):
    """
    A process of a helper.

    :param settings: of the helper.
    :param reactor: starts the process.
    :param free: called with this process when it has had an answer.
    :param gone: called with this process, and with the questions that it has not answered, when it has ended
        or is not asked any more.
    :param complain: called with words for the log, which may come often.
    :ivar useful: whether the process has answered any question.
    :ivar idle_since: the time of the last answer, or of the start.
    """

    transport: Any

    def __init__(
        self,
        settings: HelperSettings,
        reactor: Any,
        free: Callable[[HelperProcess], None],
        gone: Callable[[HelperProcess, list[HelperQuestion]], None],
        complain: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._free = free
        self._gone: Callable[[HelperProcess, list[HelperQuestion]], None] | None = gone
        self._channels = settings.concurrency > 0
        self._asked: dict[int, HelperQuestion | None] = {}
        self._received = b""
        self._ended = False
        self._killing: IDelayedCall | None = None
        self._complain = complain
        self.useful = False
        self.idle_since: float = reactor.seconds()

    def start(self) -> None:
        """
        Start the process.

        :raises OSError: when there can be no further process.
        """
        command = self._settings.command
        self._reactor.spawnProcess(self, command[0], command, env=None)

    @property
    def room(self) -> int:
        """How many further questions the process may have now."""
        return 0 if self._gone is None else max(1, self._settings.concurrency) - len(self._asked)

    @property
    def busy(self) -> bool:
        """Whether the process has a question."""
        return bool(self._asked)

    def ask(self, asked: HelperQuestion) -> None:
        """Ask; there must be room."""
        channel = 0
        while channel in self._asked:
            channel += 1
        self._asked[channel] = asked
        self.transport.write(question(asked.words, channel if self._channels else None))

    def give_up(self, asked: HelperQuestion) -> bool:
        """
        Wait for the answer to a question no more.

        :returns: whether the process can be asked further questions. A process without channel numbers
            cannot: its next answer would be taken for that of the next question. Nor can one that owes an
            answer on each of its channels, and for which nothing waits.
        """
        for channel, each in self._asked.items():
            if each is asked:
                self._asked[channel] = None
                return self._channels and (self.room > 0 or any(self._asked.values()))
        return True

    def close(self) -> None:
        """Have the process end: it reads the end of its input."""
        self._forget()
        self._end()

    def kill(self) -> None:
        """End the process."""
        self._forget()
        if not self._ended and self.transport.pid:
            self.transport.signalProcess("KILL")

    # What Twisted says.

    def outReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.outReceived`."""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if self._gone is None:
                return
            self._answer(line)
        if len(self._received) > MOST_BYTES:
            self._wrong("a line without an end")

    def errReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.errReceived`."""
        self._complain(f"says: {printable(data.decode('utf-8', 'replace').strip())}")

    def childConnectionLost(self, childFD: int) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.childConnectionLost`."""
        if childFD == 1:
            self._forget()
            self._end()
            self._reap()

    def processEnded(self, reason: Failure) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.processEnded`."""
        self._ended = True
        self._forget()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()

    def _end(self) -> None:
        """Have the process read the end of its input; one that does not end then is killed."""
        if not self._ended and self._killing is None:
            self.transport.closeStdin()
            self._killing = self._reactor.callLater(ENDS_WITHIN, self.kill)

    def _reap(self) -> None:
        if not self._ended:
            reapAllProcesses()
        if not self._ended:
            self._reactor.callLater(_LOOK_EVERY, self._reap)

    def _answer(self, line: bytes) -> None:
        try:
            channel, answer = answer_in(line, self._channels)
            asked = self._asked.pop(channel or 0)
        except ValueError as problem:
            self._wrong(str(problem))
            return
        except KeyError:
            self._wrong("an answer to a question that was not asked")
            return
        self.useful = True
        self.idle_since = self._reactor.seconds()
        if asked is not None:
            asked.answered(answer)
        self._free(self)

    def _wrong(self, what: str) -> None:
        self._complain(f"breaks the protocol: {what}")
        self.kill()

    def _forget(self) -> None:
        """The owner does not count on the process any more."""
        gone, self._gone = self._gone, None
        if gone is not None:
            left = [asked for asked in self._asked.values() if asked is not None]
            self._asked.clear()
            gone(self, left)
