"""
Who has failed too often.
"""

from __future__ import annotations

from typing import Any


class Penalties:
    """Failures."""

    def __init__(self, clock: Any, failures: int | None = 10) -> None:
        self.failures = failures
