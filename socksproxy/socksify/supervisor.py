"""
Answers the system calls that the filter sends.

The supervisor reads everything from the program's memory once, and executes the call itself, on the
program's own socket. The kernel repeats no call that could send something to an address in memory: another
thread could have changed the address by then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from .abi import ABI
from .call import Call, CallResult
from .datagrams import Datagrams
from .kernel import CallListener, Notice
from .name_services import is_name_service
from .sockaddr import HEADER_SIZE, HEADERS_STEP, Buffer, SocketMessage, read_message, write_sizes
from .streams import MSG_FASTOPEN, Streams
from .waiting import WaitingCall

_MOST_MESSAGES = 1024
_MOST_EARLY = 65536

_log = Logger(namespace="socksproxy")


class CallSupervisor:
    """
    Reads calls from the kernel, as a reader of a Twisted reactor.

    :param reactor: for calls that wait.
    :param listener: where the calls come from.
    :param abi: their numbers.
    :param streams: TCP sockets.
    :param datagrams: UDP sockets.
    """

    def __init__(
        self,
        reactor: Any,
        listener: CallListener,
        abi: ABI,
        streams: Streams,
        datagrams: Datagrams,
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._streams = streams
        self._datagrams = datagrams
        self._connect_number = abi.connect
        self._answers: dict[int, Callable[[Call], int | CallResult]] = {
            abi.connect: self._connect,
            abi.sendto: self._sendto,
            abi.sendmsg: self._sendmsg,
            abi.sendmmsg: self._sendmmsg,
            abi.recvfrom: self._recvfrom,
            abi.recvmsg: self._recvmsg,
            abi.recvmmsg: self._recvmmsg,
            abi.getpeername: self._getpeername,
        }

    def fileno(self) -> int:
        """The descriptor of the listener."""
        return self._listener.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "socksproxy run"

    def doRead(self) -> None:
        """A call waits."""
        notice = self._listener.receive()
        if notice is not None:
            self._handle(notice)

    def connectionLost(self, reason: Any) -> None:
        """No program is left: the signal of its end stops the reactor."""

    def _handle(self, notice: Notice) -> None:
        try:
            call = Call(self._listener, notice)
        except OSError as problem:
            self._listener.answer(notice.id, -(problem.errno or errno.EPERM))
            return
        self._answer(call)

    def _answer(self, call: Call) -> None:
        try:
            result = self._result(call)
        except OSError as problem:
            result = -(problem.errno or errno.EINVAL)
        except Exception:
            _log.failure("a call has failed: {notice}", notice=call.notice)
            result = -errno.ENETUNREACH
        if result is CallResult.WAIT:
            WaitingCall(self._reactor, call, self._answer)
            return
        if result is CallResult.LATER:
            return
        if result is CallResult.PASS:
            call.let_pass()
        else:
            call.answer(result)
        call.close()

    def _result(self, call: Call) -> int | CallResult:
        number = call.notice.number
        if call.is_inet:
            # A socket of another kind was there before the filter.
            return self._answers[number](call) if call.is_known else -errno.EPERM
        # Other sockets reach no other machine. The path of a Unix socket is looked at for the sake of
        # programs that do not know better; one that changes it meanwhile gets what any other program could
        # get for it.
        if number == self._connect_number and is_name_service(call.address(*call.notice.arguments[1:3])):
            return -errno.ENOENT
        return CallResult.PASS

    def _connect(self, call: Call) -> int | CallResult:
        _, place, size, *_ = call.notice.arguments
        address = call.address(place, size)
        return (
            self._streams.connect(call, address) if call.is_stream else self._datagrams.connect(call, address)
        )

    def _sendto(self, call: Call) -> int | CallResult:
        _, data, size, flags, name, name_size = call.notice.arguments
        return self._send(
            call, SocketMessage(Buffer(name, name_size & 0xFFFFFFFF), [Buffer(data, size)]), flags
        )

    def _sendmsg(self, call: Call) -> int | CallResult:
        _, place, flags, *_ = call.notice.arguments
        # TCP takes no address but for Fast Open, which a register says.
        if call.is_stream and not flags & MSG_FASTOPEN:
            return CallResult.PASS
        return self._send(call, read_message(call.memory, place), flags)

    def _sendmmsg(self, call: Call) -> int | CallResult:
        _, place, count, flags, *_ = call.notice.arguments
        if call.is_stream:
            return -errno.EOPNOTSUPP if flags & MSG_FASTOPEN else CallResult.PASS
        sent = 0
        for at in range(place, place + min(count & 0xFFFFFFFF, _MOST_MESSAGES) * HEADERS_STEP, HEADERS_STEP):
            try:
                size = self._datagrams.send(call, read_message(call.memory, at), _int(flags))
            except OSError:
                if not sent:
                    raise
                break
            call.memory.write(at + HEADER_SIZE, size.to_bytes(4, "little"))
            sent += 1
        return sent

    def _send(self, call: Call, message: SocketMessage, flags: int) -> int | CallResult:
        flags = _int(flags)
        if not call.is_stream:
            return self._datagrams.send(call, message, flags)
        if not flags & MSG_FASTOPEN:
            return CallResult.PASS
        room, early = _MOST_EARLY, b""
        for place, size in message.parts:
            early += call.memory.read(place, min(size, room - len(early)))
        return self._streams.connect(call, call.address(*message.name), early)

    def _recvfrom(self, call: Call) -> int | CallResult:
        _, data, size, flags, name, size_at = call.notice.arguments
        if call.is_stream or self._datagrams.peer_of(call.cookie) is None:
            return CallResult.PASS
        room = int.from_bytes(call.memory.read(size_at, 4), "little")
        received = self._datagrams.receive(
            call, SocketMessage(Buffer(name, room), [Buffer(data, size)]), _int(flags)
        )
        if isinstance(received, CallResult):
            return received
        call.memory.write(size_at, received.name_size.to_bytes(4, "little"))
        return received.size

    def _recvmsg(self, call: Call) -> int | CallResult:
        _, place, flags, *_ = call.notice.arguments
        if call.is_stream or self._datagrams.peer_of(call.cookie) is None:
            return CallResult.PASS
        return self._receive(call, place, flags)

    def _recvmmsg(self, call: Call) -> int | CallResult:
        """One datagram at a time, which is always allowed."""
        _, place, count, flags, *_ = call.notice.arguments
        if call.is_stream or self._datagrams.peer_of(call.cookie) is None:
            return CallResult.PASS
        if not count & 0xFFFFFFFF:
            return 0
        size = self._receive(call, place, flags)
        if isinstance(size, CallResult):
            return size
        call.memory.write(place + HEADER_SIZE, size.to_bytes(4, "little"))
        return 1

    def _receive(self, call: Call, place: int, flags: int) -> int | CallResult:
        received = self._datagrams.receive(call, read_message(call.memory, place), _int(flags))
        if isinstance(received, CallResult):
            return received
        write_sizes(call.memory, place, *received[1:])
        return received.size

    def _getpeername(self, call: Call) -> int | CallResult:
        peers = self._streams.peers.get if call.is_stream else self._datagrams.peer_of
        peer = peers(call.cookie)
        if peer is None:
            return CallResult.PASS
        _, place, size_at, *_ = call.notice.arguments
        call.put_address(place, size_at, peer)
        return 0


def _int(register: int) -> int:
    """A register as the kernel reads an ``int`` from it."""
    return register & 0x7FFFFFFF
