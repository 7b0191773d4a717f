"""Versions, methods, and what else may come to the port."""

from __future__ import annotations

from ...wire import socks5
from ...wire.words import Method, Version
from ..check import Checks
from ..link import ServerClosed, ServerSilent
from ..outcome import Failed, NotServed, expect
from ..subject import ProbedServer

CHECKS = Checks()

#: A method that no document defines (RFC 1928 reserves it for private use).
_PRIVATE_METHOD = 0xEE


@CHECKS.add(
    "socks5.greeting", "the greeting of SOCKS5 is answered with a method that it offers", "RFC 1928, 3"
)
def _greeting(subject: ProbedServer) -> None:
    with subject.connect() as link:
        link.send(subject.hello())
        try:
            first = link.receive(1)[0]
        except (ServerClosed, ServerSilent) as problem:
            raise NotServed(str(problem)) from None
        if first != Version.SOCKS5:
            raise NotServed(f"the answer begins with {first:#04x}")
        chosen = link.receive(1)[0]
        expect(chosen != Method.NO_ACCEPTABLE, "no acceptable method: the server wants another login")
        expect(chosen == subject.hello()[2], f"method {chosen:#04x} was not offered")


@CHECKS.add(
    "socks5.several-methods",
    "of several methods, the server chooses one that was offered",
    "RFC 1928, 3",
    needs="socks5.greeting",
)
def _several(subject: ProbedServer) -> None:
    offered = bytes((_PRIVATE_METHOD, subject.hello()[2], _PRIVATE_METHOD - 1))
    with subject.connect() as link:
        link.send(socks5.build_greeting(offered))
        chosen = link.read(socks5.parse_choice)
        expect(chosen == subject.hello()[2], f"method {chosen:#04x}")


@CHECKS.add(
    "socks5.no-acceptable-method",
    "where no offered method is acceptable, the answer is FF",
    "RFC 1928, 3",
    needs="socks5.greeting",
)
def _no_acceptable(subject: ProbedServer) -> None:
    with subject.connect() as link:
        link.send(socks5.build_greeting(bytes((_PRIVATE_METHOD,))))
        try:
            answer = link.receive(2)
        except ServerClosed:
            raise Failed("the server closed the connection without an answer") from None
        expect(answer == b"\x05\xff", f"the answer was {answer.hex(' ')}")


@CHECKS.add(
    "socks5.no-methods", "a greeting without methods is not accepted", "RFC 1928, 3", needs="socks5.greeting"
)
def _no_methods(subject: ProbedServer) -> None:
    with subject.connect() as link:
        link.send(socks5.build_greeting(b""))
        answer = link.wait_for_end()
        expect(answer in (b"", b"\x05\xff"), f"the answer was {answer.hex(' ')}")


@CHECKS.add(
    "port.unknown-version", "an unknown version gets no answer of SOCKS; the connection ends", "RFC 1928, 3"
)
def _unknown_version(subject: ProbedServer) -> None:
    with subject.connect() as link:
        link.send(bytes((6, 1, 0, 0, 0, 0, 0, 0)))
        answer = link.wait_for_end()
        expect(
            len(answer) < 2 or answer[1] not in (Method.NO_AUTHENTICATION, 90),
            f"granted: {answer[:8].hex(' ')}",
        )


@CHECKS.add(
    "port.http",
    "a browser that takes the port for an HTTP proxy is served or turned away, and does not hang",
    "Tor answers it in HTML (connection_edge.c)",
)
def _http(subject: ProbedServer) -> str:
    with subject.connect() as link:
        link.send(b"GET http://probe.invalid/ HTTP/1.1\r\nHost: probe.invalid\r\nConnection: close\r\n\r\n")
        answer = link.wait_for_end()
    return "answered in HTTP" if answer.startswith(b"HTTP/") else "turned away"
