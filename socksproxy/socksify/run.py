"""
``socksproxy run``: a program whose connections go through a proxy.

There are three processes. The first one is the one that was started; it stands for the program towards the
shell: it passes signals on, stops and goes on with the program, and ends as the program ends. Its child is
the supervisor, which has no terminal, answers system calls, and ends with the last program under the
filter. The supervisor's child becomes the program: it is in the process group and the session in which the
first process was started, so that terminal and job control are the program's. Where only an ancestor may look
into a process (Yama), the supervisor is one, because it adopts all orphans.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from .abi import ABI, this_machine
from .filter import build
from .kernel import CallListener, adopt_orphans, check_notices, install, take_descriptor
from .service import serve
from .upstream import RunSettings

_WORD = struct.Struct("=i")
#: As a shell tells it: not found, and not executable.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
# What makes the program use a proxy by itself.
_PROXY_VARIABLES = (
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "socks_proxy",
    "socks5_proxy",
)


class Unsupported(Exception):
    """The system cannot do it; the words are for the operator."""


def run(command: Sequence[str], settings: RunSettings) -> NoReturn:
    """
    Run *command* and end this process as it ends.

    :raises Unsupported: before anything is started.
    """
    abi = this_machine()
    if abi is None:
        raise Unsupported("run needs Linux on x86-64 or aarch64")
    try:
        check_notices(abi)
    except OSError as problem:
        raise Unsupported(
            f"run needs seccomp notifications and pidfd_getfd (Linux 5.9), which this system refuses: "
            f"{os.strerror(problem.errno or 0).lower()}"
        ) from None
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: the caller has closed it
        stream.flush()
    signals = _forwarded()
    # From here on none is lost; the program gets the mask that there was before.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals, signal.SIGCHLD})
    reader, writer = os.pipe()
    first = os.getpid()
    if not os.fork():
        os.close(reader)
        _supervise(abi, command, settings, mask, _Front(first, writer))
    os.close(writer)
    _stand_for_the_program(reader, signals)


def _forwarded() -> set[signal.Signals]:
    """
    The signals that go to the program: all that can be caught, but those that are about this process itself.
    """
    own = {
        signal.SIGCHLD,
        signal.SIGKILL,
        signal.SIGSTOP,
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
    }
    return set(signal.valid_signals()) - own


# -- the first process


def _stand_for_the_program(reader: int, signals: set[signal.Signals]) -> NoReturn:
    """Pass signals on, and do what the program does."""
    _leave_files(0, 1, 2)
    os.set_blocking(reader, False)
    program = 0
    while True:
        told = signal.sigwaitinfo({*signals, signal.SIGCHLD})
        if told.si_signo != signal.SIGCHLD:
            # The terminal (a code over 0) tells the whole process group, so that the program knows already.
            if program and told.si_code <= 0:
                with suppress(ProcessLookupError):
                    os.kill(program, told.si_signo)
            continue
        for word in _words(reader):
            if not program:
                program = word
            elif os.WIFSTOPPED(word):
                os.kill(os.getpid(), signal.SIGSTOP)
            elif not os.WIFCONTINUED(word):
                _end_like(word)


def _words(reader: int) -> list[int]:
    """What the supervisor has said since: the program's process id, then its statuses."""
    try:
        data = os.read(reader, 4096)
    except BlockingIOError:
        return []
    # The supervisor was killed: what it cannot answer any more fails, so the program may as well know by
    # our end.
    return [word for (word,) in _WORD.iter_unpack(data)] if data else [signal.SIGKILL, signal.SIGKILL]


def _end_like(status: int) -> NoReturn:
    """End as a process with the wait *status* has ended."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own core
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)


class _Front:
    """The first process, as the supervisor sees it."""

    def __init__(self, process: int, writer: int) -> None:
        self._process = process
        self._writer = writer

    def tell(self, word: int) -> None:
        """Say *word*, and wake it."""
        with suppress(BrokenPipeError, ProcessLookupError):
            os.write(self._writer, _WORD.pack(word))
            os.kill(self._process, signal.SIGCHLD)


# -- the program


def _become(command: Sequence[str], abi: ABI, mask: Any, ready: socket.socket) -> NoReturn:
    """Become the program, under the filter, as soon as the supervisor has its end."""
    try:
        listener = install(abi, build(abi))
        ready.send(_WORD.pack(listener))  # a send without an address passes the filter
        ready.recv(1)
        os.close(listener)
        for name in list(os.environ):
            if name.lower() in _PROXY_VARIABLES:
                del os.environ[name]
        # Names are the proxy's business, so that no suffix of this network is appended to them
        # (resolv.conf(5)).
        os.environ.setdefault("LOCALDOMAIN", ".")
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with suppress(AttributeError):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], list(command))
    except OSError as problem:
        said = f"socksproxy: run: {command[0]}: {os.strerror(problem.errno or 0).lower()}\n"
        os.write(2, said.encode("utf-8", "backslashreplace"))
        os._exit(_NOT_FOUND if problem.errno == errno.ENOENT else _NOT_EXECUTABLE)


# -- the supervisor


def _supervise(abi: ABI, command: Sequence[str], settings: RunSettings, mask: Any, front: _Front) -> NoReturn:
    status = 1
    try:
        adopt_orphans()
        ours, theirs = socket.socketpair()
        program = os.fork()
        if not program:
            ours.close()
            _become(command, abi, mask, theirs)
        theirs.close()
        front.tell(program)
        os.setsid()
        os.chdir("/")
        _leave_files(0, 1)
        _raise_limit()
        number = ours.recv(_WORD.size)
        listener = CallListener(take_descriptor(program, _WORD.unpack(number)[0])) if number else None
        ours.send(b"+")
        ours.close()
        serve(abi, listener, settings, lambda: _reap(program, front))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_files(*descriptors: int) -> None:
    """Close *descriptors*, so that the reader of a pipe sees its end when the program closes it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _raise_limit() -> None:
    """As many descriptors as possible: each call under way has one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reap(program: int, front: _Front) -> bool:
    """Take the statuses of children; whether there are any children left."""
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return False
        if not process:
            return True
        if process == program:
            front.tell(status)
            if not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
                _leave_files(2)
