"""
Why a request on an admin socket is refused.
"""

from __future__ import annotations

from typing import Any


class RequestRefused(Exception):
    """
    A request is refused, and nothing has changed.

    :param status: of HTTP.
    :param words: why, for people.
    :param more: further keys of the answer.
    """

    def __init__(self, status: int, words: str, **more: Any) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.more = more


class DoneInPart(RequestRefused):
    """What the request asks for is done on this node, and not on the others."""
