"""
HAProxy's agent check: one line to each client, and the connection closes.

``agent-check`` of HAProxy's manual, section 5.2, explains the words. A weight alone does not end a drain
that an earlier line has begun, so ``ready`` comes with it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol, ServerFactory

from .control import Control, Gathered

#: Seconds by which the event loop may be late without costing weight.
_LATE = 0.05
#: Seconds after which a client that does not read is cut off.
_WITHIN = 5.0
#: Connections at once.
_MOST = 64


def line_for(control: Control, gathered: Gathered) -> str:
    """The line that tells how much of a server is free."""
    state, why = control.state()
    if state == "draining":
        return "maint" if control.closed else "drain"
    if why is not None or not gathered.answers:
        return f"down #{why or 'no worker answers'}"
    free = sum(value["free"] for value in gathered.values) / len(gathered.answers)
    lag = max(value["lag"] for value in gathered.values)
    if lag > _LATE:
        free *= _LATE / lag
    return f"ready up {max(1, round(100 * free))}%"


class AgentProtocol(Protocol):
    """One client."""

    transport: Any
    factory: AgentFactory

    def connectionMade(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionMade`."""
        if len(self.factory.open) >= _MOST:
            self.transport.abortConnection()
            return
        self.factory.open[self] = self.factory.control.reactor.callLater(_WITHIN, self._expired)
        control = self.factory.control
        control.ask("load", {}).addCallback(self._answered).addErrback(lambda _: self._say("down #fault"))

    def _answered(self, gathered: Gathered) -> None:
        self._say(line_for(self.factory.control, gathered))

    def _say(self, line: str) -> None:
        self.transport.write(line.encode() + b"\n")
        self.transport.loseConnection()

    def _expired(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`."""
        timer = self.factory.open.pop(self, None)
        if timer is not None and timer.active():
            timer.cancel()


class AgentFactory(ServerFactory):
    """
    Serves the agent's listener.

    :param control: knows the server.
    """

    noisy = False

    def __init__(self, control: Control) -> None:
        self.control = control
        self.open: dict[AgentProtocol, Any] = {}

    def buildProtocol(self, addr: object) -> Any:
        """See :meth:`twisted.internet.protocol.Factory.buildProtocol`."""
        protocol = AgentProtocol()
        protocol.factory = self
        return protocol
