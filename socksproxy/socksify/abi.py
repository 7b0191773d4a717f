"""
The numbers of the system calls that ``socksproxy run`` answers, for each kind of machine. Data alone.

The numbers are those of the kernel's ``syscall_64.tbl`` (x86-64), ``unistd.h`` (the generic table, which
aarch64 has), ``syscall_32.tbl`` (i386) and ``syscall.tbl`` (arm).
"""

from __future__ import annotations

import platform
from typing import NamedTuple


class Foreign(NamedTuple):
    """
    Programs for another processor that the same kernel runs.

    :ivar audit: the number of the architecture (``AUDIT_ARCH_``).
    :ivar refused: the numbers of the calls that would lead to a network.
    """

    audit: int
    refused: tuple[int, ...]


class ABI(NamedTuple):
    """
    One kind of machine.

    :ivar audit: the number of the architecture (``AUDIT_ARCH_``).
    :ivar foreign: the 32-bit programs that run here, too.
    :ivar end: the first number that belongs to another ABI; 0: there is none.
    """

    audit: int
    seccomp: int
    connect: int
    sendto: int
    sendmsg: int
    sendmmsg: int
    recvfrom: int
    recvmsg: int
    recvmmsg: int
    getpeername: int
    socket: int
    setsockopt: int
    foreign: Foreign
    end: int = 0


#: The same number everywhere.
IO_URING_SETUP = 425
PIDFD_GETFD = 438

#: By the name that ``uname -m`` gives.
ABIS = {
    "x86_64": ABI(
        audit=0xC000003E,
        seccomp=317,
        connect=42,
        sendto=44,
        sendmsg=46,
        sendmmsg=307,
        recvfrom=45,
        recvmsg=47,
        recvmmsg=299,
        getpeername=52,
        socket=41,
        setsockopt=54,
        # socketcall, sendmmsg, socket, connect, sendto, sendmsg
        foreign=Foreign(0x40000003, (102, 345, 359, 362, 369, 370, IO_URING_SETUP)),
        end=0x40000000,  # x32
    ),
    "aarch64": ABI(
        audit=0xC00000B7,
        seccomp=277,
        connect=203,
        sendto=206,
        sendmsg=211,
        sendmmsg=269,
        recvfrom=207,
        recvmsg=212,
        recvmmsg=243,
        getpeername=205,
        socket=198,
        setsockopt=208,
        # socket, connect, sendto, sendmsg, sendmmsg
        foreign=Foreign(0x40000028, (281, 283, 290, 296, 374, IO_URING_SETUP)),
    ),
}


def this_machine() -> ABI | None:
    """The numbers of this machine; None: it is no Linux, or of a kind that is not known."""
    return ABIS.get(platform.machine()) if platform.system() == "Linux" else None
