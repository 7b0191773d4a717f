"""How far a long measurement is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 24


class Progress:
    """
    Shows what is done and how long the rest takes: a bar on a terminal, a line a step elsewhere.

    :param total: steps in all.
    :param stream: where to.
    """

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._stream = stream
        self._terminal = stream.isatty()
        self._done = 0
        self._began = time.monotonic()
        self._shown = 0

    def begin(self, what: str, left: float | None) -> None:
        """
        A step begins.

        :param what: it is.
        :param left: seconds that it and all after it may take; None: nobody knows yet.
        """
        remaining = "" if left is None else f", {clock(left)} left"
        line = f"{self._done}/{self._total} done{remaining}: {what}"
        if not self._terminal:
            self._say(f"{line}\n")
            return
        filled = _WIDTH * self._done // max(1, self._total)
        self._redraw(f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {line}")

    def end(self) -> None:
        """The step has ended."""
        self._done += 1

    def note(self, text: str) -> None:
        """Something that shall stay to be read."""
        self._redraw("")
        self._say(f"{text}\n")

    def close(self) -> None:
        """No more steps."""
        self._redraw("")
        self._say(f"{self._done} of {self._total} done in {clock(time.monotonic() - self._began)}\n")

    def _redraw(self, text: str) -> None:
        if self._terminal:
            self._say(f"\r{text:<{self._shown}}" + ("\r" if not text else ""))
            self._shown = len(text)

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def clock(seconds: float) -> str:
    """``75`` is ``1:15``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
