"""
What becomes of a session that is one too many.
"""

from __future__ import annotations

from enum import Enum


class Admission(Enum):
    """What becomes of a new session."""

    SERVE = "serve"
    #: It is told so by the protocol's own reply, once it has asked.
    REFUSE = "refuse"
    #: So many are waiting to be told that this one is closed unheard.
    DROP = "drop"


#: How many sessions over a limit are still listened to, so that they can be told.
PATIENCE = 32


def admission_of(over: int) -> Admission:
    """What becomes of a session that makes them *over* more than there may be."""
    if over <= 0:
        return Admission.SERVE
    return Admission.REFUSE if over <= PATIENCE else Admission.DROP
