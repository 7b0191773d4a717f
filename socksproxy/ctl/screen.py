"""
A terminal that is drawn on again and again, without curses.
"""

from __future__ import annotations

import os
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType

_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """
    The terminal, until the end of a ``with``: then it is as it was. Where the output is no terminal, each
    drawing is printed below the one before.
    """

    def __init__(self) -> None:
        self._drawn = 0
        self._terminal = sys.stdout.isatty()
        self._wakes: tuple[int, int] = (-1, -1)

    def __enter__(self) -> Screen:
        if self._terminal:
            self._wakes = os.pipe()
            for end in self._wakes:
                os.set_blocking(end, False)
            signal.set_wakeup_fd(self._wakes[1], warn_on_full_buffer=False)
            signal.signal(signal.SIGWINCH, _resized)
            signal.signal(signal.SIGTERM, _stop)
            sys.stdout.write(_OTHER_SCREEN)
            sys.stdout.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._terminal:
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for end in self._wakes:
            os.close(end)
        sys.stdout.write(_FIRST_SCREEN)
        sys.stdout.flush()

    def size(self) -> tuple[int | None, int | None]:
        """The columns and the lines of the terminal; None: it is none."""
        if not self._terminal:
            return None, None
        found = os.get_terminal_size(sys.stdout.fileno())
        return found.columns or 80, found.lines or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show *lines*, as many as there is room for."""
        if self._terminal:
            height = self.size()[1]
            shown = f"{_END_OF_LINE}\n".join(lines[:height])
            sys.stdout.write(f"{_HOME}{shown}{_END_OF_LINE}{_BELOW}")
        else:
            sys.stdout.write("\n".join([*([""] if self._drawn else []), *lines, ""]))
        sys.stdout.flush()
        self._drawn += 1

    def rest(self, seconds: float) -> None:
        """Wait so long, or until the terminal has another size."""
        woken, _, _ = select.select([self._wakes[0]] if self._terminal else [], [], [], seconds)
        if woken:
            os.read(self._wakes[0], 4096)


def _resized(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor tells it."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
