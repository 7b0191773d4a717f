"""
Fingerprints of names and passwords, which tell whether two are the same and reveal neither.

A fingerprint is a MAC under a key that only this process has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2s


class Fingerprints:
    """
    Fingerprints under one key.

    :param random: gives a number of random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        # A copy for each password costs less than a new hash with the key.
        self._keyed = blake2s(key=random(blake2s.MAX_KEY_SIZE))

    def of(self, username: bytes, password: bytes) -> bytes:
        """The fingerprint of a *username* and a *password* together."""
        keyed = self._keyed.copy()
        # With the length of the name before it, no other name and password make the same bytes.
        keyed.update(len(username).to_bytes(4, "big") + username + password)
        return keyed.digest()
