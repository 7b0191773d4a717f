"""
Many datagrams with one system call: ``recvmmsg``, and segmentation by the kernel (UDP_SEGMENT).

Both exist on Linux only. Python has no function for ``recvmmsg``, which is called through ctypes; UDP_SEGMENT
is a control message. For the measured gain see ``docs/udp-associate.rst``.
"""

from __future__ import annotations

import socket
import sys
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import pack
from typing import Any

from ..relay.epoll_events import READ
from ..wire.datagram import IPV4_SIZE

try:
    import ctypes

    _receive: Any = ctypes.CDLL(None, use_errno=True).recvmmsg if sys.platform == "linux" else None
except (
    ImportError,
    OSError,
    AttributeError,
):  # pragma: no cover - a Python without ctypes, a C library without it
    _receive = None

#: Datagrams of one system call.
SLOTS = 64
#: Bytes before a payload, for the header of a reply or the headers for proxies.
ROOM = 96
_LARGEST = 65536
# With a power of two, all slots would share the same lines of the processor's cache.
_STRIDE = _LARGEST + 192
#: Level-triggered: the engine is told again of datagrams that a turn leaves in the kernel.
MASK = READ

_SOL_UDP, _UDP_SEGMENT = 17, 103
#: Bytes that the kernel takes with one call for segmentation, without the headers.
_MOST_BYTES = 65000
NAME_SIZES = {socket.AF_INET: 16, socket.AF_INET6: 28}


def available() -> bool:
    """Whether this system has what a :class:`Batch` needs."""
    return _receive is not None


if _receive is not None:

    class _IOVec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))

    class _Header(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_void_p),
            ("name_size", ctypes.c_uint),
            ("vectors", ctypes.c_void_p),
            ("count", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("control_size", ctypes.c_size_t),
            ("flags", ctypes.c_int),
        )

    class _Message(ctypes.Structure):
        _fields_ = (("header", _Header), ("size", ctypes.c_uint))

    _receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


def _address(buffer: bytearray | mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Batch:
    """
    A buffer for :data:`SLOTS` datagrams of any size, which all sockets of an engine share.

    Memory that no datagram has touched costs nothing.

    :param family: the family of the sockets.
    :param apart: whether the first :data:`~socksproxy.wire.datagram.IPV4_SIZE` bytes go to :attr:`heads`.
    :ivar names: the addresses of the sources as the kernel writes them, :attr:`name_size` bytes each.
    :ivar heads: the first bytes, :data:`~socksproxy.wire.datagram.IPV4_SIZE` each.
    :ivar view: the other bytes, in slots; see :meth:`at`.
    :ivar sizes: the length of each datagram, with its bytes in :attr:`heads`.
    """

    def __init__(self, family: int, apart: bool) -> None:
        self.name_size = NAME_SIZES[socket.AddressFamily(family)]
        self.names = bytearray(SLOTS * self.name_size)
        self.heads = bytearray(SLOTS * IPV4_SIZE)
        # Not a bytearray, because making one touches all of its memory.
        self._slots = mmap(-1, SLOTS * _STRIDE, MAP_PRIVATE | MAP_ANONYMOUS)
        self.view = memoryview(self._slots)
        self.sizes: list[int] = []
        self._stamped: tuple[bytes, int] = (b"", 0)
        self._run: tuple[int, ...] = ()
        self._views: list[memoryview] = []
        self._control: list[tuple[int, int, bytes]] = []
        self._describe(apart)

    def _describe(self, apart: bool) -> None:
        """Write down, once, where the kernel puts each part of a datagram."""
        each = 2 if apart else 1
        self._vectors = (_IOVec * (each * SLOTS))()
        self._messages = (_Message * SLOTS)()
        names, heads, slots = _address(self.names), _address(self.heads), _address(self._slots)
        vectors, size = ctypes.addressof(self._vectors), ctypes.sizeof(_IOVec)
        for slot in range(SLOTS):
            first = slot * each
            if apart:
                self._vectors[first] = _IOVec(heads + slot * IPV4_SIZE, IPV4_SIZE)
            self._vectors[first + each - 1] = _IOVec(slots + self.at(slot), _LARGEST)
            header = self._messages[slot].header
            header.name, header.name_size = names + slot * self.name_size, self.name_size
            header.vectors, header.count = vectors + first * size, each
        self._where = ctypes.addressof(self._messages)
        words = ctypes.sizeof(_Message) // 4
        self._sizes = memoryview(self._messages).cast("B").cast("I")[_Message.size.offset // 4 :: words]

    def receive(self, descriptor: int) -> int:
        """Read from *descriptor*; returned is the number of datagrams, which is 0 after an error, too."""
        count: int = _receive(descriptor, self._where, SLOTS, 0, None)
        if count <= 0:
            return 0
        # A slice takes three times as long as an item, and most batches have one datagram.
        self.sizes = [self._sizes[0]] if count == 1 else self._sizes[:count].tolist()
        return count

    def at(self, slot: int) -> int:
        """The offset in :attr:`view` at which the datagram of *slot* begins."""
        return slot * _STRIDE + ROOM

    def name(self, slot: int) -> bytes:
        """The source of the datagram of *slot*, as the kernel writes it."""
        size = self.name_size
        return bytes(self.names[slot * size : (slot + 1) * size])

    def names_are(self, name: bytes, start: int, stop: int) -> bool:
        """Whether the datagrams from *start* to before *stop* are all from *name*."""
        size = self.name_size
        return self.names.startswith(name * (stop - start), start * size)

    def head(self, slot: int) -> bytes:
        """The first bytes of the datagram of *slot*."""
        return bytes(self.heads[slot * IPV4_SIZE : (slot + 1) * IPV4_SIZE])

    def heads_are(self, head: bytes, start: int, stop: int) -> bool:
        """Whether the datagrams from *start* to before *stop* all begin with *head*."""
        return self.heads.startswith(head * (stop - start), start * IPV4_SIZE)

    def stamp(self, header: bytes, start: int, stop: int) -> None:
        """Write *header* before the datagrams from *start* to before *stop*, unless it is there already."""
        stamped, upto = self._stamped
        if header == stamped and stop <= upto:
            return
        view, size = self.view, len(header)
        for slot in range(start, stop):
            at = slot * _STRIDE + ROOM
            view[at - size : at] = header
        if not start:
            self._stamped = (header, stop)
        elif header != stamped:
            self._stamped = (stamped, min(upto, start))

    def put(self, header: bytes, start: int, stop: int, offset: int) -> None:
        """As :meth:`stamp`, where the datagrams begin *offset* bytes behind their place."""
        view, size = self.view, len(header)
        for slot in range(start, stop):
            at = slot * _STRIDE + ROOM + offset
            view[at - size : at] = header
        self._stamped = (b"", 0)

    def equally_long(self, start: int, stop: int) -> bool:
        """Whether the datagrams from *start* to before *stop* have one length."""
        return self.sizes[start:stop].count(self.sizes[start]) == stop - start

    def send(self, link: socket.SocketType, to: Any, start: int, stop: int, offset: int, longer: int) -> bool:
        """
        Send a run of datagrams to one address with one call.

        The datagrams have one length; only the last one may be shorter.

        :param to: the address, as :meth:`socket.socket.sendto` takes it.
        :param offset: where in its slot a datagram begins; a negative one takes the header before it along.
        :param longer: how many bytes longer a datagram leaves than it came.
        :returns: False when one call is not enough; then, and after an error, no datagram was sent.
        :raises OSError: as the system gives it.
        """
        count, size, last = stop - start, self.sizes[start] + longer, self.sizes[stop - 1] + longer
        if count < 2 or not last or count * size > _MOST_BYTES:
            return False
        run, views = (start, offset, size), self._views
        if run != self._run:
            self._run, self._control = run, [(_SOL_UDP, _UDP_SEGMENT, pack("H", size))]
            views.clear()
        at = start * _STRIDE + ROOM + offset
        for place in range(at + len(views) * _STRIDE, at + count * _STRIDE, _STRIDE):
            views.append(self.view[place : place + size])
        parts = views[:count]
        if last != size:
            at += (count - 1) * _STRIDE
            parts[-1] = self.view[at : at + last]
        link.sendmsg(parts, self._control, 0, to)
        return True
