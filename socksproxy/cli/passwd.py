"""
``socksproxy passwd``: the users of an htpasswd file.

A new file takes the place of the old one in one step: a proxy that runs sees the
one or the other.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
import unicodedata
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from getpass import GetPassWarning, getpass
from tempfile import mkstemp
from typing import Any

from ..errors import describe
from ..extras import missing
from ..runtime.text import NotUTF8, without_mark
from ..wire.password import MAX_FIELD
from .failure import CommandFailed, complain, tell

#: Seconds to wait for another process that changes the file.
PATIENCE = 10.0
#: What bcrypt's cost may be, as htpasswd has it.
COSTS = range(4, 18)

#: An empty file could as well be half-written, so that no proxy would take it.
_NOBODY = b"# no users\n"

_DESCRIPTION = """
Adds a user to a file in Apache's htpasswd format, for twistd socks --auth
htpasswd:FILE, or changes the password of one that is there. The password is
asked for twice and stored as a bcrypt hash. A file that does not exist is made,
readable for its owner only.
"""


def add_to(commands: Any) -> None:
    """Add this one to argparse's subparsers *commands*."""
    parser = commands.add_parser(
        "passwd", help="add, change and remove the users of an htpasswd file", description=_DESCRIPTION
    )
    parser.add_argument("file", metavar="FILE", help="the htpasswd file")
    parser.add_argument("user", metavar="USER", help="the name of the user")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--delete", action="store_true", help="remove the user")
    how.add_argument("--stdin", action="store_true", help="read the password from standard input, one line")
    parser.add_argument(
        "--cost",
        type=int,
        default=12,
        metavar="N",
        help="bcrypt's cost, from 4 to 17; one more doubles it [12]",
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """
    Add, change or remove a user.

    :raises CommandFailed: and the file is as it was.
    """
    htpasswd = _htpasswd()
    user = checked_user(options.user)
    path = os.path.realpath(options.file)
    if options.cost not in COSTS:
        raise CommandFailed(f"--cost {options.cost}: not a number from {COSTS[0]} to {COSTS[-1]}")
    try:
        if options.delete:
            _change(path, user, None)
            done = "removed"
        else:
            password = checked_password(_from_stdin() if options.stdin else _from_terminal())
            hash = htpasswd.new_hash(password, options.cost)
            done = "changed" if _change(path, user, hash) else "added"
    except OSError as problem:
        raise CommandFailed(f"{_shown(options.file)}: {describe(problem)}") from None
    tell(f"{_shown(options.user)}: {done}")
    warning = htpasswd.open_to_all(os.stat(path).st_mode)
    if warning:
        complain(f"socksproxy: warning: {_shown(options.file)}: {warning}")


def checked_user(name: str) -> bytes:
    """
    The bytes of a user's *name*, as it came from the command line.

    :raises CommandFailed: when it cannot stand in a file, or no client could send it.
    """
    encoded = os.fsencode(name)
    if not encoded or len(encoded) > MAX_FIELD:
        raise CommandFailed(f"a user's name has 1 to {MAX_FIELD} bytes, not {len(encoded)}")
    if ":" in name:
        raise CommandFailed("a user's name has no colon: it ends at one in the file")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise CommandFailed("a user's name has no control characters")
    if name.startswith("#") or name != name.strip():
        raise CommandFailed("a user's name does not begin with # or a space, nor end with a space")
    return encoded


def checked_password(password: bytes) -> bytes:
    """
    The *password* itself.

    :raises CommandFailed: when no client could send it, or bcrypt would not look at all of it.
    """
    most = _htpasswd().BCRYPT_MOST
    if not password:
        raise CommandFailed("the password is empty")
    if len(password) > MAX_FIELD:
        raise CommandFailed(f"SOCKS clients cannot send a password of more than {MAX_FIELD} bytes")
    if len(password) > most:
        raise CommandFailed(
            f"the password has {len(password)} bytes, and bcrypt looks only at the first {most}"
        )
    if b"\0" in password:
        raise CommandFailed("the password has a NUL in it")
    return password


def _htpasswd() -> Any:
    try:
        from ..auth.checkers import htpasswd
    except ImportError as problem:
        raise CommandFailed(missing("htpasswd", problem)) from None
    return htpasswd


def _from_stdin() -> bytes:
    line = sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in line:
        raise CommandFailed("there is more than one line on standard input")
    return line


def _from_terminal() -> bytes:
    try:
        with warnings.catch_warnings():
            # It would ask all the same, with echo.
            warnings.simplefilter("error", GetPassWarning)
            password = getpass("Password: ")
            again = getpass("Again: ")
    except GetPassWarning:
        raise CommandFailed("there is no terminal on which to ask for the password: use --stdin") from None
    except (EOFError, UnicodeError):
        raise CommandFailed("that is no password") from None
    if password != again:
        raise CommandFailed("the two are not the same")
    return password.encode("utf-8", "surrogateescape")


def _change(path: str, user: bytes, hash: bytes | None) -> bool:
    """
    Give *user* another *hash*, or none, in the file at *path*.

    :returns: whether the user was there.
    """
    with _locked(path, create=hash is not None) as descriptor:
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read()
        try:
            content = without_mark(content)
        except NotUTF8 as problem:
            raise CommandFailed(f"the file {problem}") from None
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        changed, was_there = changed_lines(lines, user, hash)
        if hash is None and not was_there:
            raise CommandFailed("there is no such user in the file")
        _replace(path, b"".join(line + b"\n" for line in changed) or _NOBODY, os.fstat(descriptor))
        return was_there


def changed_lines(lines: list[bytes], user: bytes, hash: bytes | None) -> tuple[list[bytes], bool]:
    """
    *lines* with one for *user*, where there was the first or at the end, or with none.

    :returns: these, and whether there was one.
    """
    new = [] if hash is None else [user + b":" + hash]
    changed = []
    was_there = False
    for line in lines:
        name, colon, _ = line.partition(b":")
        if not colon or name.strip() != user:
            changed.append(line)
        elif not was_there:
            changed += new
            was_there = True
    return (changed if was_there else changed + new), was_there


@contextmanager
def _locked(path: str, create: bool) -> Iterator[int]:
    """A descriptor of the file at *path*, which no other run of this command changes until the end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        descriptor, made = _open(path, create)
        try:
            _lock(descriptor, deadline)
            if not _is_at(path, descriptor):
                continue  # another one has been put in its place
            try:
                yield descriptor
            except BaseException:
                if made:
                    os.unlink(path)
                raise
            return
        finally:
            os.close(descriptor)


def _open(path: str, create: bool) -> tuple[int, bool]:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if create:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CommandFailed(f"{_shown(path)} is not a file")
    return descriptor, False


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CommandFailed("another process keeps the file locked; try again later") from None
            time.sleep(0.02)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _replace(path: str, content: bytes, old: os.stat_result) -> None:
    """Put a file with *content* in the place of the one at *path*, whose status is *old*."""
    folder, name = os.path.split(path)
    descriptor, new = mkstemp(dir=folder, prefix=f".{name[:200]}.")
    try:
        with open(descriptor, "wb") as file:
            _keep(lambda: os.fchown(descriptor, old.st_uid, old.st_gid), "owner")
            _keep(lambda: os.fchmod(descriptor, stat.S_IMODE(old.st_mode)), "mode")
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    _sync(folder)


def _keep(change: Callable[[], None], what: str) -> None:
    try:
        change()
    except PermissionError:
        right = "run this command as the file's owner or as root"
        raise CommandFailed(f"the file's {what} would be lost: {right}") from None


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
