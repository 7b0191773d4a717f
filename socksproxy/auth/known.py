"""
Whether somebody whom a checker has vouched for is still there.

A checker may have a method ``knows(avatar_id)``: True, False, or None where it cannot tell. It is asked in
the reactor's thread, without a password, when users may have changed, and must not block.
"""

from __future__ import annotations

from typing import Any


def knows(checker: Any, avatar_id: Any) -> bool | None:
    """What *checker* says of *avatar_id*; None: it cannot tell, and nobody is sent away for that."""
    ask = getattr(checker, "knows", None)
    if ask is None:
        return None
    answer: bool | None = ask(avatar_id)
    return answer
