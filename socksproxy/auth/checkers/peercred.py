"""
The local user at the other end of a Unix socket, as the kernel knows it.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections import OrderedDict
from struct import Struct
from typing import Any, NamedTuple

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import NotAuthenticated
from ...values.errors import ConfigError
from ..credentials import IPeerCredentials, PeerCredentials
from .arguments import arguments
from .threads import CheckThreads

#: Seconds for which a user's name and groups are remembered.
TTL = 60.0
#: Users that are remembered.
MOST = 256

#: Users that are looked up at once.
_THREADS = 2

#: pid, uid and gid (unix(7)).
_UCRED = Struct("iII")
#: The user that the kernel reports for a user it cannot map, such as a user of another container.
_NOBODY = 65534
#: There is no peer.
_NO_ID = 0xFFFFFFFF


class _User(NamedTuple):
    name: str
    groups: frozenset[int]


def credentials_of(sock: socket.SocketType) -> PeerCredentials | None:
    """The process at the other end of *sock*; None: it is no Unix socket, or the system does not tell."""
    if sock.family != getattr(socket, "AF_UNIX", None) or not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    pid, uid, gid = _UCRED.unpack(data)
    return None if uid == _NO_ID else PeerCredentials(pid, uid, gid)


def user_of(sock: socket.SocketType) -> int | None:
    """The number of the user at the other end of *sock*; None as for :func:`credentials_of`."""
    credentials = credentials_of(sock)
    return None if credentials is None else credentials.uid


@implementer(ICredentialsChecker)
class PeerCredentialsChecker:
    """
    Lets in local users, by their names.

    A user without a name is refused, and so is ``nobody``, which may stand for any user that the system
    cannot map.

    :param groups: numbers of groups; only members of one of them are let in. None: all users are.
    :param reactor: for time and threads; None: the global one.
    """

    credentialInterfaces = (IPeerCredentials,)

    def __init__(self, groups: frozenset[int] | None = None, reactor: Any = None) -> None:
        self.groups = groups
        # The system's databases may be on the network, and hang; so they have threads of their own.
        self._checks = CheckThreads(reactor, name="local users", threads=_THREADS)
        self._known: OrderedDict[int, tuple[float, _User | None]] = OrderedDict()
        self._waiting: dict[int, list[Deferred[Any]]] = {}

    def requestAvatarId(self, credentials: PeerCredentials) -> Deferred[Any]:
        return self._user(credentials.uid).addCallback(self._judge, credentials.uid)

    def _judge(self, user: _User | None, uid: int) -> str:
        if user is None:
            raise NotAuthenticated(f"this system has no user with the uid {uid}")
        if self.groups is not None and not self.groups & user.groups:
            raise NotAuthenticated(f"{user.name} is in no group that is let in")
        return user.name

    def _user(self, uid: int) -> Deferred[Any]:
        expires, user = self._known.get(uid, (0.0, None))
        if uid == _NOBODY or expires > self._checks.reactor.seconds():
            return succeed(user)
        first = uid not in self._waiting
        waiting = self._waiting.setdefault(uid, [])
        asked: Deferred[Any] = Deferred(waiting.remove)
        waiting.append(asked)
        if first:
            self._checks.run(_look_up, uid, share=uid).addBoth(self._found, uid)
        return asked

    def _found(self, user: Any, uid: int) -> None:
        if not isinstance(user, Failure):
            self._known[uid] = self._checks.reactor.seconds() + TTL, user
            self._known.move_to_end(uid)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        waiting = self._waiting.pop(uid)
        while waiting:
            waiting.pop(0).callback(user)


def _look_up(uid: int) -> _User | None:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return _User(entry.pw_name, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError("no group of this system", name) from None


def make_checker(argument: str) -> PeerCredentialsChecker:
    """
    The checker of ``--auth peercred:[group=NAME]...``.

    :raises InvalidAuthArgumentString: when *argument* is something else.
    """
    groups = arguments("peercred", argument, {"group": _group}, repeatable=("group",)).get("group")
    if not hasattr(socket, "SO_PEERCRED"):
        raise InvalidAuthArgumentString("peercred: this system does not tell who is behind a Unix socket")
    return PeerCredentialsChecker(frozenset(groups) if groups else None)
