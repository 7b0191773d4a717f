"""
The lines of Squid's helper protocol.

A question is a line of words with spaces between them. Where a helper has several questions at once, the
line begins with a channel number, and so does the answer. An answer is ``OK``, ``ERR`` or ``BH`` (the helper
cannot tell), with ``key=value`` pairs behind it. Unsafe bytes in words are escaped as in URLs.
Source: the Squid project's "AddonHelpers" page, protocol of Squid 3.4 and later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote

#: What stands for a value that there is not.
NOTHING = b"-"

_SAFE = "!$&()*+,-./:;=?@_"
_PAIR = re.compile(r'([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class HelperVerdict(Enum):
    """The first word of an answer."""

    YES = "OK"
    NO = "ERR"
    #: The helper cannot tell.
    BROKEN = "BH"


class HelperAnswer(NamedTuple):
    """
    The answer of a helper.

    :ivar verdict: yes, no, or that the helper cannot tell.
    :ivar words: the ``key=value`` pairs.
    """

    verdict: HelperVerdict
    words: Mapping[str, str] = {}

    @property
    def message(self) -> str:
        """The helper's own words for people; empty: none."""
        return self.words.get("message", "")


def question(words: Sequence[bytes | None], channel: int | None = None) -> bytes:
    """
    A line for a helper.

    :param words: the fields; None: there is no such value.
    :param channel: the channel number; None: the helper has one question at a time.
    """
    escaped = [NOTHING if word is None else quote_from_bytes(word, _SAFE).encode() for word in words]
    return b" ".join([*([] if channel is None else [b"%d" % channel]), *escaped]) + b"\n"


def answer_in(line: bytes, channels: bool) -> tuple[int | None, HelperAnswer]:
    """
    The answer in a line of a helper.

    :param line: without the end of the line.
    :param channels: whether a channel number stands before the answer.
    :returns: the channel number, or None, and the answer.
    :raises ValueError: when the line is no answer.
    """
    text = line.decode("utf-8", "replace").strip()
    channel: int | None = None
    if channels:
        number, _, text = text.partition(" ")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise ValueError("the line does not begin with a channel number")
        channel, text = int(number), text.strip()
    word, _, rest = text.partition(" ")
    try:
        verdict = HelperVerdict(word)
    except ValueError:
        raise ValueError("the answer is none of OK, ERR and BH") from None
    words = {
        key: unquote(plain) if quoted is None else _ESCAPED.sub(r"\1", quoted)
        for key, quoted, plain in ((match[1], match[2], match[3] or "") for match in _PAIR.finditer(rest))
    }
    return channel, HelperAnswer(verdict, words)
