"""Placeholder until the engine lands."""

from __future__ import annotations

from socket import SocketType
from typing import Any


def is_detachable(transport: Any) -> bool:
    """Nothing is, yet."""
    return False


def detach_socket(transport: Any) -> SocketType | None:
    """Nothing is, yet."""
    return None
