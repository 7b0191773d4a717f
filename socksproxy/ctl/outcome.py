"""
How a subcommand ends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: The exit statuses.
DONE, REFUSED, USAGE, NO_SERVER, TIME_OVER, IN_PART = range(6)

#: What each of them means.
MEANINGS = {
    DONE: "done",
    REFUSED: "refused, or it is not as asked; standard error says why",
    USAGE: "the arguments make no sense",
    NO_SERVER: "there is no server at the socket, or it went away",
    TIME_OVER: "the time is over",
    IN_PART: "done in part: workers or nodes have not answered, or some of several things are not done",
}


class CtlFailed(Exception):
    """
    What was asked for is not done; its words are for the operator, one line.

    :param status: the exit status.
    :param reasons: further lines, which stand before that one.
    """

    def __init__(self, words: str, status: int = REFUSED, reasons: Iterable[str] = ()) -> None:
        super().__init__(words)
        self.status = status
        self.reasons = list(reasons)
