"""
What Python's library lacks of Linux: seccomp notifications, descriptors and memory of other processes.

See seccomp_unotify(2), pidfd_getfd(2) and proc_pid_mem(5). Each function raises OSError with the kernel's
errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from .abi import ABI, PIDFD_GETFD
from .filter import Instruction

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
# Since Linux 6.9 a descriptor can stand for a thread.
_PIDFD_THREAD = os.O_EXCL

_RECEIVE, _SEND, _ID_VALID, _ADD_FD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_CONTINUE = 1
_SET_FD = 1
# id, pid, flags; then struct seccomp_data: nr, arch, instruction_pointer, six arguments
_NOTICE = struct.Struct("=QII iIQ 6Q")
_ANSWER = struct.Struct("=QqiI")
_FD = struct.Struct("=QIIII")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("yes", ctypes.c_ubyte),
        ("no", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


class Notice(NamedTuple):
    """
    A system call that waits for its answer.

    :ivar id: names it towards the kernel.
    :ivar thread: who calls; 0: a process that cannot be seen from here.
    :ivar number: which call.
    :ivar arguments: its six registers.
    """

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def check_notices(abi: ABI) -> None:
    """
    Check that the kernel has what a supervisor needs.

    :raises OSError: when it has not, or when a container forbids it.
    """
    sizes = (ctypes.c_ushort * 3)()
    _result(_libc.syscall(abi.seccomp, _GET_NOTIF_SIZES, 0, sizes))
    if tuple(sizes) != (_NOTICE.size, _ANSWER.size, 64):
        raise OSError(errno.ENOSYS, "the kernel has other notifications than this program knows")
    own = os.pidfd_open(os.getpid())
    try:
        os.close(_result(_libc.syscall(PIDFD_GETFD, own, own, 0)))
    finally:
        os.close(own)


def install(abi: ABI, code: Sequence[Instruction]) -> int:
    """
    Put this thread, and all that it starts, under the filter *code*. No program gains privileges any more.

    :returns: the listener's descriptor, which does not survive ``exec``.
    """
    instructions = (_Instruction * len(code))(*(_Instruction(*each) for each in code))
    program = _Program(len(code), instructions)
    _result(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    try:
        # A call that the supervisor has begun to answer then ends with its answer, not with EINTR (Linux
        # 5.19).
        return _filter(abi, _NEW_LISTENER | _WAIT_KILLABLE, program)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        return _filter(abi, _NEW_LISTENER, program)


def _filter(abi: ABI, flags: int, program: _Program) -> int:
    return _result(_libc.syscall(abi.seccomp, _SET_MODE_FILTER, flags, ctypes.byref(program)))


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parent ends."""
    _result(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


class CallListener:
    """
    The supervisor's end of a filter.

    :param descriptor: from :func:`install`, in this process.
    """

    __slots__ = ("_descriptor", "_notice")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._notice = bytearray(_NOTICE.size)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def receive(self) -> Notice | None:
        """The next call; None: the caller has been killed meanwhile."""
        self._notice[:] = bytes(_NOTICE.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, self._notice)
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return None
            raise
        id, thread, _, number, _, _, *arguments = _NOTICE.unpack(self._notice)
        return Notice(id, thread, number, tuple(arguments))

    def is_valid(self, id: int) -> bool:
        """Whether the caller still waits, so that its number cannot have gone to another process."""
        try:
            fcntl.ioctl(self._descriptor, _ID_VALID, id.to_bytes(8, "little"))
        except OSError:
            return False
        return True

    def answer(self, id: int, result: int) -> bool:
        """
        End the call.

        :param result: what it returns; a negative number is an errno.
        :returns: whether the caller still waited.
        """
        error, value = (result, 0) if result < 0 else (0, result)
        return self._send(id, value, error, 0)

    def let_pass(self, id: int) -> bool:
        """
        Have the kernel execute the call. The kernel reads descriptor and memory again: only for calls that
        send nothing to a network, whatever is there by then.
        """
        return self._send(id, 0, 0, _CONTINUE)

    def replace(self, id: int, source: int, target: int, close_on_exec: bool) -> None:
        """Put the descriptor *source* of this process in the place of the caller's *target*."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        fcntl.ioctl(self._descriptor, _ADD_FD, _FD.pack(id, _SET_FD, source, target, flags))

    def close(self) -> None:
        """From now on, calls that wait and all later ones fail with ENOSYS."""
        os.close(self._descriptor)

    def _send(self, id: int, value: int, error: int, flags: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, _SEND, _ANSWER.pack(id, value, error, flags))
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True


def take_descriptor(thread: int, descriptor: int) -> int:
    """A duplicate of the *descriptor* of another process's *thread*; the open file is the same."""
    owner = _pidfd_of(thread)
    try:
        return _result(_libc.syscall(PIDFD_GETFD, owner, descriptor, 0))
    finally:
        os.close(owner)


def _pidfd_of(thread: int) -> int:
    try:
        return os.pidfd_open(thread)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:  # a thread that is not its process's first
        return os.pidfd_open(thread, _PIDFD_THREAD)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
    return os.pidfd_open(_process_of(thread))


def _process_of(thread: int) -> int:
    with open(f"/proc/{thread}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    raise ProcessLookupError(errno.ESRCH, "the process has ended")


def connect(descriptor: int, address: bytes) -> int:
    """
    connect(2), with an address of any kind.

    :returns: 0 or the errno.
    """
    return 0 if _libc.connect(descriptor, address, len(address)) == 0 else ctypes.get_errno()


class Memory:
    """The memory of the process of *thread*."""

    __slots__ = ("_file",)

    def __init__(self, thread: int) -> None:
        self._file = os.open(f"/proc/{thread}/mem", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close it."""
        os.close(self._file)

    def read(self, place: int, size: int) -> bytes:
        """
        *size* bytes at the address *place*.

        :raises OSError: (EFAULT) where there are not so many.
        """
        if not size:
            return b""
        try:
            data = os.pread(self._file, size, place)
        except (OSError, OverflowError):
            data = b""
        if len(data) != size:
            raise OSError(errno.EFAULT, "bad address")
        return data

    def write(self, place: int, data: bytes) -> None:
        """
        Put *data* at the address *place*.

        :raises OSError: (EFAULT) where that is impossible.
        """
        try:
            written = os.pwrite(self._file, data, place) if data else 0
        except (OSError, OverflowError):
            written = -1
        if written != len(data):
            raise OSError(errno.EFAULT, "bad address")


def _result(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value
