"""What comes of a check."""

from __future__ import annotations

from enum import Enum


class CheckOutcome(Enum):
    """What a check says of the server."""

    PASS = "pass"
    FAIL = "fail"
    NOT_SERVED = "not served"
    NOT_RUN = "not run"


class Failed(Exception):
    """The server does something else than the check expects; the words say what."""


class NotServed(Exception):
    """The server says that it does not do what the check asks for."""


class NotPossible(Exception):
    """The check needs what this machine or the options do not give."""


def expect(condition: bool, found: str) -> None:
    """
    Go on where *condition* holds.

    :raises Failed: otherwise, with what was *found*.
    """
    if not condition:
        raise Failed(found)
