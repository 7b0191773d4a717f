"""
The files of ``twistd`` itself: where they are in the way, or cannot be written.

``twistd`` looks at its PID file and opens its log before it asks us for a service, but after we have read
our options. A PID file that a killed container has left names a process that is another one by now, and
``twistd`` refuses to start. Where ``twistd`` cannot write, it ends with a traceback.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python.usage import UsageError

from ..errors import describe
from ..logs.access_log import own_descriptor

_log = Logger(namespace="socksproxy")

#: The file that ``twistd`` writes when no option names one.
_PIDFILE = "twistd.pid"
_LOGFILE = "twistd.log"

#: What the command line of a process has that may be a ``twistd``: an interpreter, or the program's own name.
_RUNS = re.compile(r"python|pypy|twist|socks")
_NAMES = re.compile(r"twist|socks")


def prepare_files(twistd: MutableMapping[str, Any]) -> None:
    """
    Have ``twistd`` start where it can.

    :param twistd: its options; those of another program are left alone.
    :raises UsageError: when it could not write what it was told to write.
    """
    if "pidfile" not in twistd:
        return
    if twistd["pidfile"]:
        _remove_stale(twistd["pidfile"])
    if not twistd.get("chroot"):
        _check_pidfile(twistd)
    if not (twistd.get("syslog") or twistd.get("logger")):
        _check_logfile(twistd)


def standard_error() -> ILogObserver:
    """For ``twistd --logger``: what writes to standard error."""
    return textFileLogObserver(sys.stderr)


def _remove_stale(path: str) -> None:
    try:
        text = Path(path).read_text("ascii").strip() if stat.S_ISREG(os.stat(path).st_mode) else "?"
        # An empty one is that of a server which was killed at its start.
        if text and not (text.isdecimal() and _is_another(int(text))):
            return
        os.remove(path)
    except (OSError, ValueError):
        return  # twistd has its own words for that
    _log.warn("{path} was left by a server that is not there any more, and is removed", path=path)


def _is_another(pid: int) -> bool:
    """Whether the process of that number is there, and is no server that could have written a PID file."""
    if pid == os.getpid():
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return False  # it is not there, which twistd finds out by itself; or nobody can tell what it is
    runs = _RUNS.search(os.path.basename(words[0]))
    return not (runs and any(map(_NAMES.search, words)))


def _check_pidfile(twistd: MutableMapping[str, Any]) -> None:
    path = twistd["pidfile"]
    problem = _cannot_write(path) if path else None
    if problem is None:
        return
    if path != _PIDFILE:
        raise UsageError(f"--pidfile {path}: {problem}")
    _log.warn("there is no PID file: {path}: {problem}", path=os.path.abspath(path), problem=problem)
    twistd["pidfile"] = ""


def _check_logfile(twistd: MutableMapping[str, Any]) -> None:
    path = twistd.get("logfile")
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    if path == "-" or (foreground and not path):
        return
    own = None if path is None else own_descriptor(path)
    if foreground and own in (1, 2):
        # A file of Twisted's looks for its own end, which only a file has.
        if own == 1:
            twistd["logfile"] = "-"
        else:
            twistd["logger"] = f"{__name__}.{standard_error.__name__}"
        return
    problem = _cannot_write(path or _LOGFILE)
    if problem is not None and path:
        raise UsageError(f"--logfile {path}: {problem}")
    if problem is not None:
        raise UsageError(f"{os.path.abspath(_LOGFILE)}: {problem}; give twistd --logfile, --syslog or -n")


def _cannot_write(path: str) -> str | None:
    """Why the file at *path* cannot be written, or made; None: it can. Modes do not tell all: it is tried."""
    path = os.path.abspath(path)
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISCHR(kind)):
            return "not a file"
        os.close(os.open(path, flags))
    except FileNotFoundError:
        return _cannot_make(path, flags)
    except OSError as problem:
        return describe(problem)
    return None


def _cannot_make(path: str, flags: int) -> str | None:
    try:
        os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    except OSError as problem:
        return describe(problem)
    return None
