"""Exit statuses, and how bytes move."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from socksproxy.client import errors
from socksproxy.socksify.connect import copy, status_of


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (errors.ProxyUnreachable(), 3),
        (errors.ProxyTimedOut(), 3),
        (errors.ProxyRefusedLogin(reply=1), 4),
        (errors.NoAcceptableMethod(reply=255), 4),
        (errors.ProxyProtocolError(), 5),
        (errors.ProxyClosed(), 5),
        (errors.ReplyTimedOut(), 6),
        (errors.GeneralFailure(reply=1), 11),
        (errors.NotAllowed(reply=2), 12),
        (errors.DestinationUnreachable(reply=3), 13),
        (errors.DestinationUnreachable(reply=4), 14),
        (errors.DestinationNameNotFound(reply=4), 14),
        (errors.DestinationRefused(reply=5), 15),
        (errors.DestinationTimedOut(reply=6), 16),
        (errors.CommandNotSupported(reply=7), 17),
        (errors.AddressTypeNotSupported(reply=8), 18),
        (errors.InvalidDestination(), 1),
        (ValueError(), 1),
    ],
)
def test_each_failure_has_a_status(problem: Exception, status: int) -> None:
    assert status_of(problem) == status


DATA = os.urandom(300_000)


def received(descriptor: int) -> bytes:
    data = b""
    while part := os.read(descriptor, 65536):
        data += part
    return data


def feed(descriptor: int) -> None:
    with open(descriptor, "wb") as file:
        file.write(DATA)


def test_a_pipe_is_spliced_to_a_socket() -> None:
    source, target = os.pipe()
    threading.Thread(target=feed, args=(target,)).start()
    near, far = socket.socketpair()
    with near, far:
        whole: list[bytes] = []
        reader = threading.Thread(target=lambda: whole.append(received(far.fileno())))
        reader.start()
        copy(source, near.fileno())
        near.shutdown(socket.SHUT_WR)
        reader.join()
    os.close(source)
    assert whole == [DATA]


def test_what_cannot_be_spliced_is_copied(tmp_path: Path) -> None:
    """A file and a socket: neither is a pipe."""
    (tmp_path / "data").write_bytes(DATA)
    near, far = socket.socketpair()
    with near, far, open(tmp_path / "data", "rb") as source, open(tmp_path / "copy", "wb") as target:
        reader = threading.Thread(target=copy, args=(far.fileno(), target.fileno()))
        reader.start()
        copy(source.fileno(), near.fileno())
        near.shutdown(socket.SHUT_WR)
        reader.join()
    assert (tmp_path / "copy").read_bytes() == DATA
