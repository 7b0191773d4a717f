"""
New sockets that leave by an interface, with a mark, or from a network namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from socket import SocketType
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

from ..errors import SHORTAGES, CannotLeave, describe

#: Makes a socket of a family and a type, as :class:`socket.socket` does.
NewSocket: TypeAlias = Callable[[int, int], SocketType]

#: None where the platform has no such option.
SO_BINDTODEVICE: int | None = getattr(socket, "SO_BINDTODEVICE", None)
SO_MARK: int | None = getattr(socket, "SO_MARK", None)
#: Where ``ip netns add`` has the namespaces.
_NAMESPACES = "/run/netns"


class Leaving(NamedTuple):
    """
    How sockets leave this machine; None: as the system does it.

    :ivar interface: the interface that all packets of a socket leave by and come from (SO_BINDTODEVICE).
    :ivar mark: the mark of all packets, for firewalls and routing rules (SO_MARK).
    :ivar netns: the network namespace: a name of ``ip netns``, or a path.
    """

    interface: str | None = None
    mark: int | None = None
    netns: str | None = None

    def new_socket(self, family: int, type: int) -> SocketType:
        """
        A new socket, of TCP or UDP, that leaves so.

        :raises CannotLeave: where the system does not allow it, or has no such interface or namespace.
        :raises OSError: where there are no descriptors.
        """
        link = SocketType(family, type) if self.netns is None else self._made_there(family, type)
        try:
            if self.interface is not None:
                _set(link, SO_BINDTODEVICE, os.fsencode(self.interface), f"the interface {self.interface}")
            if self.mark is not None:
                _set(link, SO_MARK, self.mark, f"the mark {self.mark}")
        except OSError:
            link.close()
            raise
        return link

    def _made_there(self, family: int, type: int) -> SocketType:
        """
        A socket of the namespace.

        A thread is in a namespace, and so is each socket that it makes. A thread of its own makes this one:
        the reactor's thread, from which all other connections leave, never leaves its namespace.
        """
        assert self.netns is not None
        made: list[SocketType | OSError] = []

        def make() -> None:
            try:
                with open(namespace_path(self.netns), "rb") as place:
                    enter_namespace(place.fileno())
                made.append(SocketType(family, type))
            except OSError as problem:
                made.append(problem)

        thread = Thread(target=make, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise CannotLeave("the system has no thread left") from None
        thread.join()
        if isinstance(made[0], OSError):
            raise _failed(made[0], f"the namespace {self.netns}")
        return made[0]


def namespace_path(netns: str | None) -> str:
    """The file of the network namespace *netns*, a name or a path."""
    return os.path.join(_NAMESPACES, netns or "")


def can_enter_namespaces() -> bool:
    """Whether this Python can enter network namespaces."""
    return hasattr(os, "setns")


def enter_namespace(descriptor: int) -> None:
    """
    Have the present thread be in the network namespace of *descriptor*.

    :raises OSError: where that is not allowed.
    """
    setns: Any = getattr(os, "setns", None)
    if setns is None:
        raise CannotLeave("needs Python 3.12 or later")
    setns(descriptor, os.CLONE_NEWNET)  # type: ignore[attr-defined, unused-ignore]


def _set(link: SocketType, option: int | None, value: Any, what: str) -> None:
    if option is None:
        raise CannotLeave(f"{what} cannot be used: this platform has no such option")
    try:
        link.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as problem:
        raise _failed(problem, what) from None


def _failed(problem: OSError, what: str) -> OSError:
    if problem.errno in SHORTAGES:
        return problem
    return CannotLeave(f"{what} cannot be used: {describe(problem)}")
