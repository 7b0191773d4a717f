"""An HTTPS server with a configuration, which can be slow, huge, broken and wrong."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509

from .authority import SERVER, Authority


class ConfigServer:
    """
    The server.

    :param port: where it listens.
    :param ca_file: the certificate of its authority.
    :ivar content: what it gives.
    :ivar answer: gives an answer in place of the server, or none.
    :ivar statuses: those of its answers so far.
    :ivar headers: those of the last request.
    """

    def __init__(self, port: int, ca_file: Path) -> None:
        self.port = port
        self.ca_file = ca_file
        self.content = b""
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where the configuration is."""
        return f"https://127.0.0.1:{self.port}/socks.toml"

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        self.headers = dict(handler.headers.items())
        if self.answer is not None:
            self.answer(handler)
            return
        tag = f'"{sha256(self.content).hexdigest()}"'
        known = handler.headers.get("If-None-Match") == tag
        self.statuses.append(304 if known else 200)
        handler.send_response(self.statuses[-1])
        handler.send_header("ETag", tag)
        if not known:
            handler.send_header("Content-Length", str(len(self.content)))
        handler.end_headers()
        if not known:
            handler.wfile.write(self.content)


@contextmanager
def config_server(directory: Path, content: bytes = b"", host: str = "127.0.0.1") -> Iterator[ConfigServer]:
    """
    A server while the ``with`` block runs.

    :param directory: for certificates.
    :param host: whose certificate it has.
    """
    authority = Authority(directory)
    pem = authority.issue("config", alternatives=[x509.IPAddress(ipaddress.ip_address(host))], usage=SERVER)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.get(self)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            try:
                with context.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)
            except OSError:
                pass  # clients may leave

        def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
            assert isinstance(request, socket.socket)
            request.close()

    server = Server(("127.0.0.1", 0), Handler)
    served = ConfigServer(server.server_address[1], authority.ca_file)
    served.content = content
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
