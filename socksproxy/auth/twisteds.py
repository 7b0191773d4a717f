"""
Twisted's own checkers, as a SOCKS server needs them.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

__all__ = ["adapted"]


def adapted(checker: Any) -> Any:
    """
    *checker*, or what stands for it.

    ``memory`` keeps the names that it was given as text, and what comes from the network is bytes.
    """
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        checker.users = {_bytes(name): _bytes(password) for name, password in checker.users.items()}
    return checker


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
