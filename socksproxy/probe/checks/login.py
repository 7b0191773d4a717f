"""Usernames and passwords (RFC 1929)."""

from __future__ import annotations

from ...wire import password, socks5
from ...wire.words import Command, Method
from ..check import Checks
from ..link import Link, ServerClosed
from ..outcome import Failed, NotPossible, expect
from ..subject import ProbedServer

CHECKS = Checks()


@CHECKS.add("login.status", "the answer to a right login is 01 00", "RFC 1929, 2", needs="socks5.greeting")
def _status(subject: ProbedServer) -> None:
    with subject.connect() as link:
        _present(subject, link, _login(subject))
        answer = link.receive(2)
        expect(answer == b"\x01\x00", f"the answer was {answer.hex(' ')}")


@CHECKS.add(
    "login.required",
    "a client that offers no login is not served",
    "RFC 1928, 3",
    needs="socks5.greeting",
)
def _required(subject: ProbedServer) -> None:
    _login(subject)
    with subject.connect() as link:
        link.send(socks5.build_greeting(bytes((Method.NO_AUTHENTICATION,))))
        answer = link.wait_for_end()
        expect(answer in (b"", b"\x05\xff"), f"the answer was {answer.hex(' ')}")


@CHECKS.add(
    "login.skipped",
    "a request in the place of the login is not served",
    "RFC 1929, 2",
    needs="socks5.greeting",
)
def _skipped(subject: ProbedServer) -> None:
    _login(subject)
    with subject.listen() as target, subject.connect() as link:
        link.send(subject.hello())
        link.read(socks5.parse_choice)
        link.send(socks5.build_request(Command.CONNECT, subject.at(target.port)))
        answer = link.wait_for_end()
        expect(len(answer) < 2 or answer[1] != 0, f"the answer was {answer[:10].hex(' ')}")


@CHECKS.add(
    "login.wrong",
    "a wrong password is answered with a status other than 0, and the connection ends",
    "RFC 1929, 2",
    needs="socks5.greeting",
)
def _wrong(subject: ProbedServer) -> None:
    login = _login(subject)
    last = login.password[-1:] or b"\x00"
    wrong = login.password[:-1] + bytes((last[0] ^ 1,))
    with subject.connect() as link:
        _present(subject, link, login._replace(password=wrong))
        try:
            answer = link.receive(2)
        except ServerClosed:
            raise Failed("the connection ended without a status") from None
        expect(answer[0] == password.VERSION, f"the version was {answer[0]}")
        expect(answer[1] != password.SUCCESS, "the wrong password was accepted")
        link.wait_for_end()


def _login(subject: ProbedServer) -> password.Credentials:
    if subject.where.login is None:
        raise NotPossible("no login is given")
    return subject.where.login


def _present(subject: ProbedServer, link: Link, login: password.Credentials) -> None:
    link.send(subject.hello())
    chosen = link.read(socks5.parse_choice)
    expect(chosen == Method.USERNAME_PASSWORD, f"the server chose method {chosen:#04x}")
    link.send(password.build_credentials(login))
