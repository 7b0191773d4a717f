"""Users of this machine, made for a test; only root can."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .programs import require, run

_numbers = itertools.count()


@contextmanager
def made_user(password: bytes) -> Iterator[str]:
    """A user with a name of its own and *password*."""
    name = f"socks{os.getpid()}x{next(_numbers)}"
    change([require("useradd"), "--no-create-home", "--shell", "/usr/sbin/nologin", name])
    try:
        change([require("chpasswd"), "--crypt-method", "SHA512"], name.encode() + b":" + password + b"\n")
        yield name
    finally:
        change([require("userdel"), name])


def change(command: list[str], data: bytes = b"") -> None:
    """Change this machine's users; somebody else may be doing so."""
    for _ in range(100):
        done = run(command, data=data)
        if done.returncode == 0:
            return
        if b"lock" not in done.stderr:
            break
        time.sleep(0.2)
    raise AssertionError(done.stderr)
