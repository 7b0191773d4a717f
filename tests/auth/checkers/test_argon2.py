"""Argon2 in files of passwords: see :mod:`socksproxy.auth.checkers.argon2`."""

from __future__ import annotations

import sys

import pytest
from argon2.low_level import Type, hash_secret

from socksproxy.auth.checkers.argon2 import Argon2
from socksproxy.auth.checkers.htpasswd import Hash, HashedUsers, Unsafe, new_hash

SALT = "c29tZXNhbHQ"
END = "$" + SALT + "$" + "A" * 43


def hashed(password: bytes, passes: int = 2, memory: int = 64, kind: Type = Type.ID) -> bytes:
    """A hash with few rounds."""
    return hash_secret(password, b"somesalt", passes, memory, 1, 32, kind)


@pytest.mark.parametrize("kind", [Type.ID, Type.I, Type.D])
@pytest.mark.parametrize("password", [b"secret", b"\xff" * 255, b"x"])
def test_verify(kind: Type, password: bytes) -> None:
    """The right password only, in full length."""
    hash = Hash(hashed(password, kind=kind))
    assert hash.verify(password)
    assert not hash.verify(password[:-1])
    assert not hash.verify(password + b"x")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("v=16$m=64,t=1,p=1", "argon2 of version 16, not 19"),
        ("v=19$m=131073,t=1,p=1", r"argon2 with m=131073, not 8 to 131072 \(KiB of memory\)"),
        ("v=19$m=999999999,t=1,p=1", "argon2 with m=999999999, .*"),
        ("v=19$m=7,t=1,p=1", "argon2 with m=7, .*"),
        ("v=19$m=131072,t=17,p=1", r"argon2 with t=17, not 1 to 16 \(with m=131072\)"),
        ("v=19$m=64,t=0,p=1", "argon2 with t=0, .*"),
        ("v=19$m=1024,t=1,p=17", "argon2 with p=17, not 1 to 16"),
        ("v=19$m=1024,t=1,p=0", "argon2 with p=0, not 1 to 16"),
    ],
)
def test_costs_are_bounded(settings: str, why: str) -> None:
    """No line of a file makes a check take all memory, or minutes."""
    with pytest.raises(Unsafe, match=f"^{why}$"):
        Hash(f"$argon2id${settings}{END}".encode())


@pytest.mark.parametrize(
    "text", [b"$argon2id$v=19$m=1$a$b", hashed(b"x")[:-30], hashed(b"x")[:-2] + b"\xf6", b"$argon2x$"]
)
def test_not_whole(text: bytes) -> None:
    """A hash that is cut off could be that of a half-written file."""
    with pytest.raises(ValueError, match="not a whole argon2 hash"):
        Hash(text)


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the user is left out, and the text names the extra; other users remain."""
    monkeypatch.setitem(sys.modules, "socksproxy.auth.checkers.argon2", None)
    users = HashedUsers.parse(b"bob:" + hashed(b"secret") + b"\neve:" + new_hash(b"x", 4) + b"\n")
    assert list(users.passwords) == [b"eve"]
    ((line, why),) = users.refused
    assert line == 1
    assert why.startswith("argon2: the extra [argon2] is not installed (")


def test_equal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password of a cheap hash computes for the rest of the most expensive one."""
    users = HashedUsers.parse(
        b"bob:" + hashed(b"a", memory=4096) + b"\neve:" + hashed(b"b", memory=256) + b"\n"
    )
    computed: list[int] = []
    monkeypatch.setattr(Argon2, "compute", lambda self, rounds: computed.append(rounds))
    bob, eve = users.passwords[b"bob"], users.passwords[b"eve"]
    assert not users.check(b"eve", b"wrong")
    assert not users.check(b"bob", b"wrong")
    (rest,) = computed
    assert rest == pytest.approx(8192 * (1 - eve.effort / bob.effort), abs=2)
    assert users.check(b"eve", b"b")


def test_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole passes, and one over less memory for the rest."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(Argon2, "_hash", lambda self, passes, memory: made.append((passes, memory)))
    for rounds in (7, 8, 64, 71, 72, 200):
        Argon2("argon2id", 3, 64, 1).compute(rounds)
    assert made == [(1, 8), (1, 64), (1, 64), (1, 64), (1, 8), (3, 64), (1, 8)]
