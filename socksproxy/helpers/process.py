"""
One process of a helper: its pipes, and the questions that it has.
"""

from __future__ import annotations

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
#: Seconds that a process has to end, once it is not asked any more: then it gets SIGTERM, and after so many
#: more seconds SIGKILL.
ENDS_WITHIN = 5.0


class HelperQuestion(Shape):
    """A question, as a process sees it."""

    @property
    def words(self) -> tuple[bytes | None, ...]: ...

    def answered(self, answer: HelperAnswer) -> None: ...


class ProcessOwner(Shape):
    """What a process tells."""

    def free(self, process: HelperProcess) -> None:
        """*process* has had an answer."""

    def gone(self, process: HelperProcess, left: list[HelperQuestion]) -> None:
        """*process* is not asked any more; it has not answered the questions that are *left*."""

    def ended(self, process: HelperProcess) -> None:
        """*process* has ended; :meth:`gone` comes first."""

    def complain(self, what: str) -> None:
        """Tell the operator; this may come often."""


class HelperProcess(ProcessProtocol):
    """
    A process of a helper.

    :param settings: of the helper.
    :param reactor: starts the process.
    :param owner: hears of it.
    :ivar useful: whether the process has answered any question.
    :ivar idle_since: the time of the last answer, or of the start.
    """

    transport: Any

    def __init__(
        self,
        settings: HelperSettings,
        reactor: Any,
        owner: ProcessOwner,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._owner = owner
        self._is_asked = True
        self._channels = settings.concurrency > 0
        self._asked: dict[int, HelperQuestion | None] = {}
        self._received = b""
        self._ended = False
        self._killing: IDelayedCall | None = None
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
        return max(1, self._settings.concurrency) - len(self._asked) if self._is_asked else 0

    @property
    def busy(self) -> bool:
        """Whether the process has a question."""
        return bool(self._asked)

    @property
    def waited_for(self) -> list[HelperQuestion]:
        """The questions of the process for whose answers something waits."""
        return [asked for asked in self._asked.values() if asked is not None]

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
                return self._channels and (self.room > 0 or bool(self.waited_for))
        return True

    def close(self, seconds: float = ENDS_WITHIN) -> None:
        """
        Have the process end: it reads the end of its input.

        :param seconds: after which it gets SIGTERM; after as many more it gets SIGKILL. The last call counts.
        """
        self._forget()
        self._end(seconds)

    def kill(self) -> None:
        """End the process."""
        self._forget()
        self._signal("KILL")

    # What Twisted says.

    def outReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.outReceived`."""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if not self._is_asked:
                return
            self._answer(line)
        if len(self._received) > MOST_BYTES:
            self._wrong("a line without an end")

    def errReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.errReceived`."""
        self._owner.complain(f"says: {printable(data.decode('utf-8', 'replace').strip())}")

    def childConnectionLost(self, childFD: int) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.childConnectionLost`."""
        if childFD == 1:
            if self._killing is None:
                self.close()
            self._reap()

    def processEnded(self, reason: Failure) -> None:
        """See :meth:`twisted.internet.protocol.ProcessProtocol.processEnded`."""
        self._ended = True
        self._forget()
        self._stop_waiting()
        self._owner.ended(self)

    def _end(self, seconds: float) -> None:
        if self._ended:
            return
        if self._killing is None:
            self.transport.closeStdin()
        self._stop_waiting()
        self._killing = self._reactor.callLater(seconds, self._terminate, seconds)

    def _terminate(self, seconds: float) -> None:
        self._signal("TERM")
        self._killing = self._reactor.callLater(seconds, self._signal, "KILL")

    def _stop_waiting(self) -> None:
        if self._killing is not None and self._killing.active():
            self._killing.cancel()

    def _signal(self, name: str) -> None:
        if not self._ended and self.transport.pid:
            self.transport.signalProcess(name)

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
        self._owner.free(self)

    def _wrong(self, what: str) -> None:
        self._owner.complain(f"breaks the protocol: {what}")
        self.kill()

    def _forget(self) -> None:
        """The owner does not count on the process any more."""
        if self._is_asked:
            self._is_asked = False
            left = self.waited_for
            self._asked.clear()
            self._owner.gone(self, left)
