"""
One system call of a program, with the socket and the memory that it is about.
"""

from __future__ import annotations

import errno
import os
import socket
from enum import Enum
from functools import cached_property

from ..wire.words import Address
from .filter import PROTOCOLS
from .kernel import CallListener, Memory, Notice, take_descriptor
from .sockaddr import LONGEST, family_of, parse

SO_COOKIE = 57
_SO_DOMAIN = 39
_INET = (socket.AF_INET, socket.AF_INET6)
_KNOWN = {(kind, protocol) for kind, protocols in PROTOCOLS.items() for protocol in protocols}


class CallResult(Enum):
    """What becomes of a call that has no result yet."""

    #: The kernel executes it: see :meth:`Call.let_pass`.
    PASS = "pass"
    #: The answer comes later.
    LATER = "later"
    #: The call waits until there is something to read, and is looked at again.
    WAIT = "wait"


class Call:
    """
    A call that waits for its answer. Close it after the answer.

    :param listener: where the answer goes.
    :param notice: what the kernel says of the call.
    :raises OSError: for a descriptor that is none, or of a program that must not be looked into.
    """

    def __init__(self, listener: CallListener, notice: Notice) -> None:
        self.listener = listener
        self.notice = notice
        #: The program's own socket, not a copy: what is done to it here is done to the program's.
        self.socket = socket.socket(fileno=take_descriptor(notice.thread, notice.arguments[0] & 0xFFFFFFFF))
        self._memory: Memory | None = None

    @cached_property
    def is_inet(self) -> bool:
        """Whether the socket can reach another machine."""
        return self.socket.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) in _INET

    @cached_property
    def is_stream(self) -> bool:
        """Whether it is a socket of TCP."""
        return self.socket.type == socket.SOCK_STREAM

    @property
    def is_known(self) -> bool:
        """Whether it is a socket of TCP or UDP."""
        return (self.socket.type, self.socket.proto) in _KNOWN

    @cached_property
    def cookie(self) -> bytes:
        """Names the socket, whatever descriptors it has, as long as the machine runs."""
        return self.socket.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)

    @property
    def memory(self) -> Memory:
        """
        The caller's memory.

        :raises OSError: when the caller has been killed, and its number may be another's.
        """
        if self._memory is None:
            self._memory = Memory(self.notice.thread)
            if not self.listener.is_valid(self.notice.id):
                raise ProcessLookupError(errno.ESRCH, "the caller has ended")
        return self._memory

    def address(self, place: int, size: int) -> bytes:
        """
        The socket address in the caller's memory.

        :raises OSError: (EINVAL, EFAULT) as connect(2) has it.
        """
        size &= 0xFFFFFFFF
        if size > LONGEST:
            raise OSError(errno.EINVAL, "invalid argument")
        return self.memory.read(place, size)

    def destination(self, address: bytes) -> Address | None:
        """
        The internet address *address*; None: it is none.

        :raises OSError: (EAFNOSUPPORT) for the address of a family that the socket does not take.
        """
        found = parse(address)
        if found is None or family_of(address) == self.socket.family:
            return found
        if self.is_stream or self.socket.family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "address family not supported")
        return found

    def put_address(self, place: int, size_at: int, address: bytes) -> None:
        """
        Put *address* where the caller wants it, cut to the room there, and its size.

        :param place: of the address; 0: the caller does not want it.
        :param size_at: of the number that says how much room there is.
        """
        if place:
            room = int.from_bytes(self.memory.read(size_at, 4), "little")
            self.memory.write(place, address[:room])
            self.memory.write(size_at, len(address).to_bytes(4, "little"))

    def answer(self, result: int) -> bool:
        """End the call with *result*, a negative number for an errno; whether the caller still waited."""
        return self.listener.answer(self.notice.id, result)

    def let_pass(self) -> None:
        """
        Have the kernel execute the call.

        Only for a socket that reaches no other machine, for a TCP socket and a call that takes no address
        there, and for calls that receive: none of them sends anything to an address. The judgement is on
        the socket, not on memory. What remains is a program that puts another socket in the place
        of this one (dup2) while one of its threads is inside the call. Such a program means to deceive, and
        needs no trick: a Unix socket leads it to programs that are not under the filter.
        """
        self.listener.let_pass(self.notice.id)

    def close(self) -> None:
        """Close what belongs to this side; the program keeps its socket."""
        self.socket.close()
        self.close_memory()

    def close_memory(self) -> None:
        """The caller's memory is not needed any more."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def is_close_on_exec(call: Call) -> bool:
    """Whether the caller's descriptor is closed when the program becomes another."""
    path = f"/proc/{call.notice.thread}/fdinfo/{call.notice.arguments[0] & 0xFFFFFFFF}"
    with open(path, "rb") as info:
        for line in info:
            if line.startswith(b"flags:"):
                return bool(int(line.split()[1], 8) & os.O_CLOEXEC)
    return False
