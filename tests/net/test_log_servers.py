"""How a server of logs is verified: see :mod:`socksproxy.net.log_servers`."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from socksproxy.logs.sinks import sink_for
from socksproxy.net.log_servers import verifying
from socksproxy.values.errors import ConfigError
from socksproxy.values.logs import log_place

from ..support.certificates import self_signed


def test_without_tls() -> None:
    assert verifying(log_place("a.log")) is None
    assert verifying(log_place("syslog:tcp:127.0.0.1:601")) is None


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nnone\n"])
def test_a_file_without_certificates(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(content)
    with pytest.raises(ConfigError, match=f"{file}: no certificates in PEM form"):
        verifying(log_place(f"syslog:tls:localhost:6514:ca={file}"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verifying(log_place(f"syslog:tls:localhost:6514:ca={tmp_path}/ca.pem"))


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls(tmp_path: Path, trusted: bool) -> Generator[Any, Any, None]:
    """A server whose certificate is not from the authority gets no line."""
    server, other = tmp_path / "server.pem", tmp_path / "other.pem"
    server.write_bytes(self_signed())
    other.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    received: list[bytes] = []

    def serve() -> None:
        client, _ = listening.accept()
        try:
            with context.wrap_socket(client, server_side=True) as tls:
                while data := tls.recv(100):
                    received.append(data)
        except OSError:
            received.append(b"refused")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        ca = server if trusted else other
        place = log_place(f"syslog:tls:localhost:{listening.getsockname()[1]}:ca={ca}")
        sink = sink_for(place, reactor, tls=verifying(place))
        sink.write(b"a line")
        while not received:
            yield deferLater(reactor, 0.01)
        yield sink.close()
        thread.join(10)
    assert b"".join(received) == (b"6 a line" if trusted else b"refused")
