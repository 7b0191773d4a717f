"""
Sticky sessions: names such as ``bob-session-abc123``, and what they ask for.

A name has the name of a user, a separator, and a word that the user chooses::

    NAME = USER SEPARATOR WORD [ FOR-SEPARATOR MINUTES ]

``WORD`` has 1 to 64 letters, digits, dots and underscores. ``MINUTES`` is a whole number above 0. A name
without the separator is the name of a user, whatever else is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import attrs

from .errors import ConfigError

#: The parameters that users may be allowed to set, beside the word.
FOR = "for"
PARAMETERS = (FOR,)

#: The longest word, and the longest separator.
MOST_WORD, MOST_SEPARATOR = 64, 32
#: The longest life of a sticky session: a year.
MOST_SECONDS = 366 * 86400

_WORD = re.compile(rb"[A-Za-z0-9_.]{1,%d}" % MOST_WORD)
_MINUTES = re.compile(rb"[1-9][0-9]{0,5}")
_OF_WORDS = re.compile(r"[A-Za-z0-9_.]*")


class WrongName(ValueError):
    """A name has the separator, and is no name of a sticky session."""


class StickyName(NamedTuple):
    """
    The parts of a name.

    :ivar user: the name of the user.
    :ivar word: the word that the user has chosen.
    :ivar seconds: for how long the session is sticky.
    """

    user: bytes
    word: str
    seconds: float


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _check_separator(settings: StickySettings, attribute: Any, value: Any) -> None:
    path = (attribute.name.replace("_", "-"),)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MOST_SEPARATOR:
        raise ConfigError(f"not 1 to {MOST_SEPARATOR} characters that can be printed", path=path)
    if _OF_WORDS.fullmatch(value):
        raise ConfigError("needs a character that no word has, such as - or +", path=path)


def _check_allowed(settings: StickySettings, attribute: object, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        if name not in PARAMETERS:
            raise ConfigError(f"there is {' and '.join(PARAMETERS)}", name, path=("allow", number))


def _check_seconds(settings: StickySettings, attribute: Any, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MOST_SECONDS:
        key = attribute.name.replace("seconds", "for").replace("most", "max")
        raise ConfigError(f"not a number of seconds from 1 to {MOST_SECONDS}", path=(key,))


@attrs.frozen(kw_only=True)
class StickySettings:
    """
    How users keep one address or one member of a pool.

    :ivar separator: the text between the name of the user and the word.
    :ivar allow: the parameters that users may set in their names, beside the word: for.
    :ivar for_separator: the text between the word and the number of minutes.
    :ivar seconds: the time for which a session is sticky, from its first use.
    :ivar most: the longest time that a user may set; a longer one counts as this one.
    :ivar strict: whether a connection is refused where the member does not work. If not, the session moves to
        another member, and stays there.
    :ivar file: the file that keeps first uses and moves, for restarts and for several workers.
        None: they are kept in memory.
    :raises ConfigError: for values that have no meaning; its path is the key.
    """

    separator: str = attrs.field(default="-session-", validator=_check_separator)
    allow: tuple[str, ...] = attrs.field(default=(), converter=_listed, validator=_check_allowed)
    for_separator: str = attrs.field(default="-for-", validator=_check_separator)
    seconds: float = attrs.field(default=600.0, validator=_check_seconds)
    most: float = attrs.field(default=86400.0, validator=_check_seconds)
    strict: bool = False
    file: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.separator in self.for_separator or self.for_separator in self.separator:
            raise ConfigError("one separator is within the other one", path=("for-separator",))
        if self.seconds > self.most:
            raise ConfigError("more than max", path=("for",))

    def parse(self, name: bytes) -> StickyName | None:
        """
        The parts of *name*; None: it has no separator, and is the name of a user.

        :raises WrongName: when it has the separator, and is wrong.
        """
        separator = self.separator.encode()
        user, mark, rest = name.partition(separator)
        if not mark:
            return None
        seconds, minutes = self.seconds, None
        if FOR in self.allow:
            rest, mark, minutes = rest.partition(self.for_separator.encode())
            if mark and not _MINUTES.fullmatch(minutes):
                raise WrongName("the minutes are no number")
        if not user or separator in rest or not _WORD.fullmatch(rest):
            raise WrongName("no user, or no word of a session")
        if minutes:
            seconds = min(60.0 * int(minutes), self.most)
        return StickyName(user, rest.decode(), seconds)

    def is_sticky(self, name: str) -> bool:
        """Whether *name* has the separator, so that no user can have it."""
        return self.separator in name
