"""
What a source holds at a moment.

Strategy: all sources block, and a thread looks at them. The server looks before its reactor runs, and the
commands of ``socksproxy`` have none. So there is one way to look, for all of them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

import attrs


class SourceProblem(Exception):
    """A source gives nothing, or nothing that may be used. The words are for the operator."""


@attrs.frozen
class FoundConfig:
    """
    A configuration as a source holds it.

    :ivar content: the bytes of the file.
    :ivar others: what changes when the other files of a directory do.
    :ivar tag: the ETag by which an HTTPS server knows it; None: there is none.
    :ivar signed: when it was signed; empty: signatures are not looked at.
    """

    content: bytes = attrs.field(repr=False)
    others: bytes = b""
    tag: str | None = None
    signed: str = ""

    @property
    def hash(self) -> str:
        """The SHA-256 of the content, as ``sha256sum`` shows it."""
        return sha256(self.content).hexdigest()

    def same(self, other: FoundConfig | None) -> bool:
        """Whether *other* is the same configuration."""
        return other is not None and (self.content, self.others) == (other.content, other.others)


class Source(Protocol):
    """Where a configuration comes from."""

    def look(self, known: FoundConfig | None) -> FoundConfig:
        """
        What is there now; it blocks.

        :param known: what was there before; None: the source has not been looked at.
        :raises SourceProblem: when it cannot be had.
        """
