"""
Argon2 (RFC 9106), by argon2-cffi. The library computes outside Python's lock.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from argon2.exceptions import VerifyMismatchError
from argon2.low_level import Type, hash_secret_raw, verify_secret

from .users_file import Refused

#: KiB of memory that one check may take.
MOST_MEMORY = 128 << 10
#: KiB that one check may go over, with all passes.
MOST_WORK = 16 * MOST_MEMORY
#: Threads that the library may start for one check.
MOST_LANES = 16

_TYPES = {"argon2id": Type.ID, "argon2i": Type.I, "argon2d": Type.D}
_WHOLE = re.compile(
    r"\$(argon2(?:id|i|d))\$v=(\d{1,9})\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})"
    r"\$([A-Za-z0-9+/]{11,})\$([A-Za-z0-9+/]{22,})"
)


class Argon2(NamedTuple):
    """
    Argon2 with its settings. A round is one pass over one KiB.

    :ivar type: the name, such as argon2id.
    :ivar passes: how often a check goes over the memory.
    :ivar memory: KiB that a check takes.
    :ivar lanes: threads of a check.
    """

    type: str
    passes: int
    memory: int
    lanes: int

    @classmethod
    def of(cls, text: str) -> Argon2:
        """
        The settings of the hash *text*.

        :raises Refused: when a check would cost too much, or the version is old.
        :raises ValueError: when *text* is not whole.
        """
        match = _WHOLE.fullmatch(text)
        if not match or any(len(part) % 4 == 1 for part in match.group(6, 7)):
            raise ValueError("not a whole argon2 hash")
        version, memory, passes, lanes = map(int, match.group(2, 3, 4, 5))
        if version != 19:
            raise Refused(f"argon2 of version {version}, not 19")
        if not 1 <= lanes <= MOST_LANES:
            raise Refused(f"argon2 with p={lanes}, not 1 to {MOST_LANES}")
        if not 8 * lanes <= memory <= MOST_MEMORY:
            raise Refused(f"argon2 with m={memory}, not {8 * lanes} to {MOST_MEMORY} (KiB of memory)")
        if not 1 <= passes <= MOST_WORK // memory:
            raise Refused(f"argon2 with t={passes}, not 1 to {MOST_WORK // memory} (with m={memory})")
        return cls(match[1], passes, memory, lanes)

    @property
    def name(self) -> str:
        """The name with the settings."""
        return f"{self.type} m={self.memory} t={self.passes} p={self.lanes}"

    @property
    def rounds(self) -> int:
        """The rounds of one check."""
        return self.passes * self.memory

    @property
    def min_rounds(self) -> int:
        """The fewest rounds that can be computed."""
        return 8 * self.lanes

    def verify(self, password: bytes, text: str) -> bool:
        """Whether *password* is that of the hash *text*."""
        try:
            return verify_secret(text.encode(), password, _TYPES[self.type])
        except VerifyMismatchError:
            return False

    def compute(self, rounds: int) -> None:
        """Compute for *rounds*."""
        passes, rest = divmod(rounds, self.memory)
        if passes:
            self._hash(passes, self.memory)
        if rest >= self.min_rounds:
            self._hash(1, rest)

    def _hash(self, passes: int, memory: int) -> None:
        hash_secret_raw(
            b"as long as it takes", b"any salt", passes, memory, self.lanes, 32, _TYPES[self.type]
        )
