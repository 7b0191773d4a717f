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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
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

#: Bytes of a file of users to import, and its lines.
MOST_IMPORTED, MOST_USERS = 16 << 20, 100_000
#: Passwords that one import hashes: each takes a quarter of a second with cost 12.
MOST_PLAIN = 10_000
#: Mistakes in such a file that are told one by one.
_MOST_TOLD = 10

#: An empty file could as well be half-written, so that no proxy would take it.
_NOBODY = b"# no users\n"

_DESCRIPTION = """
Adds a user to a file in Apache's htpasswd format, for twistd socks --auth
htpasswd:FILE, or changes the password of one that is there. The password is
asked for twice and stored as a bcrypt hash. A file that does not exist is made,
readable for its owner only. With --import the second argument is a file with
lines USER:PASSWORD or USER:HASH, or - for standard input: all users of it are
added or changed, or none if there is a mistake.
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
    how.add_argument(
        "--import",
        dest="many",
        action="store_true",
        help="add or change all users of a file, which stands in the place of USER; - is standard input",
    )
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
    path = os.path.realpath(options.file)
    if options.cost not in COSTS:
        raise CommandFailed(f"--cost {options.cost}: not a number from {COSTS[0]} to {COSTS[-1]}")
    done = _import(path, options) if options.many else _change_one(path, options)
    tell(done)
    warning = htpasswd.open_to_all(os.stat(path).st_mode)
    if warning:
        complain(f"socksproxy: warning: {_shown(options.file)}: {warning}")


def _change_one(path: str, options: Namespace) -> str:
    user = checked_user(options.user)
    new: bytes | None = None
    if not options.delete:
        password = checked_password(_from_stdin() if options.stdin else _from_terminal())
        new = _htpasswd().new_hash(password, options.cost)
    was_there = _written(path, {user: new}, options)
    done = "removed" if options.delete else "changed" if was_there else "added"
    return f"{_shown(options.user)}: {done}"


def _import(path: str, options: Namespace) -> str:
    users = imported(_content(options.user), options.user, options.cost)
    changed = _written(path, users, options)
    return f"added: {len(users) - len(changed)}, changed: {len(changed)}"


def _written(path: str, users: Mapping[bytes, bytes | None], options: Namespace) -> set[bytes]:
    try:
        return _change(path, users)
    except OSError as problem:
        raise CommandFailed(f"{_shown(options.file)}: {describe(problem)}") from None


def _content(name: str) -> bytes:
    """What is in the file of users called *name*."""
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            content: bytes = file.read(MOST_IMPORTED + 1)
    except OSError as problem:
        raise CommandFailed(f"{_shown(name)}: {describe(problem)}") from None
    if len(content) > MOST_IMPORTED:
        raise CommandFailed(f"{_shown(name)}: more than {MOST_IMPORTED >> 20} MiB")
    return content


def imported(content: bytes, name: str, cost: int) -> dict[bytes, bytes]:
    """
    The users in lines ``USER:PASSWORD`` or ``USER:HASH``, and their hashes. Empty lines and comments do not
    count. What begins like a hash (``$`` and a kind that an htpasswd file may have) is one.

    :param content: the content of the file.
    :param name: its name, for errors.
    :param cost: bcrypt's cost, for passwords.
    :raises CommandFailed: for mistakes, with the numbers of their lines and nothing of a password.
    """
    found: dict[bytes, tuple[bytes, bool]] = {}
    wrong: list[str] = []
    try:
        content = without_mark(content)
    except NotUTF8 as problem:
        raise CommandFailed(f"{_shown(name)}: it {problem}") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            user, text, is_hash = _imported_line(line)
            if user in found:
                raise CommandFailed("the user has a line above")
            found[user] = text, is_hash
        except CommandFailed as problem:
            wrong.append(f"{_shown(name)}, line {number}: {problem}")
    plain = sum(not is_hash for _, is_hash in found.values())
    if wrong:
        complain(*wrong[:_MOST_TOLD])
        raise CommandFailed(f"{_shown(name)}: mistakes: {len(wrong)}; the users stay as they were")
    if not found:
        raise CommandFailed(f"{_shown(name)}: there is no user in it")
    if len(found) > MOST_USERS or plain > MOST_PLAIN:
        most = f"{MOST_USERS} users and {MOST_PLAIN} passwords that are not hashed yet"
        raise CommandFailed(f"{_shown(name)}: more than {most}; split it")
    new_hash = _htpasswd().new_hash
    return {user: text if is_hash else new_hash(text, cost) for user, (text, is_hash) in found.items()}


def _imported_line(line: bytes) -> tuple[bytes, bytes, bool]:
    """The user in *line*, the password or hash, and whether it is a hash."""
    htpasswd = _htpasswd()
    name, colon, text = line.partition(b":")
    if not colon:
        raise CommandFailed("not USER:PASSWORD or USER:HASH")
    user = checked_user(os.fsdecode(name))
    if not htpasswd.HASH.match(text):
        return user, checked_password(text), False
    text = text.partition(b":")[0].strip()
    try:
        htpasswd.Hash(text)
    except htpasswd.Unsafe as problem:
        raise CommandFailed(str(problem)) from None
    except ValueError:
        raise CommandFailed("the hash is not whole") from None
    return user, text, True


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


def _change(path: str, users: Mapping[bytes, bytes | None]) -> set[bytes]:
    """
    Give each of *users* another hash, or none, in the file at *path*.

    :returns: those that were there.
    """
    removes = None in users.values()
    with _locked(path, create=not removes) as descriptor:
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read()
        try:
            content = without_mark(content)
        except NotUTF8 as problem:
            raise CommandFailed(f"the file {problem}") from None
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        changed, were_there = changed_lines(lines, users)
        if removes and not were_there:
            raise CommandFailed("there is no such user in the file")
        _replace(path, b"".join(line + b"\n" for line in changed) or _NOBODY, os.fstat(descriptor))
        return were_there


def changed_lines(lines: list[bytes], users: Mapping[bytes, bytes | None]) -> tuple[list[bytes], set[bytes]]:
    """
    *lines* with one for each of *users*, where there was the first or at the end, or with none.

    :param users: the hash of each; None: the user is removed.
    :returns: these, and the users who had one.
    """
    new = {user: [] if hash is None else [user + b":" + hash] for user, hash in users.items()}
    changed = []
    were_there = set()
    for line in lines:
        name, colon, _ = line.partition(b":")
        user = name.strip()
        if not colon or user not in new:
            changed.append(line)
        elif user not in were_there:
            changed += new[user]
            were_there.add(user)
    return changed + [line for user in new if user not in were_there for line in new[user]], were_there


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
