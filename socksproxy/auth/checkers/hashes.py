"""
Hashed passwords, of the kinds that are good enough, and what it takes to check one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import Any

from passlib.exc import MissingBackendError
from passlib.hash import apr_md5_crypt, bcrypt, sha256_crypt, sha512_crypt

from .users_file import Refused

try:
    # Here and not with the first password: it is tried out, which takes a while.
    bcrypt.set_backend("bcrypt")
except MissingBackendError:
    raise ImportError("the package bcrypt is not installed") from None

#: Bytes of a password that bcrypt takes into account.
BCRYPT_MOST = 72
#: bcrypt's cost for new passwords, as a power of two.
COST = 12
#: Seconds that a wrong answer takes at the most, where a hash takes longer: others wait for the thread.
MOST_EFFORT = 3.0

_KINDS: dict[bytes, Any] = {
    b"$2y$": bcrypt,
    b"$2b$": bcrypt,
    b"$2a$": bcrypt,
    b"$5$": sha256_crypt,
    b"$6$": sha512_crypt,
    b"$apr1$": apr_md5_crypt,
}
_HANDLERS: dict[str, Any] = {handler.name: handler for handler in _KINDS.values()}
_DES_CRYPT = frozenset(b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# These are computed in Python, which does one thing at a time: two of them would
# be no faster, and keep the reactor waiting for two.
_in_python = Lock()


class Unsafe(Refused):
    """The text for a password is no hash, or of a kind that protects nothing; see :class:`.Refused`."""


class Hash:
    """
    A hashed password.

    :param text: as it stands in the file.
    :raises Unsafe: when it is of a kind that is not taken.
    :raises ValueError: when it is of one that is, but not whole.
    :ivar kind: what decides how long a check takes: the name of the algorithm and its rounds; of bcrypt the
        cost, a power of two.
    """

    __slots__ = ("_handler", "_text", "kind")

    def __init__(self, text: bytes) -> None:
        prefix = next((prefix for prefix in _KINDS if text.startswith(prefix)), None)
        if prefix is None:
            raise Unsafe(_what_else(text))
        self._handler = _KINDS[prefix]
        self._text = text.decode("ascii")
        parsed = self._handler.from_string(self._text)
        if not parsed.checksum:
            raise ValueError("there is nothing behind the salt")
        self.kind: tuple[str, int] = self._handler.name, getattr(parsed, "rounds", 0)

    def verify(self, password: bytes) -> bool:
        """Whether *password*, in which there is no NUL, is this one."""
        if self._handler is bcrypt:
            # As htpasswd and Apache have it; what is longer counts as far as it goes.
            return bool(bcrypt.verify(password[:BCRYPT_MOST], self._text))
        with _in_python:
            return bool(self._handler.verify(password, self._text))

    @property
    def effort(self) -> float:
        """About how many seconds a check takes here."""
        name, rounds = self.kind
        return _amount(name, rounds) * _seconds_of_one(name)

    def work(self, seconds: float) -> None:
        """Compute for about so many *seconds* with this hash's algorithm."""
        name, _ = self.kind
        amount = max(0, round(seconds / _seconds_of_one(name)))
        for rounds in _rounds_for(name, amount):
            _compute(name, rounds)

    def __repr__(self) -> str:
        return f"<Hash: {self.kind[0]}>"


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


# What it takes.


class EqualTime:
    """
    Makes a wrong answer take as long as the most expensive of some hashes, whoever the user is.

    Strategy: what is due is computed, in the thread of the check. A timer would not know how much slower the
    hashes of others are just now, and an answer that needs no thread would come before those that wait for
    one. A wrong answer costs no more than a check of the most expensive hash, which a client can ask for
    anyway. A user who does not exist has a hash of one of the kinds that there are, always the same one. So
    the difference between two algorithms, which cannot be made up for exactly, tells nothing of who exists.

    :param hashes: of all users.
    """

    def __init__(self, hashes: Iterable[Hash]) -> None:
        kinds = {hash.kind: hash for hash in hashes}
        stand_ins = sorted(kinds.values(), key=lambda hash: (hash.effort, hash.kind))
        self._total = min(stand_ins[-1].effort, MOST_EFFORT) if stand_ins else 0.0
        self._stand_ins = [hash for hash in stand_ins if hash.effort <= self._total] or stand_ins[:1]

    def stand_in(self, username: bytes) -> Hash | None:
        """The hash of a user who does not exist; None: there are no users at all."""
        return self._stand_ins[hash(username) % len(self._stand_ins)] if self._stand_ins else None

    def fill(self, checked: Hash) -> None:
        """Compute what is still due when *checked* was wrong."""
        self._stand_ins[-1].work(self._total - checked.effort)


@lru_cache
def _seconds_of_one(name: str) -> float:
    """Seconds that one round takes here, by the fewest rounds that may be."""
    rounds = _fewest(name)
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
    with _in_python:
        (handler.using(rounds=rounds) if rounds else handler).hash(b"as long as it takes")


def _amount(name: str, rounds: int) -> int:
    """What *rounds* of the kind *name* are in units that add up."""
    return 1 << rounds if _HANDLERS[name] is bcrypt else rounds or 1


def _fewest(name: str) -> int:
    return getattr(_HANDLERS[name], "min_rounds", 0)


def _rounds_for(name: str, amount: int) -> Iterator[int]:
    """The rounds of hashes that take *amount* together; what is left over is less than the fewest take."""
    fewest = _fewest(name)
    if not fewest:
        yield from [0] * amount
    elif _HANDLERS[name] is bcrypt:
        yield from (cost for cost in range(fewest, amount.bit_length()) if amount >> cost & 1)
    elif amount >= fewest:
        yield amount


def new_hash(password: bytes, cost: int = COST) -> bytes:
    """
    The bcrypt hash of *password*, with a new salt, as Apache's own programs take it.

    :param password: 1 to 72 bytes without NUL.
    :param cost: a power of two, from 4 to 31.
    """
    text: str = bcrypt.using(rounds=cost, ident="2y").hash(password)
    return text.encode("ascii")
