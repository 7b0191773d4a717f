"""Scripted nodes of a fleet, for ``socksproxy ctl``."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .ctl import answer


def row(name: str, **more: Any) -> dict[str, Any]:
    """What is known of a node that tells no address."""
    return {
        "name": name,
        "state": "running",
        "why": None,
        "drain": "none",
        "version": "0.1.0",
        "sessions": 5,
        "uptime": 3700.0,
        "hash": "ab" * 32,
        "loaded": 0.0,
        "waiting": None,
        "error": None,
        "failed": None,
        "admin": None,
        "processes": 1,
        "seen": 1.0,
        "alive": True,
        "in_step": True,
        **more,
    }


def listing(*rows: Any, store: str = "up") -> bytes:
    """The answer of ``/v1/nodes`` of the first one."""
    body = {"node": "n1", "store": store, "hash": "ab" * 32, "nodes": rows, "missing": []}
    return answer(json.dumps(body))


class FakeNode:
    """
    A node at an address, in a ``with`` statement.

    :ivar url: where it is.
    :ivar answers: by the path, with parameters or without.
    :ivar requests: the paths that were asked for, without parameters; *queries*: with them.
    :ivar bodies: what was sent.
    :ivar tokens: the headers ``Authorization``.
    """

    def __init__(self, name: str) -> None:
        self.answers: dict[str, Any] = {"/v1/status": {"node": name}}
        self.requests: list[str] = []
        self.queries: list[str] = []
        self.bodies: list[Any] = []
        self.tokens: set[str | None] = set()
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                node.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                node.requests.append(path)
                node.queries.append(self.path)
                node.tokens.add(self.headers["Authorization"])
                body = node.answers.get(self.path, node.answers.get(path))
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(
                    json.dumps({"error": "there is nothing here"} if body is None else body).encode()
                )

            def log_message(self, format: str, *values: Any) -> None:
                """No lines."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])

    def __enter__(self) -> FakeNode:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
