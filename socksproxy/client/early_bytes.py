"""
The bytes that a destination has sent before its connection is handed over.
"""

from __future__ import annotations

from typing import Any

from ..twisted_internals import innermost, is_paused


class EarlyBytes:
    """
    Bytes that came with the last reply.

    :param transport: where they came from.
    :param protocol: for whom they are.
    :param data: the bytes.
    """

    def __init__(self, transport: Any, protocol: Any, data: bytes) -> None:
        self._transport = transport
        self._inner = innermost(transport)
        self._protocol = protocol
        self._data = data
        self._paused = True

    def deliver(self) -> None:
        """
        Give them to the protocol; while it has paused its transport they wait, and all later ones with them.
        """
        if self._is_closed():
            return
        if not is_paused(self._transport):
            self._protocol.dataReceived(self._data)
            return
        # Not pauseProducing and resumeProducing: the protocol may have taken the bound methods before.
        self._inner.stopReading = self._pause
        self._inner.startReading = self._resume

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._inner.reactor.callLater(0, self._resumed)

    def _resumed(self) -> None:
        if self._paused or self._is_closed():
            return
        del self._inner.stopReading, self._inner.startReading
        self._inner.startReading()
        self._protocol.dataReceived(self._data)

    def _is_closed(self) -> bool:
        """Whether the protocol gets nothing more, as it would not without a proxy."""
        return any(getattr(self._transport, name, False) for name in ("disconnecting", "disconnected"))
