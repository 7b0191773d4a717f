"""
The client's side of GSS-API authentication (RFC 1961).

Needs the package ``gssapi``, the extra ``[gssapi]``.
"""

from __future__ import annotations

from typing import Any

from gssapi import raw

from ..auth.checkers.gssapi import GSSAPIWrapping, status_text
from ..wire.gssapi import Level, MessageType, build_message, parse_message
from ..wire.words import ProtocolError
from .handshake import HandshakeFailed, Problem, Work, Wrapping

_FLAGS = (
    raw.RequirementFlag.mutual_authentication,
    raw.RequirementFlag.integrity,
    raw.RequirementFlag.confidentiality,
    raw.RequirementFlag.replay_detection,
    raw.RequirementFlag.out_of_sequence_detection,
)


class GSSAPIExchange:
    """
    Tokens until there is a context, then the protection level. The calls of the library may block.

    :param host: the proxy's name.
    :param service: the proxy's service.
    :param protection: the level that is asked for, and the least that is accepted.
    """

    def __init__(self, host: str, service: str, protection: str) -> None:
        self._target = f"{service}@{host}".encode()
        self._wanted = Level[protection.upper()]
        self._context: Any = None
        self._whole = False
        self.done = False
        self.wrapping: Wrapping | None = None

    def begin(self) -> Work:
        """The first token."""
        return lambda: self._step(None)

    def receive(self, data: bytearray) -> tuple[int, bytes | Work]:
        """See :meth:`socksproxy.client.handshake.Exchange.receive`."""
        parsed = parse_message(data)
        if parsed is None:
            return 0, b""
        message, taken = parsed
        if message.type is MessageType.ABORT:
            raise HandshakeFailed(Problem.LOGIN, "GSSAPI: the proxy gives up")
        due = MessageType.PROTECTION_LEVEL if self._whole else MessageType.AUTHENTICATION
        if message.type is not due:
            raise ProtocolError(f"GSSAPI message type {message.type.value} where {due.value} was due")
        if self._whole:
            self._agreed(message.token)
            return taken, b""
        return taken, lambda: self._step(message.token)

    def _step(self, token: bytes | None) -> bytes:
        """The messages that answer *token*."""
        try:
            name = raw.import_name(self._target, raw.NameType.hostbased_service)
            made: Any = raw.init_sec_context(
                name, context=self._context, flags=_FLAGS, mech=raw.MechType.kerberos, input_token=token
            )
            self._context, self._whole = made.context, not made.more_steps
            send = build_message(MessageType.AUTHENTICATION, made.token) if made.token else b""
            if self._whole:
                level = raw.wrap(self._context, bytes((self._wanted,)), False).message
                send += build_message(MessageType.PROTECTION_LEVEL, level)
        except raw.GSSError as problem:
            raise HandshakeFailed(Problem.LOGIN, f"GSSAPI: {status_text(problem)}") from None
        return send

    def _agreed(self, token: bytes) -> None:
        """The proxy has chosen a protection level."""
        try:
            plain = raw.unwrap(self._context, token).message
        except raw.GSSError as problem:
            raise ProtocolError(f"GSSAPI: {status_text(problem)}") from None
        if len(plain) != 1 or plain[0] > Level.CONFIDENTIALITY:
            raise ProtocolError("GSSAPI: an unknown protection level")
        if plain[0] < self._wanted:
            raise HandshakeFailed(Problem.LOGIN, "the proxy protects less than this client wants")
        self.done = True
        if plain[0] != Level.NONE:
            self.wrapping = GSSAPIWrapping(self._context, plain[0] == Level.CONFIDENTIALITY)
