"""
RESOLVE and RESOLVE_PTR: one question and one answer.
"""

from __future__ import annotations

from ..wire.words import Address, AddressType, Command
from .connecting import Attempt
from .errors import ProxyProtocolError


class Resolving(Attempt):
    """Asks a proxy. The result fires with the host of the answer, and the connection closes."""

    def answered(self, address: Address) -> None:
        """The proxy has found *address*."""
        if self._request.command is Command.RESOLVE and address.type is AddressType.DOMAIN_NAME:
            self.failed(ProxyProtocolError(f"the proxy answers RESOLVE with a name: {address.host!r}"))
            return
        self.close()
        self.succeed(address.host)
