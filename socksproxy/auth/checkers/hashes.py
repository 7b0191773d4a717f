"""
Hashed passwords of safe kinds, and the time that a check takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import Any

from passlib.exc import MissingBackendError
from passlib.hash import apr_md5_crypt, bcrypt, sha256_crypt, sha512_crypt

from ...extras import missing
from .users_file import Refused
from .yescrypt import Yescrypt

try:
    # passlib tries the backend out, which is slow; so this is done here, not with the first password.
    bcrypt.set_backend("bcrypt")
except MissingBackendError:
    raise ImportError("the package bcrypt is not installed") from None

#: Bytes of a password that bcrypt reads.
BCRYPT_MOST = 72
#: bcrypt's cost for new passwords, as a power of two.
COST = 12
#: The greatest number of seconds for a wrong answer, if some hash takes longer: other clients wait for the
#: thread.
MOST_EFFORT = 3.0

_KINDS: dict[bytes, Any] = {
    b"$2y$": bcrypt,
    b"$2b$": bcrypt,
    b"$2a$": bcrypt,
    b"$5$": sha256_crypt,
    b"$6$": sha512_crypt,
    b"$apr1$": apr_md5_crypt,
}
#: How a hash begins, of a kind that is accepted or not.
HASH = re.compile(rb"\$[0-9a-z]{1,10}\$|\{[A-Z0-9.-]{2,}\}")
_HANDLERS: dict[str, Any] = {handler.name: handler for handler in _KINDS.values()}
_DES_CRYPT = frozenset(b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# These hashes are computed in Python, which runs one thread at a time: two at once would be no faster, and
# would make the reactor wait for two.
_in_python = Lock()


class Unsafe(Refused):
    """The text for a password is no hash, or of a kind that protects nothing; see :class:`.Refused`."""


class Hash:
    """
    A hashed password.

    :param text: the hash, as in the file.
    :raises Unsafe: when *text* is of a kind that is not accepted.
    :raises ValueError: when *text* is of an accepted kind, but not whole.
    :ivar kind: the name of the algorithm and its rounds, which decide how long a check takes; for bcrypt the
        cost, a power of two.
    """

    __slots__ = ("_handler", "_text", "kind")

    def __init__(self, text: bytes) -> None:
        self._text = text.decode("ascii", "replace")
        if text.startswith((b"$argon2", b"$y$")):
            self._handler = parsed = _memory_hard(self._text)
        else:
            prefix = next((prefix for prefix in _KINDS if text.startswith(prefix)), None)
            if prefix is None:
                raise Unsafe(_what_else(text))
            self._handler = _KINDS[prefix]
            parsed = self._handler.from_string(text.decode("ascii"))
            if not parsed.checksum:
                raise ValueError("there is nothing behind the salt")
        self.kind: tuple[str, int] = self._handler.name, getattr(parsed, "rounds", 0)

    def verify(self, password: bytes) -> bool:
        """Whether *password*, which has no NUL, is the right one."""
        if self._handler is bcrypt:
            # As htpasswd and Apache do: only the first bytes of a longer password count.
            return bool(bcrypt.verify(password[:BCRYPT_MOST], self._text))
        if hasattr(self._handler, "compute"):
            return bool(self._handler.verify(password, self._text))
        with _in_python:
            return bool(self._handler.verify(password, self._text))

    @property
    def effort(self) -> float:
        """About how many seconds a check takes on this machine."""
        name, rounds = self.kind
        return _amount(name, rounds) * _seconds_of_one(name)

    def work(self, seconds: float) -> None:
        """Compute for about *seconds* with the algorithm of this hash."""
        name, _ = self.kind
        amount = max(0, round(seconds / _seconds_of_one(name)))
        for rounds in _rounds_for(name, amount):
            _compute(name, rounds)

    def __repr__(self) -> str:
        return f"<Hash: {self.kind[0]}>"


def _memory_hard(text: str) -> Any:
    """
    What computes the hash *text*, argon2 or yescrypt, which take memory on purpose.

    :raises Unsafe: when the library is missing, or a check would cost too much.
    :raises ValueError: when *text* is not whole.
    """
    try:
        if text.startswith("$y$"):
            handler: Any = Yescrypt.of(text)
        else:
            from .argon2 import Argon2

            handler = Argon2.of(text)
    except ImportError as problem:
        raise Unsafe(f"argon2: {missing('argon2', problem)}") from None
    except Refused as problem:
        raise Unsafe(str(problem)) from None
    return _HANDLERS.setdefault(handler.name, handler)


def _what_else(text: bytes) -> str:
    if not text:
        return "no password"
    if text.startswith(b"{SHA}"):
        return "SHA-1 without salt"
    if text.startswith((b"$", b"{")):
        return "a hash of another kind"
    if len(text) == 13 and _DES_CRYPT.issuperset(text):
        return "DES crypt"
    return "plain text"


class EqualTime:
    """
    Makes a wrong answer take as long as a check of the most expensive hash, for every name.

    Strategy: the thread of the check computes for the rest of that time. A timer would not know how much
    slower hashes are computed just now, and an answer that needs no thread would come before answers that
    wait for one. A wrong answer costs no more than a check of the most expensive hash, which a client can ask
    for anyway. A name that is no user's gets the hash of a user, always the same one. So the difference in
    time between two algorithms, which cannot be hidden exactly, does not tell which users exist.

    :param hashes: the hashes of all users.
    """

    def __init__(self, hashes: Iterable[Hash]) -> None:
        kinds = {hash.kind: hash for hash in hashes}
        stand_ins = sorted(kinds.values(), key=lambda hash: (hash.effort, hash.kind))
        self._total = min(stand_ins[-1].effort, MOST_EFFORT) if stand_ins else 0.0
        self._stand_ins = [hash for hash in stand_ins if hash.effort <= self._total] or stand_ins[:1]

    def stand_in(self, username: bytes) -> Hash | None:
        """The hash for *username*, which is no user's; None: there are no users at all."""
        return self._stand_ins[hash(username) % len(self._stand_ins)] if self._stand_ins else None

    def fill(self, checked: Hash) -> None:
        """Compute for the rest of the time, after *checked* was wrong."""
        self._stand_ins[-1].work(self._total - checked.effort)


@lru_cache
def _seconds_of_one(name: str) -> float:
    """Seconds that one round takes on this machine, measured with the fewest rounds that are possible."""
    # All rounds of argon2 are measured, because the first pass takes longer than others.
    rounds = _HANDLERS[name].rounds if name.startswith("argon2") else _fewest(name)
    return min(_seconds_of(name, rounds) for _ in range(3)) / _amount(name, rounds)


def _seconds_of(name: str, rounds: int) -> float:
    began = time.perf_counter()
    _compute(name, rounds)
    return time.perf_counter() - began


def _compute(name: str, rounds: int) -> None:
    handler = _HANDLERS[name]
    if handler is bcrypt:
        bcrypt.using(rounds=rounds).hash(b"as long as it takes")
        return
    if hasattr(handler, "compute"):
        handler.compute(rounds)
        return
    with _in_python:
        (handler.using(rounds=rounds) if rounds else handler).hash(b"as long as it takes")


def _amount(name: str, rounds: int) -> int:
    """The number of steps in *rounds* of the kind *name*, which can be added."""
    return 1 << rounds if _in_powers(name) else rounds or 1


def _in_powers(name: str) -> bool:
    return _HANDLERS[name] is bcrypt or isinstance(_HANDLERS[name], Yescrypt)


def _fewest(name: str) -> int:
    return getattr(_HANDLERS[name], "min_rounds", 0)


def _rounds_for(name: str, amount: int) -> Iterator[int]:
    """The rounds of hashes that have *amount* steps together, as nearly as the fewest rounds allow."""
    fewest = _fewest(name)
    if not fewest:
        yield from [0] * amount
    elif _in_powers(name):
        yield from (cost for cost in range(fewest, amount.bit_length()) if amount >> cost & 1)
    elif amount >= fewest:
        yield amount


def new_hash(password: bytes, cost: int = COST) -> bytes:
    """
    The bcrypt hash of *password*, with a new salt, in the form that Apache's own programs accept.

    :param password: 1 to 72 bytes without NUL.
    :param cost: a power of two, from 4 to 31.
    """
    text: str = bcrypt.using(rounds=cost, ident="2y").hash(password)
    return text.encode("ascii")
