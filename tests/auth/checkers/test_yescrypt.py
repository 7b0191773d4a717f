"""yescrypt in files of passwords: see :mod:`socksproxy.auth.checkers.yescrypt`."""

from __future__ import annotations

import pytest

from socksproxy.auth.checkers import yescrypt
from socksproxy.auth.checkers.htpasswd import Hash, HashedUsers, Unsafe
from socksproxy.auth.checkers.yescrypt import Yescrypt

# Both are of "secret", by libxcrypt's crypt(3).
CHEAP = b"$y$j75$abcd$4kXmLgaKDvIX6kdRHPMTHEFMzZbz3KU11lQ0dx6AKZ3"
USUAL = b"$y$j9T$abcd$q0BC/1zAm1egDOA28ap7Pv/qqIp2.2/hfz8I9ccfx08"

needs_it = pytest.mark.skipif(yescrypt._library() is None, reason="the system's libcrypt has no yescrypt")


@needs_it
@pytest.mark.parametrize("text", [CHEAP, USUAL])
def test_verify(text: bytes) -> None:
    """The right password only."""
    hash = Hash(text)
    assert hash.verify(b"secret")
    assert not hash.verify(b"secre")
    assert not hash.verify(b"secretx")
    assert hash.kind[1] == {CHEAP: 10, USUAL: 12}[text]


@pytest.mark.parametrize(
    "text", [CHEAP[:-1], b"$y$j9T$abc$def", b"$y$", CHEAP + b"x", CHEAP.replace(b"4", b"\xf6")]
)
def test_not_whole(text: bytes) -> None:
    """A hash that is cut off could be that of a half-written file."""
    with pytest.raises(ValueError, match="not a whole yescrypt hash"):
        Hash(text)


@pytest.mark.parametrize("settings", [b"jDT", b"jFT", b"jzz"])
def test_memory_is_bounded(settings: bytes) -> None:
    """No line of a file makes a check take all memory."""
    with pytest.raises(Unsafe, match=r"^yescrypt that takes .* MiB of memory, not 128 at most$"):
        Hash(USUAL.replace(b"j9T", settings))


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has none, the user is left out, and the text says why."""
    monkeypatch.setattr(yescrypt, "_library", lambda: None)
    users = HashedUsers.parse(b"bob:" + CHEAP + b"\n")
    assert users.refused == [(1, "yescrypt, which this system's libcrypt does not have")]


@pytest.mark.parametrize("libraries", [(), ("libm.so.6",), ("libno-such.so",)])
def test_no_library(libraries: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A libcrypt that is missing, or has not the function, is none."""
    monkeypatch.setattr(yescrypt, "_LIBRARIES", libraries)
    assert yescrypt._library.__wrapped__() is None


@needs_it
def test_equal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password of a cheap hash computes for the rest of the most expensive one."""
    users = HashedUsers.parse(b"bob:" + CHEAP + b"\neve:" + USUAL + b"\n")
    computed: list[int] = []
    monkeypatch.setattr(Yescrypt, "compute", lambda self, rounds: computed.append(1 << rounds))
    assert not users.check(b"bob", b"wrong")
    assert (1 << 12) * 0.5 < sum(computed) < 1 << 12


@needs_it
def test_unusable_setting() -> None:
    """An error of the library is no wrong password."""
    with pytest.raises(ValueError, match="libcrypt cannot compute"):
        yescrypt._crypt(b"secret", b"$zz$")
