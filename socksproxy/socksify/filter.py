"""
The seccomp filter of ``socksproxy run``: which system calls reach the supervisor. Pure: numbers in,
instructions out.

The filter sees registers, not memory. It lets ``sendto`` and ``recvfrom`` without an address pass, and
``read``, ``write``, ``send`` and ``recv`` are never looked at: data moves at the kernel's speed.

Calls that could reach a network past the supervisor are refused:

* ``io_uring_setup``, because a ring connects without system calls (ENOSYS: programs then use epoll);
* sockets of other kinds than TCP and UDP (EPERM): raw, packet, ping, SCTP, SMC, Bluetooth, vsock and so on.
  Unix, netlink and crypto sockets (AF_ALG) stay on the machine and pass;
* options that lead packets to another router or interface than the routes of this machine do (EPERM), since
  even packets to 127.0.0.1 then leave the machine;
* network calls of 32-bit programs, and all calls of x32 (ENOSYS), because they have other numbers.
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from .abi import ABI, IO_URING_SETUP

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
_ERRNO = 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
# Places in struct seccomp_data, of which both kinds of machine have the lower half of a word first.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_AF_ALG = 38
_IPPROTO_MPTCP = 262
_SOCK_TYPE = 0xF
#: The protocols of internet sockets that can be opened, for each type.
PROTOCOLS = {
    socket.SOCK_STREAM: (0, socket.IPPROTO_TCP, _IPPROTO_MPTCP),
    socket.SOCK_DGRAM: (0, socket.IPPROTO_UDP),
}
#: The options of sockets that cannot be set, for each level, by the kernel's numbers.
REFUSED_OPTIONS = {
    socket.SOL_SOCKET: (25, 62),  # SO_BINDTODEVICE, SO_BINDTOIFINDEX
    socket.IPPROTO_IP: (4, 50),  # IP_OPTIONS (source routes), IP_UNICAST_IF
    # IPV6_2292PKTOPTIONS, IPV6_PKTINFO, IPV6_RTHDR, IPV6_UNICAST_IF
    socket.IPPROTO_IPV6: (6, 50, 57, 76),
}


class Instruction(NamedTuple):
    """
    One instruction of the classic packet filter; *yes* and *no* are how many instructions are jumped over.
    """

    code: int
    yes: int
    no: int
    value: int


def build(abi: ABI) -> list[Instruction]:
    """The filter for a machine of the kind *abi*."""
    native = _native(abi)
    return [
        _load(_ARCHITECTURE_AT),
        *_when(abi.audit, native),
        *_when(abi.foreign.audit, _foreign(abi.foreign.refused)),
        _give(_ERRNO | errno.ENOSYS),
    ]


def _native(abi: ABI) -> list[Instruction]:
    always = (abi.connect, abi.sendmsg, abi.sendmmsg, abi.recvmsg, abi.recvmmsg, abi.getpeername)
    code = [_load(_NUMBER_AT)]
    if abi.end:
        code += [Instruction(_AT_LEAST, 0, 1, abi.end), _give(_ERRNO | errno.ENOSYS)]
    for number in always:
        code += _when(number, [_give(NOTIFY)])
    for number in (abi.sendto, abi.recvfrom):
        code += _when(number, _notify_with_pointer(4))
    code += _when(IO_URING_SETUP, [_give(_ERRNO | errno.ENOSYS)])
    code += _when(abi.socket, _sockets())
    code += _when(abi.setsockopt, _options())
    return [*code, _give(ALLOW)]


def _foreign(refused: tuple[int, ...]) -> list[Instruction]:
    code = [_load(_NUMBER_AT)]
    for number in refused:
        code += _when(number, [_give(_ERRNO | errno.ENOSYS)])
    return [*code, _give(ALLOW)]


def _notify_with_pointer(index: int) -> list[Instruction]:
    """Notify when the argument *index* is not NULL, in either half."""
    return [
        _load(_argument(index)),
        Instruction(_EQUAL, 0, 2, 0),
        _load(_argument(index) + 4),
        Instruction(_EQUAL, 1, 0, 0),
        _give(NOTIFY),
        _give(ALLOW),
    ]


def _sockets() -> list[Instruction]:
    """Which sockets can be opened. The kernel reads the lower halves of the three arguments."""
    inet = [_load(_argument(1)), Instruction(_AND, 0, 0, _SOCK_TYPE)]
    for kind, protocols in PROTOCOLS.items():
        allowed = [_load(_argument(2))]
        for protocol in protocols:
            allowed += _when(protocol, [_give(ALLOW)])
        inet += _when(kind, [*allowed, _give(_ERRNO | errno.EPERM)])
    inet += [_give(_ERRNO | errno.EPERM)]
    code = [_load(_argument(0))]
    for family in (socket.AF_UNIX, socket.AF_NETLINK, _AF_ALG):
        code += _when(family, [_give(ALLOW)])
    for family in (socket.AF_INET, socket.AF_INET6):
        code += _when(family, inet)
    return [*code, _give(_ERRNO | errno.EPERM)]


def _options() -> list[Instruction]:
    """Which options can be set."""
    code = [_load(_argument(1))]
    for level, refused in REFUSED_OPTIONS.items():
        of_level = [_load(_argument(2))]
        for option in refused:
            of_level += _when(option, [_give(_ERRNO | errno.EPERM)])
        code += _when(level, [*of_level, _give(ALLOW)])
    return [*code, _give(ALLOW)]


def _when(value: int, block: list[Instruction]) -> list[Instruction]:
    """*block*, which returns in all cases, where the accumulator is *value*."""
    return [Instruction(_EQUAL, 0, len(block), value), *block]


def _argument(index: int) -> int:
    return _ARGUMENTS_AT + 8 * index


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _give(action: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, action)
