"""Sockets that leave by an interface, with a mark, or from a namespace."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from socksproxy.errors import CannotLeave, describe, reply_for
from socksproxy.net import sockets
from socksproxy.net.sockets import Leaving
from socksproxy.wire.words import Reply
from tests.support.programs import missing, require

NAMESPACE = f"socksproxy-way-{os.getpid()}"


def test_as_the_system_does_it() -> None:
    with closing(Leaving().new_socket(socket.AF_INET, socket.SOCK_DGRAM)) as link:
        assert (link.family, link.type) == (socket.AF_INET, socket.SOCK_DGRAM)


def test_interface() -> None:
    """e 40: a datagram's socket is bound to the interface, too."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(Leaving(interface="lo").new_socket(socket.AF_INET, kind)) as link:
            bound = link.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            assert bound.rstrip(b"\0") == b"lo"


@pytest.mark.skipif(os.geteuid() != 0, reason="marks need a privilege")
def test_mark() -> None:
    with closing(Leaving(mark=7).new_socket(socket.AF_INET6, socket.SOCK_STREAM)) as link:
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 7


def refused(leaving: Leaving) -> str:
    """What is said where no socket can leave so; the reply is 1, whatever the system says."""
    with pytest.raises(CannotLeave) as caught:
        leaving.new_socket(socket.AF_INET, socket.SOCK_STREAM)
    assert reply_for(caught.value) is Reply.GENERAL_FAILURE
    return describe(caught.value)


def test_no_such_interface() -> None:
    """e 19: an interface that is not there is a failure, and not a reason for another way."""
    assert refused(Leaving(interface="Lost0")) == "the interface Lost0 cannot be used: no such device"


def test_mark_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """e 19: so is a mark without CAP_NET_ADMIN."""

    def deny(link: Any, option: Any, value: Any, what: str) -> None:
        raise sockets._failed(OSError(errno.EPERM, os.strerror(errno.EPERM)), what)

    monkeypatch.setattr(sockets, "_set", deny)
    assert refused(Leaving(mark=7)) == "the mark 7 cannot be used: operation not permitted"


def test_no_such_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SO_MARK", None)
    assert "this platform has no such option" in refused(Leaving(mark=7))


def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortage stays one."""
    problem = OSError(errno.ENOBUFS, "no room")
    assert sockets._failed(problem, "the mark 7") is problem


def test_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "setns", raising=False)
    assert refused(Leaving(netns="/proc/self/ns/net")).endswith("needs Python 3.12 or later")


def test_no_such_namespace() -> None:
    assert refused(Leaving(netns="lost")) == "the namespace lost cannot be used: no such file or directory"


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network namespace without any interface that is up; and os.setns(), where Python is too old."""
    if not hasattr(os, "setns"):
        library = ctypes.CDLL(None, use_errno=True)

        def setns(descriptor: int, kind: int) -> None:
            if library.setns(descriptor, kind):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        monkeypatch.setattr(os, "setns", setns, raising=False)
        monkeypatch.setattr(os, "CLONE_NEWNET", 0x40000000, raising=False)
    ip = require("ip")
    made = subprocess.run([ip, "netns", "add", NAMESPACE], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"network namespaces ({made.stderr.strip()})")
    yield NAMESPACE
    subprocess.run([ip, "netns", "del", NAMESPACE], check=True)


def test_namespace(namespace: str) -> None:
    """A socket of a namespace has its interfaces; the present thread stays where it is."""
    before = os.stat("/proc/thread-self/ns/net").st_ino
    for name in (namespace, f"/run/netns/{namespace}"):
        with closing(Leaving(netns=name).new_socket(socket.AF_INET, socket.SOCK_DGRAM)) as link:
            assert link.connect_ex(("127.0.0.1", 9)) == errno.ENETUNREACH
            assert os.stat("/proc/thread-self/ns/net").st_ino == before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(("127.0.0.1", 9))
