"""Placeholder until the engine lands."""

from __future__ import annotations

from typing import Any


def engine_for(reactor: Any) -> Any:
    """No engine yet."""
    return None
