"""
Commands for all nodes that share a store, such as to end the sessions of a user.

Strategy: the commands are in one stream of the store. Each process looks once a second for those that have
come since, from its start on, so a process that starts obeys no command from before. A process that was cut
off from the store obeys what it has missed, unless that is older than a minute. What it does not know is of
a later version, and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..logs.printable import printable
from ..logs.throttle import complain
from ..values.shared import SharedSettings
from .asking import Job
from .scripts import COMMANDS, LOOK, SEND

_log = Logger(namespace="socksproxy")

#: Seconds from one look to the next.
LOOKS_EVERY = 1.0


class Deed(Enum):
    """What a command wants done; the value is its word in the store."""

    #: The sessions of a user end.
    KICK = "kick"
    #: A client's address may try passwords again.
    UNLOCK = "unlock"
    #: A client's address is locked out; a script of the store says so.
    LOCK = "lock"
    #: The configuration is read again.
    RELOAD = "reload"


class NodeCommand(NamedTuple):
    """
    A command.

    :ivar number: what the store calls it.
    :ivar deed: what is to be done.
    :ivar about: the user or the network; empty: there is none.
    :ivar node: the node that has sent it.
    :ivar by: who has wanted it there.
    :ivar level: the number of a penalty.
    :ivar lasts: seconds that are left of it.
    """

    number: str
    deed: Deed
    about: str
    node: str
    by: str
    level: int = 0
    lasts: float = 0.0


class JobStore(Shape):
    """What commands need of the store."""

    settings: SharedSettings

    @property
    def up(self) -> bool: ...

    def run(self, job: Job) -> None: ...


class Commands:
    """
    Sends commands, and has those of other nodes obeyed.

    :param reactor: keeps time.
    :param store: the store.
    :ivar obey: what to do, for each deed that is done here.
    """

    def __init__(self, reactor: Any, store: JobStore) -> None:
        self.obey: dict[Deed, Callable[[NodeCommand], object]] = {}
        self._reactor = reactor
        self._store = store
        self._position = ""
        self._asked = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Look for commands from now on."""
        self._timer = self._reactor.callLater(LOOKS_EVERY, self._tick)

    def stop(self) -> None:
        """Look no more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def send(self, deed: Deed, about: str, by: str) -> Deferred[bool]:
        """
        Tell all other nodes; this one does it itself.

        :param by: who wants it, for the logs of the nodes.
        :returns: fires with whether the store has it.
        """
        sent: Deferred[bool] = Deferred()
        words = [deed.value, about.encode("utf-8", "surrogateescape"), self._store.settings.node, by]
        self._store.run(Job(SEND, [COMMANDS], words, lambda answer: sent.callback(answer is not None)))
        return sent

    def look(self) -> None:
        """Look now, unless an answer is still to come."""
        if not self._asked and self._store.up:
            self._asked = True
            self._store.run(Job(LOOK, [COMMANDS], [self._position], self._found))

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(LOOKS_EVERY, self._tick)
        self.look()

    def _found(self, answer: list[Any] | None) -> None:
        self._asked = False
        if answer is None:
            return
        position, now, *entries = answer
        self._position = position.decode("ascii")
        for number, fields in entries:
            command = self._read(number, fields, int(now))
            if command is not None:
                self._do(command)

    def _read(self, number: bytes, fields: list[bytes], now: int) -> NodeCommand | None:
        """The command for this process; None: it is for others, or of a later version."""
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        node, deed, about, by = (
            values.get(key, b"").decode("utf-8", "surrogateescape")
            for key in (b"node", b"deed", b"about", b"by")
        )
        if node == self._store.settings.node or deed not in _DEEDS:
            return None
        level, till = int(values.get(b"level", 0)), int(values.get(b"till", 0))
        return NodeCommand(number.decode("ascii"), _DEEDS[deed], about, node, by, level, (till - now) / 1000)

    def _do(self, command: NodeCommand) -> None:
        obey = self.obey.get(command.deed)
        if obey is None:
            return
        if command.deed is not Deed.LOCK:
            _log.info(
                "node {node} ({by}) has all nodes {deed}{about}",
                deed=command.deed.value,
                about=command.about and f" {printable(command.about)}",
                node=printable(command.node),
                by=printable(command.by),
            )
        try:
            obey(command)
        except Exception:
            complain(_log, "a command of another node fails")


_DEEDS = {deed.value: deed for deed in Deed}
