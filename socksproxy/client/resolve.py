"""
RESOLVE and RESOLVE_PTR: one question and one answer.
"""

from __future__ import annotations

from ..wire.words import Address
from .connecting import Attempt


class Resolving(Attempt):
    """Asks a proxy. The result fires with the host of the answer, and the connection closes."""

    def answered(self, address: Address) -> None:
        """The proxy has found *address*."""
        self.close()
        self.succeed(address.host)
