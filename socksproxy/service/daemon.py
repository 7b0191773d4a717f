"""
The files of ``twistd`` itself: where they are in the way, cannot be written, or would block the server.

``twistd`` looks at its PID file and opens its log before it asks us for a service, but after we have read
our options. A PID file that a killed container has left names a process that is another one by now, and
``twistd`` refuses to start. Where ``twistd`` cannot write, it ends with a traceback. On a standard stream
its log would wait for the stream's reader, and the server with it; so the log there is ours.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

from twisted.logger import ILogObserver, Logger, formatTime, textFileLogObserver
from twisted.python.usage import UsageError

from ..errors import describe
from ..logs.server_log import ServerLog, chosen, switch
from ..logs.streams import StreamWriter, own_descriptor

_log = Logger(namespace="socksproxy")

#: The file that ``twistd`` writes when no option names one.
_PIDFILE = "twistd.pid"
_LOGFILE = "twistd.log"

#: No system gives a process a higher number.
_HIGHEST_PID = (1 << 31) - 1

#: What the command line of a process has that may be a ``twistd``: an interpreter, or the program's own name.
_RUNS = re.compile(r"python|pypy|twist|socks")
_NAMES = re.compile(r"twist|socks")


def prepare_files(twistd: MutableMapping[str, Any], log: ServerLog | None = None) -> None:
    """
    Have ``twistd`` start where it can.

    :param twistd: its options; those of another program are left alone.
    :param log: where the server's own log goes, if our options say so. It goes where an option of ``twistd``
        says, too.
    :raises UsageError: when it could not write what it was told to write.
    """
    if "pidfile" not in twistd:
        return
    if twistd["pidfile"]:
        _remove_stale(twistd["pidfile"])
    if not twistd.get("chroot"):
        _check_pidfile(twistd)
    if log is not None and not any(map(twistd.get, ("syslog", "logger", "logfile"))):
        switch.log = log
        twistd["logger"] = f"{chosen.__module__}.{chosen.__name__}"
    if not (twistd.get("syslog") or twistd.get("logger")):
        _check_logfile(twistd)


def standard_output() -> ILogObserver:
    """For ``twistd --logger``: writes to standard output, and does not wait for its reader."""
    return _on_stream("/dev/stdout", sys.stdout)


def standard_error() -> ILogObserver:
    """For ``twistd --logger``: writes to standard error, and does not wait for its reader."""
    return _on_stream("/dev/stderr", sys.stderr)


def _on_stream(path: str, standard: TextIO | None) -> ILogObserver:
    """
    Write the log to *path*, or nowhere where the process has no such stream.

    :param standard: Python's stream, which knows the encoding.
    """
    charset = getattr(standard, "encoding", None) or "utf-8"
    stream: Any = StreamWriter(os.devnull if standard is None else path, _lost, charset)
    return textFileLogObserver(stream)


def _lost(count: int) -> str:
    when = formatTime(time.time())
    return f"{when} [socksproxy#warn] {count} lines of this log are lost: nothing has read them in time\n"


def _remove_stale(path: str) -> None:
    try:
        text = Path(path).read_text("ascii").strip() if stat.S_ISREG(os.stat(path).st_mode) else "?"
        # An empty one is that of a server which was killed at its start.
        if text and not _is_another(int(text)):
            return
        os.remove(path)
    except (OSError, ValueError):
        return  # twistd has its own words for that
    _log.warn("{path} is removed: the server that wrote it does not run any more", path=path)


def _is_another(pid: int) -> bool:
    """Whether no server that writes a PID file can have that number: another process has it, or none can."""
    if pid == os.getpid() or not 0 < pid <= _HIGHEST_PID:
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return False  # it is not there, which twistd finds out by itself; or it cannot be told what it is
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
    own = own_descriptor(path) if path else None
    if foreground and (not path or path == "-" or own in (1, 2)):
        observer = standard_error if own == 2 else standard_output
        twistd["logger"] = f"{__name__}.{observer.__name__}"
        return
    if path == "-":
        return  # a daemon's; twistd has its own words for that
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
