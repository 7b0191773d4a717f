"""
The filter, run as the kernel runs it, for each kind of machine. aarch64 is tested by these numbers alone.
"""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from socksproxy.socksify.abi import ABI, ABIS
from socksproxy.socksify.filter import ALLOW, NOTIFY, build

POINTER = 0x7FFD_0000_0000  # its lower half is zero
REFUSED = {code: 0x50000 | code for code in (errno.ENOSYS, errno.EPERM)}

machines = pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS)


def verdict(abi: ABI, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter says of a call."""
    filled = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, abi.audit if audit is None else audit, 0, *filled)
    code = build(abi)
    at = accumulator = 0
    while True:
        instruction = code[at]
        at += 1
        match instruction.code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, instruction.value)
            case 0x54:
                accumulator &= instruction.value
            case 0x15:
                at += instruction.yes if accumulator == instruction.value else instruction.no
            case 0x35:
                at += instruction.yes if accumulator >= instruction.value else instruction.no
            case 0x06:
                return instruction.value
            case other:
                raise AssertionError(f"instruction {other:#x}")


@machines
def test_the_kernel_takes_the_program(abi: ABI) -> None:
    code = build(abi)
    assert len(code) <= 4096
    assert all(0 <= value <= 255 for instruction in code for value in instruction[1:3])


@machines
def test_calls_with_an_address_in_memory_are_notified(abi: ABI) -> None:
    for number in (abi.connect, abi.sendmsg, abi.sendmmsg, abi.recvmsg, abi.recvmmsg, abi.getpeername):
        assert verdict(abi, number) == NOTIFY


@machines
@pytest.mark.parametrize("pointer", [1, 0xFFFF, POINTER, POINTER + 1])
def test_sendto_and_recvfrom_are_notified_only_with_an_address(abi: ABI, pointer: int) -> None:
    for number in (abi.sendto, abi.recvfrom):
        assert verdict(abi, number, 3, POINTER, 10, 0, 0, 0) == ALLOW
        assert verdict(abi, number, 3, POINTER, 10, 0, pointer, 16) == NOTIFY


@machines
def test_other_calls_pass(abi: ABI) -> None:
    known = {getattr(abi, name) for name in abi._fields if name not in ("audit", "foreign", "end")}
    for number in set(range(500)) - known - {425}:
        assert verdict(abi, number) == ALLOW


@machines
def test_a_ring_is_refused(abi: ABI) -> None:
    assert verdict(abi, 425) == REFUSED[errno.ENOSYS]


@machines
@pytest.mark.parametrize("flags", [0, socket.SOCK_CLOEXEC, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK])
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "allowed"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, 0, True),
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, True),
        (socket.AF_INET, socket.SOCK_STREAM, 262, True),  # MPTCP
        (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP, True),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, True),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0, True),
        (38, socket.SOCK_SEQPACKET, 0, True),  # AF_ALG
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, False),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW, False),
        (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, False),  # ping
        (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6, False),
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP, False),
        (socket.AF_INET, socket.SOCK_SEQPACKET, socket.IPPROTO_SCTP, False),
        (socket.AF_INET, socket.SOCK_DGRAM, 136, False),  # UDP-Lite
        (socket.AF_INET, 6, 33, False),  # DCCP
        (socket.AF_INET, 10, 0, False),  # SOCK_PACKET
        (socket.AF_PACKET, socket.SOCK_RAW, 0, False),
        (43, socket.SOCK_STREAM, 0, False),  # SMC, which becomes TCP
        (40, socket.SOCK_STREAM, 0, False),  # vsock
        (31, socket.SOCK_STREAM, 3, False),  # Bluetooth
    ],
)
def test_sockets(abi: ABI, family: int, kind: int, protocol: int, allowed: bool, flags: int) -> None:
    expected = ALLOW if allowed else REFUSED[errno.EPERM]
    assert verdict(abi, abi.socket, family, kind | flags, protocol) == expected
    # The kernel does not read the upper halves.
    assert verdict(abi, abi.socket, 1 << 32 | family, 1 << 40 | kind | flags, 1 << 33 | protocol) == expected


@machines
@pytest.mark.parametrize(
    ("level", "option", "allowed"),
    [
        (socket.SOL_SOCKET, 25, False),  # SO_BINDTODEVICE
        (socket.SOL_SOCKET, 62, False),  # SO_BINDTOIFINDEX
        (socket.IPPROTO_IP, socket.IP_OPTIONS, False),
        (socket.IPPROTO_IP, 50, False),  # IP_UNICAST_IF
        (socket.IPPROTO_IPV6, 6, False),  # IPV6_2292PKTOPTIONS
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, False),
        (socket.IPPROTO_IPV6, socket.IPV6_RTHDR, False),
        (socket.IPPROTO_IPV6, 76, False),  # IPV6_UNICAST_IF
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, True),
        (socket.IPPROTO_IP, 25, True),
        (socket.IPPROTO_IP, 8, True),  # IP_PKTINFO: what to tell about datagrams that come
        (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, True),
        (socket.IPPROTO_TCP, 50, True),
    ],
)
def test_options(abi: ABI, level: int, option: int, allowed: bool) -> None:
    expected = ALLOW if allowed else REFUSED[errno.EPERM]
    assert verdict(abi, abi.setsockopt, 3, level, option) == expected
    assert verdict(abi, abi.setsockopt, 3, 1 << 32 | level, 1 << 40 | option) == expected


@machines
def test_network_calls_of_32_bit_programs_are_refused(abi: ABI) -> None:
    for number in abi.foreign.refused:
        assert verdict(abi, number, audit=abi.foreign.audit) == REFUSED[errno.ENOSYS]
    assert verdict(abi, 1, audit=abi.foreign.audit) == ALLOW


@machines
def test_all_calls_of_unknown_programs_are_refused(abi: ABI) -> None:
    for number in (1, abi.connect):
        assert verdict(abi, number, audit=0x1234) == REFUSED[errno.ENOSYS]


def test_all_calls_of_x32_are_refused() -> None:
    abi = ABIS["x86_64"]
    for number in (abi.connect, abi.socket, 1, 520):
        assert verdict(abi, 0x4000_0000 | number, socket.AF_INET) == REFUSED[errno.ENOSYS]


def test_the_numbers_are_those_of_the_kernel() -> None:
    """As ``asm/unistd.h`` has them, in the order of the fields."""
    assert ABIS["x86_64"][1:12] == (317, 42, 44, 46, 307, 45, 47, 299, 52, 41, 54)
    assert ABIS["aarch64"][1:12] == (277, 203, 206, 211, 269, 207, 212, 243, 205, 198, 208)
