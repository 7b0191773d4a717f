"""
yescrypt, by the system's libcrypt. The library computes outside Python's lock.
"""

from __future__ import annotations

import ctypes
import hmac
import re
from functools import lru_cache
from typing import Any, NamedTuple

from .users_file import Refused

#: Bytes of memory that one check may take: cost 8 of libcrypt's, whose own is 5 (16 MiB).
MOST_MEMORY = 128 << 20

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")
#: sizeof(struct crypt_data), see crypt_r(3).
_DATA = 32768
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WHOLE = re.compile(r"\$y\$j([./0-9A-Za-z])([./0-9A-Za-z])\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}")


class Yescrypt(NamedTuple):
    """
    yescrypt with its settings, see crypt(5). Its rounds are a power of two.

    :ivar block: the size of a block, as the digit in a hash.
    :ivar rounds: the power of two of one check.
    """

    block: str
    rounds: int

    @classmethod
    def of(cls, text: str) -> Yescrypt:
        """
        The settings of the hash *text*.

        :raises Refused: when a check would take too much memory, or the system has no yescrypt.
        :raises ValueError: when *text* is not whole.
        """
        match = _WHOLE.fullmatch(text)
        if not match:
            raise ValueError("not a whole yescrypt hash")
        rounds, block = (_DIGITS.index(digit) + 1 for digit in match.groups())
        memory = 128 * block << rounds
        if memory > MOST_MEMORY:
            most = MOST_MEMORY >> 20
            raise Refused(f"yescrypt that takes {memory >> 20} MiB of memory, not {most} at most")
        if _library() is None:
            raise Refused("yescrypt, which this system's libcrypt does not have")
        return cls(match[2], rounds)

    @property
    def name(self) -> str:
        """The name with the size of a block."""
        return f"yescrypt {self.block}"

    @property
    def min_rounds(self) -> int:
        """The fewest rounds that are computed, as a power of two."""
        return 8

    def verify(self, password: bytes, text: str) -> bool:
        """Whether *password* is that of the hash *text*."""
        return hmac.compare_digest(_crypt(password, text.encode()), text.encode())

    def compute(self, rounds: int) -> None:
        """Compute for two to the power of *rounds*."""
        _crypt(b"as long as it takes", f"$y$j{_DIGITS[rounds - 1]}{self.block}$any/salt$".encode())


def _crypt(password: bytes, setting: bytes) -> bytes:
    found: bytes | None = _library().crypt_rn(password, setting, ctypes.create_string_buffer(_DATA), _DATA)
    if found is None:
        raise ValueError("libcrypt cannot compute a hash of yescrypt")
    return found


@lru_cache
def _library() -> Any:
    """The system's libcrypt; None if there is none, or one without yescrypt."""
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            function = library.crypt_rn
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
        function.restype = ctypes.c_char_p
        if function(b"", b"$y$j75$any/salt$", ctypes.create_string_buffer(_DATA), _DATA):
            return library
    return None
