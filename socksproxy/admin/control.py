"""
What the admin API asks of a server: state, sessions, listeners, reload.

:func:`control_of` is for a server that a program has made itself. The services of ``twistd socks`` have
controls of their own, which know more.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import twisted
from twisted.internet.defer import Deferred, fail, succeed

from .. import __version__
from ..metrics.snapshot import Metrics
from ..values.shared import NodeSettings
from .answers import Answers, ProcessAnswer
from .errors import RequestRefused
from .upkeep import DrainStage, PartState

if TYPE_CHECKING:
    from ..server.factory import SOCKSFactory


#: Workers in these states have sessions, and the connection to the shared store.
_SERVING = frozenset({"running", "reloading", "leaving", "stopping"})


class Gathered(NamedTuple):
    """
    The answers of all processes that have sessions.

    :ivar answers: one of each process.
    :ivar missing: the numbers of workers that have not answered in time.
    """

    answers: list[ProcessAnswer]
    missing: list[int]

    @property
    def values(self) -> list[Any]:
        """The values of the answers."""
        return [answer.value for answer in self.answers]


class ProcessAsker(Protocol):
    """Asks the processes that have sessions."""

    def ask(
        self, question: str, arguments: Mapping[str, Any], worker: int | None = None
    ) -> Deferred[Gathered]:
        """
        Ask all of them.

        :param worker: ask this one alone.
        :returns: fires with the answers. No process is waited for longer than a second.
        :raises RequestRefused: (by the Deferred) when *arguments* make no sense.
        """

    def ask_each(self, question: str, each: Mapping[int, Mapping[str, Any]]) -> Deferred[Gathered]:
        """
        Ask several, each with arguments of its own.

        :param each: the arguments, by the number of the worker; 0: the only process.
        """


class LocalAsker:
    """
    Asks this process, which is the only one.

    :param factory: serves the clients.
    """

    def __init__(self, factory: SOCKSFactory) -> None:
        self.answers = Answers(factory)

    def ask(
        self, question: str, arguments: Mapping[str, Any], worker: int | None = None
    ) -> Deferred[Gathered]:
        """See :class:`ProcessAsker`."""
        if worker not in (None, 0):
            return fail(RequestRefused(404, "there is no such worker"))
        return self.answers.ask(question, arguments).addCallback(lambda answer: Gathered([answer], []))

    def ask_each(self, question: str, each: Mapping[int, Mapping[str, Any]]) -> Deferred[Gathered]:
        """See :class:`ProcessAsker`."""
        return self.ask(question, each[0])


class Control:
    """
    A server, as the admin API sees it.

    :param reactor: of this process.
    :param generation: what the ids of all sessions begin with.
    :param asker: asks the processes that have sessions.
    """

    def __init__(self, reactor: Any, generation: int, asker: ProcessAsker) -> None:
        self.reactor = reactor
        self.generation = generation
        self.ask = asker.ask
        self.ask_each = asker.ask_each
        self._began = time.time()

    # What is known at once.

    @property
    def closed(self) -> bool:
        """Whether the server is drained so far that it accepts no clients."""
        return False

    def drain_stage(self) -> DrainStage:
        """How far a drain of the server is."""
        return DrainStage.NONE

    def state(self) -> tuple[str, str | None]:
        """
        The state of the server, and why it should get no new clients; None: it should.

        The states are ``starting``, ``running``, ``draining`` and ``stopping``.
        """
        return "running", None

    def metrics(self) -> Metrics | None:
        """What is counted; None: nothing is."""
        return None

    def status(self) -> dict[str, Any]:
        """What is known of the server without asking any process."""
        state, why = self.state()
        return {
            "state": state,
            "why": why,
            "drain": self.drain_stage().value,
            "version": __version__,
            "python": platform.python_version(),
            "twisted": twisted.__version__,
            "pid": os.getpid(),
            "node": self.node().name,
            "generation": self.generation,
            "started": round(self._began, 3),
            "uptime": round(time.time() - self._began, 3),
            "workers": self.processes(),
            "config": self.config(),
        }

    def node(self) -> NodeSettings:
        """What this node is called, and where its admin API is reached."""
        return NodeSettings()

    def teller(self) -> int | None:
        """The process that talks for this node to the store that several nodes share; None: none runs."""
        serving = (row["number"] for row in self.workers() if row["state"] in _SERVING or not row["number"])
        return min(serving, default=None)

    def processes(self) -> dict[str, int]:
        """How many processes serve clients, and how many should."""
        return {"running": 1, "configured": 1}

    def workers(self) -> list[dict[str, Any]]:
        """What is known of the processes that serve clients."""
        return [
            {
                "number": 0,
                "pid": os.getpid(),
                "state": self.state()[0],
                "uptime": round(time.time() - self._began, 3),
                "failures": 0,
            }
        ]

    def config(self) -> dict[str, Any]:
        """The configuration file in force, its hash, when it was loaded, and the last reload if it failed."""
        return {"file": None, "hash": None, "loaded": round(self._began, 3), "failed": None}

    def listeners(self) -> Sequence[dict[str, Any]]:
        """Where clients are accepted."""
        return []

    # What changes the server.

    def document(self) -> Deferred[bytes]:
        """What the configuration says, without secrets, as JSON; a thread makes it."""
        return succeed(json.dumps({**self.config(), "arguments": [], "document": {}}).encode())

    def user(self, name: str) -> dict[str, Any]:
        """What the configuration says of a user: ``known``, ``groups``, ``limits``, ``until_reload``."""
        return {"known": False, "groups": [], "limits": {}, "until_reload": {}}

    def limit_user(self, name: str, limits: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """
        Limit a user until the next reload.

        :param limits: as the file has them; empty: only the configuration counts.
        :returns: fires with the limits that hold.
        """
        self._not_here("limits belong to the program")

    def usage_of(self, name: str) -> Deferred[dict[str, Any] | None]:
        """What a user has used today and this month; None: nothing counts that."""
        return succeed(None)

    def usage(self, first: str, last: str, beyond: str | None) -> Deferred[bytes]:
        """
        What holders of quotas have used, as lines of JSON; some, if there are many.

        :param first: the first day or month; *last*: the last one.
        :param beyond: of *first*, only the holders behind this one; None: all.
        """
        raise RequestRefused(404, "this server has no quotas")

    def usage_records(self, after: int) -> Deferred[bytes]:
        """The usage records with numbers above *after*, as lines of JSON; some, if there are many."""
        raise RequestRefused(404, "this server keeps no usage records")

    def forget_usage(self, name: str, period: str) -> Deferred[int]:
        """
        Delete what a user has used in a day or a month.

        :returns: fires with how many bytes that were.
        """
        raise RequestRefused(404, "this server has no quotas")

    def reload(self) -> Deferred[list[str]]:
        """
        Read the configuration again.

        :returns: fires with what has changed, in a few words each.
        :raises RequestRefused: (by the Deferred) when it cannot come into force, with the mistakes.
        """
        self._not_here("there is no configuration file")

    def reopen_log(self) -> None:
        """
        Open the files of the logs again. Workers have been told so, and do it before they answer a question.

        :raises RequestRefused: when that cannot be.
        """
        self._not_here("there is no access log")

    def set_listener(self, name: str, state: PartState) -> tuple[str, ...]:
        """
        Take a listener out of service, or back.

        :param name: its name, its address, or the description of its endpoint.
        :returns: the words that its sessions have for it.
        :raises RequestRefused: when there is no such listener.
        """
        self._not_here("listeners belong to the program")

    def upstreams(self) -> Mapping[str, dict[str, Any]]:
        """What is known of the upstreams, by their names, without asking any process."""
        return {}

    def pools(self) -> Mapping[str, dict[str, Any]]:
        """What is known of the pools, by their names, without asking any process."""
        return {}

    def set_upstream(self, name: str, state: PartState) -> None:
        """
        Take an upstream out of service, or back.

        :raises RequestRefused: when there is no such upstream.
        """
        self._not_here("upstreams belong to the program")

    def drain(self, seconds: float | None, notice: float | None) -> dict[str, Any]:
        """
        Drain the server.

        :param seconds: that sessions may take; None: as long as at the end of the service.
        :param notice: seconds for which clients are still accepted; None: as the configuration says.
        :returns: the stage of the drain, and the seconds that count.
        """
        self._not_here("the program closes its ports itself")

    def undrain(self) -> None:
        """Take a drain back."""
        self._not_here("the program closes its ports itself")

    def _not_here(self, why: str) -> NoReturn:
        raise RequestRefused(409, f"{why}: a program has made this server itself")


def control_of(factory: SOCKSFactory) -> Control:
    """The control of a server that a program has made itself, of *factory*."""
    return Control(factory.reactor, factory.context.ids.generation, LocalAsker(factory))
