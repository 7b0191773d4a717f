"""
The login by GSSAPI (RFC 1961), and who has to be asked for it.
"""

from __future__ import annotations

from typing import Literal

from ..extras import missing
from ..wire.words import Method
from .handshake import Exchange


class GSSAPILogin:
    """
    Shows who the client is with Kerberos, and protects the connection. Needs the extra ``[gssapi]``.

    The client's tickets are those of the environment (``kinit``, ``KRB5CCNAME``, ``KRB5_CLIENT_KTNAME``).

    :param host: the proxy's name, which its tickets are for.
    :param service: the proxy's service: ``rcmd`` unless the proxy has another one.
    :param protection: what the bytes of the connection need at least: ``"confidentiality"``, ``"integrity"``
        or ``"none"``. A proxy that gives less is refused.
    :raises ImportError: without the extra, with the way to install it.
    """

    __slots__ = ("host", "protection", "service")

    methods = bytes((Method.GSSAPI,))

    def __init__(
        self,
        host: str,
        service: str = "rcmd",
        protection: Literal["confidentiality", "integrity", "none"] = "confidentiality",
    ) -> None:
        if protection not in ("confidentiality", "integrity", "none"):
            raise ValueError(f"protection={protection!r}: 'confidentiality', 'integrity' or 'none' is due")
        try:
            from . import gssapi
        except ImportError as problem:
            raise ImportError(missing("gssapi", problem)) from None
        del gssapi
        self.host = host
        self.service = service
        self.protection = protection

    def exchange(self, method: int) -> Exchange | None:
        """See :meth:`socksproxy.client.handshake.Login.exchange`."""
        from .gssapi import GSSAPIExchange

        return GSSAPIExchange(self.host, self.service, self.protection)
