"""Users of this machine, made for a test; only root can."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from zope.interface import implementer

from socksproxy.auth.users import User
from socksproxy.identity import ISOCKSUser
from socksproxy.limits import Limits

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


class Limited(User):
    """A user with limits of its own."""

    limits: Limits | None = None


@implementer(IRealm)
class Users:
    """Users who may have so much."""

    def __init__(self, **limits: Limits | None) -> None:
        self.limits = limits

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        user = Limited(avatarId.decode())
        user.limits = self.limits[user.name or ""]
        return ISOCKSUser, user, lambda: None


def portal_of(**limits: Limits | None) -> Portal:
    checker = InMemoryUsernamePasswordDatabaseDontUse(**dict.fromkeys(limits, b"secret"))
    return Portal(Users(**limits), [checker])
