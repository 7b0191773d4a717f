"""An authentication method of the tests' own."""

from __future__ import annotations

from zope.interface import implementer

from socksproxy.errors import ProtocolError
from socksproxy.negotiation import IWrapping


@implementer(IWrapping)
class Reversed:
    """Bytes in frames of one length byte, each the other way round."""

    def __init__(self) -> None:
        self._kept = b""

    def wrap(self, data: bytes) -> bytes:
        return b"".join(
            bytes((len(data[at : at + 255]),)) + data[at : at + 255][::-1] for at in range(0, len(data), 255)
        )

    def unwrap(self, data: bytes) -> bytes:
        data, plain = self._kept + data, b""
        while data and len(data) > data[0]:
            if not data[0]:
                raise ProtocolError("an empty frame")
            plain += data[1 : data[0] + 1][::-1]
            data = data[data[0] + 1 :]
        self._kept = data
        return plain

    def wrap_datagram(self, data: bytes) -> bytes:
        return data[::-1]

    def unwrap_datagram(self, data: bytes) -> bytes:
        return data[::-1]
