"""Hashed passwords, and the time that a check takes: see :mod:`socksproxy.auth.checkers.hashes`."""

from __future__ import annotations

import threading
import time

import pytest
from passlib.hash import apr_md5_crypt, sha256_crypt, sha512_crypt

from socksproxy.auth.checkers import hashes
from socksproxy.auth.checkers.htpasswd import (
    Hash,
    HashedUsers,
    Unsafe,
    new_hash,
)

from ...support.users_files import BOB

NAMES = [b"bob", "J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg".encode(), b"latin-\xf6", b"a b", b"x" * 100]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no password"),
        (b"secret", "plain text"),
        (b"abcdefghijkl!", "plain text"),
        (b"rl.3StKT.4T8M", "DES crypt"),
        (b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1 without salt"),
        (b"{SSHA}nothing", "a hash of another kind"),
        (b"$1$abc$def", "a hash of another kind"),
        (b"$2x$04$abc", "a hash of another kind"),
        (b"$7$abc$def", "a hash of another kind"),
        (b"$gy$j9T$abc$def", "a hash of another kind"),
    ],
)
def test_unsafe(text: bytes, why: str) -> None:
    """Each is called by its name."""
    with pytest.raises(Unsafe, match=f"^{why}$"):
        Hash(text)


NAMES = [b"bob", b"eve", b"carol", b"left-out", *(b"nobody%d" % number for number in range(20))]


MIXED = {
    "bcrypt": [new_hash(b"x", cost) for cost in (4, 6, 9)],
    "sha512": [sha512_crypt.using(rounds=rounds).hash("x").encode() for rounds in (1000, 2000, 9000)],
    "sha256": [sha256_crypt.using(rounds=rounds).hash("x").encode() for rounds in (1000, 5000, 5001)],
    "apr1": [apr_md5_crypt.hash("x").encode()] * 3,
}


@pytest.mark.parametrize("kind", MIXED)
def test_every_no_takes_as_long(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password takes the work of the most expensive hash, whoever the user; a right one its own."""
    lines = [name + b":" + text for name, text in zip((b"bob", b"eve", b"carol"), MIXED[kind], strict=True)]
    users = HashedUsers.parse(b"\n".join([*lines, b"left-out:secret", b""]))
    work = 0

    def amount(name: str, rounds: int) -> int:
        return 1 << rounds if name == "bcrypt" else rounds or 1

    def verify(hash: Hash, password: bytes) -> bool:
        nonlocal work
        work += amount(*hash.kind)
        return password == b"right"

    def compute(name: str, rounds: int) -> None:
        nonlocal work
        work += amount(name, rounds)

    most = max(amount(*hash.kind) for hash in users.passwords.values())
    monkeypatch.setattr(Hash, "verify", verify)
    monkeypatch.setattr(hashes, "_compute", compute)
    for name in NAMES:
        work = 0
        assert not users.check(name, b"wrong")
        # What is left over is less than the least that the algorithm takes.
        assert most - (1000 if kind.startswith("sha") else 15) <= work <= most, name
    for name, hash in users.passwords.items():
        work = 0
        assert users.check(name, b"right")
        assert work == amount(*hash.kind)
    assert not users.check(b"nobody", b"right")


@pytest.mark.slow
def test_seconds_of_a_no() -> None:
    """It is so in seconds of a processor, too, also for a file with several algorithms."""
    texts = [MIXED["bcrypt"][0], MIXED["bcrypt"][2], MIXED["sha512"][0], MIXED["apr1"][0]]
    users = HashedUsers.parse(b"".join(b"u%d:" % number + text + b"\n" for number, text in enumerate(texts)))

    def seconds(name: bytes) -> float:
        took = []
        for _ in range(5):
            began = time.thread_time()
            users.check(name, b"wrong")
            took.append(time.thread_time() - began)
        return min(took)

    known = [seconds(b"u%d" % number) for number in range(4)]
    unknown = [seconds(b"nobody%d" % number) for number in range(8)]
    assert max(known + unknown) < 1.5 * min(known + unknown), (known, unknown)


def test_a_hash_that_takes_too_long() -> None:
    """One user with a hash that takes minutes does not make every wrong answer take minutes."""
    slow = Hash(b"$2y$25$" + new_hash(b"x", 4)[7:])
    quick = Hash(new_hash(b"x", 4))
    done: list[float] = []

    class Recorded(Hash):
        __slots__ = ()

        def work(self, seconds: float) -> None:
            done.append(seconds)

    equal = hashes.EqualTime([slow, Recorded(new_hash(b"x", 4))])
    assert slow.effort > 60
    assert equal.stand_in(b"nobody") is not slow
    equal.fill(quick)
    assert done == [pytest.approx(hashes.MOST_EFFORT, rel=0.01)]


def test_one_at_a_time_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed in Python keeps the reactor waiting; two of them would for twice as long."""
    hash = Hash(b"$apr1$c1TclrVt$iQNBWoYJNxAHfFkLV9j0y/")
    running: list[int] = []
    most = 0

    class Handler:
        @staticmethod
        def verify(password: bytes, text: str) -> bool:
            nonlocal most
            running.append(1)
            most = max(most, len(running))
            threading.Event().wait(0.02)
            running.pop()
            return True

    monkeypatch.setattr(hash, "_handler", Handler)
    threads = [threading.Thread(target=hash.verify, args=(b"x",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_hashes_are_not_shown() -> None:
    """Neither a hash nor the users show what is in them."""
    users = HashedUsers.parse(BOB)
    for shown in (repr(users), repr(users.passwords[b"bob"]), str(users.equal)):
        assert "$" not in shown
