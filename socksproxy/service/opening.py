"""
How the listeners of a service open, and where they may.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.endpoints import OPEN_TO_ALL
from ..config.plan import Listener, Plan
from ..errors import describe
from ..net.special_addresses import is_loopback

_log = Logger(namespace="socksproxy")


class CannotStart(SystemExit, Exception):
    """
    The service cannot start.

    An :exc:`Exception`, so that a daemonized ``twistd`` tells its parent and
    removes its PID file; and a :exc:`SystemExit`, so that the process ends
    with status 1 and no traceback.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class Opening:
    """
    Opens listeners, and gives up those that take their time.

    :param factory: is given the listeners' clients.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._waiting: list[Deferred[IListeningPort]] = []

    @property
    def unfinished(self) -> bool:
        """Whether a listener takes its time."""
        return bool(self._waiting)

    def open(self, listener: Listener) -> Deferred[IListeningPort]:
        """
        Open *listener*.

        :returns: fires with the port.
        :raises CannotStart: (by the Deferred) when it cannot open.
        """
        waiting: Deferred[IListeningPort] = maybeDeferred(listener.endpoint.listen, self._factory)
        self._waiting.append(waiting)
        return waiting.addErrback(_explain, listener).addBoth(self._finished, waiting)

    def finished(self) -> Deferred[Any]:
        """Fires when all listeners are open, or have failed."""
        return DeferredList(list(self._waiting))

    def cancel(self) -> None:
        """Give up the listeners that are not open yet."""
        for waiting in list(self._waiting):
            waiting.cancel()

    def _finished(self, result: Any, waiting: Deferred[IListeningPort]) -> Any:
        self._waiting.remove(waiting)
        return result


def cannot_start(failure: Failure, listener: Listener) -> CannotStart:
    """The end of a service whose *listener* cannot open because of the *failure*."""
    problem = failure.value
    if isinstance(problem, CannotStart):
        return problem
    return CannotStart(f"{listener.description}: {_reason(failure)}")


def _explain(failure: Failure, listener: Listener) -> None:
    raise cannot_start(failure, listener) from None


def _reason(failure: Failure) -> str:
    """Why a listener cannot open, in one line."""
    problem = failure.value
    if isinstance(problem, CannotListenError):
        problem = problem.socketError
    if isinstance(problem, OSError):
        return describe(problem)
    return " ".join(str(problem).split()) or type(problem).__name__


def check_place(port: IListeningPort, plan: Plan) -> None:
    """
    See that *port* is where it may be by the *plan*.

    :raises CannotStart: when it is not.
    """
    where, local = where_listens(port)
    if not (local or plan.open or plan.guarded):
        raise CannotStart(f"{where} is not a loopback address, and {OPEN_TO_ALL}: add --auth, or --open")


def close(port: IListeningPort) -> None:
    """Close *port*."""
    maybeDeferred(port.stopListening).addErrback(
        lambda failure: _log.failure("a port fails to close", failure)
    )


def where_listens(port: IListeningPort) -> tuple[str, bool]:
    """Where *port* listens as an endpoint would say it, and whether only this machine can reach it."""
    address: Any = port.getHost()
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}", True
    host = getattr(address, "host", None)
    if host is None:
        return str(address), False
    if ":" in host:
        return f"tcp6:[{host}]:{address.port}", is_loopback(host)
    return f"tcp:{host}:{address.port}", is_loopback(host)
