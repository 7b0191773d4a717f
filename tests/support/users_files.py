"""Files of users, and the time of looks at them."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock

from socksproxy.auth.checkers.htpasswd import (
    LOOK_EVERY,
    PasswordFile,
)
from socksproxy.auth.checkers.users_file import SETTLED

from .logs import heard
from .programs import require, run

# Of "secret". They are parts of the names of tests, so they are always the same.
BOB = b"bob:$2y$04$Gro/iwrBovQJVQ0KMrG3devDZym5T7N..bknyRL9GYKtJn73GK3TK\n"


EVE = b"eve:$2y$04$JCCEHEVWFP.wp6Fa1yyxiuH6t6HISG7yuXxxZkpQ/sR6TffV4haPC\n"


class Watched:
    """A password file, and the time of its looks."""

    def __init__(self, path: Path, content: bytes = BOB) -> None:
        self.path = path
        self.clock = Clock()
        self.write(content)
        self.file = PasswordFile(str(path), self.clock.seconds)

    def write(self, content: bytes) -> None:
        """Write *content*, as of a while ago."""
        self.path.write_bytes(content)
        self.path.chmod(0o600)
        status = self.path.stat()
        long_ago = status.st_mtime_ns - int(10 * SETTLED * 10**9)
        os.utime(self.path, ns=(long_ago, long_ago))

    def look(self) -> list[str]:
        """Look again; what is logged."""
        self.clock.advance(LOOK_EVERY)
        with heard() as lines:
            self.file.look()
        return lines

    def lets_in(self, name: bytes, password: bytes = b"secret") -> bool:
        """Whether the password is right, without another look."""
        return self.file.check(name, password)


def htpasswd(path: Path, how: str, name: bytes, password: bytes) -> None:
    """Add to the file at *path* with the real program."""
    new = [] if path.exists() else ["-c"]
    done = run([require("htpasswd"), *new, how, "-i", str(path), os.fsdecode(name)], data=password + b"\n")
    assert done.returncode == 0, done.stderr


HALVES = [
    BOB[:-1],
    BOB + b"e",
    BOB + b"eve\n",
    BOB + b":x\n",
    BOB + EVE[:-2] + b"\n",
    BOB + b"eve:$2y$\n",
    BOB + b"eve:$2y$04$tooshort\n",
    BOB + b"eve:$6$saltonly\n",
    BOB + b"eve:$6$salt$tooshort\n",
    BOB + b"eve:$5$rounds=x$salt$abc\n",
    BOB + b"eve:$apr1$salt\n",
    BOB + b"eve:$apr1$\xff\n",
]
