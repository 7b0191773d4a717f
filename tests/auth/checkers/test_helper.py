"""Passwords that a program checks: see :mod:`socksproxy.auth.checkers.helper`."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from zope.interface.verify import verifyObject

from socksproxy.auth.chain import portal_of
from socksproxy.auth.checkers.helper import HelperChecker
from socksproxy.auth.checkers.threads import CheckFailed
from socksproxy.runtime.reactor import global_reactor
from socksproxy.wire.password import Credentials, build_credentials
from tests.conftest import Serve
from tests.support.helpers import Program
from tests.support.processes import Program as Started
from tests.support.programs import require
from tests.support.proxy import Playing, Proxy, until
from tests.support.workers import LISTENING


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest_twisted.inlineCallbacks
def test_reload(serve_as: Serve, program: Program) -> Playing:
    """The old program answers what it is asked when the portal changes, and ends."""
    checkers = [HelperChecker(program.settings(children=1)) for _ in range(2)]
    reactor: Any = global_reactor()
    proxy: Proxy = yield serve_as(portal=portal_of([checkers[0]], reactor))

    def scenario() -> bytes:
        with proxy.connect() as sock:
            sock.sendall(b"\5\1\2" + build_credentials(Credentials(b"bob", b"wait")))
            answer = b""
            while len(answer) < 4:
                answer += sock.recv(4)
            return answer

    asked = proxy.play(scenario)
    yield until(lambda: program.lines)
    helper: Any = checkers[0]._helper
    proxy.factory.reconfigure(portal=portal_of([checkers[1]], reactor))
    program.go_on()
    assert (yield asked) == b"\5\2\1\0"
    yield until(lambda: not helper._processes and not helper._ending)


@pytest_twisted.inlineCallbacks
def test_answers(program: Program) -> Playing:
    """OK is a yes, perhaps with another name; ERR is a wrong password; BH is none."""
    checker = HelperChecker(program.settings())
    assert verifyObject(ICredentialsChecker, checker)
    assert (yield checker.requestAvatarId(UsernamePassword(b"bo b", b"yes"))) == b"bo b"
    assert (yield checker.requestAvatarId(UsernamePassword(b"bob", b"named"))) == "alice"
    with pytest.raises(UnauthorizedLogin, match="no") as refused:
        yield checker.requestAvatarId(UsernamePassword(b"bob", b"no"))
    assert not isinstance(refused.value, CheckFailed)
    with pytest.raises(CheckFailed, match="it cannot tell"):
        yield checker.requestAvatarId(UsernamePassword(b"bob", b"broken"))
    assert program.lines == ["bo%20b yes", "bob named", "bob no", "bob broken"]
    checker.retire()


def test_argument(program: Program) -> None:
    argument = f"helper:command={program.path} 'a b' c\\:d:children=3:concurrency=20:timeout=2.5"
    settings = makeChecker(argument).settings
    assert settings.command == (str(program.path), "a b", "c:d")
    assert (settings.children, settings.concurrency, settings.timeout) == (3, 20, 2.5)


@pytest.mark.parametrize(
    ("argument", "right"),
    [
        ("", "no program"),
        ("command=judge", "absolute path"),
        ("command=/no/such/program", "is not a program that this user may run"),
        ("command=/etc/passwd", "is not a program that this user may run"),
        ("command=/bin/sh 'x", "no closing quotation"),
        ("command=/bin/sh:children=0", "whole number"),
        ("command=/bin/sh:children=257", "whole number"),
        ("command=/bin/sh:timeout=1000", "timeout: must be a number from 0.1 to 600"),
        ("command=/bin/sh:name=x", "is not command="),
    ],
)
def test_wrong_argument(argument: str, right: str) -> None:
    with pytest.raises(InvalidAuthArgumentString, match=right):
        makeChecker(f"helper:{argument}")


def logged_in(port: int, name: bytes, password: bytes) -> bool:
    """Whether the proxy takes the password."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"\5\1\2" + build_credentials(Credentials(name, password)))
        received = b""
        while len(received) < 4 and (data := sock.recv(4)):
            received += data
    return received == b"\5\2\1\0"


@pytest.mark.interop
@pytest.mark.parametrize("workers", [1, 2])
def test_helper_of_squid(twistd: Callable[..., Started], tmp_path: Path, workers: int) -> None:
    """basic_ncsa_auth checks passwords of a file, in each worker; wrong ones are refused."""
    ncsa = require("/usr/lib/squid/basic_ncsa_auth")
    file = tmp_path / "users"
    hashed = subprocess.run(
        [require("openssl"), "passwd", "-apr1", "s e:cret"], capture_output=True, text=True, check=True
    )
    file.write_text(f"bob:{hashed.stdout}")
    more = ["--workers", str(workers), "--auth", f"helper:command={ncsa} {file}:timeout=8"]
    proxy = twistd("socks", "--listen", "tcp:0:interface=127.0.0.1", *more)
    port = int(proxy.wait_for(LISTENING)[1])
    for name, password, right in (
        (b"bob", b"s e:cret", True),
        (b"bob", b"no", False),
        (b"eve", b"s e:cret", False),
    ):
        for _ in range(4):
            assert logged_in(port, name, password) == right, (name, password)
