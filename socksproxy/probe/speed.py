"""How fast a server is, as one client sees it. These are figures, not verdicts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from ..wire.words import Command
from .checks.udp import associated
from .outcome import Failed, NotPossible, NotServed
from .subject import ProbedServer, TargetPort, granted

_ROUNDS, _ECHOES = 50, 200
_CLIENTS, _SECONDS = 16, 2.0


class Figure(NamedTuple):
    """
    One figure.

    :ivar name: what it is of.
    :ivar value: None: it could not be measured.
    :ivar unit: ``ms`` or ``1/s``.
    """

    name: str
    value: float | None
    unit: str


def measure(subject: ProbedServer) -> list[Figure]:
    """The latency and the rate of *subject*."""
    return [
        Figure("a session, from the first byte to the reply (median)", _tried(_session, subject), "ms"),
        Figure("an echo through a session (median)", _tried(_echo, subject), "ms"),
        Figure("an echo through an association (median)", _tried(_udp_echo, subject), "ms"),
        Figure(f"sessions of {_CLIENTS} clients at once", _tried(_rate, subject), "1/s"),
    ]


def _tried(measured: Callable[[ProbedServer], float], subject: ProbedServer) -> float | None:
    try:
        return measured(subject)
    except (Failed, NotServed, NotPossible, OSError):
        return None


def _session(subject: ProbedServer) -> float:
    times = []
    with subject.listen() as target:
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            with subject.ask(Command.CONNECT, subject.at(target.port)) as client:
                granted(client)
                times.append(time.perf_counter() - began)
                target.accept().socket.close()
    return median(times) * 1000


def _echo(subject: ProbedServer) -> float:
    times = []
    with subject.joined() as (client, target):
        for _ in range(_ECHOES):
            began = time.perf_counter()
            client.send(b"x")
            target.send(target.receive(1))
            client.receive(1)
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def _udp_echo(subject: ProbedServer) -> float:
    times = []
    with associated(subject) as association:
        for _ in range(_ECHOES):
            began = time.perf_counter()
            association.answer(b"x", association.pass_on(b"x"))
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def _rate(subject: ProbedServer) -> float:
    until = time.monotonic() + _SECONDS
    counts = [0] * _CLIENTS
    with subject.listen() as target:
        accepting = threading.Thread(target=_accept, args=(target, until))
        clients = [
            threading.Thread(target=_repeat, args=(subject, target.port, until, counts, index))
            for index in range(_CLIENTS)
        ]
        for thread in (accepting, *clients):
            thread.start()
        for thread in (accepting, *clients):
            thread.join()
    return sum(counts) / _SECONDS


def _accept(target: TargetPort, until: float) -> None:
    while time.monotonic() < until:
        try:
            target.accept().socket.close()
        except Failed:
            return


def _repeat(subject: ProbedServer, port: int, until: float, counts: list[int], index: int) -> None:
    while time.monotonic() < until:
        try:
            with subject.ask(Command.CONNECT, subject.at(port)) as client:
                granted(client)
        except Failed:
            return
        counts[index] += 1
