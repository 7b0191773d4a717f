"""What happens to the bytes between the client and the destination."""

from __future__ import annotations

import time
from hashlib import sha256

from ..check import Checks
from ..link import Link
from ..outcome import Failed, expect
from ..subject import ProbedServer

CHECKS = Checks()

_HALF_CLOSE = "RFC 9293, 3.6: half-closed connections"
#: Seconds that one direction stays open after the other has ended; Xray and gost give 2, 5 and 10.
_LONG_ANSWER = 12.0
#: Bytes that kernels and a server may hold for an end that reads nothing. Without a bound it is more.
_MOST = 256 * 1024 * 1024
#: Seconds without progress after which a direction is full.
_FULL = 0.3
_CHUNK = bytes(range(256)) * 256
#: 4 MiB, which is more than the buffers of one direction hold.
_CHUNKS = 64


@CHECKS.add(
    "relay.client-half-closes",
    "a client that has finished sending still gets the destination's answer",
    _HALF_CLOSE,
    needs="socks5.connect",
)
def _client_half_closes(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        _half_closed(client, target, 0.0)


@CHECKS.add(
    "relay.destination-half-closes",
    "a destination that has finished sending still gets what the client sends",
    _HALF_CLOSE,
    needs="socks5.connect",
)
def _target_half_closes(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        _half_closed(target, client, 0.0)


@CHECKS.add(
    "relay.long-answer",
    f"an answer that comes {_LONG_ANSWER:g} s after the client has finished arrives",
    _HALF_CLOSE,
    needs="relay.client-half-closes",
    slow=True,
)
def _long_answer(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        _half_closed(client, target, _LONG_ANSWER)


def _half_closed(first: Link, second: Link, pause: float) -> None:
    """The *first* finishes; the *second* has to learn it. Its answer after *pause* seconds has to arrive."""
    question, answer = b"a question", b"an answer"
    first.send(question)
    first.finish_writing()
    data = second.wait_for_end()
    expect(data == question, f"{data!r} arrived for {question!r}")
    time.sleep(pause)
    second.send(answer)
    data = first.receive(len(answer))
    expect(data == answer, f"{data!r} arrived for {answer!r}")


@CHECKS.add(
    "relay.destination-ends",
    "when the destination closes, the client's connection ends after the last byte",
    "RFC 9293, 3.6",
    needs="socks5.connect",
)
def _target_ends(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        target.send(b"all")
        target.socket.close()
        data = client.wait_for_end()
        expect(data == b"all", f"{data!r} arrived for b'all'")


@CHECKS.add(
    "relay.client-ends",
    "when the client resets, the connection to the destination ends",
    "RFC 9293, 3.10.7",
    needs="socks5.connect",
)
def _client_ends(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        client.reset()
        target.wait_for_end()


_WINDOWS = "RFC 9293, 3.8.6: each direction has a window of its own"


@CHECKS.add(
    "relay.client-reads-nothing",
    "while the client reads nothing, the server holds little for it, and what the client sends arrives",
    _WINDOWS,
    needs="socks5.connect",
)
def _client_reads_nothing(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        _one_way_full(client, target)


@CHECKS.add(
    "relay.destination-reads-nothing",
    "the same for a destination that reads nothing",
    _WINDOWS,
    needs="socks5.connect",
)
def _target_reads_nothing(subject: ProbedServer) -> None:
    with subject.joined() as (client, target):
        _one_way_full(target, client)


def _one_way_full(idle: Link, sender: Link) -> None:
    """The *sender* fills the direction to *idle*; then *idle* sends, and at last it reads all."""
    sent = _fill(sender)
    for _ in range(_CHUNKS):
        idle.send(_CHUNK)
        expect(sender.receive(len(_CHUNK)) == _CHUNK, "other bytes arrived than were sent")
    sender.finish_writing()
    found = sha256()
    left = sent
    while left:
        data = idle.receive_some()
        expect(bool(data), f"the connection ended {left} bytes before its end")
        found.update(data)
        left -= len(data)
    whole = _CHUNK * (sent // len(_CHUNK) + 1)
    expect(found.digest() == sha256(whole[:sent]).digest(), "other bytes arrived than were sent")


def _fill(sender: Link) -> int:
    """
    Send until no byte is taken any more.

    :returns: how many were taken.
    """
    sender.socket.setblocking(False)
    sent = 0
    moved = time.monotonic()
    while time.monotonic() - moved < _FULL:
        try:
            sent += sender.socket.send(_CHUNK[sent % len(_CHUNK) :])
        except BlockingIOError:
            time.sleep(0.01)
            continue
        except OSError:
            raise Failed(f"the connection ended after {sent} bytes") from None
        moved = time.monotonic()
        expect(sent < _MOST, f"the server took {sent} bytes for an end that reads nothing")
    sender.socket.settimeout(sender.timeout)
    return sent
