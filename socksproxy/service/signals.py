"""The signals that a service acts on while it runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from twisted.internet.error import ReactorNotRunning

from ..twisted_internals import handles_signal

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """
    Handles signals; what handled them before is called, too, and handles them again in the end.

    :param reactor: runs what the signals ask for.
    :param running: whether the service runs.
    :param end_now: ends what the first SIGTERM or SIGINT waits for.
    """

    def __init__(self, reactor: Any, running: Callable[[], bool], end_now: Callable[[], None]) -> None:
        self._reactor = reactor
        self._running = running
        self._end_now = end_now
        self._stopping = False
        self._handlers: dict[int, tuple[Any, Any]] = {}

    def start(self, acts: Mapping[str, Callable[[], object]]) -> None:
        """
        Handle signals from now on, and those that stop the program as soon as the reactor runs.

        :param acts: what is done, by the signal's name.
        """
        for name, act in acts.items():
            if hasattr(signal, name):
                self._handle(getattr(signal, name), partial(self._on_signal, act))
        self._reactor.callWhenRunning(self._watch_stop_signals)

    def stop(self) -> None:
        """Handle signals no more."""
        self._restore(*(number for number in self._handlers if number not in _STOP))
        if any(number in self._handlers for number in _STOP):
            # It does not come to that when the process ends: a signal that comes meanwhile is still ours.
            self._reactor.callLater(0, self._restore, *_STOP)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            handler, before = self._handlers.pop(number, (None, None))
            if handler is not None and signal.getsignal(number) == handler:
                signal.signal(number, before)

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers[number] = handler, signal.signal(number, handler)

    def _on_signal(self, act: Callable[[], object], number: int, frame: FrameType | None) -> None:
        """Do what the signal asks for, and what another handler would: ``twistd`` rotates its own log."""
        self._reactor.callFromThread(act)
        before = self._handlers[number][1]
        if callable(before):
            before(number, frame)

    def _watch_stop_signals(self) -> None:
        """The second SIGTERM or SIGINT ends what the first one waits for."""
        for number in _STOP:
            # The reactor's own would only complain the second time; others are not ours to replace.
            if self._running() and handles_signal(self._reactor, number):
                self._handle(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        first, self._stopping = not self._stopping, True
        before = self._handlers[number][1]
        if first:
            before(number, frame)
        else:
            # Behind what the first one has asked the reactor for, or is about to.
            self._reactor.callFromThread(self._reactor.callLater, 0, self._end_at_once)

    def _end_at_once(self) -> None:
        self._end_now()
        with suppress(ReactorNotRunning):
            self._reactor.stop()  # the first signal may have come while it did not stop the program
