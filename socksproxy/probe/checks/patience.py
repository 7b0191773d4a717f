"""Clients that say nothing more: a server that waits for ever runs out of descriptors."""

from __future__ import annotations

import time

from ...wire import socks5
from ...wire.words import Version
from ..check import Checks
from ..link import Link, ServerSilent
from ..outcome import Failed
from ..subject import ProbedServer

CHECKS = Checks()

_SOURCE = "CWE-400: each wait of a server needs an end"


@CHECKS.add("timeout.silent", "a client that says nothing is cut off", _SOURCE, slow=True)
def _silent(subject: ProbedServer) -> str:
    with subject.connect() as link:
        return _cut_off(subject, link)


@CHECKS.add("timeout.greeting", "a client that stops within its greeting is cut off", _SOURCE, slow=True)
def _greeting(subject: ProbedServer) -> str:
    with subject.connect() as link:
        link.send(bytes((Version.SOCKS5,)))
        return _cut_off(subject, link)


@CHECKS.add(
    "timeout.request",
    "a client that stops before its request is cut off",
    _SOURCE,
    needs="socks5.greeting",
    slow=True,
)
def _request(subject: ProbedServer) -> str:
    with subject.connect() as link:
        link.send(subject.hello())
        subject.log_in(link)
        return _cut_off(subject, link)


@CHECKS.add(
    "timeout.trickle",
    "a client that sends its greeting byte by byte for ever is cut off",
    _SOURCE,
    needs="socks5.greeting",
    slow=True,
)
def _trickle(subject: ProbedServer) -> str:
    began = time.monotonic()
    greeting = socks5.build_greeting(bytes(255))
    with subject.connect() as link:
        for value in greeting:
            link.send(bytes((value,)))
            try:
                link.wait_for_end(0.5)
            except ServerSilent:
                pass
            else:
                return f"after {time.monotonic() - began:.0f} s"
            if time.monotonic() - began > subject.where.patience:
                break
    raise Failed(f"the connection was open for {subject.where.patience:g} s")


def _cut_off(subject: ProbedServer, link: Link) -> str:
    began = time.monotonic()
    link.wait_for_end(subject.where.patience)
    return f"after {time.monotonic() - began:.0f} s"
